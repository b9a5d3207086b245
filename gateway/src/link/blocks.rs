//! Which polls of a device travel in one request. Pure.
//!
//! A transaction costs tens of milliseconds on a slow bus whatever it reads, so neighbouring polls are read as one block,
//! small holes between them included. A device that answers a block with an exception is asked poll by poll from then on:
//! many refuse to read an address that they do not have.

use std::time::Duration;

use carebed_device_profiles::modbus::{Function, Request};
use carebed_device_profiles::profile::Poll;

/// The widest hole between two polls that is read along. 8 registers take 17 ms at 9600 baud, about what another request
/// costs.
const HOLE_REGISTERS_MAX: u16 = 8;
/// The same for bits.
const HOLE_BITS_MAX: u16 = 64;

/// What one request reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    function: Function,
    address: u16,
    count: u16,
    /// How often.
    pub(super) every: Duration,
    /// The polls in it: an index into the profile's polls, the first item within the block, how many.
    parts: Vec<(usize, u16, u16)>,
}

impl Block {
    fn of(index: usize, poll: &Poll, every: Duration) -> Self {
        let Poll { function, address, count, .. } = *poll;
        Self { function, address, count, every, parts: vec![(index, 0, count)] }
    }

    /// The request that reads it.
    pub(super) fn request(&self) -> Request {
        Request::Read { function: self.function, address: self.address, count: self.count }
    }

    /// Whether it reads more than one poll.
    pub(super) fn is_joined(&self) -> bool {
        self.parts.len() > 1
    }

    /// The polls it reads.
    pub(super) fn polls(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|(poll, ..)| *poll)
    }

    /// The data of each poll, as if it had been asked alone.
    pub(super) fn split(&self, data: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let part = |(poll, first, count): &(usize, u16, u16)| {
            let (first, count) = (usize::from(*first), usize::from(*count));
            let bytes = if self.function.is_bits() {
                bits(data, first, count)
            } else {
                data.get(first * 2..(first + count) * 2).unwrap_or_default().to_vec()
            };
            (*poll, bytes)
        };
        self.parts.iter().map(part).collect()
    }

    /// Takes a poll in, if it lies near enough behind.
    fn join(&mut self, index: usize, poll: &Poll, every: Duration) -> bool {
        let end = u32::from(self.address) + u32::from(self.count);
        let hole_max = if self.function.is_bits() { HOLE_BITS_MAX } else { HOLE_REGISTERS_MAX };
        let Some(first) = poll.address.checked_sub(self.address) else { return false };
        let hole = u32::from(poll.address).saturating_sub(end);
        let count = u32::from(first) + u32::from(poll.count);
        let fits = self.function == poll.function
            && self.every == every
            && hole <= u32::from(hole_max)
            && count <= u32::from(self.function.count_max());
        if fits {
            self.count = self.count.max(u16::try_from(count).unwrap_or(u16::MAX));
            self.parts.push((index, first, poll.count));
        }
        fits
    }
}

/// The blocks of a device's polls; `join`: neighbours in one request. `every` overrides the profile's period.
pub(super) fn plan(polls: &[Poll], every: Option<Duration>, join: bool) -> Vec<Block> {
    let mut sorted: Vec<(usize, &Poll)> = polls.iter().enumerate().collect();
    if join {
        sorted.sort_by_key(|(_, poll)| (poll.fixed, poll.function.code(), every.unwrap_or(poll.every), poll.address));
    }
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, poll) in sorted {
        let every = every.unwrap_or(poll.every);
        let joined =
            join && open && !poll.fixed && blocks.last_mut().is_some_and(|block| block.join(index, poll, every));
        if !joined {
            blocks.push(Block::of(index, poll, every));
        }
        open = !poll.fixed;
    }
    // The shortest answer first: that is what a device is asked that does not answer.
    blocks.sort_by_key(|block| block.function.answer_length(block.count));
    blocks
}

/// Some of a row of bits, packed anew from the lowest place.
fn bits(data: &[u8], first: usize, count: usize) -> Vec<u8> {
    let bit = |at: usize| data.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    let byte = |start: usize| {
        let bits = (start..(start + 8).min(count)).filter(|at| bit(first + at));
        bits.fold(0_u8, |byte, at| byte | 1 << (at % 8))
    };
    (0..count).step_by(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(function: Function, address: u16, count: u16) -> Poll {
        let every = Duration::from_secs(1);
        Poll { name: String::new(), function, address, count, every, fixed: false, movable: false }
    }

    /// `function address+count: polls` of each block.
    fn check(polls: &[Poll], join: bool, expected: &[&str]) {
        let row = |block: &Block| {
            let polls: Vec<usize> = block.polls().collect();
            format!("{} {}+{}: {polls:?}", block.function.code(), block.address, block.count)
        };
        assert_eq!(plan(polls, None, join).iter().map(row).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn neighbours_travel_together_and_strangers_do_not() {
        use Function::{ReadDiscreteInputs as Bits, ReadInputRegisters as Words};
        let polls =
            [poll(Words, 0x0C, 2), poll(Words, 0, 2), poll(Words, 0x46, 2), poll(Bits, 0, 8), poll(Words, 6, 2)];
        check(&polls, true, &["2 0+8: [3]", "4 70+2: [2]", "4 0+14: [1, 4, 0]"]);
        check(&polls, false, &["2 0+8: [3]", "4 12+2: [0]", "4 0+2: [1]", "4 70+2: [2]", "4 6+2: [4]"]);
        let mut fixed = [poll(Words, 0, 2), poll(Words, 2, 2), poll(Words, 4, 2)];
        fixed[1].fixed = true;
        check(&fixed, true, &["4 2+2: [1]", "4 0+6: [0, 2]"]);
        fixed[2].every *= 2;
        check(&fixed, true, &["4 0+2: [0]", "4 4+2: [2]", "4 2+2: [1]"]);
        check(&[poll(Words, 0, 120), poll(Words, 120, 10)], true, &["4 120+10: [1]", "4 0+120: [0]"]);
    }

    #[test]
    fn each_poll_gets_its_own_data() {
        use Function::{ReadDiscreteInputs as Bits, ReadHoldingRegisters as Words};
        let [block] = &plan(&[poll(Words, 4, 1), poll(Words, 0, 2)], None, true)[..] else { panic!("not one block") };
        assert_eq!(block.split(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), [(1, vec![0, 1, 2, 3]), (0, vec![8, 9])]);
        let [block] = &plan(&[poll(Bits, 0, 3), poll(Bits, 5, 10)], None, true)[..] else { panic!("not one block") };
        assert_eq!(block.split(&[0b1010_0101, 0b0111_0011]), [(0, vec![0b101]), (1, vec![0b1001_1101, 0b11])]);
    }
}
