//! Frames on a stream of bytes: where one begins and ends, what protects it, and how one is built.
//!
//! A frame is found by its first bytes and its length field, then every fixed byte and every checksum must hold. The end
//! mark is never searched for: its bytes occur inside data. After a header that leads nowhere the search goes on one byte
//! later, so that noise costs at most itself. The same description builds the frames that are sent.

mod checksum;
mod scan;

pub use checksum::Checksum;
pub use scan::{Scanner, Seen};
use serde::{Deserialize, Serialize};

/// Longest frame any profile may describe; it bounds what a scanner keeps. TinyFrame's data may be 1024 bytes long.
pub const FRAME_LENGTH_MAX: usize = 2_048;

/// The order in which the bytes of a number of four bytes ABCD (A the highest) stand on the wire. Of a number of two
/// bytes, `abcd` and `cdab` mean high byte first, the others low byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// High byte first.
    #[default]
    Abcd,
    /// Low word first, each word high byte first.
    Cdab,
    /// High word first, each word low byte first.
    Badc,
    /// Low byte first.
    Dcba,
}

impl Order {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Abcd, Self::Cdab, Self::Badc, Self::Dcba];

    /// Its word in profiles.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Abcd => "abcd",
            Self::Cdab => "cdab",
            Self::Badc => "badc",
            Self::Dcba => "dcba",
        }
    }

    /// The bytes with the highest first.
    #[must_use]
    pub fn sorted(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Abcd => bytes.to_vec(),
            Self::Dcba => bytes.iter().rev().copied().collect(),
            Self::Cdab => bytes.chunks(2).rev().flatten().copied().collect(),
            Self::Badc => bytes.chunks(2).flat_map(|word| word.iter().rev()).copied().collect(),
        }
    }
}

/// A place in a frame: from its start, or, when negative, from its end.
pub type Place = i16;

/// How a number of the header stands in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Width {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four hex digits as text.
    Hex4,
}

impl Width {
    const fn length(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::Hex4 => 4,
        }
    }
}

/// What says how long a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// A field of the header.
    Field {
        /// Where it stands.
        at: usize,
        /// How it stands there.
        width: Width,
        /// Its byte order.
        order: Order,
        /// Whole frame minus the field's value.
        add: usize,
        /// Length of the whole frame when the field is zero, where that form lacks the data checksum.
        empty: Option<usize>,
    },
    /// Every frame is this long.
    Fixed(usize),
    /// It ends with these bytes, which occur nowhere else in it: lines of text.
    Until(Vec<u8>),
}

/// A checksum of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Which sum.
    pub kind: Checksum,
    /// Where it stands.
    pub at: Place,
    /// First byte it covers.
    pub from: Place,
    /// First byte after those it covers.
    pub to: Place,
    /// Its byte order.
    pub order: Order,
}

/// How the frames of one kind look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framing {
    /// Its name within the profile.
    pub name: String,
    /// First bytes of every frame.
    pub start: Vec<u8>,
    /// Sent before a frame to wake the other side; not part of it, and skipped in silence before one that comes.
    pub preamble: Vec<u8>,
    /// How long a frame is.
    pub extent: Extent,
    /// Longest frame; a longer one is noise.
    pub length_max: usize,
    /// Bytes that every frame has at a place.
    pub fixed: Vec<(Place, Vec<u8>)>,
    /// What protects a frame.
    pub checks: Vec<Check>,
    /// Where the bytes stand that say what the frame is about, and how many; none when frames are all alike.
    pub key: Option<(usize, usize)>,
    /// Where the device's address stands, and its length in bytes: packed decimal digits, low byte first.
    pub address: Option<(usize, usize)>,
    /// First byte of the data.
    pub data_from: usize,
    /// Bytes after the data.
    pub data_after: usize,
    /// Added to every data byte on the wire (DL/T 645: 0x33).
    pub plus: u8,
    /// Byte order of numbers in the data, unless a field says otherwise.
    pub order: Order,
}

/// One frame, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Index into the profile's framings.
    pub framing: usize,
    /// The whole frame as it stood on the wire, without preamble.
    pub raw: Vec<u8>,
    /// What it is about.
    pub key: Vec<u8>,
    /// Who sent it, as decimal digits.
    pub address: Option<String>,
    /// What it says, without what [`Framing::plus`] added.
    pub data: Vec<u8>,
}

/// Why a frame cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The key has another length than the framing's.
    #[error("a key of {expected} bytes is needed, {found} are given")]
    Key {
        /// As the framing says.
        expected: usize,
        /// As given.
        found: usize,
    },
    /// No address was given, or one that does not fit.
    #[error("address {0:?} is not made of the framing's number of decimal digits")]
    Address(String),
    /// The frame would be longer than allowed, or than its length field can say.
    #[error("{0} bytes are too long for a frame")]
    Length(usize),
    /// The engine never sends this.
    #[error("it is never sent: {0}")]
    Denied(String),
}

