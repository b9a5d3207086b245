//! Routine observations wait here a little, to travel together. Pure.

use std::time::Duration;

use crate::stamp::Observed;

/// A batch is closed at this many observations, however young it is: it stays far below every size limit on the way. What
/// comes beyond waits for the next batch, which is due at once.
const OBSERVATIONS_MAX: usize = 500;

/// Gathers routine observations into batches.
#[derive(Debug)]
pub struct Gather {
    every: Duration,
    complete_every: Duration,
    waiting: Vec<Observed>,
    since: Option<Duration>,
    last: Duration,
}

impl Gather {
    /// `every`: how long an observation may wait for others; `complete_every`: how often a batch is due though none came.
    #[must_use]
    pub fn new(every: Duration, complete_every: Duration, now: Duration) -> Self {
        Self { every, complete_every, waiting: Vec::new(), since: None, last: now }
    }

    /// Takes an observation.
    pub fn add(&mut self, observed: Observed, now: Duration) {
        self.waiting.push(observed);
        self.since.get_or_insert(now);
    }

    /// How long until a batch is due; zero when it is.
    #[must_use]
    pub fn due_in(&self, now: Duration) -> Duration {
        if self.waiting.len() >= OBSERVATIONS_MAX {
            return Duration::ZERO;
        }
        let due = self.since.map_or(self.last + self.complete_every, |since| since + self.every);
        due.saturating_sub(now)
    }

    /// The next batch: everything gathered, at most 500 observations; perhaps nothing.
    pub fn take(&mut self, now: Duration) -> Vec<Observed> {
        let rest = self.waiting.split_off(self.waiting.len().min(OBSERVATIONS_MAX));
        self.since = (!rest.is_empty()).then_some(now);
        self.last = now;
        std::mem::replace(&mut self.waiting, rest)
    }

    /// Everything gathered.
    #[must_use]
    pub fn into_waiting(self) -> Vec<Observed> {
        self.waiting
    }

    /// Whether nothing is gathered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use carebed_contract::quality::Quality;
    use carebed_contract::record::Series;
    use carebed_contract::time::Timestamp;
    use carebed_contract::value::Value;

    use super::*;
    use crate::stamp::Sample;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn add(gather: &mut Gather, second: u64) {
        let series = Series::parse("h1/b1/mat-1/bed_occupancy").unwrap();
        let sample = Sample { monotonic: secs(second), wall: Timestamp::MIN };
        gather.add(Observed { series, value: Value::Flag(true), quality: Quality::Good, sample }, secs(second));
    }

    #[test]
    fn batches_are_due_by_age_by_size_and_to_say_that_nothing_was() {
        let mut gather = Gather::new(secs(5), secs(30), secs(0));
        assert_eq!(gather.due_in(secs(10)), secs(20));
        add(&mut gather, 10);
        add(&mut gather, 12);
        assert_eq!(gather.due_in(secs(12)), secs(3));
        assert_eq!(gather.take(secs(15)).len(), 2);
        assert_eq!(gather.due_in(secs(45)), secs(0));
        assert!(gather.take(secs(45)).is_empty());
        for _ in 0..=OBSERVATIONS_MAX {
            add(&mut gather, 46);
        }
        assert_eq!(gather.due_in(secs(46)), secs(0));
        assert_eq!(gather.take(secs(46)).len(), OBSERVATIONS_MAX);
        assert_eq!((gather.is_empty(), gather.due_in(secs(46))), (false, secs(5)));
    }
}
