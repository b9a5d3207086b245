//! Says of every batch whether it is the next one of its lane. A pure state machine: no clock, no I/O.
//!
//! Per gateway, epoch and lane exactly one batch is acceptable at any time: `seq = max(expected, base)`, naming the
//! digest of the last accepted batch. Lower numbers are repetitions, higher ones stand behind a hole, and another digest
//! means that two boxes, or two lives of one, write the same epoch. Whatever arrives, in whatever order and however
//! often, the same batches are accepted once.
//!
//! What is accepted is not yet committed. [`Accept`] runs ahead and remembers what to go back to: [`Accept::begin`] gives
//! the marks to commit, [`Accept::finish`] makes them good, [`Accept::roll_back`] forgets all that is not committed, and the
//! gateways send it again. Receipts only ever say what is committed.

use std::collections::{BTreeMap, BTreeSet};

use carebed_contract::digest::Digest;
use carebed_contract::id::{GatewayId, HomeId};
use carebed_contract::labels::{Epoch, Labels, Lane};
use carebed_contract::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::gap::{Missing, Reason};
use crate::view::Complete;

/// Most epochs remembered of one gateway. At the bound the one opened longest ago is forgotten: a batch of it would then
/// count as a new epoch's. A healthy gateway opens an epoch in years; each is also a technical alert.
pub const EPOCHS_MAX: usize = 32;
/// Most homes remembered of one gateway. The rows of further homes are kept, but their silence is not judged.
pub const HOMES_MAX: usize = 64;
/// Most gateways. Batches of further ones are not accepted and stay in their spools.
pub const GATEWAYS_MAX: usize = 250_000;

/// How far one lane has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LaneMark {
    /// The first batch that is not there.
    pub next: u64,
    /// The digest of the batch before it.
    #[serde(with = "digest_hex")]
    pub digest: Digest,
}

impl LaneMark {
    /// Before the first batch.
    pub const ORIGIN: Self = Self { next: 0, digest: Digest::ORIGIN };
}

/// How far one epoch has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpochMarks {
    /// Which life of the spool.
    pub epoch: Epoch,
    /// Its urgent lane.
    pub urgent: LaneMark,
    /// Its routine lane.
    pub routine: LaneMark,
}

impl EpochMarks {
    fn new(epoch: Epoch) -> Self {
        Self { epoch, urgent: LaneMark::ORIGIN, routine: LaneMark::ORIGIN }
    }

    fn lane(&self, lane: Lane) -> LaneMark {
        match lane {
            Lane::Urgent => self.urgent,
            Lane::Routine => self.routine,
        }
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut LaneMark {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Routine => &mut self.routine,
        }
    }
}

/// All that must be remembered of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Marks {
    /// Its epochs in the order in which they were opened; the last is the current one.
    pub epochs: Vec<EpochMarks>,
    /// The homes its rows named.
    pub homes: BTreeSet<HomeId>,
    /// All event times before it have arrived. Never goes back.
    pub complete_to: Timestamp,
    /// When it was last heard.
    pub received: Timestamp,
}

impl Default for Marks {
    fn default() -> Self {
        Self { epochs: Vec::new(), homes: BTreeSet::new(), complete_to: Timestamp::MIN, received: Timestamp::MIN }
    }
}

impl Marks {
    /// How far a lane has come; [`LaneMark::ORIGIN`] for one that was never heard.
    #[must_use]
    pub fn lane(&self, epoch: Epoch, lane: Lane) -> LaneMark {
        self.epochs.iter().find(|e| e.epoch == epoch).map_or(LaneMark::ORIGIN, |e| e.lane(lane))
    }

    /// How far each of the gateway's homes is known. A home is served by one gateway; of several, the
    /// furthest counts.
    pub fn complete(&self) -> impl Iterator<Item = (HomeId, Complete)> {
        let complete = Complete { complete_to: self.complete_to, received: self.received };
        self.homes.iter().map(move |home| (home.clone(), complete))
    }
}

/// What to do with one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The next one of its lane: take its rows. A payload that cannot be decoded is consumed all the same.
    Next {
        /// What it shows to be missing: batches below its base, or the rest of an epoch that was left.
        gaps: Vec<Missing>,
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
    ///
    /// `complete_to` counts only from the routine lane, whose batches all homes send at least as heartbeats: an urgent
    /// batch overtakes routine ones that may still be lost on the way. It never counts beyond the receive time.
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

        let mut gaps = Vec::new();
        let marks = self.change(gateway);
        if !marks.epochs.iter().any(|e| e.epoch == labels.epoch) {
            if let Some(left) = marks.epochs.last() {
                gaps.extend(Lane::ALL.map(|lane| Missing {
                    epoch: left.epoch,
                    lane,
                    from_seq: left.lane(lane).next,
                    to_seq: None,
                    reason: Reason::EpochLeft,
                }));
            }
            if marks.epochs.len() >= EPOCHS_MAX {
                marks.epochs.remove(0);
            }
            marks.epochs.push(EpochMarks::new(labels.epoch));
        }
        if wanted > mark.next {
            gaps.push(Missing {
                epoch: labels.epoch,
                lane: labels.lane,
                from_seq: mark.next,
                to_seq: Some(wanted - 1),
                reason: Reason::Released,
            });
        }
        if let Some(epoch) = marks.epochs.iter_mut().find(|e| e.epoch == labels.epoch) {
            *epoch.lane_mut(labels.lane) = LaneMark { next: labels.seq.saturating_add(1), digest };
        }
        if labels.lane == Lane::Routine {
            marks.complete_to = marks.complete_to.max(labels.complete_to.min(received));
        }
        marks.received = marks.received.max(received);
        Verdict::Next { gaps }
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

/// Reads a digest's 64 hexadecimal digits.
pub(crate) fn digest_from_hex(text: &str) -> Option<Digest> {
    let byte = |i: usize| text.get(2 * i..2 * i + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    bytes.filter(|_| text.len() == 64).and_then(|b| Digest::from_slice(&b))
}

mod digest_hex {
    use carebed_contract::digest::Digest;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let digest = super::digest_from_hex(&String::deserialize(deserializer)?);
        digest.ok_or_else(|| serde::de::Error::custom("not a digest of 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests;
