//! Modbus as bytes: requests, answers, and the RTU frame with its CRC (Modbus Application Protocol V1.1b3; Modbus over
//! Serial Line V1.02). Pure: it neither waits nor sends.

use serde::{Deserialize, Serialize};

pub use crate::reject::Reject;

/// Most bits one read may ask for (Application Protocol 6.1, 6.2).
pub const BITS_MAX: u16 = 2_000;
/// Most registers one read may ask for (Application Protocol 6.3, 6.4).
pub const REGISTERS_MAX: u16 = 125;

/// What a poll group reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// 01
    ReadCoils,
    /// 02
    ReadDiscreteInputs,
    /// 03
    ReadHoldingRegisters,
    /// 04
    ReadInputRegisters,
}

impl Function {
    /// The function code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::ReadCoils => 1,
            Self::ReadDiscreteInputs => 2,
            Self::ReadHoldingRegisters => 3,
            Self::ReadInputRegisters => 4,
        }
    }

    /// Whether it reads single bits, not registers.
    #[must_use]
    pub const fn is_bits(self) -> bool {
        matches!(self, Self::ReadCoils | Self::ReadDiscreteInputs)
    }

    /// Most items one request may ask for.
    #[must_use]
    pub const fn count_max(self) -> u16 {
        if self.is_bits() { BITS_MAX } else { REGISTERS_MAX }
    }

    /// How many data bytes answer a request for `count` items.
    #[must_use]
    pub const fn answer_length(self, count: u16) -> usize {
        if self.is_bits() { (count as usize).div_ceil(8) } else { count as usize * 2 }
    }
}

/// One request that carebed makes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// Read `count` items from `address`.
    Read {
        /// What to read.
        function: Function,
        /// The first item.
        address: u16,
        /// How many.
        count: u16,
    },
    /// Set one coil (function 05).
    WriteCoil {
        /// Which.
        address: u16,
        /// On or off.
        value: bool,
    },
    /// Set one holding register (function 06).
    WriteRegister {
        /// Which.
        address: u16,
        /// To what.
        value: u16,
    },
}

impl Request {
    /// The protocol data unit: function code and data.
    #[must_use]
    pub fn pdu(self) -> [u8; 5] {
        let (code, address, word) = match self {
            Self::Read { function, address, count } => (function.code(), address, count),
            Self::WriteCoil { address, value } => (5, address, if value { 0xFF00 } else { 0 }),
            Self::WriteRegister { address, value } => (6, address, value),
        };
        let ([a, b], [c, d]) = (address.to_be_bytes(), word.to_be_bytes());
        [code, a, b, c, d]
    }

    /// The data of the answer, when `pdu` answers exactly this request: same function, exactly the asked length; for a
    /// write the echo of the request, whose data is empty.
    pub fn answer(self, pdu: &[u8]) -> Result<&[u8], Reject> {
        let asked = self.pdu();
        let code = asked[0];
        match (self, pdu) {
            (_, [exception, reason]) if *exception == code | 0x80 => Err(Reject::Exception(*reason)),
            (_, [other, ..]) if *other != code => Err(Reject::Function { asked: code, answered: *other }),
            (Self::Read { function, count, .. }, [_, length, data @ ..]) => {
                let expected = function.answer_length(count);
                if usize::from(*length) == expected && data.len() == expected {
                    Ok(data)
                } else {
                    Err(Reject::Length { expected, found: data.len() })
                }
            }
            (Self::WriteCoil { .. } | Self::WriteRegister { .. }, _) if pdu == asked => Ok(&[]),
            (Self::WriteCoil { .. } | Self::WriteRegister { .. }, _) => Err(Reject::Echo),
            _ => Err(Reject::Length { expected: 2, found: pdu.len() }),
        }
    }
}

/// CRC-16 as Modbus RTU has it (polynomial 0xA001 reflected, start 0xFFFF); low byte first on the wire.
#[must_use]
pub fn crc16(bytes: &[u8]) -> u16 {
    crc16_from(0xFFFF, bytes)
}

/// The same polynomial from another start: 0 makes it CRC-16/ARC.
pub(crate) fn crc16_from(start: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xA001 } else { crc >> 1 })
    })
}

/// An RTU frame around a protocol data unit.
#[must_use]
pub fn rtu_frame(unit: u8, pdu: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(pdu.len() + 3);
    frame.push(unit);
    frame.extend_from_slice(pdu);
    frame.extend_from_slice(&crc16(&frame).to_le_bytes());
    frame
}

/// The protocol data unit of a whole RTU frame from `unit`.
pub fn rtu_pdu(unit: u8, frame: &[u8]) -> Result<&[u8], Reject> {
    let Some((body, crc)) = frame.split_last_chunk::<2>().filter(|(body, _)| body.len() >= 2) else {
        return Err(Reject::Short(frame.len()));
    };
    if crc16(body) != u16::from_le_bytes(*crc) {
        return Err(Reject::Checksum);
    }
    match body {
        [answered, pdu @ ..] if *answered == unit => Ok(pdu),
        [answered, ..] => Err(Reject::Unit { asked: unit, answered: *answered }),
        [] => Err(Reject::Short(frame.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READ: Request = Request::Read { function: Function::ReadDiscreteInputs, address: 0, count: 8 };

    #[test]
    fn only_the_exact_answer_is_taken() {
        type Case = (&'static [u8], Result<&'static [u8], Reject>);
        let cases: &[Case] = &[
            (&[2, 1, 0x20], Ok(&[0x20])),
            (&[0x82, 2], Err(Reject::Exception(2))),
            (&[1, 1, 0x20], Err(Reject::Function { asked: 2, answered: 1 })),
            (&[2, 2, 0x20, 0], Err(Reject::Length { expected: 1, found: 2 })),
            (&[2, 1, 0x20, 0], Err(Reject::Length { expected: 1, found: 2 })),
            (&[2, 1], Err(Reject::Length { expected: 1, found: 0 })),
            (&[2], Err(Reject::Length { expected: 2, found: 1 })),
            (&[], Err(Reject::Length { expected: 2, found: 0 })),
        ];
        for (pdu, expected) in cases {
            assert_eq!(&READ.answer(pdu), expected, "{pdu:02x?}");
        }
        let write = Request::WriteCoil { address: 3, value: true };
        assert_eq!(write.answer(&[5, 0, 3, 0xFF, 0]), Ok(&[][..]));
        assert_eq!(write.answer(&[5, 0, 3, 0, 0]), Err(Reject::Echo));
    }

    proptest! {
        #[test]
        fn a_frame_reads_back_and_one_flipped_bit_is_found(unit in 1_u8..248, data in proptest::collection::vec(any::<u8>(), 1..40), bit in any::<proptest::sample::Index>()) {
            let mut frame = rtu_frame(unit, &data);
            prop_assert_eq!(rtu_pdu(unit, &frame), Ok(&data[..]));
            let bit = bit.index(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(rtu_pdu(unit, &frame), Err(Reject::Checksum));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _rejected = rtu_pdu(1, &bytes).and_then(|pdu| READ.answer(pdu));
            let _rejected = READ.answer(&bytes);
        }
    }
}
