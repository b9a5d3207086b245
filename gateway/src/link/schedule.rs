//! When to poll what. Pure; times are wire time since an arbitrary start.

use std::time::Duration;

/// A board that is silent is asked at most this often: one probe per cycle, so that it does not slow its neighbours.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// One poll of one board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Which board of the link.
    pub(super) board: usize,
    /// Which poll of its profile.
    pub(super) poll: usize,
    every: Duration,
    due: Duration,
}

/// The polls of one link.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    slots: Vec<Slot>,
}

impl Schedule {
    pub(super) fn add(&mut self, board: usize, poll: usize, every: Duration) {
        self.slots.push(Slot { board, poll, every, due: Duration::ZERO });
    }

    /// The poll that is due first, and when.
    pub(super) fn next(&self) -> Option<(Slot, Duration)> {
        self.slots.iter().min_by_key(|slot| slot.due).map(|slot| (*slot, slot.due))
    }

    /// A poll ended at `now`. What was missed meanwhile is left out: after a stall there is one poll, not a burst.
    pub(super) fn done(&mut self, ended: Slot, now: Duration, silent: bool) {
        let slot = self.slots.iter_mut().find(|slot| (slot.board, slot.poll) == (ended.board, ended.poll));
        let Some(slot) = slot else { return };
        let every = if silent { slot.every.max(PROBE_EVERY) } else { slot.every };
        let next = slot.due + every;
        slot.due = if next > now { next } else { now + every };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_keep_their_beat_and_a_stall_costs_no_burst() {
        let ms = Duration::from_millis;
        let mut schedule = Schedule::default();
        schedule.add(0, 0, ms(20));
        schedule.add(1, 0, ms(100));
        let mut polled = Vec::new();
        // Ends of polls: a stall of a second after 30 ms.
        for now in [1, 2, 21, 1_000, 1_001, 1_020] {
            let (slot, due) = schedule.next().unwrap();
            polled.push((slot.board, due));
            schedule.done(slot, ms(now), false);
        }
        let expected = [(0, 0), (1, 0), (0, 20), (0, 40), (1, 100), (0, 1_020)];
        assert_eq!(polled, expected.map(|(board, due)| (board, ms(due))));
        assert_eq!(schedule.next().unwrap().1, ms(1_040));
    }

    #[test]
    fn a_silent_board_is_probed_once_a_second() {
        let mut schedule = Schedule::default();
        schedule.add(0, 0, Duration::from_millis(20));
        let (slot, _) = schedule.next().unwrap();
        schedule.done(slot, Duration::from_millis(500), true);
        assert_eq!(schedule.next().unwrap().1, Duration::from_secs(1));
    }
}
