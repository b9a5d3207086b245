//! Labelled nights with mats that lose the person as real ones do.
//!
//! A person lives many nights; in some of them they fall, in some they call. The mat in their bed drops out: how often and for how long
//! follows what was measured on two ordinary homes (van Kasteren B and C: 173 and 1,020 edges a night; exits that are left after gaps under
//! 30, 60, 120 and 300 s are merged: 7.7, 5.3, 3.8, 2.4 and 25.5, 16.4, 10.9, 6.5). Long drop-outs matter more than many: of absences that
//! began while the diary said "in bed", 2.4 a night lasted over 15 minutes and 1.4 over 30.

use std::time::Duration;

use carebed_contract::time::Timestamp;
use chrono::{Days, NaiveDate};
use chrono_tz::Tz;

use crate::chance::Chance;
use crate::fact::{Change, Fact, Label, Room};
use crate::habits::Habits;
use crate::resident::{Order, Resident};

/// How a mat loses the person: drop-outs a night of eight hours, by how long they last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mat {
    /// Never.
    Good,
    /// As in van Kasteren's house B.
    B,
    /// As in house C.
    C,
}

/// A class of drop-outs: shortest and longest in seconds, and how many a night of eight hours.
type Class = (u64, u64, f64);

impl Mat {
    /// What is left of the measured exits when the person's own (one or two a night, most of several minutes) are taken off. Beyond
    /// 30 minutes the share that goes on is taken to stay the same as between 15 and 30. The shortest are so many that they take time
    /// of their own: their rate is the one that gives the measured edges.
    fn classes(self) -> &'static [Class] {
        match self {
            Self::Good => &[],
            Self::B => &[
                (1, 30, 90.0),
                (30, 60, 2.4),
                (60, 120, 1.5),
                (120, 300, 1.0),
                (300, 900, 0.5),
                (900, 1_800, 0.5),
                (1_800, 2_700, 0.25),
                (2_700, 7_200, 0.4),
            ],
            Self::C => &[
                (1, 30, 900.0),
                (30, 60, 9.1),
                (60, 120, 5.5),
                (120, 300, 4.0),
                (300, 900, 3.8),
                (900, 1_800, 1.0),
                (1_800, 2_700, 0.5),
                (2_700, 7_200, 0.6),
            ],
        }
    }
}

/// What was lived.
#[derive(Debug, Clone)]
pub struct Nights {
    /// What the sensors felt, in order of time.
    pub changes: Vec<Change>,
    /// What really happened.
    pub labels: Vec<Label>,
    /// How many nights.
    pub n_nights: u32,
    /// Edges of the mat.
    pub n_edges: usize,
    /// From the first noon.
    pub from: Timestamp,
    /// To the last.
    pub to: Timestamp,
}

/// How long a person who has fallen lies before they are found.
const LIES: Duration = Duration::from_secs(3 * 3_600);

/// Lives `n_nights` nights from noon of a day on. Every `falls_every`-th night the person falls somewhere between half past eleven and
/// five; every `calls_every`-th they press the button.
#[must_use]
pub fn live(mat: Mat, n_nights: u32, [falls_every, calls_every]: [u32; 2], seed: u64, zone: Tz) -> Nights {
    let first = NaiveDate::from_ymd_opt(2026, 3, 1).unwrap_or_default();
    let day = |n: u32| first.checked_add_days(Days::new(u64::from(n))).unwrap_or(first);
    let hours = |h: u64| Duration::from_secs(h * 3_600);
    let habits = Habits { mat_dropouts_per_hour: 1e-9, ..Habits::of_seed(seed, zone) };
    let (from, to) = (habits.at(day(0), hours(12)), habits.at(day(n_nights), hours(12)));
    let mut chance = Chance::new(seed ^ 0x6e69_6768);
    let mut resident = Resident::new(habits.clone(), seed, from);
    let mut changes = Vec::new();
    for night in 0..n_nights {
        let evening = habits.at(day(night), Duration::from_secs(23 * 3_600 + 1_800));
        if falls_every > 0 && night % falls_every == falls_every - 1 {
            let at = evening + chance.between(Duration::ZERO, Duration::from_secs(5 * 3_600 + 1_800));
            let rooms = [(Room::Bathroom, 2), (Room::Living, 1), (Room::Bedroom, 2)];
            resident.order(at, Order::Fall(chance.one_of(&rooms).unwrap_or(Room::Bedroom)));
            resident.order(at + LIES, Order::CarryOn);
        } else if calls_every > 0 && night % calls_every == calls_every - 1 {
            let at = evening + chance.between(Duration::ZERO, hours(5));
            resident.order(at, Order::Press);
            resident.order(at + Duration::from_secs(3), Order::Release);
        }
        changes.extend(resident.until(habits.at(day(night + 1), hours(12))));
    }
    let mut changes = drop_out(mat, &changes, to, &mut chance);
    changes.sort_by_key(|change| change.at);
    let n_edges = changes.iter().filter(|change| change.fact == Fact::BedOccupied).count();
    Nights { changes, labels: resident.labels().to_vec(), n_nights, n_edges, from, to }
}

/// The same changes, with a mat that loses the person now and then.
fn drop_out(mat: Mat, changes: &[Change], to: Timestamp, chance: &mut Chance) -> Vec<Change> {
    let mut made: Vec<Change> = changes.iter().filter(|change| change.fact != Fact::BedOccupied).copied().collect();
    let edges: Vec<&Change> = changes.iter().filter(|change| change.fact == Fact::BedOccupied).collect();
    for (place, edge) in edges.iter().enumerate() {
        made.push(**edge);
        if !edge.on {
            continue;
        }
        let end = edges.get(place + 1).map_or(to, |next| next.at);
        let mut gaps: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (shortest, longest, per_night) in mat.classes() {
            let mut at = edge.at + chance.until_next(per_night / 8.0);
            while at < end {
                let length = chance.between(Duration::from_secs(*shortest), Duration::from_secs(*longest));
                gaps.push((at, (at + length).min(end)));
                at = at + length + chance.until_next(per_night / 8.0);
            }
        }
        gaps.sort();
        let mut lost_until = edge.at;
        for (from, until) in gaps {
            let from = from.max(lost_until + Duration::from_secs(1));
            if from < until {
                made.push(Change { at: from, fact: Fact::BedOccupied, on: false });
                lost_until = until;
                // At the end of the stay the person's own getting up is the next edge.
                if until < end {
                    made.push(Change { at: until, fact: Fact::BedOccupied, on: true });
                }
            }
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mats_chatter_as_the_measured_ones_and_falls_are_labelled() {
        for (mat, low, high) in [(Mat::Good, 2, 12), (Mat::B, 120, 230), (Mat::C, 800, 1_300)] {
            let nights = live(mat, 60, [10, 0], 7, chrono_tz::Asia::Shanghai);
            let per_night = nights.n_edges / 60;
            assert!((low..=high).contains(&per_night), "{mat:?}: {per_night} edges a night");
            let falls = nights.labels.iter().filter(|label| matches!(label.kind, crate::fact::LabelKind::Fall(_)));
            assert_eq!(falls.count(), 6, "{mat:?}");
        }
    }

    #[test]
    fn the_same_seed_lives_the_same_nights() {
        let one = live(Mat::B, 5, [3, 2], 3, chrono_tz::Asia::Shanghai);
        let other = live(Mat::B, 5, [3, 2], 3, chrono_tz::Asia::Shanghai);
        assert_eq!((one.changes, one.labels), (other.changes, other.labels));
    }
}
