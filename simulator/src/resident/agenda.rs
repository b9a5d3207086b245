//! What a person means to do today and tonight, drawn from their habits.

use std::collections::VecDeque;
use std::time::Duration;

use carebed_contract::time::Timestamp;
use chrono::NaiveDate;

use crate::chance::Chance;
use crate::habits::Habits;

/// Something the person means to do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appointment {
    /// Eats for so long.
    Meal(Duration),
    /// Naps in bed for so long.
    Nap(Duration),
    /// Goes out for so long.
    Outing(Duration),
    /// Goes to bed for the night.
    Bedtime,
    /// Gets up for the toilet at night.
    NightVisit,
    /// Gets up for the day.
    Rise,
}

impl Appointment {
    /// Whether it is dropped when the person is over an hour late for it. Days and nights are never dropped.
    pub(super) fn can_be_missed(self) -> bool {
        !matches!(self, Self::Bedtime | Self::Rise)
    }
}

const fn minutes(n: u64) -> Duration {
    Duration::from_mins(n)
}

fn sorted(mut agenda: Vec<(Timestamp, Appointment)>, now: Timestamp) -> VecDeque<(Timestamp, Appointment)> {
    agenda.retain(|(at, _)| *at > now);
    agenda.sort_by_key(|(at, _)| *at);
    agenda.into()
}

/// The rest of a local day, up to bedtime. Outings last 30 min to 3 h in the morning, to 5 h in the afternoon.
pub(super) fn day(
    habits: &Habits,
    chance: &mut Chance,
    day: NaiveDate,
    now: Timestamp,
) -> VecDeque<(Timestamp, Appointment)> {
    let mut agenda = Vec::new();
    let mut plan = |chance: &mut Chance, middle, spread, what| {
        agenda.push((habits.at(day, chance.around(middle, spread)), what));
    };
    for (middle, spread) in
        [(habits.rise + minutes(45), minutes(20)), (minutes(690), minutes(30)), (minutes(1065), minutes(30))]
    {
        let meal = Appointment::Meal(chance.between(minutes(15), minutes(35)));
        plan(chance, middle, spread, meal);
    }
    if chance.happens(habits.nap) {
        let nap = Appointment::Nap(chance.between(minutes(30), minutes(80)));
        plan(chance, minutes(760), minutes(20), nap);
    }
    let longest = [minutes(180), minutes(300)];
    for ((probability, longest), middle) in habits.outings.into_iter().zip(longest).zip([minutes(540), minutes(885)]) {
        if chance.happens(probability) {
            let outing = Appointment::Outing(chance.between(minutes(30), longest));
            plan(chance, middle, minutes(30), outing);
        }
    }
    plan(chance, habits.bedtime, minutes(25), Appointment::Bedtime);
    sorted(agenda, now)
}

/// The night that begins now, up to getting up: its toilet visits lie apart, none in the first hour or the last.
pub(super) fn night(habits: &Habits, chance: &mut Chance, now: Timestamp) -> VecDeque<(Timestamp, Appointment)> {
    let rise = chance.around(habits.rise, minutes(25));
    let today = habits.day(now);
    let next =
        [Some(today), today.succ_opt()].into_iter().flatten().map(|day| habits.at(day, rise)).find(|at| *at > now);
    // Who goes to bed at an odd hour sleeps at least three hours and at most ten.
    let up = next.unwrap_or(now).clamp(now + minutes(180), now + minutes(600));
    let mut agenda = vec![(up, Appointment::Rise)];
    let [none, one, two, three] = habits.night_visits;
    let visits = chance.one_of(&[(0_u32, none), (1, one), (2, two), (3, three)]).unwrap_or(0);
    let share = up.since(now).saturating_sub(minutes(120)) / visits.max(1);
    for visit in 0..visits {
        let start = now + minutes(60) + share * visit;
        // The last fifth of each share stays free, so that one visit is over before the next.
        agenda.push((start + chance.between(Duration::ZERO, share * 4 / 5), Appointment::NightVisit));
    }
    sorted(agenda, now)
}
