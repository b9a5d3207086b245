//! The truth of one board: every level it showed, and which of them a client has read.

use std::collections::VecDeque;
use std::ops::Range;

use carebed_contract::time::Timestamp;

use crate::board::INPUTS;

/// Most entries kept. When more are shown the oldest are forgotten and counted.
pub const LENGTH_MAX: usize = 1 << 18;

/// One input took a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// When, by the home's clock.
    pub at: Timestamp,
    /// Which input, from 0.
    pub input: usize,
    /// The level on the terminal, before any inversion is undone.
    pub on: bool,
    /// When the board first told it in an answer that it sent. None: no client ever asked while it was so.
    pub answered: Option<Timestamp>,
    /// When a client is first known to have got such an answer: it asked again on the same connection, which a client
    /// with one request in flight does only after the answer to the last.
    pub received: Option<Timestamp>,
}

/// Names the entries that one answer told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told([Option<u64>; INPUTS]);

/// Every level shown, in order of time.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    shown: VecDeque<Shown>,
    forgotten: u64,
    current: [Option<u64>; INPUTS],
}

impl Ledger {
    /// What is kept, oldest first.
    pub fn shown(&self) -> impl Iterator<Item = &Shown> {
        self.shown.iter()
    }

    /// How many older entries were forgotten.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What an input shows now.
    #[must_use]
    pub fn current(&self, input: usize) -> Option<&Shown> {
        let number = (*self.current.get(input)?)?;
        self.shown.get(self.place(number)?)
    }

    pub(crate) fn show(&mut self, at: Timestamp, input: usize, on: bool) {
        let Some(current) = self.current.get_mut(input) else { return };
        if self.shown.len() == LENGTH_MAX {
            self.shown.pop_front();
            self.forgotten += 1;
        }
        *current = Some(self.forgotten + self.shown.len() as u64);
        self.shown.push_back(Shown { at, input, on, answered: None, received: None });
    }

    pub(crate) fn answered(&mut self, inputs: Range<usize>, at: Timestamp) -> Told {
        let mut told = Told::default();
        for (input, (told, current)) in told.0.iter_mut().zip(self.current).enumerate() {
            *told = current.filter(|_| inputs.contains(&input));
        }
        self.each(told, |shown| _ = shown.answered.get_or_insert(at));
        told
    }

    pub(crate) fn received(&mut self, told: Told, at: Timestamp) {
        self.each(told, |shown| _ = shown.received.get_or_insert(at));
    }

    fn each(&mut self, told: Told, mut mark: impl FnMut(&mut Shown)) {
        for number in told.0.into_iter().flatten() {
            if let Some(shown) = self.place(number).and_then(|place| self.shown.get_mut(place)) {
                mark(shown);
            }
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.forgotten)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn an_answer_marks_what_was_so_when_it_was_given() {
        let mut ledger = Ledger::default();
        ledger.show(at(1), 0, false);
        ledger.show(at(1), 1, true);
        ledger.show(at(2), 0, true);
        let told = ledger.answered(0..1, at(3));
        ledger.show(at(4), 0, false);
        ledger.received(told, at(5));
        let marks: Vec<_> = ledger.shown().map(|s| (s.input, s.on, s.answered, s.received)).collect();
        assert_eq!(
            marks,
            [
                (0, false, None, None),
                (1, true, None, None),
                (0, true, Some(at(3)), Some(at(5))),
                (0, false, None, None)
            ]
        );
        assert_eq!(ledger.current(0).map(|shown| shown.at), Some(at(4)));
        assert_eq!(ledger.current(7), None);
    }

    #[test]
    fn the_oldest_entries_are_forgotten_and_counted() {
        let mut ledger = Ledger::default();
        ledger.show(at(0), 7, true);
        let told = ledger.answered(0..8, at(0));
        for n in 0..LENGTH_MAX {
            ledger.show(at(1), 0, n % 2 == 0);
        }
        assert_eq!((ledger.shown().count(), ledger.forgotten()), (LENGTH_MAX, 1));
        ledger.received(told, at(2));
        assert_eq!(ledger.current(7), None);
        assert!(ledger.shown().all(|shown| shown.received.is_none()));
    }
}
