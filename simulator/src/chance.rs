//! Seeded chance: the same seed draws the same life.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Longest wait that [`Chance::until_next`] draws. A rarer event waits that long and is drawn again.
pub const WAIT_MAX: Duration = Duration::from_hours(24);

/// Draws from a seed. Equal for equal seeds and equal versions of this program.
#[derive(Debug)]
pub struct Chance(StdRng);

impl Chance {
    /// Starts the draws of one seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A duration between two, each equally likely, in whole milliseconds.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let whole = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let (low, high) = (whole(low), whole(high));
        Duration::from_millis(self.0.random_range(low..=high.max(low)))
    }

    /// A duration within `spread` of `middle`, the middle being likeliest: the mean of three draws.
    pub fn around(&mut self, middle: Duration, spread: Duration) -> Duration {
        let low = middle.saturating_sub(spread);
        (self.between(low, middle + spread) + self.between(low, middle + spread) + self.between(low, middle + spread))
            / 3
    }

    /// Whether something of this probability happens. Anything outside 0 to 1 is taken as the nearer of the two.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.0.random::<f64>() < probability
    }

    /// The wait until the next of events that come `per_hour` times an hour, independently; at most [`WAIT_MAX`].
    pub fn until_next(&mut self, per_hour: f64) -> Duration {
        let hours = -(1.0 - self.0.random::<f64>()).ln() / per_hour;
        if hours.is_finite() && hours < 24.0 { Duration::from_secs_f64(hours.max(0.0) * 3600.0) } else { WAIT_MAX }
    }

    /// One of some choices, each as likely as its weight. The first when all weights are 0; none of none.
    pub fn one_of<T: Copy>(&mut self, choices: &[(T, u32)]) -> Option<T> {
        let total: u32 = choices.iter().map(|(_, weight)| weight).sum();
        let mut left = self.0.random_range(0..total.max(1));
        let drawn = choices.iter().find(|(_, weight)| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        drawn.or(choices.first()).map(|(choice, _)| *choice)
    }

    /// One byte, each equally likely.
    pub fn byte(&mut self) -> u8 {
        self.0.random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_keep_their_bounds_and_their_mean() {
        let mut chance = Chance::new(1);
        let (low, high) = (Duration::from_secs(5), Duration::from_secs(9));
        for _ in 0..1_000 {
            assert!((low..=high).contains(&chance.between(low, high)));
            assert!((low..=high).contains(&chance.around(Duration::from_secs(7), Duration::from_secs(2))));
        }
        let total: Duration = (0..10_000).map(|_| chance.until_next(6.0)).sum();
        let mean = total / 10_000;
        assert!((540..660).contains(&mean.as_secs()), "6 an hour came every {mean:?}");
        assert_eq!(chance.until_next(0.0), WAIT_MAX);
    }

    #[test]
    fn weights_count() {
        let mut chance = Chance::new(2);
        let drawn = (0..4_000).filter(|_| chance.one_of(&[('a', 3), ('b', 1), ('c', 0)]) == Some('a')).count();
        assert!((2_800..3_200).contains(&drawn), "3 of 4 came {drawn} times of 4000");
        assert_eq!(chance.one_of::<char>(&[]), None);
        assert_eq!(chance.one_of(&[('x', 0)]), Some('x'));
    }
}
