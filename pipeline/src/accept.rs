//! Says of every batch whether it is the next one of its lane. A pure state machine: no clock, no I/O.
//!
//! Per gateway, epoch and lane exactly one batch is acceptable at any time: `seq = max(expected, base)`, naming the
//! digest of the last accepted batch. Lower numbers are repetitions, higher ones stand behind a hole, and another digest
//! means that two boxes, or two lives of one, write the same epoch. Whatever arrives, in whatever order and however
//! often, the same batches are accepted once.
//!
//! A batch that its gateway had to number anew, in a new epoch, still names its origin: the run of the program that took it
//! and its number there. What is in already under another number is consumed without its rows.
//!
//! What is accepted is not yet committed. [`Accept`] runs ahead and remembers what to go back to: [`Accept::begin`] gives
//! the marks to commit, [`Accept::finish`] makes them good, [`Accept::roll_back`] forgets all that is not committed, and the
//! gateways send it again. Receipts only ever say what is committed.

mod marks;

use std::collections::{BTreeMap, BTreeSet};

use carebed_contract::digest::Digest;
use carebed_contract::id::{GatewayId, HomeId};
use carebed_contract::labels::{Epoch, Labels, Lane};
use carebed_contract::time::Timestamp;

use crate::gap::Missing;

pub(crate) use marks::digest_from_hex;
pub use marks::{
    EPOCHS_MAX, EpochMarks, HOMES_MAX, LaneMark, Marks, Numbers, RANGES_MAX, RUNS_KEPT, RUNS_MAX, RunMarks,
};

/// Most gateways. Batches of further ones are not accepted and stay in their spools.
pub const GATEWAYS_MAX: usize = 250_000;

/// What to do with one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The next one of its lane: take its rows. A payload that cannot be decoded is consumed all the same.
    Next {
        /// What it shows to be missing: batches below its base, calls below theirs, or the rest of an epoch that was left.
        gaps: Vec<Missing>,
        /// Its rows are in already, under another number: leave them out.
        repeats: bool,
    },
    /// It was taken before.
    Duplicate,
    /// Batches before it have not come yet: it will be sent again after them.
    Hole,
    /// It does not continue what was accepted: a cloned box, a lost tail or a restored disk. The receipt tells the
    /// gateway, which opens a new epoch.
    Fork,
    /// A new gateway beyond [`GATEWAYS_MAX`].
    Full,
}

/// The marks of every gateway that a commit changes.
pub type Changes = BTreeMap<GatewayId, Marks>;

/// One lane of one gateway.
pub type LaneKey = (GatewayId, Epoch, Lane);

/// The state machine. See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Accept {
    accepted: BTreeMap<GatewayId, Marks>,
    /// The committed marks of those gateways whose accepted ones are ahead; none for one with nothing committed.
    committed: BTreeMap<GatewayId, Option<Marks>>,
    /// Gateways changed since the last [`Accept::begin`].
    changed: BTreeSet<GatewayId>,
}

impl Accept {
    /// Continues from what is committed.
    #[must_use]
    pub fn resume(committed: BTreeMap<GatewayId, Marks>) -> Self {
        Self { accepted: committed, ..Self::default() }
    }

    /// Judges one batch and, when it is the next, takes it.
    pub fn offer(
        &mut self,
        gateway: &GatewayId,
        labels: &Labels,
        content_type: &str,
        payload: &[u8],
        received: Timestamp,
    ) -> Verdict {
        let digest = Digest::of_batch(labels.epoch, labels.lane, labels.seq, labels.prev, content_type, payload);
        let known = self.accepted.get(gateway);
        if known.is_none() && self.accepted.len() >= GATEWAYS_MAX {
            return Verdict::Full;
        }
        let mark = known.map_or(LaneMark::ORIGIN, |marks| marks.lane(labels.epoch, labels.lane));
        let wanted = mark.next.max(labels.base);
        if labels.seq < wanted {
            let same_number = labels.seq.checked_add(1) == Some(mark.next);
            return if same_number && digest != mark.digest { Verdict::Fork } else { Verdict::Duplicate };
        }
        if labels.seq > wanted {
            return Verdict::Hole;
        }
        if wanted == mark.next && labels.prev != mark.digest {
            return Verdict::Fork;
        }

        let (gaps, repeats) = self.change(gateway).take(labels, digest, received);
        Verdict::Next { gaps, repeats }
    }

    /// A gateway's rows, or its inventory, named a home.
    pub fn note_home(&mut self, gateway: &GatewayId, home: &HomeId) {
        let noted = self.accepted.get(gateway).is_none_or(|m| m.homes.contains(home) || m.homes.len() >= HOMES_MAX);
        if !noted {
            self.change(gateway).homes.insert(home.clone());
        }
    }

    /// What is accepted of a gateway.
    #[must_use]
    pub fn marks(&self, gateway: &GatewayId) -> Option<&Marks> {
        self.accepted.get(gateway)
    }

    /// What is committed of a lane: what a receipt says.
    #[must_use]
    pub fn committed(&self, gateway: &GatewayId, epoch: Epoch, lane: Lane) -> LaneMark {
        let marks = match self.committed.get(gateway) {
            Some(committed) => committed.as_ref(),
            None => self.accepted.get(gateway),
        };
        marks.map_or(LaneMark::ORIGIN, |marks| marks.lane(epoch, lane))
    }

    /// Whether all that is accepted of a lane is committed. While it is not, the next commit brings a receipt.
    #[must_use]
    pub fn is_settled(&self, gateway: &GatewayId, epoch: Epoch, lane: Lane) -> bool {
        let accepted = self.accepted.get(gateway).map_or(LaneMark::ORIGIN, |marks| marks.lane(epoch, lane));
        accepted == self.committed(gateway, epoch, lane)
    }

    /// The marks to commit: of every gateway that changed since the last call.
    pub fn begin(&mut self) -> Changes {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|g| self.accepted.get(&g).cloned().map(|marks| (g, marks))).collect()
    }

    /// These marks are committed. Returns the lanes that moved, each owed a receipt.
    pub fn finish(&mut self, changes: Changes) -> Vec<LaneKey> {
        let mut moved = Vec::new();
        for (gateway, marks) in changes {
            for epoch in &marks.epochs {
                let lanes = Lane::ALL.into_iter();
                let lanes = lanes.filter(|l| epoch.lane(*l) != self.committed(&gateway, epoch.epoch, *l));
                moved.extend(lanes.map(|lane| (gateway.clone(), epoch.epoch, lane)));
            }
            if self.accepted.get(&gateway) == Some(&marks) {
                self.committed.remove(&gateway);
            } else {
                self.committed.insert(gateway, Some(marks));
            }
        }
        moved
    }

    /// A commit failed: everything accepted since the last good one is forgotten. Returns the gateways concerned.
    pub fn roll_back(&mut self) -> Vec<GatewayId> {
        self.changed.clear();
        let mut concerned = Vec::new();
        for (gateway, marks) in std::mem::take(&mut self.committed) {
            match marks {
                Some(marks) => self.accepted.insert(gateway.clone(), marks),
                None => self.accepted.remove(&gateway),
            };
            concerned.push(gateway);
        }
        concerned
    }

    /// The accepted marks of a gateway, about to change.
    fn change(&mut self, gateway: &GatewayId) -> &mut Marks {
        if !self.committed.contains_key(gateway) {
            self.committed.insert(gateway.clone(), self.accepted.get(gateway).cloned());
        }
        self.changed.insert(gateway.clone());
        self.accepted.entry(gateway.clone()).or_default()
    }
}

#[cfg(test)]
mod tests;
