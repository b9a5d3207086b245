use carebed_contract::time::Timestamp;
use chrono_tz::Asia::Shanghai;
use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);

fn start() -> Timestamp {
    Timestamp::parse("2026-03-02T12:00:00+08:00").unwrap()
}

fn resident(seed: u64) -> Resident {
    Resident::new(Habits::of_seed(seed, Shanghai), seed, start())
}

/// The hour of the local day, with its fraction.
fn local_hour(at: Timestamp) -> f64 {
    (at.millis() + 8 * 3_600_000).rem_euclid(86_400_000) as f64 / 3_600_000.0
}

fn is_night(at: Timestamp) -> bool {
    local_hour(at) >= 23.5 || local_hour(at) < 3.5
}

/// The spans during which a fact was so, those apart by less than `merge` made one; open ones end with `end`.
fn spans(
    changes: &[Change],
    fact: Fact,
    at_start: bool,
    merge: Duration,
    end: Timestamp,
) -> Vec<(Timestamp, Timestamp)> {
    let mut spans: Vec<(Timestamp, Timestamp)> = Vec::new();
    let mut since = at_start.then_some(start());
    for change in changes.iter().filter(|change| change.fact == fact) {
        match (since.take(), change.on) {
            (None, true) => since = Some(change.at),
            (Some(from), false) => spans.push((from, change.at)),
            other => panic!("{fact:?} changed to what it was: {other:?} at {}", change.at),
        }
    }
    spans.extend(since.map(|from| (from, end)));
    spans.into_iter().fold(Vec::new(), |mut merged: Vec<(Timestamp, Timestamp)>, (from, to)| {
        match merged.last_mut() {
            Some(last) if from.since(last.1) < merge => last.1 = to,
            _ => merged.push((from, to)),
        }
        merged
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_week_is_one_that_a_person_could_have_lived(seed: u64) {
        let mut resident = resident(seed);
        let at_start = Fact::ALL.map(|fact| (fact, resident.is(fact)));
        let begins = |fact| at_start.contains(&(fact, true));
        let end = start() + HOUR * 24 * 7;
        let changes = resident.until(end);
        prop_assert!(changes.is_sorted_by_key(|change| change.at));

        let bed = spans(&changes, Fact::BedOccupied, begins(Fact::BedOccupied), MINUTE, end);
        let in_bed: Duration = bed.iter().map(|(from, to)| to.since(*from)).sum();
        let hours = in_bed.as_secs_f64() / 3600.0 / 7.0;
        prop_assert!((6.0..10.5).contains(&hours), "{hours:.1} h in bed a day");

        // Exits that begin in the dead of night are toilet visits.
        let exits: Vec<_> = bed.windows(2).map(|pair| (pair[0].1, pair[1].0.since(pair[0].1))).collect();
        let nightly: Vec<_> = exits.iter().filter(|(at, _)| is_night(*at)).collect();
        prop_assert!(nightly.len() <= 3 * 7, "{} exits in seven nights", nightly.len());
        for (at, gone) in nightly {
            prop_assert!((4 * MINUTE..16 * MINUTE).contains(gone), "out of bed for {gone:?} at {at}");
        }

        for (from, to) in spans(&changes, Fact::DoorOpen, begins(Fact::DoorOpen), Duration::ZERO, end) {
            prop_assert!(to.since(from) <= MINUTE, "the door stood open from {from} to {to}");
        }
        for (from, to) in spans(&changes, Fact::CallPressed, false, Duration::ZERO, end) {
            prop_assert!(false, "an unordered call from {from} to {to}");
        }
        // A day without a sign of life in any room is not a day of this person's.
        for day in 0..7 {
            let (from, to) = (start() + HOUR * 24 * day, start() + HOUR * 24 * (day + 1));
            let moves = changes.iter().filter(|c| matches!(c.fact, Fact::Motion(_)) && c.on && c.at >= from && c.at < to);
            prop_assert!(moves.count() > 20, "hardly a move on day {day}");
        }
    }

    #[test]
    fn sensors_feel_only_what_the_state_allows(seed: u64) {
        let mut resident = resident(seed);
        let end = start() + HOUR * 48;
        while let Some(at) = resident.next_at().filter(|at| *at <= end) {
            for change in resident.until(at) {
                prop_assert_eq!(change.at, at);
                let state = resident.state();
                match change.fact {
                    // A hold time may outlast the stay; movement may not begin elsewhere.
                    Fact::Motion(room) if change.on => prop_assert_eq!(state.seen().map(|(seen, _)| seen), Some(room)),
                    Fact::BedOccupied if change.on => prop_assert!(state.on_bed()),
                    Fact::DoorOpen if change.on => prop_assert!(matches!(state, State::In(Room::Living) | State::Away)),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn the_same_seed_lives_the_same_life_in_steps_of_any_size(seed: u64, minutes in 1_u64..600) {
        let (mut whole, mut stepped) = (resident(seed), resident(seed));
        let orders = [(HOUR, Order::Press), (9 * HOUR, Order::StayOutOfBed), (12 * HOUR, Order::CarryOn)];
        for (after, order) in orders {
            whole.order(start() + after, order);
            stepped.order(start() + after, order);
        }
        let end = start() + HOUR * 30;
        let mut steps = Vec::new();
        let mut at = start();
        while at < end {
            at = (at + MINUTE * u32::try_from(minutes).unwrap()).min(end);
            steps.extend(stepped.until(at));
        }
        prop_assert_eq!(whole.until(end), steps);
        prop_assert_eq!(whole.labels(), stepped.labels());
    }
}

#[test]
fn people_differ_and_so_do_their_nights() {
    let lives: Vec<_> = (0..20).map(|seed| resident(seed).until(start() + HOUR * 24)).collect();
    assert!(lives.windows(2).all(|pair| pair[0] != pair[1]));
    let visits: Vec<usize> = (0..40)
        .map(|seed| {
            let changes = resident(seed).until(start() + HOUR * 24);
            let bed = spans(&changes, Fact::BedOccupied, false, MINUTE, start() + HOUR * 24);
            bed.windows(2).filter(|pair| is_night(pair[0].1)).count()
        })
        .collect();
    assert!(visits.contains(&0) && visits.iter().any(|n| *n >= 2), "visits a night: {visits:?}");
}

#[test]
fn a_bad_mat_chatters_and_a_good_one_does_not() {
    let edges = |per_hour: f64| {
        let habits = Habits { mat_dropouts_per_hour: per_hour, nap: 0.0, ..Habits::of_seed(3, Shanghai) };
        let changes = Resident::new(habits, 3, start()).until(start() + HOUR * 24);
        changes.iter().filter(|change| change.fact == Fact::BedOccupied).count()
    };
    assert!(edges(0.0) <= 10, "{} edges of a mat that never drops out", edges(0.0));
    assert!((173..1_020).contains(&edges(20.0)), "{} edges of a bad mat", edges(20.0));
}

/// A person at 1 a.m., in bed.
fn sleeper() -> (Resident, Timestamp) {
    let at = start() + 13 * HOUR;
    let found = (0..).map(resident).find_map(|mut resident| {
        resident.until(at);
        (resident.state() == State::Asleep).then_some(resident)
    });
    (found.unwrap(), at)
}

#[test]
fn who_stays_out_of_bed_comes_back_when_told() {
    let (mut resident, at) = sleeper();
    resident.order(at, Order::StayOutOfBed);
    let night = resident.until(at + 2 * HOUR);
    let out = night.iter().rfind(|change| change.fact == Fact::BedOccupied).unwrap();
    assert!(!out.on && out.at.since(at) < 2 * MINUTE, "{out:?}");
    assert_eq!(resident.labels(), [Label { at: out.at, kind: LabelKind::StayOut }]);
    assert!(!resident.is(Fact::BedOccupied));
    resident.order(at + 2 * HOUR, Order::CarryOn);
    resident.until(at + 2 * HOUR + 3 * MINUTE);
    assert!(resident.state().on_bed(), "{:?}", resident.state());
}

#[test]
fn who_is_told_ahead_does_not_go_to_bed_until_morning() {
    let mut resident = resident(5);
    resident.order(start() + 6 * HOUR, Order::StayOutOfBed);
    let before = resident.until(start() + 6 * HOUR);
    assert!(!before.is_empty());
    let night = resident.until(start() + 15 * HOUR);
    assert!(night.iter().all(|change| change.fact != Fact::BedOccupied || !change.on), "lay down all the same");
    resident.until(start() + 40 * HOUR);
    assert!(resident.is(Fact::BedOccupied), "the night after, all is as before: {:?}", resident.state());
}

#[test]
fn after_a_fall_nothing_is_felt_until_help_comes() {
    let (mut resident, at) = sleeper();
    resident.order(at, Order::Fall(Room::Bathroom));
    resident.until(at + 5 * MINUTE);
    assert_eq!(resident.state(), State::Fallen(Room::Bathroom));
    let [label] = resident.labels() else { panic!("{:?}", resident.labels()) };
    assert_eq!(label.kind, LabelKind::Fall(Room::Bathroom));
    assert_eq!(resident.until(at + 30 * HOUR), []);
    resident.order(at, Order::LeaveHome(HOUR));
    resident.order(at, Order::Press);
    let pressed = resident.until(at + 31 * HOUR);
    assert_eq!(pressed.len(), 1, "only the button can still be felt: {pressed:?}");
    resident.order(at, Order::CarryOn);
    assert!(!resident.until(at + 33 * HOUR).is_empty());
    assert_ne!(resident.state(), State::Fallen(Room::Bathroom));
}

#[test]
fn who_leaves_home_goes_through_the_door_and_comes_back() {
    let (mut resident, at) = sleeper();
    resident.order(at, Order::LeaveHome(2 * HOUR));
    let changes = resident.until(at + 3 * HOUR);
    let door = spans(&changes, Fact::DoorOpen, false, Duration::ZERO, at + 3 * HOUR);
    let [(_, left), (back, _)] = door[..] else { panic!("{door:?}") };
    assert_eq!(back.since(left), 2 * HOUR);
    let inside = changes.iter().filter(|c| c.on && c.at > left && c.at < back);
    assert_eq!(inside.count(), 0, "something moved in the empty home");
    assert!(resident.state().on_bed(), "{:?}", resident.state());
    assert_eq!(resident.labels().len(), 1);
}

#[test]
fn a_press_lasts_until_it_is_released() {
    let mut resident = resident(1);
    resident.order(start() + MINUTE, Order::Press);
    resident.order(start() + 2 * MINUTE, Order::Release);
    let changes = resident.until(start() + HOUR);
    let call = spans(&changes, Fact::CallPressed, false, Duration::ZERO, start() + HOUR);
    assert_eq!(call, [(start() + MINUTE, start() + 2 * MINUTE)]);
    assert_eq!(resident.labels(), [Label { at: start() + MINUTE, kind: LabelKind::Press }]);
}
