//! What is remembered of one gateway: how far the lanes of its epochs have come, and which batches of its runs are in.

use std::collections::BTreeSet;
use std::time::Duration;

use carebed_contract::digest::Digest;
use carebed_contract::id::HomeId;
use carebed_contract::labels::{Epoch, Labels, Lane, Origin};
use carebed_contract::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::gap::{Missing, Reason};
use crate::view::Complete;

/// Most epochs remembered of one gateway. At the bound the one that was quiet longest is forgotten: a batch of it would
/// then count as a new epoch's. A healthy gateway opens an epoch in years; each is also a technical alert.
pub const EPOCHS_MAX: usize = 32;
/// Most runs of its program remembered of one gateway. At the bound the one that was quiet longest is forgotten: what a
/// copy of its disk from that time still holds would come twice, should it also have to be numbered anew. A box that falls
/// over and over while no receipt reaches it begins a run every few seconds, and all of them may have to be known again.
pub const RUNS_MAX: usize = 512;
/// So many runs are remembered however long they are quiet.
pub const RUNS_KEPT: usize = 16;
/// Further ones are forgotten after being quiet for so long.
const RUN_QUIET: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most ranges of numbers remembered of one lane of a run. One is the rule; a disk that fails and comes back makes a
/// second. At the bound the lowest is forgotten, with the same effect as a forgotten run.
pub const RANGES_MAX: usize = 8;
/// Most homes remembered of one gateway. The rows of further homes are kept, but their silence is not judged.
pub const HOMES_MAX: usize = 64;
/// An epoch that was left, came back and is left once more is declared again after this time only: two boxes of one name
/// take turns, and the first declaration covers everything from its number on.
const LEFT_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// How far one lane has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaneMark {
    /// The first batch that is not there.
    pub next: u64,
    /// The digest of the batch before it.
    #[serde(with = "digest_hex")]
    pub digest: Digest,
}

impl LaneMark {
    /// Before the first batch.
    pub const ORIGIN: Self = Self { next: 0, digest: Digest::ORIGIN };
}

/// How far one epoch has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpochMarks {
    /// Which life of the spool.
    pub epoch: Epoch,
    /// Its urgent lane.
    pub urgent: LaneMark,
    /// Its routine lane.
    pub routine: LaneMark,
    /// Its gateway stopped, and had nothing left of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
    /// When it was last declared that its rest may never come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Timestamp>,
}

impl EpochMarks {
    fn new(epoch: Epoch) -> Self {
        Self { epoch, urgent: LaneMark::ORIGIN, routine: LaneMark::ORIGIN, closed: false, left: None }
    }

    pub(super) fn lane(&self, lane: Lane) -> LaneMark {
        match lane {
            Lane::Urgent => self.urgent,
            Lane::Routine => self.routine,
        }
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneMark {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Routine => &mut self.routine,
        }
    }

    /// Moves a lane on. What lies between is missing.
    fn advance(&mut self, lane: Lane, from: u64, to: LaneMark, gaps: &mut Vec<Missing>) {
        let mark = self.lane(lane);
        if let Some(last) = from.checked_sub(1).filter(|last| *last >= mark.next) {
            let (epoch, from_seq, to_seq) = (self.epoch, mark.next, Some(last));
            gaps.push(Missing { epoch, lane, from_seq, to_seq, reason: Reason::Released });
        }
        *self.lane_mut(lane) = to;
    }

    /// Another epoch goes on in its place: what may be missing of this one, unless it was closed.
    fn leave(&mut self, now: Timestamp) -> Vec<Missing> {
        if self.closed || self.left.is_some_and(|left| now.since(left) < LEFT_AGAIN) {
            return Vec::new();
        }
        self.left = Some(now);
        let of = |lane| Missing {
            epoch: self.epoch,
            lane,
            from_seq: self.lane(lane).next,
            to_seq: None,
            reason: Reason::EpochLeft,
        };
        Lane::ALL.map(of).to_vec()
    }
}

/// Which batches of one run of a gateway's program are in, under whatever numbers they came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunMarks {
    /// The run.
    pub run: u64,
    /// Its urgent batches.
    #[serde(default)]
    pub urgent: Numbers,
    /// Its routine batches.
    #[serde(default)]
    pub routine: Numbers,
    /// When another run went on in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Timestamp>,
}

/// A set of numbers, as ranges from the first to the last of each, in order and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Numbers(Vec<(u64, u64)>);

