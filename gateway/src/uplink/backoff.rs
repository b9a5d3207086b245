//! Pauses between attempts, so that a thousand homes do not come back in the same second.

use std::time::Duration;

/// A connection that lived this long was a good one; one that was accepted and then kicked is not.
const GOOD_AFTER: Duration = Duration::from_secs(60);

/// Decorrelated jitter: each pause is drawn between the shortest and three times the one before, up to the longest.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    last: Duration,
}

impl Backoff {
    /// Starts at the shortest pause.
    #[must_use]
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, last: shortest }
    }

    /// The next pause; `chance` is a number from 0 to 1.
    pub fn pause(&mut self, chance: f64) -> Duration {
        let widest = (self.last * 3).min(self.longest).max(self.shortest);
        self.last = self.shortest + (widest - self.shortest).mul_f64(chance.clamp(0.0, 1.0));
        self.last
    }

    /// A connection ended that lasted so long; says whether it was a good one. Only one over which a receipt came, or that
    /// lived long, is: a broker that accepts and then kicks must not be asked again at once, for ever.
    pub fn ended(&mut self, lasted: Duration, receipted: bool) -> bool {
        let good = receipted || lasted >= GOOD_AFTER;
        if good {
            self.reset();
        }
        good
    }

    /// Something went well: begins again with the shortest pause.
    pub fn reset(&mut self) {
        self.last = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_bounds_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let pauses: Vec<u64> = [1.0; 6].map(|chance| backoff.pause(chance).as_secs()).to_vec();
        assert_eq!(pauses, [3, 9, 27, 60, 60, 60]);
        assert_eq!(backoff.pause(0.0), Duration::from_secs(1));
        backoff.pause(1.0);
        backoff.reset();
        assert_eq!(backoff.pause(0.5), Duration::from_secs(2));
    }

    #[test]
    fn a_connection_that_is_accepted_and_kicked_is_not_a_good_one() {
        let at_once = Duration::from_millis(30);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut pause = |lasted, receipted| {
            let good = backoff.ended(lasted, receipted);
            (good, backoff.pause(1.0).as_secs())
        };
        let pauses = [(); 5].map(|()| pause(at_once, false));
        assert_eq!(pauses, [3, 9, 27, 60, 60].map(|seconds| (false, seconds)));
        assert_eq!(pause(at_once, true), (true, 3), "the centre spoke");
        assert_eq!(pause(at_once, false), (false, 9));
        assert_eq!(pause(GOOD_AFTER, false), (true, 3), "it lived long");
    }

    /// A thousand homes that lose the broker together and are kicked ten times: no second sees more than a few of them.
    #[test]
    fn a_herd_spreads() {
        let mut seconds = std::collections::BTreeMap::new();
        for _ in 0..1_000 {
            let (mut backoff, mut at) =
                (Backoff::new(Duration::from_millis(500), Duration::from_secs(60)), Duration::ZERO);
            for _ in 0..10 {
                backoff.ended(Duration::from_millis(30), false);
                at += backoff.pause(rand::random());
            }
            *seconds.entry(at.as_secs()).or_insert(0) += 1;
        }
        assert!(seconds.values().all(|together| *together < 60), "{seconds:?}");
    }
}
