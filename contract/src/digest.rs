//! The chain of batches: each carries the digest of the one before.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::labels::{Epoch, Lane};

/// SHA-256 of a batch, over its epoch, lane, number, the digest before and the sealed payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// What the first batch of a lane names as the digest before it.
    pub const ORIGIN: Self = Self([0; 32]);

    /// The digest of one batch.
    #[must_use]
    pub fn of_batch(epoch: Epoch, lane: Lane, seq: u64, prev: Self, content_type: &str, payload: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"carebed batch 1\0");
        hash.update(epoch.get().to_be_bytes());
        hash.update([lane.code()]);
        hash.update(seq.to_be_bytes());
        hash.update(prev.0);
        hash.update(content_type.as_bytes());
        hash.update([0]);
        hash.update(payload);
        Self(hash.finalize().into())
    }

    /// The digest of any bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From 32 bytes; none when there are not 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Digest({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}
