//! How long to wait before the next connection: decorrelated jitter, so that a broker's return is not met by everybody at
//! once.

use std::time::Duration;

/// The shortest wait.
const BASE: Duration = Duration::from_millis(200);
/// The longest wait.
const CAP: Duration = Duration::from_secs(20);
/// A connection that lived this long was a good one. A shorter one counts as failed, even if the broker accepted it.
const GOOD: Duration = Duration::from_secs(10);

/// Waits grow from one failure to the next and begin anew after a good connection.
#[derive(Debug)]
pub(super) struct Backoff {
    last: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { last: BASE }
    }

    /// How long to wait after a connection that lived so long. `chance` is between 0 and 1.
    pub(super) fn next(&mut self, lived: Duration, chance: f64) -> Duration {
        if lived >= GOOD {
            self.last = BASE;
        }
        let span = (self.last * 3).saturating_sub(BASE);
        self.last = (BASE + span.mul_f64(chance.clamp(0.0, 1.0))).min(CAP);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_begin_anew_after_a_good_connection() {
        let mut backoff = Backoff::new();
        let kicked = Duration::from_secs(1);
        let waits: Vec<_> = (0..8).map(|_| backoff.next(kicked, 1.0)).collect();
        assert!(waits.windows(2).all(|w| w[0] <= w[1]) && waits[0] == BASE * 3 && waits[7] == CAP, "{waits:?}");
        assert_eq!(backoff.next(kicked, 0.0), BASE);
        backoff.next(kicked, 1.0);
        assert_eq!(backoff.next(GOOD, 1.0), BASE * 3);
    }
}
