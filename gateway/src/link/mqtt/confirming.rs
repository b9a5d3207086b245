//! Commands that wait until the device itself says that it has done them. Pure; times are product time.
//!
//! The broker's acknowledgement says that the broker has a command, nothing of the device. So a command is done when the state
//! that its output shows has come as it was set, and else nobody knows.

use std::time::Duration;

use carebed_contract::value::Value;
use carebed_device_profiles::decoder::Point;

/// Commands that may wait; one more is refused.
const AWAITED_MAX: usize = 64;

/// A command that was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    /// The command's id.
    pub(super) id: String,
    /// The device.
    pub(super) board: usize,
    /// The input that shows what was set.
    pub(super) input: usize,
    /// What was set.
    pub(super) value: bool,
    /// Until when its confirmation is worth waiting for.
    pub(super) until: Duration,
}

/// The commands that wait.
#[derive(Debug, Default)]
pub(super) struct Confirming {
    awaited: Vec<Awaited>,
}

impl Confirming {
    /// Whether one more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.awaited.len() < AWAITED_MAX
    }

    pub(super) fn add(&mut self, awaited: Awaited) {
        self.awaited.push(awaited);
    }

    /// The commands that are done by what a device has just said.
    pub(super) fn heard(&mut self, board: usize, points: &[Point]) -> Vec<String> {
        let is_done = |awaited: &mut Awaited| {
            let shows = |p: &Point| p.input == awaited.input && p.value == Value::Flag(awaited.value);
            awaited.board == board && points.iter().any(shows)
        };
        self.awaited.extract_if(.., is_done).map(|awaited| awaited.id).collect()
    }

    /// The commands that are no longer worth waiting for.
    pub(super) fn over(&mut self, now: Duration) -> Vec<String> {
        self.awaited.extract_if(.., |awaited| now >= awaited.until).map(|awaited| awaited.id).collect()
    }

    /// All of them: nothing is heard any more.
    pub(super) fn take(&mut self) -> Vec<String> {
        self.awaited.drain(..).map(|awaited| awaited.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use carebed_contract::quality::Quality;

    use super::*;

    #[test]
    fn only_the_state_that_was_set_confirms_and_only_in_time() {
        let point = |input, on| Point { input, value: Value::Flag(on), quality: Quality::Good, age: Duration::ZERO };
        let mut confirming = Confirming::default();
        for (id, value, until) in [("a", true, 5), ("b", false, 9), ("c", true, 9)] {
            let until = Duration::from_secs(until);
            confirming.add(Awaited { id: id.to_owned(), board: 1, input: 2, value, until });
        }
        assert!(confirming.heard(0, &[point(2, true)]).is_empty(), "another device");
        assert!(confirming.heard(1, &[point(1, true)]).is_empty(), "another input");
        assert_eq!(confirming.over(Duration::from_secs(5)), ["a"]);
        assert_eq!(confirming.heard(1, &[point(0, false), point(2, true)]), ["c"]);
        assert_eq!(confirming.take(), ["b"]);
        assert!(confirming.has_room() && confirming.take().is_empty());
    }
}
