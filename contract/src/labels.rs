//! What stands on the outside of a batch: MQTT 5 Correlation Data, written when the batch is *sent*.

use std::fmt;
use std::time::Duration;

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

/// When a batch was sealed, for a pack whose records say only how long before that they were taken: the gateway's clock
/// was not set then. Written when the batch is sent, hence as good as what the gateway knows by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SealedAt {
    /// Then: the gateway learned the time later in the same boot.
    Known(Timestamp),
    /// About then: that boot never learned the time, it lies between what was known before and after it.
    Bounded(Timestamp),
    /// At least so long before the batch was sent; nothing better is known.
    Before(Duration),
}

impl SealedAt {
    const KNOWN: u8 = 0;
    const BOUNDED: u8 = 1;
    const BEFORE: u8 = 2;

    fn fields(self) -> (u8, i64) {
        match self {
            Self::Known(at) => (Self::KNOWN, at.millis()),
            Self::Bounded(at) => (Self::BOUNDED, at.millis()),
            Self::Before(ago) => (Self::BEFORE, i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)),
        }
    }

    fn of_fields(kind: u8, millis: i64) -> Option<Self> {
        let at = Timestamp::from_millis(millis);
        match kind {
            Self::KNOWN => Some(Self::Known(at)),
            Self::BOUNDED => Some(Self::Bounded(at)),
            Self::BEFORE => u64::try_from(millis).ok().map(|ago| Self::Before(Duration::from_millis(ago))),
            _ => None,
        }
    }
}

/// Which batch it is, whatever epoch and number it travels under: a batch that is numbered anew keeps its origin, so that
/// the centre knows it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The run of the gateway's program that took it, a random number. A copied box is another run from its start on.
    pub run: u64,
    /// Its number among the batches which that run took for its lane, from 0.
    pub number: u64,
}

/// Where the urgent lane stands, told along with routine batches: so that a centre that forgot a call learns of it before
/// the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UrgentBase {
    /// The lowest urgent batch the gateway still has; the next number when it has none.
    pub base: u64,
    /// The digest of the batch before it.
    pub prev: Digest,
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
    /// When it was sealed; only for a pack with times relative to that.
    pub sealed: Option<SealedAt>,
    /// Which batch it is; none from a gateway that does not say.
    pub origin: Option<Origin>,
    /// In routine batches of an epoch that had urgent ones: where that lane stands.
    pub urgent: Option<UrgentBase>,
    /// In a routine batch: the gateway stops, and has nothing of this epoch besides this batch.
    pub closes: bool,
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
    /// The labels of a batch of which no more is known: base 0, nothing complete, nothing else said.
    #[must_use]
    pub const fn of(epoch: Epoch, lane: Lane, seq: u64, prev: Digest) -> Self {
        let complete_to = Timestamp::MIN;
        Self { epoch, lane, seq, base: 0, prev, complete_to, sealed: None, origin: None, urgent: None, closes: false }
    }

    /// The bytes for MQTT 5 Correlation Data: a CBOR array of format, epoch, lane, seq, base, prev, complete_to; then, as
    /// far as anything follows, each null where there is nothing: kind and number of [`SealedAt`], run and number of
    /// [`Origin`], base and digest of [`UrgentBase`], and whether it closes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(128));
        let fields = match self {
            Self { urgent: None, closes: false, origin: None, sealed: None, .. } => 7,
            Self { urgent: None, closes: false, origin: None, .. } => 9,
            Self { urgent: None, closes: false, .. } => 11,
            _ => 14,
        };
        let write = |e: &mut Encoder<Vec<u8>>| -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
            e.array(fields)?;
            e.u8(FORMAT)?.u64(self.epoch.get())?.u8(self.lane.code())?.u64(self.seq)?.u64(self.base)?;
            e.bytes(self.prev.as_bytes())?.i64(self.complete_to.millis())?;
            if fields >= 9 {
                let (kind, millis) = self.sealed.map(SealedAt::fields).unzip();
                e.encode(kind)?.encode(millis)?;
            }
            if fields >= 11 {
                e.encode(self.origin.map(|o| o.run))?.encode(self.origin.map(|o| o.number))?;
            }
            if fields >= 14 {
                e.encode(self.urgent.map(|u| u.base))?;
                match &self.urgent {
                    Some(urgent) => e.bytes(urgent.prev.as_bytes())?,
                    None => e.null()?,
                };
                e.bool(self.closes)?;
            }
            Ok(())
        };
        write(&mut e).expect("a Vec takes every byte");
        e.into_writer()
    }

    /// Reads [`Self::encode`]'s bytes. Never panics. Later formats may append fields; these are passed over.
    pub fn decode(bytes: &[u8]) -> Result<Self, LabelsError> {
        let mut d = Decoder::new(bytes);
        let fields = begin(&mut d, 7)?;
        let mut labels = Self {
            epoch: Epoch::new(d.u64()?),
            lane: Lane::from_code(d.u8()?).ok_or(LabelsError::Field("lane"))?,
            seq: d.u64()?,
            base: d.u64()?,
            prev: Digest::from_slice(d.bytes()?).ok_or(LabelsError::Field("prev"))?,
            complete_to: Timestamp::from_millis(d.i64()?),
            ..Self::of(Epoch::new(0), Lane::Urgent, 0, Digest::ORIGIN)
        };
        if fields >= 9 {
            let (kind, millis): (Option<u8>, Option<i64>) = (d.decode()?, d.decode()?);
            // A kind of a later contract is passed over: then the time of reception stands in.
            labels.sealed = kind.zip(millis).and_then(|(kind, millis)| SealedAt::of_fields(kind, millis));
        }
        if fields >= 11 {
            let (run, number): (Option<u64>, Option<u64>) = (d.decode()?, d.decode()?);
            labels.origin = run.zip(number).map(|(run, number)| Origin { run, number });
        }
        if fields >= 14 {
            let (base, prev): (Option<u64>, Option<&minicbor::bytes::ByteSlice>) = (d.decode()?, d.decode()?);
            let prev = prev.map(|bytes| Digest::from_slice(bytes).ok_or(LabelsError::Field("urgent"))).transpose()?;
            labels.urgent = base.zip(prev).map(|(base, prev)| UrgentBase { base, prev });
            labels.closes = d.bool()?;
        }
        if labels.base > labels.seq {
            return Err(LabelsError::Field("base above seq"));
        }
        let beyond = |number| number == Some(u64::MAX);
        if beyond(Some(labels.seq)) || beyond(labels.origin.map(|o| o.number)) {
            return Err(LabelsError::Field("number"));
        }
        Ok(labels)
    }
}