impl Framing {
    /// Where a place lies in a frame of `total` bytes; none outside of it.
    fn resolve(place: Place, total: usize) -> Option<usize> {
        let at = if place < 0 {
            total.checked_sub(usize::from(place.unsigned_abs()))?
        } else {
            usize::from(place.unsigned_abs())
        };
        (at <= total).then_some(at)
    }

    /// Whether a frame of `total` bytes is the form that has no data and no data checksum.
    fn is_empty_form(&self, total: usize) -> bool {
        matches!(self.extent, Extent::Field { empty: Some(empty), .. } if empty == total)
    }

    /// The data of a whole frame.
    fn data<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let to = frame.len().saturating_sub(self.data_after);
        frame.get(self.data_from..to).unwrap_or_default()
    }

    /// The address as it stands on the wire.
    ///
    /// Fewer digits than the field holds are filled up with zeros on the left; `A` is allowed, because broadcast
    /// addresses are written with it.
    pub fn address_bytes(&self, address: &str) -> Result<Vec<u8>, BuildError> {
        let wrong = || BuildError::Address(address.to_owned());
        let Some((_, length)) = self.address else { return Ok(Vec::new()) };
        let well = |c: char| c.is_ascii_digit() || c == 'A' || c == 'a';
        if address.is_empty() || address.len() > 2 * length || !address.chars().all(well) {
            return Err(wrong());
        }
        let digits = format!("{address:0>width$}", width = 2 * length);
        let mut bytes = crate::hex::Hex::parse(&digits).ok_or_else(wrong)?.0;
        bytes.reverse();
        Ok(bytes)
    }

    /// Builds a frame, without preamble. Whether it may be sent is not judged here: see [`crate::deny`].
    pub fn build(&self, address: Option<&str>, key: &[u8], data: &[u8]) -> Result<Vec<u8>, BuildError> {
        let expected = self.key.map_or(0, |(_, length)| length);
        if key.len() != expected {
            return Err(BuildError::Key { expected, found: key.len() });
        }
        let total = match &self.extent {
            Extent::Field { empty: Some(empty), .. } if data.is_empty() => *empty,
            Extent::Fixed(total) => *total,
            _ => self.data_from + data.len() + self.data_after,
        };
        if total > self.length_max || total < self.data_from {
            return Err(BuildError::Length(total));
        }
        let mut frame = vec![0; total];
        let put = |frame: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            for (place, byte) in frame.iter_mut().skip(at).zip(bytes) {
                *place = *byte;
            }
        };
        put(&mut frame, 0, &self.start);
        for (place, bytes) in &self.fixed {
            match Self::resolve(*place, total) {
                Some(at) if *place >= 0 || !self.is_empty_form(total) => put(&mut frame, at, bytes),
                _ => {}
            }
        }
        if let Some((at, _)) = self.address {
            put(&mut frame, at, &self.address_bytes(address.unwrap_or_default())?);
        }
        if let Some((at, _)) = self.key {
            put(&mut frame, at, key);
        }
        let data: Vec<u8> = data.iter().map(|byte| byte.wrapping_add(self.plus)).collect();
        put(&mut frame, self.data_from, &data);
        match &self.extent {
            Extent::Field { at, width, order, add, .. } => {
                let value = if self.is_empty_form(total) { Some(0) } else { total.checked_sub(*add) };
                let value = value.and_then(|value| u16::try_from(value).ok()).ok_or(BuildError::Length(total))?;
                let bytes = match width {
                    Width::U8 => vec![u8::try_from(value).map_err(|_| BuildError::Length(total))?],
                    Width::U16 => order.sorted(&value.to_be_bytes()),
                    Width::Hex4 => format!("{value:04X}").into_bytes(),
                };
                put(&mut frame, *at, &bytes);
            }
            Extent::Until(end) => put(&mut frame, total - end.len().min(total), end),
            Extent::Fixed(_) => {}
        }
        for check in &self.checks {
            if check.at < 0 && self.is_empty_form(total) {
                continue;
            }
            let range = Self::resolve(check.from, total).zip(Self::resolve(check.to, total));
            let covered = range.and_then(|(from, to)| frame.get(from..to)).unwrap_or_default();
            let sum = check.kind.of(covered, check.order);
            if let Some(at) = Self::resolve(check.at, total) {
                put(&mut frame, at, &sum);
            }
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests;
