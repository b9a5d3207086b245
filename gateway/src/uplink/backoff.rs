//! Pauses between attempts, so that a thousand homes do not come back in the same second.

use std::time::Duration;

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

    /// Something went well for long enough: begins again with the shortest pause.
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
}
