//! One person, day and night, as a small state machine in event time.
//!
//! The person follows an agenda drawn each morning and each evening, fills the time between with what one does at home,
//! and does what they are ordered to ([`Order`]). Sensors feel it: the mat, the motion sensors, the door, the button.
//! Time is data: a week is lived in milliseconds.

mod agenda;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use carebed_contract::time::Timestamp;

use self::agenda::Appointment;
use crate::chance::Chance;
use crate::fact::{Change, Fact, Label, LabelKind, Room};
use crate::habits::Habits;

/// Where the person is and what they do there. They are in exactly one state at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// In bed, still.
    Asleep,
    /// In bed, turning over.
    Restless,
    /// On the bed, about to get up or to lie down.
    Sitting,
    /// Up and about in a room.
    In(Room),
    /// Not at home.
    Away,
    /// On the floor of a room, not moving.
    Fallen(Room),
}

impl State {
    /// Whether the mat carries the person's weight.
    #[must_use]
    pub fn on_bed(self) -> bool {
        matches!(self, Self::Asleep | Self::Restless | Self::Sitting)
    }

    /// The room whose motion sensor sees the person, and how often an hour it does.
    fn seen(self) -> Option<(Room, f64)> {
        match self {
            Self::Sitting => Some((Room::Bedroom, 40.0)),
            Self::In(Room::Bathroom) => Some((Room::Bathroom, 60.0)),
            Self::In(Room::Bedroom) => Some((Room::Bedroom, 25.0)),
            Self::In(Room::Living) => Some((Room::Living, 15.0)),
            Self::Asleep | Self::Restless | Self::Away | Self::Fallen(_) => None,
        }
    }

    /// How much oftener than in still sleep the mat drops out; none when nobody lies on it.
    fn chatter(self) -> Option<f64> {
        match self {
            Self::Asleep => Some(1.0),
            Self::Restless => Some(4.0),
            _ => None,
        }
    }
}

/// What a person can be told to do. It is done at its time, or at once when that is past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Order {
    /// Pull the cord or press the button, and keep it so until [`Order::Release`].
    Press,
    /// Let the button go, or reset the cord.
    Release,
    /// Get out of bed if in it, and keep out until told to carry on, or until the next morning.
    StayOutOfBed,
    /// Leave the home and come back after so long.
    LeaveHome(Duration),
    /// Go to a room, coming home first if away, and fall there: nothing more is felt until told to carry on, but for
    /// the call button. Who has fallen does none of the other orders.
    Fall(Room),
    /// End a fall or a stay out of bed: go on with the day or the night.
    CarryOn,
}

/// One thing the person does.
#[derive(Debug, Clone, Copy)]
enum Move {
    Enter(State),
    Door(bool),
    Label(LabelKind),
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// The next move of plan number n.
    Step(u64),
    /// The person of stay number n moves before the sensor of their room.
    Seen(u64),
    /// A motion sensor's hold time may be over.
    Hold(Room),
    /// The mat under stay number n loses the person, and finds them again.
    DropOut(u64),
    Settle(u64),
    Ordered(Order),
}

