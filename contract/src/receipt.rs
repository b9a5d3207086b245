//! The centre says "committed up to here".

use minicbor::{Decoder, Encoder};

use crate::digest::Digest;
use crate::labels::{Epoch, FORMAT, LabelsError, Lane, begin};
use crate::time::Timestamp;

/// What the centre has committed of one lane. Only this lets a gateway delete anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// Which life of the spool.
    pub epoch: Epoch,
    /// Which queue.
    pub lane: Lane,
    /// The first batch the centre does not have.
    pub next: u64,
    /// The digest of batch `next - 1` as the centre knows it; [`Digest::ORIGIN`] while `next` is 0.
    pub digest: Digest,
    /// The centre's time when it wrote the receipt: coarse time for gateways without a clock.
    pub centre_time: Timestamp,
}

impl Receipt {
    /// A CBOR array of format, epoch, lane, next, digest, centre_time.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(64));
        let write = |e: &mut Encoder<Vec<u8>>| -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
            e.array(6)?.u8(FORMAT)?.u64(self.epoch.get())?.u8(self.lane.code())?.u64(self.next)?;
            e.bytes(self.digest.as_bytes())?.i64(self.centre_time.millis())?;
            Ok(())
        };
        write(&mut e).expect("a Vec takes every byte");
        e.into_writer()
    }

    /// Reads [`Self::encode`]'s bytes. Never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, LabelsError> {
        let mut d = Decoder::new(bytes);
        begin(&mut d, 6)?;
        Ok(Self {
            epoch: Epoch::new(d.u64()?),
            lane: Lane::from_code(d.u8()?).ok_or(LabelsError::Field("lane"))?,
            next: d.u64()?,
            digest: Digest::from_slice(d.bytes()?).ok_or(LabelsError::Field("digest"))?,
            centre_time: Timestamp::from_millis(d.i64()?),
        })
    }
}
