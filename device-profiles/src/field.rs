//! Where one value stands, and how its raw form is read: in the bytes of a frame or a register block, or in a document.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::framing::Order;

/// How a value stands in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// Unsigned, one byte.
    U8,
    /// Unsigned, two bytes.
    U16,
    /// Unsigned, four bytes.
    U32,
    /// Unsigned, eight bytes.
    U64,
    /// Two's complement, one byte.
    S8,
    /// Two's complement, two bytes.
    S16,
    /// Two's complement, four bytes.
    S32,
    /// Sign and magnitude, two bytes: bit 15 is the minus (MicRadar positions).
    Sm16,
    /// IEEE 754, four bytes.
    F32,
    /// IEEE 754, eight bytes.
    F64,
    /// Packed decimal digits, `size` bytes.
    Bcd,
    /// ASCII text, `size` bytes, or to the end; zeros and blanks around it are left out.
    Text,
}

impl Type {
    /// How many bytes it takes; none when the profile says so.
    #[must_use]
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::S8 => Some(1),
            Self::U16 | Self::S16 | Self::Sm16 => Some(2),
            Self::U32 | Self::S32 | Self::F32 => Some(4),
            Self::U64 | Self::F64 => Some(8),
            Self::Bcd | Self::Text => None,
        }
    }

    /// Reads the value from exactly its bytes.
    #[must_use]
    pub fn read(self, bytes: &[u8], order: Order) -> Raw {
        let sorted = order.sorted(bytes);
        let unsigned = sorted.iter().take(8).fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let integer = |value: u64| Raw::Integer(i128::from(value));
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => integer(unsigned),
            Self::S8 => Raw::Integer(signed(unsigned, 8)),
            Self::S16 => Raw::Integer(signed(unsigned, 16)),
            Self::S32 => Raw::Integer(signed(unsigned, 32)),
            Self::Sm16 => {
                let magnitude = i128::from(unsigned & 0x7FFF);
                Raw::Integer(if unsigned & 0x8000 == 0 { magnitude } else { -magnitude })
            }
            Self::F32 => Raw::Float(shortest(f32::from_bits(u32::try_from(unsigned).unwrap_or(u32::MAX)))),
            Self::F64 => Raw::Float(f64::from_bits(unsigned)),
            Self::Bcd => bcd(&sorted),
            Self::Text => {
                let text = String::from_utf8_lossy(bytes);
                Raw::Word(text.trim_matches(|c: char| c == '\0' || c.is_whitespace()).to_owned())
            }
        }
    }
}

/// As a person would write it: 20.3, not 20.299999237060547.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::NAN)
}

fn signed(value: u64, bits: u32) -> i128 {
    let value = i128::from(value);
    if value >> (bits - 1) & 1 == 1 { value - (1 << bits) } else { value }
}

fn bcd(sorted: &[u8]) -> Raw {
    let digits = sorted.iter().take(16).flat_map(|byte| [byte >> 4, byte & 0xF]);
    let value =
        digits.into_iter().try_fold(0_i128, |value, digit| (digit < 10).then(|| value * 10 + i128::from(digit)));
    value.map_or(Raw::Unreadable("not_bcd"), Raw::Integer)
}

/// A value as it stood on the wire, before scale and meaning.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw {
    /// A whole number.
    Integer(i128),
    /// A fraction.
    Float(f64),
    /// A bit, or a boolean of a document.
    Flag(bool),
    /// A word.
    Word(String),
    /// It stands there, but is none of its type; the reason.
    Unreadable(&'static str),
}

impl Raw {
    /// Whether it is the literal that a profile wrote: a number in decimal or as `0x…`, `true`, `false`, or a word.
    #[must_use]
    pub fn is(&self, literal: &str) -> bool {
        match self {
            Self::Integer(value) => integer(literal) == Some(*value),
            // Sentinels are exact bit patterns, not measurements.
            Self::Float(value) => literal.parse() == Ok(*value),
            Self::Flag(flag) => literal == if *flag { "true" } else { "false" },
            Self::Word(word) => {
                let number = |text: &str| text.trim().parse::<f64>().ok();
                word == literal || number(word).is_some_and(|value| number(literal) == Some(value))
            }
            Self::Unreadable(_) => false,
        }
    }
}

fn integer(text: &str) -> Option<i128> {
    match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Where a value stands in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The n-th bit, as Modbus packs bits: lowest bit of the first byte first.
    Bit(usize),
    /// A value of a type.
    Bytes {
        /// First byte.
        at: usize,
        /// How it stands there.
        kind: Type,
        /// How many bytes; none: all that follow.
        size: Option<usize>,
        /// Their order.
        order: Order,
        /// Of an integer, only this bit …
        bit: Option<u32>,
        /// … or these.
        mask: Option<u64>,
        /// Several values of the type, one after the other, taken evenly over this time until the frame.
        samples: Option<(usize, Duration)>,
    },
    /// A value in a document.
    Path {
        /// The keys that lead to it.
        keys: Vec<String>,
        /// Whether it is a word even when it looks like a number.
        text: bool,
    },
}

