//! The centre: the product's own acceptance in front of a table that survives.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use carebed_contract::id::GatewayId;
use carebed_contract::labels::{Epoch, Labels, Lane, UrgentBase};
use carebed_contract::time::Timestamp;
use carebed_pipeline::accept::{Accept, Marks, Verdict};
use carebed_pipeline::gap::{Missing, Reason};

use super::few::Few;
use super::{Broken, Delivery, Key, Message, Obs, Receipt};

pub(super) const CONTENT_TYPE: &str = "application/senml+cbor";

static GATEWAY: LazyLock<GatewayId> = LazyLock::new(|| GatewayId::new("g1").expect("an id"));

/// What survives a crash. Rows and marks are one commit; gaps and dead letters are written before it, each key once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Durable {
    /// In order; a key that stands twice was committed twice.
    pub(super) rows: Vec<Key>,
    pub(super) dead_letters: Few<Key>,
    gaps: Few<Missing>,
    marks: BTreeMap<GatewayId, Marks>,
    /// A commit that failed as far as its process could see, and lands all the same.
    late: Option<(Vec<Key>, BTreeMap<GatewayId, Marks>)>,
}

impl Durable {
    fn land(&mut self) -> bool {
        let Some((mut rows, marks)) = self.late.take() else { return false };
        self.rows.append(&mut rows);
        self.marks.extend(marks);
        true
    }

    /// Whether a gap says that this batch is missing.
    pub(super) fn declares(&self, epoch: Epoch, lane: Lane, seq: u64) -> bool {
        self.gaps.iter().any(|gap| {
            gap.epoch == epoch && gap.lane == lane && gap.from_seq <= seq && gap.to_seq.is_none_or(|to| seq <= to)
        })
    }

    /// Whether a gap says that the rest of an epoch may be missing.
    pub(super) fn declares_left(&self, epoch: Epoch) -> bool {
        self.gaps.iter().any(|gap| gap.epoch == epoch && gap.reason == Reason::EpochLeft)
    }

    /// Whether anything was ever committed of an epoch.
    pub(super) fn knows(&self, epoch: Epoch) -> bool {
        self.marks.values().any(|marks| marks.epochs.iter().any(|known| known.epoch == epoch))
    }

    /// The epoch that was heard last.
    pub(super) fn current(&self) -> Option<Epoch> {
        self.marks.values().find_map(|marks| marks.epochs.last()).map(|current| current.epoch)
    }

    pub(super) fn complete_to(&self) -> Obs {
        let marks = self.marks.get(&*GATEWAY).map_or(Timestamp::MIN, |marks| marks.complete_to);
        Obs::try_from(marks.millis().max(0)).unwrap_or(Obs::MAX)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Centre {
    pub(super) durable: Durable,
    accept: Accept,
    rows: Vec<Key>,
    dead_letters: Few<Key>,
    gaps: Few<Missing>,
    /// Another has committed since this one read the marks: its commit will be refused.
    pub(super) stale: bool,
}

impl Centre {
    pub(super) fn resume(durable: Durable) -> Self {
        let accept = Accept::resume(durable.marks.clone());
        Self { durable, accept, ..Self::default() }
    }

    pub(super) fn has_uncommitted(&self) -> bool {
        // A roll-back that was forgotten leaves marks that are ahead without rows.
        !self.rows.is_empty() || !self.dead_letters.is_empty() || !self.accept.clone().begin().is_empty()
    }

    /// Judges a batch. A receipt leaves at once for what is not new.
    pub(super) fn arrive(&mut self, message: &Message, model: &Delivery) -> Option<Receipt> {
        let Message { epoch, lane, seq, base, prev, complete_to, obs, origin, calls, closes } = *message;
        let undecodable = model.undecodable == Some(obs);
        if undecodable && model.is(Broken::RefusesUndecodable) {
            return None;
        }
        let complete_to = Timestamp::from_millis(complete_to.into());
        let urgent = calls.map(|(base, prev)| UrgentBase { base, prev });
        let labels = Labels { base, complete_to, origin, urgent, closes, ..Labels::of(epoch, lane, seq, prev) };
        let verdict = self.accept.offer(&GATEWAY, &labels, CONTENT_TYPE, &[obs], Timestamp::from_millis(1_000));
        if let Verdict::Next { gaps, repeats } = verdict {
            if !model.is(Broken::KeepsGapsToItself) {
                let forgets = |gap: &Missing| model.is(Broken::ForgetsEpochs) && gap.reason == Reason::EpochLeft;
                gaps.into_iter().filter(|gap| !forgets(gap)).for_each(|gap| self.gaps.insert(gap));
            }
            if repeats {
                // Its row is there under another number; this one is consumed all the same.
            } else if undecodable {
                self.dead_letters.insert((obs, epoch, lane, seq));
            } else {
                self.rows.push((obs, epoch, lane, seq));
            }
            if model.is(Broken::ReceiptBeforeCommit) {
                let mark = self.accept.marks(&GATEWAY)?.lane(epoch, lane);
                return Some(Receipt { epoch, lane, next: mark.next, digest: mark.digest });
            }
            return None;
        }
        Some(self.receipt(epoch, lane))
    }

    fn receipt(&self, epoch: Epoch, lane: Lane) -> Receipt {
        let mark = self.accept.committed(&GATEWAY, epoch, lane);
        Receipt { epoch, lane, next: mark.next, digest: mark.digest }
    }

    fn write_before_commit(&mut self) {
        self.durable.gaps.append(&mut self.gaps);
        self.durable.dead_letters.append(&mut self.dead_letters);
    }

    /// Rows and marks become durable together; receipts are owed for every lane that moved.
    pub(super) fn commit(&mut self, model: &Delivery) -> Vec<Receipt> {
        self.write_before_commit();
        if self.stale && !model.is(Broken::NoFence) {
            // The table's log holds a commit of that number: another shard goes on from there, and so must this.
            self.crash();
            return Vec::new();
        }
        let changes = self.accept.begin();
        if self.durable.land() {
            // The log holds a commit that this one does not go on from.
            if model.is(Broken::SameWatermark) {
                self.durable.marks.extend(changes);
            }
            self.crash();
            return Vec::new();
        }
        self.durable.rows.append(&mut self.rows);
        self.durable.marks.extend(changes.clone());
        let moved = self.accept.finish(changes);
        moved.into_iter().map(|(_, epoch, lane)| self.receipt(epoch, lane)).collect()
    }

    /// `lands`: it counts all the same, and the process does not see it.
    pub(super) fn commit_fails(&mut self, model: &Delivery, lands: bool) {
        self.write_before_commit();
        if lands && self.durable.late.is_some() {
            // Its place in the log is taken by the one before.
            return self.crash();
        }
        let rows = std::mem::take(&mut self.rows);
        if lands {
            self.durable.late = Some((rows, self.accept.clone().begin()));
        }
        if !model.is(Broken::NoRollBack) {
            self.accept.roll_back();
        }
    }

    pub(super) fn crash(&mut self) {
        self.durable.land();
        *self = Self::resume(std::mem::take(&mut self.durable));
    }

    pub(super) fn crash_half_way(&mut self, model: &Delivery) {
        self.write_before_commit();
        if model.is(Broken::MarksAfterRows) {
            self.durable.rows.append(&mut self.rows);
        }
        self.crash();
    }
}
