//! Up to when everything is known that the devices of a home have to say. Pure; times are monotonic.
//!
//! Silence in a home's data means something only up to there. A poll without an answer says nothing, so what is known
//! stands still at the last answer. But one dead board must not hold back a whole home for ever: once its silence has been
//! told (as `bad:no_answer` for each of its inputs, and in the status), the home goes on without it, and the centre knows
//! that detections which need those inputs cannot be evaluated.

use std::time::Duration;

/// A poll that fails while its board answers others is given up after so many failures in a row …
const GIVEN_UP_FAILURES: u32 = 3;
/// … and so long, as a silent board is.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(3);

/// What is known of each poll of each board.
#[derive(Debug, Clone)]
pub struct Known {
    start: Duration,
    boards: Vec<Board>,
}

#[derive(Debug, Clone)]
struct Board {
    is_silent: bool,
    polls: Vec<Poll>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Poll {
    answered: Option<Duration>,
    failures: u32,
}

impl Known {
    /// Nothing is known yet at `start`; `polls` gives the number of polls of each board.
    #[must_use]
    pub fn new(polls: impl IntoIterator<Item = usize>, start: Duration) -> Self {
        let board = |n_polls| Board { is_silent: false, polls: vec![Poll::default(); n_polls] };
        Self { start, boards: polls.into_iter().map(board).collect() }
    }

    /// A poll was answered at `at`.
    pub fn answered(&mut self, board: usize, poll: usize, at: Duration) {
        if let Some(poll) = self.poll(board, poll) {
            *poll = Poll { answered: Some(at), failures: 0 };
        }
    }

    /// A poll was not answered, or with something that is no answer.
    pub fn failed(&mut self, board: usize, poll: usize) {
        if let Some(poll) = self.poll(board, poll) {
            poll.failures = poll.failures.saturating_add(1);
        }
    }

    /// Whether the silence of a board has been told.
    pub fn silent(&mut self, board: usize, is_silent: bool) {
        if let Some(board) = self.boards.get_mut(board) {
            board.is_silent = is_silent;
        }
    }

    /// Everything before this is known; none while a board has not said anything yet.
    #[must_use]
    pub fn until(&self, now: Duration) -> Option<Duration> {
        let live = self.boards.iter().filter(|board| !board.is_silent).flat_map(|board| &board.polls);
        let counts = |poll: &&Poll| {
            let waited = now.saturating_sub(poll.answered.unwrap_or(self.start));
            poll.failures < GIVEN_UP_FAILURES || waited < GIVEN_UP_AFTER
        };
        live.filter(counts).try_fold(now, |known, poll| Some(known.min(poll.answered?)))
    }

    fn poll(&mut self, board: usize, poll: usize) -> Option<&mut Poll> {
        self.boards.get_mut(board)?.polls.get_mut(poll)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_at_the_last_answer_until_the_silence_is_told() {
        let secs = Duration::from_secs;
        let until = |known: &Known, now| known.until(secs(now)).map(|known| known.as_secs());
        let mut known = Known::new([1, 2], secs(0));
        assert_eq!(until(&known, 1), None, "nothing heard");
        known.answered(0, 0, secs(1));
        known.answered(1, 0, secs(1));
        assert_eq!(until(&known, 1), None, "one poll has not been answered");
        known.answered(1, 1, secs(2));
        assert_eq!(until(&known, 2), Some(1));
        for second in 3..9 {
            known.failed(0, 0);
            known.answered(1, 0, secs(second));
            known.answered(1, 1, secs(second));
            // The third failure comes at 5 s, four seconds after the last answer.
            assert_eq!(until(&known, second), Some(if second < 5 { 1 } else { second }), "{second}");
        }
        known.answered(0, 0, secs(9));
        known.answered(1, 0, secs(10));
        assert_eq!(until(&known, 10), Some(8));
        known.silent(1, true);
        assert_eq!(until(&known, 11), Some(9), "without the silent board");
        known.silent(0, true);
        assert_eq!(until(&known, 12), Some(12));
        assert_eq!(Known::new([], secs(0)).until(secs(5)), Some(secs(5)), "a home without polled boards");
    }
}