/// One person living from a start time on. Equal habits, seed, start and orders give an equal life.
#[derive(Debug)]
pub struct Resident {
    habits: Habits,
    chance: Chance,
    now: Timestamp,
    /// What is to come, in order of time and then of being planned. A handful of events and the orders given.
    queue: BTreeMap<(Timestamp, u64), Event>,
    planned: u64,
    agenda: VecDeque<(Timestamp, Appointment)>,
    /// What to do next, each with how long before the move after it.
    moves: VecDeque<(Move, Duration)>,
    plan: u64,
    state: State,
    stay: u64,
    night: bool,
    stay_out: bool,
    motion_until: [(Room, Timestamp); 3],
    on: BTreeSet<Fact>,
    changes: Vec<Change>,
    labels: Vec<Label>,
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Resident {
    /// A person who has lived at home, unobserved, since noon of the day before `start`, and does so on.
    #[must_use]
    pub fn new(habits: Habits, seed: u64, start: Timestamp) -> Self {
        let yesterday = habits.day_before(start);
        let noon = habits.at(yesterday, Duration::from_hours(12));
        let mut resident = Self {
            habits,
            chance: Chance::new(seed),
            now: noon,
            queue: BTreeMap::new(),
            planned: 0,
            agenda: VecDeque::new(),
            moves: VecDeque::new(),
            plan: 0,
            state: State::Away,
            stay: 0,
            night: false,
            stay_out: false,
            motion_until: Room::ALL.map(|room| (room, noon)),
            on: BTreeSet::new(),
            changes: Vec::new(),
            labels: Vec::new(),
        };
        resident.agenda = agenda::day(&resident.habits, &mut resident.chance, yesterday, noon);
        resident.follow(&[(Move::Enter(State::In(Room::Living)), seconds(60))]);
        let _unobserved = resident.until(start);
        resident
    }

    /// Lives on until `to` and returns what sensors felt after the last call and up to `to`, in order of time. Nothing
    /// when `to` is past.
    pub fn until(&mut self, to: Timestamp) -> Vec<Change> {
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= to
        {
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = self.now.max(to);
        std::mem::take(&mut self.changes)
    }

    /// When the next thing may happen; none while a fallen person waits for help.
    #[must_use]
    pub fn next_at(&self) -> Option<Timestamp> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Tells the person to do something at a time, or now when that is past.
    pub fn order(&mut self, at: Timestamp, order: Order) {
        self.at(at.max(self.now), Event::Ordered(order));
    }

    /// Where the person is now.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether a sensor feels it so now.
    #[must_use]
    pub fn is(&self, fact: Fact) -> bool {
        self.on.contains(&fact)
    }

    /// What was ordered and has happened so far, in order of time.
    #[must_use]
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    fn at(&mut self, at: Timestamp, event: Event) {
        self.planned += 1;
        self.queue.insert((at, self.planned), event);
    }

    fn set(&mut self, fact: Fact, on: bool) {
        let changed = if on { self.on.insert(fact) } else { self.on.remove(&fact) };
        if changed {
            self.changes.push(Change { at: self.now, fact, on });
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step(plan) if plan == self.plan => self.step(),
            Event::Seen(stay) if stay == self.stay => self.be_seen(),
            Event::DropOut(stay) if stay == self.stay => {
                self.set(Fact::BedOccupied, false);
                let found = self.now + self.chance.between(seconds(1), seconds(20));
                self.at(found, Event::Settle(stay));
            }
            Event::Settle(stay) if stay == self.stay => {
                self.set(Fact::BedOccupied, true);
                self.chatter();
            }
            Event::Hold(room) => {
                if self.motion_until.iter().any(|(of, until)| *of == room && *until <= self.now) {
                    self.set(Fact::Motion(room), false);
                }
            }
            Event::Ordered(order) => self.obey(order),
            // Of a plan or a stay that is over.
            Event::Step(_) | Event::Seen(_) | Event::DropOut(_) | Event::Settle(_) => {}
        }
    }

    /// Does the next move of the plan, or makes a new plan when it is done.
    fn step(&mut self) {
        if self.moves.is_empty() {
            self.decide();
        }
        let Some((next, then)) = self.moves.pop_front() else { return };
        match next {
            Move::Enter(state) => self.enter(state),
            Move::Door(open) => self.set(Fact::DoorOpen, open),
            Move::Label(kind) => self.labels.push(Label { at: self.now, kind }),
        }
        if !matches!(self.state, State::Fallen(_)) {
            self.at(self.now + then, Event::Step(self.plan));
        }
    }

    /// Drops what was planned and does these moves from now on.
    fn follow(&mut self, moves: &[(Move, Duration)]) {
        self.moves = moves.iter().copied().collect();
        self.plan += 1;
        self.at(self.now, Event::Step(self.plan));
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.stay += 1;
        self.set(Fact::BedOccupied, state.on_bed());
        self.be_seen();
        self.chatter();
    }

    /// The motion sensor of the room sees the person, keeps on for its hold time, and will see them again.
    fn be_seen(&mut self) {
        let Some((room, per_hour)) = self.state.seen() else { return };
        let until = self.now + self.chance.between(seconds(15), seconds(45));
        for (of, held) in &mut self.motion_until {
            if *of == room {
                *held = until.max(*held);
            }
        }
        self.set(Fact::Motion(room), true);
        self.at(until, Event::Hold(room));
        // Somebody sitting up late, or watching television, hardly moves.
        let calm = if self.stay_out { 0.2 } else { 1.0 };
        let next = self.now + self.chance.until_next(per_hour * calm).max(seconds(1));
        self.at(next, Event::Seen(self.stay));
    }

    fn chatter(&mut self) {
        if let Some(factor) = self.state.chatter() {
            let next = self.now + self.chance.until_next(self.habits.mat_dropouts_per_hour * factor).max(seconds(1));
            self.at(next, Event::DropOut(self.stay));
        }
    }

    /// Plans the next moves: what the agenda says, or what one does at home at this hour.
    fn decide(&mut self) {
        while let Some((at, what)) = self.agenda.front().copied()
            && at <= self.now
        {
            self.agenda.pop_front();
            if !(what.can_be_missed() && self.now.since(at) > Duration::from_hours(1)) && self.keep(what) {
                return;
            }
        }
        let free = self.agenda.front().map_or(Duration::from_hours(1), |(at, _)| at.since(self.now)).max(seconds(1));
        self.idle(free);
    }

    /// Begins an appointment; false when it asks for no move of its own.
    fn keep(&mut self, what: Appointment) -> bool {
        match what {
            Appointment::Meal(length) => self.go(Room::Living, length),
            Appointment::Outing(length) => self.go_out(length),
            Appointment::Nap(length) => {
                if self.stay_out {
                    return false;
                }
                self.lie_down();
                self.moves.push_back((Move::Enter(State::Asleep), length));
                self.get_up();
            }
            Appointment::Bedtime => {
                self.night = true;
                self.agenda = agenda::night(&self.habits, &mut self.chance, self.now);
                return false;
            }
            Appointment::NightVisit => {
                if !self.state.on_bed() {
                    return false;
                }
                // Out of bed for 4 to 15 minutes in all.
                self.get_up();
                let visit = self.chance.between(seconds(210), seconds(800));
                self.go(Room::Bathroom, visit);
                self.lie_down();
            }
            Appointment::Rise => {
                self.night = false;
                self.stay_out = false;
                let today = self.habits.day(self.now);
                self.agenda = agenda::day(&self.habits, &mut self.chance, today, self.now);
                self.leave_bed();
                let wash = self.chance.between(seconds(240), seconds(900));
                self.go(Room::Bathroom, wash);
            }
        }
        true
    }

    /// What one does without an appointment, for at most `free`.
    fn idle(&mut self, free: Duration) {
        let minutes = |chance: &mut Chance, low, high| {
            chance.between(Duration::from_mins(low), Duration::from_mins(high)).min(free)
        };
        if self.night && !self.stay_out {
            match self.state {
                State::Asleep => {
                    let turn = minutes(&mut self.chance, 3, 12);
                    self.moves.push_back((Move::Enter(State::Restless), turn));
                }
                State::Restless | State::Sitting => {
                    let sleep = minutes(&mut self.chance, 45, 110);
                    self.moves.push_back((Move::Enter(State::Asleep), sleep));
                }
                _ => self.lie_down(),
            }
            return;
        }
        if self.state.on_bed() {
            self.get_up();
            return;
        }
        let room = self.chance.one_of(&[(Room::Living, 6), (Room::Bedroom, 2), (Room::Bathroom, 2)]);
        let (room, stay) = match room {
            Some(Room::Bathroom) => (Room::Bathroom, minutes(&mut self.chance, 2, 10)),
            Some(Room::Bedroom) => (Room::Bedroom, minutes(&mut self.chance, 4, 25)),
            _ => (Room::Living, minutes(&mut self.chance, 15, 75)),
        };
        self.go(room, stay);
    }

    fn go(&mut self, room: Room, stay: Duration) {
        self.moves.push_back((Move::Enter(State::In(room)), stay));
    }

    fn get_up(&mut self) {
        let (sit, walk) =
            (self.chance.between(seconds(15), seconds(90)), self.chance.between(seconds(15), seconds(40)));
        self.moves.push_back((Move::Enter(State::Sitting), sit));
        self.go(Room::Bedroom, walk);
    }

    fn leave_bed(&mut self) {
        if self.state.on_bed() {
            self.get_up();
        }
    }

    fn lie_down(&mut self) {
        let (walk, sit) =
            (self.chance.between(seconds(15), seconds(40)), self.chance.between(seconds(10), seconds(40)));
        let settle = self.chance.between(Duration::from_mins(4), Duration::from_mins(15));
        self.go(Room::Bedroom, walk);
        self.moves.push_back((Move::Enter(State::Sitting), sit));
        self.moves.push_back((Move::Enter(State::Restless), settle));
    }

    fn go_out(&mut self, length: Duration) {
        let [to_door, through, back] = [(5, 30), (4, 15), (4, 20)];
        let mut between = |(low, high)| self.chance.between(seconds(low), seconds(high));
        let (to_door, through, back) = (between(to_door), between(through), between(back));
        self.go(Room::Living, to_door);
        self.moves.extend([
            (Move::Door(true), through),
            (Move::Enter(State::Away), seconds(2)),
            (Move::Door(false), length),
        ]);
        self.come_home(back);
    }

    fn come_home(&mut self, through: Duration) {
        self.moves.push_back((Move::Door(true), seconds(2)));
        self.go(Room::Living, through);
        self.moves.push_back((Move::Door(false), seconds(60)));
    }

    fn label(&mut self, kind: LabelKind) {
        self.labels.push(Label { at: self.now, kind });
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Press => {
                self.label(LabelKind::Press);
                self.set(Fact::CallPressed, true);
            }
            Order::Release => self.set(Fact::CallPressed, false),
            Order::CarryOn => self.carry_on(),
            // Who lies on the floor can do none of these.
            _ if matches!(self.state, State::Fallen(_)) => {}
            Order::StayOutOfBed => {
                self.stay_out = true;
                if self.state.on_bed() {
                    self.drop_plan();
                    self.get_up();
                    // Out of bed is the last of the moves of getting up.
                    let out = self.moves.len().saturating_sub(1);
                    self.moves.insert(out, (Move::Label(LabelKind::StayOut), Duration::ZERO));
                } else {
                    self.label(LabelKind::StayOut);
                }
            }
            Order::LeaveHome(length) => {
                self.drop_plan();
                if self.state == State::Away {
                    self.moves.push_back((Move::Label(LabelKind::LeaveHome), length));
                    self.come_home(seconds(10));
                } else {
                    self.leave_bed();
                    self.go_out(length);
                    let left = self.moves.iter().position(|(next, _)| matches!(next, Move::Enter(State::Away)));
                    self.moves.insert(left.unwrap_or(0), (Move::Label(LabelKind::LeaveHome), Duration::ZERO));
                }
            }
            Order::Fall(room) => {
                self.drop_plan();
                if self.state == State::Away {
                    self.come_home(seconds(10));
                }
                self.leave_bed();
                let walk = self.chance.between(seconds(10), seconds(40));
                self.go(room, walk);
                self.moves.push_back((Move::Label(LabelKind::Fall(room)), Duration::ZERO));
                self.moves.push_back((Move::Enter(State::Fallen(room)), Duration::ZERO));
            }
        }
    }

    /// Drops what was planned; the moves that the caller adds begin now. A door that stood open for it is closed.
    fn drop_plan(&mut self) {
        self.follow(&[]);
        if self.is(Fact::DoorOpen) {
            self.moves.push_back((Move::Door(false), seconds(2)));
        }
    }

    fn carry_on(&mut self) {
        self.label(LabelKind::CarryOn);
        let stayed_out = std::mem::take(&mut self.stay_out);
        if let State::Fallen(room) = self.state {
            self.follow(&[(Move::Enter(State::In(room)), seconds(120))]);
        } else if stayed_out && matches!(self.state, State::In(_)) {
            self.drop_plan();
        }
    }
}
