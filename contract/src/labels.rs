//! What stands on the outside of a batch: MQTT 5 Correlation Data, written when the batch is *sent*.

use std::fmt;

use minicbor::{Decoder, Encoder};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::time::Timestamp;

/// The format number of labels and receipts of this contract.
pub const FORMAT: u8 = 1;

/// One life of a spool, a random number. A new one begins when the old can no longer be continued.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epoch(u64);

impl Epoch {
    /// From a number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// A new life.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

impl std::str::FromStr for Epoch {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl TryFrom<String> for Epoch {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Epoch> for String {
    fn from(epoch: Epoch) -> Self {
        epoch.to_string()
    }
}

/// The two queues of a spool. A call never waits behind routine data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Calls, smoke, gas, device-reported falls: synced and sent at once.
    Urgent,
    /// Everything else: batched by time and size.
    Routine,
}

impl Lane {
    /// Both, the more pressing first.
    pub const ALL: [Self; 2] = [Self::Urgent, Self::Routine];

    /// The word used in topics and in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Routine => "routine",
        }
    }

    /// The number used in labels, receipts and digests.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Urgent => 0,
            Self::Routine => 1,
        }
    }

    /// Reads [`Self::code`].
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.code() == code)
    }

    /// Reads [`Self::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == word)
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The labels of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Which life of the spool.
    pub epoch: Epoch,
    /// Which queue.
    pub lane: Lane,
    /// The batch's number in its lane, from 0.
    pub seq: u64,
    /// The lowest batch the gateway still has; never above `seq`.
    pub base: u64,
    /// The digest of batch `seq - 1`, or [`Digest::ORIGIN`] for batch 0.
    pub prev: Digest,
    /// All event times before it have been sent in this or earlier batches of either lane. Never goes back within an
    /// epoch; [`Timestamp::MIN`] while the gateway cannot say.
    pub complete_to: Timestamp,
}

/// Why bytes are not labels or a receipt.
#[derive(Debug, thiserror::Error)]
pub enum LabelsError {
    /// Not the CBOR array that was expected.
    #[error("failed to read labels")]
    Cbor(#[from] minicbor::decode::Error),
    /// A later contract.
    #[error("labels have format {0}, this program knows format {FORMAT}")]
    Format(u8),
    /// A field holds what it cannot hold.
    #[error("labels hold an impossible {0}")]
    Field(&'static str),
}

impl Labels {
    /// The bytes for MQTT 5 Correlation Data: a CBOR array of format, epoch, lane, seq, base, prev, complete_to.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(72));
        let write = |e: &mut Encoder<Vec<u8>>| -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
            e.array(7)?.u8(FORMAT)?.u64(self.epoch.get())?.u8(self.lane.code())?.u64(self.seq)?.u64(self.base)?;
            e.bytes(self.prev.as_bytes())?.i64(self.complete_to.millis())?;
            Ok(())
        };
        write(&mut e).expect("a Vec takes every byte");
        e.into_writer()
    }

    /// Reads [`Self::encode`]'s bytes. Never panics. Later formats may append fields; these are passed over.
    pub fn decode(bytes: &[u8]) -> Result<Self, LabelsError> {
        let mut d = Decoder::new(bytes);
        let fields = d.array()?.ok_or(LabelsError::Field("length"))?;
        let format = d.u8()?;
        if format != FORMAT {
            return Err(LabelsError::Format(format));
        }
        if fields < 7 {
            return Err(LabelsError::Field("length"));
        }
        let labels = Self {
            epoch: Epoch::new(d.u64()?),
            lane: Lane::from_code(d.u8()?).ok_or(LabelsError::Field("lane"))?,
            seq: d.u64()?,
            base: d.u64()?,
            prev: Digest::from_slice(d.bytes()?).ok_or(LabelsError::Field("prev"))?,
            complete_to: Timestamp::from_millis(d.i64()?),
        };
        if labels.base > labels.seq {
            return Err(LabelsError::Field("base above seq"));
        }
        if labels.seq == u64::MAX {
            return Err(LabelsError::Field("seq"));
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::Receipt;

    fn sample() -> Labels {
        Labels {
            epoch: Epoch::new(0x0123_4567_89ab_cdef),
            lane: Lane::Routine,
            seq: 41,
            base: 7,
            prev: Digest::of_bytes(b"before"),
            complete_to: Timestamp::from_millis(1_772_403_300_250),
        }
    }

    #[test]
    fn labels_and_receipts_are_read_for_ever() {
        assert_eq!(Labels::decode(include_bytes!("../golden/labels-1.cbor")).unwrap(), sample());
        assert_eq!(sample().encode(), include_bytes!("../golden/labels-1.cbor"));
        let receipt = Receipt {
            epoch: sample().epoch,
            lane: Lane::Urgent,
            next: 42,
            digest: Digest::of_bytes(b"batch 41"),
            centre_time: Timestamp::from_millis(1_772_403_301_000),
        };
        assert_eq!(Receipt::decode(include_bytes!("../golden/receipt-1.cbor")).unwrap(), receipt);
        assert_eq!(receipt.encode(), include_bytes!("../golden/receipt-1.cbor"));
    }

    #[test]
    fn impossible_labels_are_refused() {
        let bad = Labels { base: 42, ..sample() };
        assert!(matches!(Labels::decode(&bad.encode()), Err(LabelsError::Field("base above seq"))));
        let mut later = sample().encode();
        later[1] = 2;
        assert!(matches!(Labels::decode(&later), Err(LabelsError::Format(2))));
        assert!(Labels::decode(&[]).is_err());
    }

    #[test]
    fn a_digest_changes_with_everything_it_covers() {
        let l = sample();
        let of = |seq, prev, kind, bytes: &[u8]| Digest::of_batch(l.epoch, l.lane, seq, prev, kind, bytes);
        let digest = of(1, l.prev, "a", b"x");
        for other in [
            of(2, l.prev, "a", b"x"),
            of(1, Digest::ORIGIN, "a", b"x"),
            of(1, l.prev, "b", b"x"),
            of(1, l.prev, "a", b"y"),
        ] {
            assert_ne!(digest, other);
        }
    }
}