impl Field {
    /// The first byte after the value; none when it reaches to the end or does not stand in bytes.
    #[must_use]
    pub fn end(&self) -> Option<usize> {
        match self {
            Self::Bit(bit) => Some(bit / 8 + 1),
            Self::Bytes { at, size, samples, .. } => Some(at + size.as_ref()? * samples.map_or(1, |(count, _)| count)),
            Self::Path { .. } => None,
        }
    }

    /// Reads it from bytes: values with their age. None when the bytes end before it.
    #[must_use]
    pub fn read(&self, data: &[u8]) -> Option<Vec<(Raw, Duration)>> {
        match self {
            Self::Bit(bit) => {
                let byte = data.get(bit / 8)?;
                Some(vec![(Raw::Flag(byte >> (bit % 8) & 1 == 1), Duration::ZERO)])
            }
            Self::Bytes { at, kind, size, order, bit, mask, samples } => {
                let read = |bytes: &[u8]| narrow(kind.read(bytes, *order), *bit, *mask);
                let Some(size) = size else { return Some(vec![(read(data.get(*at..)?), Duration::ZERO)]) };
                let (count, over) = samples.unwrap_or((1, Duration::ZERO));
                let bytes = data.get(*at..at + size * count)?;
                let step = over / u32::try_from(count).unwrap_or(1).max(1);
                let ages = (0..count).rev().map(|left| step * u32::try_from(left).unwrap_or(0));
                Some(bytes.chunks(*size).map(read).zip(ages).collect())
            }
            Self::Path { .. } => None,
        }
    }
}

fn narrow(raw: Raw, bit: Option<u32>, mask: Option<u64>) -> Raw {
    match (raw, bit, mask) {
        (Raw::Integer(value), Some(bit), _) => Raw::Flag(value >> bit & 1 == 1),
        (Raw::Integer(value), None, Some(mask)) => Raw::Integer(value & i128::from(mask)),
        (raw, _, _) => raw,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_in_its_order() {
        use Order::{Abcd, Badc, Cdab, Dcba};
        let cases: &[(Type, Order, &[u8], Raw)] = &[
            (Type::U8, Abcd, &[0xFF], Raw::Integer(255)),
            (Type::S8, Abcd, &[0xFF], Raw::Integer(-1)),
            (Type::U16, Abcd, &[1, 2], Raw::Integer(0x0102)),
            (Type::U16, Dcba, &[1, 2], Raw::Integer(0x0201)),
            (Type::S16, Abcd, &[0xFF, 0x33], Raw::Integer(-205)),
            (Type::Sm16, Abcd, &[0x80, 0x55], Raw::Integer(-85)),
            (Type::Sm16, Abcd, &[0x00, 0x40], Raw::Integer(64)),
            (Type::U32, Abcd, &[1, 2, 3, 4], Raw::Integer(0x0102_0304)),
            (Type::U32, Cdab, &[1, 2, 3, 4], Raw::Integer(0x0304_0102)),
            (Type::U32, Badc, &[1, 2, 3, 4], Raw::Integer(0x0201_0403)),
            (Type::U32, Dcba, &[1, 2, 3, 4], Raw::Integer(0x0403_0201)),
            (Type::S32, Abcd, &[0xFF; 4], Raw::Integer(-1)),
            (Type::U64, Abcd, &[0, 0, 0, 0, 0, 0, 1, 0], Raw::Integer(256)),
            (Type::F32, Abcd, &[0x43, 0x66, 0x33, 0x34], Raw::Float(230.20001)),
            (Type::F32, Dcba, &[0x00, 0x00, 0x90, 0x42], Raw::Float(72.0)),
            (Type::Bcd, Dcba, &[0x78, 0x56, 0x34, 0x12], Raw::Integer(12_345_678)),
            (Type::Bcd, Dcba, &[0x7A, 0x56], Raw::Unreadable("not_bcd")),
            (Type::Text, Abcd, b"G60\0\0", Raw::Word("G60".to_owned())),
        ];
        for (kind, order, bytes, expected) in cases {
            assert_eq!(&kind.read(bytes, *order), expected, "{kind:?} {order:?}");
        }
    }

    #[test]
    fn samples_have_ages_and_short_data_gives_nothing() {
        let field = Field::Bytes {
            at: 1,
            kind: Type::U8,
            size: Some(1),
            order: Order::Abcd,
            bit: None,
            mask: None,
            samples: Some((2, Duration::from_secs(1))),
        };
        let (new, old) = (Duration::ZERO, Duration::from_millis(500));
        assert_eq!(field.read(&[0, 1, 2]), Some(vec![(Raw::Integer(1), old), (Raw::Integer(2), new)]));
        assert_eq!((field.read(&[0, 1]), field.end()), (None, Some(3)));
    }

    #[test]
    fn literals_mean_the_same_however_they_are_written() {
        for (raw, literal, same) in [
            (Raw::Integer(0x7FFF), "0x7FFF", true),
            (Raw::Integer(32767), "32767", true),
            (Raw::Word("0".to_owned()), "0", true),
            (Raw::Word("0.0".to_owned()), "0", true),
            (Raw::Word("---".to_owned()), "---", true),
            (Raw::Flag(true), "true", true),
            (Raw::Flag(true), "1", false),
            (Raw::Float(0.0), "0", true),
            (Raw::Unreadable("x"), "x", false),
        ] {
            assert_eq!(raw.is(literal), same, "{raw:?} {literal}");
        }
    }
}
