//! A loss that was declared: batches that will never come, or may never come.

use std::fmt;

use carebed_contract::digest::Digest;
use carebed_contract::id::{Area, GatewayId};
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::time::Timestamp;

/// Why batches are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The gateway no longer had them: its spool was full, or they were receipted by a centre that forgot them.
    Released,
    /// The gateway began a new epoch: what it had not sent of the old one it sends again under the new one, if it still
    /// has it. Nobody knows how much that is.
    EpochLeft,
}

impl Reason {
    /// The word in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::EpochLeft => "epoch_left",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Batches missing from one lane, as `accept` finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Missing {
    /// Which life of the spool.
    pub epoch: Epoch,
    /// Which queue.
    pub lane: Lane,
    /// The first missing batch.
    pub from_seq: u64,
    /// The last missing batch; none when nobody knows.
    pub to_seq: Option<u64>,
    /// Why.
    pub reason: Reason,
}

/// A row of the table `gaps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The gateway whose batches are missing.
    pub gateway: GatewayId,
    /// Where it was enrolled.
    pub area: Area,
    /// Which batches.
    pub missing: Missing,
    /// When the centre noticed.
    pub noted_at: Timestamp,
}

impl Gap {
    /// Names the gap for ever: the same loss noticed again, after a failed commit, has the same key.
    #[must_use]
    pub fn key(&self) -> Digest {
        let Missing { epoch, lane, from_seq, to_seq, reason } = self.missing;
        let to = to_seq.map_or_else(String::new, |to| to.to_string());
        Digest::of_bytes(format!("gap 1 {} {epoch} {lane} {from_seq} {to} {reason}", self.gateway).as_bytes())
    }
}