/// Reads the length and the format that labels and receipts begin with. Returns how many fields there are, at least `least`.
pub(crate) fn begin(d: &mut Decoder<'_>, least: u64) -> Result<u64, LabelsError> {
    let fields = d.array()?.ok_or(LabelsError::Field("length"))?;
    let format = d.u8()?;
    if format != FORMAT {
        return Err(LabelsError::Format(format));
    }
    if fields < least { Err(LabelsError::Field("length")) } else { Ok(fields) }
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
            ..Labels::of(Epoch::new(0), Lane::Routine, 0, Digest::ORIGIN)
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
    fn the_moment_of_sealing_travels_with_batches_that_need_it() {
        let at = Timestamp::from_millis(1_772_403_000_000);
        for sealed in
            [SealedAt::Known(at), SealedAt::Bounded(at), SealedAt::Before(Duration::from_millis(90_500))].map(Some)
        {
            let labels = Labels { sealed, ..sample() };
            assert_eq!(Labels::decode(&labels.encode()).unwrap(), labels);
        }
    }

    #[test]
    fn what_a_batch_says_of_itself_is_read_for_ever() {
        let full = Labels {
            sealed: Some(SealedAt::Known(Timestamp::from_millis(1_772_403_000_000))),
            origin: Some(Origin { run: 0xfedc_ba98_7654_3210, number: 12 }),
            urgent: Some(UrgentBase { base: 3, prev: Digest::of_bytes(b"a call") }),
            closes: true,
            ..sample()
        };
        assert_eq!(Labels::decode(include_bytes!("../golden/labels-2.cbor")).unwrap(), full);
        assert_eq!(full.encode(), include_bytes!("../golden/labels-2.cbor"));
        let parts = [
            Labels { sealed: None, ..full },
            Labels { origin: None, ..full },
            Labels { urgent: None, ..full },
            Labels { closes: false, ..full },
            Labels { urgent: None, closes: false, ..full },
            Labels { sealed: None, urgent: None, closes: false, ..full },
        ];
        for labels in parts {
            let bytes = labels.encode();
            assert_eq!(Labels::decode(&bytes).unwrap(), labels);
            for end in 0..bytes.len() {
                assert!(Labels::decode(&bytes[..end]).is_err(), "cut at {end}");
            }
        }
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
