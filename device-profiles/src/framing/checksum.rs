//! The sums by which devices protect a frame.

use serde::{Deserialize, Serialize};

use super::Order;
use crate::modbus::crc16_from;

/// A kind of sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    /// Low byte of the sum (MicRadar, DL/T 645, CJ/T 188).
    Sum8,
    /// Exclusive or.
    Xor8,
    /// Complement of the exclusive or (TinyFrame).
    NotXor8,
    /// CRC-16/MODBUS: polynomial 0xA001 reflected, start 0xFFFF.
    Crc16Modbus,
    /// CRC-16/ARC: polynomial 0xA001 reflected, start 0.
    Crc16Arc,
    /// CRC-16/ARC as four upper-case hex digits (SIA DC-09).
    Crc16ArcHex,
}

impl Checksum {
    /// How many bytes it takes in a frame.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Sum8 | Self::Xor8 | Self::NotXor8 => 1,
            Self::Crc16Modbus | Self::Crc16Arc => 2,
            Self::Crc16ArcHex => 4,
        }
    }

    /// The sum over `bytes` as it stands in a frame.
    #[must_use]
    pub fn of(self, bytes: &[u8], order: Order) -> Vec<u8> {
        let word = |crc: u16| if order == Order::Abcd { crc.to_be_bytes() } else { crc.to_le_bytes() }.to_vec();
        let xor = || bytes.iter().fold(0, |xor, byte| xor ^ byte);
        match self {
            Self::Sum8 => vec![bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte))],
            Self::Xor8 => vec![xor()],
            Self::NotXor8 => vec![!xor()],
            Self::Crc16Modbus => word(crc16_from(0xFFFF, bytes)),
            Self::Crc16Arc => word(crc16_from(0, bytes)),
            Self::Crc16ArcHex => format!("{:04X}", crc16_from(0, bytes)).into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values of the CRC catalogue over "123456789", and sums that can be done by hand.
    #[test]
    fn known_values() {
        let digits = b"123456789";
        let cases: &[(Checksum, &[u8])] = &[
            (Checksum::Crc16Modbus, &[0x37, 0x4B]),
            (Checksum::Crc16Arc, &[0x3D, 0xBB]),
            (Checksum::Crc16ArcHex, b"BB3D"),
            (Checksum::Sum8, &[0xDD]),
            (Checksum::Xor8, &[0x31]),
            (Checksum::NotXor8, &[0xCE]),
        ];
        for (kind, expected) in cases {
            assert_eq!(kind.of(digits, Order::Dcba), *expected, "{kind:?}");
            assert_eq!(kind.length(), expected.len());
        }
        assert_eq!(Checksum::Crc16Modbus.of(digits, Order::Abcd), [0x4B, 0x37]);
    }
}
