//! Routine observations wait here a little, to travel together. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use carebed_contract::record::Record;

use crate::stamp::{Observed, Sample, Stamper};

/// A batch is closed at this many records, however young it is: it stays far below every size limit on the way.
const RECORDS_MAX: usize = 500;
/// Most observations kept while the clock is not set; then the oldest goes, and is counted.
const WAITING_MAX: usize = 10_000;

/// Gathers routine observations into batches.
#[derive(Debug)]
pub struct Gather {
    every: Duration,
    complete_every: Duration,
    ready: Vec<Record>,
    since: Option<Duration>,
    waiting: VecDeque<Observed>,
    last: Duration,
    given_up: u64,
}

impl Gather {
    /// `every`: how long a record may wait for others; `complete_every`: how often a batch is due though none came.
    #[must_use]
    pub fn new(every: Duration, complete_every: Duration, now: Duration) -> Self {
        let (ready, waiting) = (Vec::new(), VecDeque::new());
        Self { every, complete_every, ready, since: None, waiting, last: now, given_up: 0 }
    }

    /// Takes an observation. It waits for the clock when it has to.
    pub fn add(&mut self, observed: Observed, stamper: &Stamper, now: Sample) {
        self.waiting.push_back(observed);
        self.stamp(stamper, now);
        if self.waiting.len() > WAITING_MAX {
            self.waiting.pop_front();
            self.given_up += 1;
        }
    }

    /// How long until a batch is due; zero when it is. None while the clock is not set: nothing can be said then.
    #[must_use]
    pub fn due_in(&self, stamper: &Stamper, now: Sample) -> Option<Duration> {
        if !stamper.is_synchronised(now.wall) {
            return None;
        }
        if self.ready.len() >= RECORDS_MAX || !self.waiting.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.since.map_or(self.last + self.complete_every, |since| since + self.every);
        Some(due.saturating_sub(now.monotonic))
    }

    /// The next batch: everything that has a time by now, at most 500 records; perhaps nothing.
    pub fn take(&mut self, stamper: &Stamper, now: Sample) -> Vec<Record> {
        self.stamp(stamper, now);
        let rest = self.ready.split_off(self.ready.len().min(RECORDS_MAX));
        self.since = (!rest.is_empty()).then_some(now.monotonic);
        self.last = now.monotonic;
        std::mem::replace(&mut self.ready, rest)
    }

    /// Whether observations are left that have a time but are in no batch yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Observations given up since the last call, because the clock was not set for too long.
    pub fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    fn stamp(&mut self, stamper: &Stamper, now: Sample) {
        while let Some(observed) = self.waiting.pop_front() {
            match stamper.when_known(observed, now) {
                Ok(record) => {
                    self.ready.push(record);
                    self.since.get_or_insert(now.monotonic);
                }
                Err(observed) => {
                    self.waiting.push_front(observed);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use carebed_contract::quality::Quality;
    use carebed_contract::record::{RecordTime, Series};
    use carebed_contract::time::Timestamp;
    use carebed_contract::value::Value;

    use super::*;
    use crate::stamp::ClockTrust;

    const SET: i64 = 1_800_000_000_000;

    fn sample(second: u64, wall: i64) -> Sample {
        let monotonic = Duration::from_secs(second);
        Sample { monotonic, wall: Timestamp::from_millis(wall) + monotonic }
    }

    fn observed(sample: Sample) -> Observed {
        let series = Series::parse("h1/b1/mat-1/bed_occupancy").unwrap();
        Observed { series, value: Value::Flag(true), quality: Quality::Good, sample }
    }

    fn seconds(gather: &Gather, stamper: &Stamper, now: Sample) -> Option<u64> {
        gather.due_in(stamper, now).map(|d| d.as_secs())
    }

    #[test]
    fn batches_are_due_by_age_by_size_and_to_say_that_nothing_was() {
        let stamper = Stamper::new(ClockTrust::System, Timestamp::MIN);
        let mut gather = Gather::new(Duration::from_secs(5), Duration::from_secs(30), Duration::ZERO);
        assert_eq!(seconds(&gather, &stamper, sample(10, SET)), Some(20));
        gather.add(observed(sample(10, SET)), &stamper, sample(10, SET));
        gather.add(observed(sample(12, SET)), &stamper, sample(12, SET));
        assert_eq!(seconds(&gather, &stamper, sample(12, SET)), Some(3));
        assert_eq!(gather.take(&stamper, sample(15, SET)).len(), 2);
        assert_eq!(seconds(&gather, &stamper, sample(45, SET)), Some(0));
        assert!(gather.take(&stamper, sample(45, SET)).is_empty());
        for _ in 0..=RECORDS_MAX {
            gather.add(observed(sample(46, SET)), &stamper, sample(46, SET));
        }
        assert_eq!(seconds(&gather, &stamper, sample(46, SET)), Some(0));
        assert_eq!(gather.take(&stamper, sample(46, SET)).len(), RECORDS_MAX);
        assert_eq!((gather.is_empty(), seconds(&gather, &stamper, sample(46, SET))), (false, Some(5)));
    }

    #[test]
    fn without_a_clock_observations_wait_and_are_stamped_afterwards() {
        let stamper = Stamper::new(ClockTrust::System, Timestamp::MIN);
        let mut gather = Gather::new(Duration::from_secs(5), Duration::from_secs(30), Duration::ZERO);
        for second in 0..=WAITING_MAX as u64 {
            gather.add(observed(sample(second, 0)), &stamper, sample(second, 0));
        }
        assert_eq!(seconds(&gather, &stamper, sample(20_000, 0)), None);
        assert_eq!((gather.take_given_up(), gather.take_given_up()), (1, 0));
        assert_eq!(seconds(&gather, &stamper, sample(20_000, SET)), Some(0));
        let first = gather.take(&stamper, sample(20_000, SET));
        assert_eq!(first[0].time, RecordTime::At(Timestamp::from_millis(SET + 1_000)));
    }
}
