//! A digital input board as Waveshare's Modbus RTU IO 8CH and its Ethernet sister: eight inputs, eight outputs.
//!
//! Pure: a request's protocol data unit in, the answer's out, as the vendor's wiki documents the registers. Functions
//! and addresses that the board does not have are answered with the Modbus exceptions for them.

use std::ops::Range;

/// Inputs on the board.
pub const INPUTS: usize = 8;
/// Outputs (coils) on the board.
pub const OUTPUTS: usize = 8;

/// The output address that means all outputs at once.
const ALL_OUTPUTS: u16 = 0x00FF;

/// Levels of inputs and outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Board {
    /// What the input circuits feel.
    pub inputs: [bool; INPUTS],
    /// What the outputs are switched to.
    pub outputs: [bool; OUTPUTS],
}

/// What the board says to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer's protocol data unit.
    pub pdu: Vec<u8>,
    /// Which inputs it tells the level of.
    pub told: Range<usize>,
}

/// What of a request the board does not have, as Modbus exception codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Illegal {
    Function = 1,
    Address = 2,
    Value = 3,
}

impl Board {
    /// Answers one request's protocol data unit (function code and data). None for an empty one.
    pub fn answer(&mut self, request: &[u8]) -> Option<Answer> {
        let (&function, data) = request.split_first()?;
        let mut told = 0..0;
        let result = match function {
            1 => range(data, OUTPUTS).map(|range| bits(function, &self.outputs, range)),
            2 => range(data, INPUTS).map(|range| {
                told = range.clone();
                bits(function, &self.inputs, range)
            }),
            5 => self.switch(data).map(|()| request.to_vec()),
            15 => self.switch_many(data).map(|()| request.iter().take(5).copied().collect()),
            _ => Err(Illegal::Function),
        };
        let pdu = result.unwrap_or_else(|exception| vec![function | 0x80, exception as u8]);
        Some(Answer { pdu, told })
    }

    /// Writes one output, or all of them: address, then FF00 for on or 0000 for off.
    fn switch(&mut self, data: &[u8]) -> Result<(), Illegal> {
        let [address, value] = words(data).ok_or(Illegal::Value)?;
        let on = match value {
            0xFF00 => true,
            0x0000 => false,
            _ => return Err(Illegal::Value),
        };
        if address == ALL_OUTPUTS {
            self.outputs = [on; OUTPUTS];
            return Ok(());
        }
        *self.outputs.get_mut(usize::from(address)).ok_or(Illegal::Address)? = on;
        Ok(())
    }

    /// Writes several outputs: address, count, byte count, bits with the first in the lowest place.
    fn switch_many(&mut self, data: &[u8]) -> Result<(), Illegal> {
        let (head, rest) = data.split_at_checked(4).ok_or(Illegal::Value)?;
        let range = range(head, OUTPUTS)?;
        // Eight outputs are one byte.
        let [1, levels] = rest else { return Err(Illegal::Value) };
        for (place, output) in self.outputs.get_mut(range).into_iter().flatten().enumerate() {
            *output = levels >> place & 1 == 1;
        }
        Ok(())
    }
}

fn words(data: &[u8]) -> Option<[u16; 2]> {
    let [a, b, c, d] = data else { return None };
    Some([u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])])
}

/// Reads address and count, and checks them against what the board has.
fn range(data: &[u8], has: usize) -> Result<Range<usize>, Illegal> {
    let [address, count] = words(data).ok_or(Illegal::Value)?;
    let range = usize::from(address)..usize::from(address) + usize::from(count);
    match range {
        _ if count == 0 => Err(Illegal::Value),
        range if range.end > has => Err(Illegal::Address),
        range => Ok(range),
    }
}

/// Function, byte count, bits with the first in the lowest place. At most eight, so one byte.
fn bits(function: u8, levels: &[bool], range: Range<usize>) -> Vec<u8> {
    let levels = levels.get(range).unwrap_or_default();
    let byte = levels.iter().enumerate().fold(0, |byte, (place, on)| byte | u8::from(*on) << place);
    vec![function, 1, byte]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published frames of the board without unit id and checksum, and what else the protocol says.
    #[test]
    fn answers_as_the_board_does() {
        let read = |function: u8, address: u8, count: u8| vec![function, 0, address, 0, count];
        let mut board = Board::default();
        board.inputs[5] = true;
        for (request, answer, told) in [
            (read(2, 0, 8), vec![2, 1, 0x20], 0..8),
            (read(2, 5, 1), vec![2, 1, 1], 5..6),
            (read(2, 6, 2), vec![2, 1, 0], 6..8),
            (read(2, 0, 9), vec![0x82, 2], 0..0),
            (read(2, 8, 1), vec![0x82, 2], 0..0),
            (read(2, 0, 0), vec![0x82, 3], 0..0),
            (vec![2, 0xFF, 0xFF, 0xFF, 0xFF], vec![0x82, 2], 0..0),
            (vec![2, 0], vec![0x82, 3], 0..0),
            (read(1, 0, 8), vec![1, 1, 0], 0..0),
            (vec![5, 0, 0, 0xFF, 0], vec![5, 0, 0, 0xFF, 0], 0..0),
            (read(1, 0, 8), vec![1, 1, 1], 0..0),
            (vec![5, 0, 8, 0xFF, 0], vec![0x85, 2], 0..0),
            (vec![5, 0, 1, 0x12, 0x34], vec![0x85, 3], 0..0),
            (vec![15, 0, 1, 0, 3, 1, 0b101], vec![15, 0, 1, 0, 3], 0..0),
            (read(1, 0, 8), vec![1, 1, 0b1011], 0..0),
            (vec![15, 0, 1, 0, 8, 1, 0], vec![0x8F, 2], 0..0),
            (vec![15, 0, 1, 0, 3, 2, 0, 0], vec![0x8F, 3], 0..0),
            (vec![5, 0, 0xFF, 0, 0], vec![5, 0, 0xFF, 0, 0], 0..0),
            (read(1, 0, 8), vec![1, 1, 0], 0..0),
            (read(3, 0, 1), vec![0x83, 1], 0..0),
        ] {
            assert_eq!(board.answer(&request), Some(Answer { pdu: answer, told }), "to {request:02X?}");
        }
        assert_eq!(board.answer(&[]), None);
    }
}