impl Numbers {
    /// Adds a number; false when it was in already.
    fn insert(&mut self, number: u64) -> bool {
        let place = self.0.partition_point(|(_, last)| *last < number);
        if self.0.get(place).is_some_and(|(first, _)| *first <= number) {
            return false;
        }
        let joins_next = self.0.get(place).is_some_and(|(first, _)| number.checked_add(1) == Some(*first));
        let before = place.checked_sub(1).and_then(|at| self.0.get_mut(at));
        match before.filter(|(_, last)| last.checked_add(1) == Some(number)) {
            Some((_, last)) if joins_next => {
                *last = number;
                let (_, end) = self.0.remove(place);
                if let Some((_, last)) = place.checked_sub(1).and_then(|at| self.0.get_mut(at)) {
                    *last = end;
                }
            }
            Some((_, last)) => *last = number,
            None => match self.0.get_mut(place) {
                Some((first, _)) if joins_next => *first = number,
                _ => self.0.insert(place, (number, number)),
            },
        }
        if self.0.len() > RANGES_MAX {
            self.0.remove(0);
        }
        true
    }
}

/// All that must be remembered of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Marks {
    /// Its epochs in the order in which they were last heard; the last is the current one.
    pub epochs: Vec<EpochMarks>,
    /// The runs of its program, in the order in which they were last heard.
    #[serde(default)]
    pub runs: Vec<RunMarks>,
    /// The homes its rows named.
    pub homes: BTreeSet<HomeId>,
    /// All event times before it have arrived. Never goes back.
    pub complete_to: Timestamp,
    /// When it was last heard.
    pub received: Timestamp,
}

impl Default for Marks {
    fn default() -> Self {
        let (complete_to, received) = (Timestamp::MIN, Timestamp::MIN);
        Self { epochs: Vec::new(), runs: Vec::new(), homes: BTreeSet::new(), complete_to, received }
    }
}

impl Marks {
    /// How far a lane has come; [`LaneMark::ORIGIN`] for one that was never heard.
    #[must_use]
    pub fn lane(&self, epoch: Epoch, lane: Lane) -> LaneMark {
        self.epochs.iter().find(|e| e.epoch == epoch).map_or(LaneMark::ORIGIN, |e| e.lane(lane))
    }

    /// How far each of the gateway's homes is known. A home is served by one gateway; of several, the
    /// furthest counts.
    pub fn complete(&self) -> impl Iterator<Item = (HomeId, Complete)> {
        let complete = Complete { complete_to: self.complete_to, received: self.received };
        self.homes.iter().map(move |home| (home.clone(), complete))
    }

    /// Takes the next batch of its lane. Returns what it shows to be missing, and whether its contents are in already,
    /// under another number.
    ///
    /// `complete_to` counts only from the routine lane, whose batches all homes send at least as heartbeats: an urgent
    /// batch overtakes routine ones that may still be lost on the way. It never counts beyond the receive time.
    pub(super) fn take(&mut self, labels: &Labels, digest: Digest, now: Timestamp) -> (Vec<Missing>, bool) {
        let Labels { lane, seq, base, .. } = *labels;
        let mut gaps = self.enter(labels.epoch, now);
        if let Some(epoch) = self.epochs.last_mut() {
            epoch.advance(lane, base, LaneMark { next: seq.saturating_add(1), digest }, &mut gaps);
            let calls = labels.urgent.filter(|_| lane == Lane::Routine);
            if let Some(calls) = calls.filter(|calls| calls.base > epoch.urgent.next) {
                // This centre was set back, or the spool overflowed: the calls between are gone, and no call may come
                // for months that would show it.
                let mark = LaneMark { next: calls.base, digest: calls.prev };
                epoch.advance(Lane::Urgent, calls.base, mark, &mut gaps);
            }
            let calls_end = calls.map_or(0, |calls| calls.base);
            epoch.closed = labels.closes && lane == Lane::Routine && epoch.urgent.next == calls_end;
        }
        if lane == Lane::Routine {
            self.complete_to = self.complete_to.max(labels.complete_to.min(now));
        }
        // Not the latest that was ever noted: the centre's own clock may have been ahead then.
        self.received = now;
        let repeats = labels.origin.is_some_and(|origin| !self.note(lane, origin, now));
        (gaps, repeats)
    }

    /// Makes an epoch the current one. Returns what may be missing of the one before.
    fn enter(&mut self, epoch: Epoch, now: Timestamp) -> Vec<Missing> {
        if self.epochs.last().is_some_and(|current| current.epoch == epoch) {
            return Vec::new();
        }
        let gaps = self.epochs.last_mut().map(|left| left.leave(now)).unwrap_or_default();
        let known = self.epochs.iter().position(|e| e.epoch == epoch);
        let entered = known.map_or_else(|| EpochMarks::new(epoch), |at| self.epochs.remove(at));
        if self.epochs.len() >= EPOCHS_MAX {
            self.epochs.remove(0);
        }
        self.epochs.push(entered);
        gaps
    }

    /// Notes that a batch is in; false when it was.
    fn note(&mut self, lane: Lane, origin: Origin, now: Timestamp) -> bool {
        if self.runs.last().is_none_or(|run| run.run != origin.run) {
            if let Some(left) = self.runs.last_mut() {
                left.left = Some(now);
            }
            let known = self.runs.iter().position(|run| run.run == origin.run);
            let empty =
                RunMarks { run: origin.run, urgent: Numbers::default(), routine: Numbers::default(), left: None };
            let run = known.map_or(empty, |at| self.runs.remove(at));
            let is_quiet = |run: &RunMarks| run.left.is_none_or(|left| now.since(left) > RUN_QUIET);
            while self.runs.len() >= RUNS_KEPT
                && (self.runs.len() >= RUNS_MAX || self.runs.first().is_some_and(is_quiet))
            {
                self.runs.remove(0);
            }
            self.runs.push(run);
        }
        self.runs.last_mut().is_none_or(|run| match lane {
            Lane::Urgent => run.urgent.insert(origin.number),
            Lane::Routine => run.routine.insert(origin.number),
        })
    }
}

/// Reads a digest's 64 hexadecimal digits.
pub(crate) fn digest_from_hex(text: &str) -> Option<Digest> {
    let byte = |i: usize| text.get(2 * i..2 * i + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    bytes.filter(|_| text.len() == 64).and_then(|b| Digest::from_slice(&b))
}

mod digest_hex {
    use carebed_contract::digest::Digest;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let digest = super::digest_from_hex(&String::deserialize(deserializer)?);
        digest.ok_or_else(|| serde::de::Error::custom("not a digest of 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_a_set_in_few_ranges(numbers in proptest::collection::vec(0_u64..14, 0..40)) {
            let (mut ranges, mut set) = (Numbers::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(ranges.insert(number), set.insert(number), "{} in {:?}", number, ranges);
                let spread: Vec<u64> = ranges.0.iter().flat_map(|(first, last)| *first..=*last).collect();
                prop_assert_eq!(&spread, &set.iter().copied().collect::<Vec<_>>());
                prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", ranges);
            }
        }
    }

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn everything_is_bounded() {
        let mut marks = Marks::default();
        for run in 0..=RUNS_MAX as u64 {
            for number in 0..=RANGES_MAX as u64 {
                marks.note(Lane::Urgent, Origin { run, number: 2 * number }, Timestamp::RELEASED);
            }
        }
        assert_eq!((marks.runs.len(), marks.runs[0].run), (RUNS_MAX, 1), "the one that was quiet longest went");
        assert_eq!((marks.runs[0].urgent.0.len(), marks.runs[0].urgent.0[0]), (RANGES_MAX, (2, 2)));
        assert!(marks.note(Lane::Routine, Origin { run: 1, number: u64::MAX }, Timestamp::RELEASED));
        assert!(!marks.note(Lane::Routine, Origin { run: 1, number: u64::MAX }, Timestamp::RELEASED));
        assert_eq!(marks.runs.last().unwrap().run, 1, "what is heard is kept");
    }

    #[test]
    fn a_box_that_falls_over_and_over_is_known_for_a_month_and_the_last_runs_for_ever() {
        let mut marks = Marks::default();
        let origin = |run| Origin { run, number: 0 };
        for run in 0..200 {
            assert!(marks.note(Lane::Routine, origin(run), Timestamp::RELEASED));
        }
        let next_day = Timestamp::RELEASED + DAY;
        assert!((0..200).all(|run| !marks.note(Lane::Routine, origin(run), next_day)), "all of them are known");
        // Two years later.
        let later = next_day + 700 * DAY;
        assert!(marks.note(Lane::Routine, origin(1_000), later));
        assert_eq!(marks.runs.len(), RUNS_KEPT);
        assert!((185..200).all(|run| !marks.note(Lane::Routine, origin(run), later)), "the last ones are known");
    }

    #[test]
    fn marks_of_before_are_read_for_ever() {
        let zero = "0".repeat(64);
        let json = format!(
            r#"{{"epochs":[{{"epoch":"0000000000000007","urgent":{{"next":0,"digest":"{zero}"}},
                "routine":{{"next":3,"digest":"{zero}"}}}}],"homes":["h1"],"complete_to":5,"received":9}}"#
        );
        let marks: Marks = serde_json::from_str(&json).unwrap();
        assert_eq!((marks.lane(Epoch::new(7), Lane::Routine).next, marks.runs.len()), (3, 0));
        let again: Marks = serde_json::from_slice(&serde_json::to_vec(&marks).unwrap()).unwrap();
        assert_eq!(again, marks);
    }
}
