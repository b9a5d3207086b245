//! The world at one instant, and what is true in it.

use carebed_contract::labels::{Epoch, Lane};

use super::centre::{self, Centre};
use super::few::Few;
use super::gateway::Gateway;
use super::{Faults, Key, Message, ON_THE_WAY_MAX, Obs, Receipt};

/// What the world knows and nobody in it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Truth {
    /// Every number under which an observation ever stood in a spool.
    pub(super) keys: Few<Key>,
    /// What some disk had for sure: the centre must have it in the end, or say that it has not.
    pub(super) taken: Few<Obs>,
    /// What a box took while its disk had failed.
    pub(super) taken_in_memory: Few<Obs>,
    /// What was on a tail that a disk lost afterwards: no protocol can bring it back.
    pub(super) excused: Few<Obs>,
    /// What was ever committed, also before a restore.
    pub(super) committed: Few<Key>,
    /// A batch was released on a receipt before it was committed.
    pub(super) released_early: bool,
    /// Two lives of one spool wrote: what one of them says to be complete says nothing of the other's.
    pub(super) forked: bool,
    /// Epochs that lived in memory: of one that no centre ever heard of, nobody can say that it is gone.
    pub(super) in_memory: Few<Epoch>,
    /// Epochs that were delivered and closed.
    pub(super) closed: Few<Epoch>,
}

/// The world at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub(super) boxes: Vec<Gateway>,
    pub(super) up: Few<Message>,
    pub(super) down: Few<Receipt>,
    pub(super) centre: Centre,
    pub(super) backup: Option<centre::Durable>,
    pub(super) old_disk: Option<Gateway>,
    /// The disk that failed.
    pub(super) shelf: Option<Gateway>,
    /// The ingest shard that was replaced and may not know it yet.
    pub(super) replaced: Option<Centre>,
    pub(super) to_take: [u8; 2],
    pub(super) next_obs: Obs,
    pub(super) next_epoch: u64,
    pub(super) next_run: u64,
    pub(super) faults: Faults,
    pub(super) faults_left: u8,
    pub(super) truth: Truth,
}

impl World {
    pub(super) fn may(&self, kind: impl Fn(&Faults) -> u8) -> bool {
        self.faults_left > 0 && kind(&self.faults) > 0
    }

    pub(super) fn spend(&mut self, kind: impl Fn(&mut Faults) -> &mut u8) {
        self.faults_left = self.faults_left.saturating_sub(1);
        let left = kind(&mut self.faults);
        *left = left.saturating_sub(1);
    }

    pub(super) fn say(&mut self, receipts: impl IntoIterator<Item = Receipt>) {
        for receipt in receipts {
            if self.down.len() < ON_THE_WAY_MAX {
                self.down.insert(receipt);
            }
        }
    }

    /// A commit was made: its rows count, its receipts go, and whoever else has marks has old ones.
    pub(super) fn committed(&mut self, receipts: Vec<Receipt>) {
        let durable = &self.centre.durable;
        for key in durable.rows.iter().chain(durable.dead_letters.iter()) {
            self.truth.committed.insert(*key);
        }
        self.say(receipts);
    }

    pub(super) fn with(&mut self, at: usize, change: impl FnOnce(&mut Gateway)) {
        if let Some(gateway) = self.boxes.get_mut(at) {
            change(gateway);
        }
        self.note_taken();
    }

    /// What a disk has for sure is taken, and owed from then on.
    pub(super) fn note_taken(&mut self) {
        let (in_memory, on_disk): (Vec<_>, Vec<_>) = self.boxes.iter().partition(|gateway| gateway.is_in_memory());
        let on_disk = on_disk.into_iter().chain(&self.shelf);
        on_disk.flat_map(Gateway::on_disk).for_each(|obs| self.truth.taken.insert(obs));
        in_memory.into_iter().flat_map(Gateway::on_disk).for_each(|obs| self.truth.taken_in_memory.insert(obs));
    }

    /// Whether the centre has the observation, or says that it does not.
    pub(super) fn is_accounted_for(&self, obs: Obs) -> bool {
        let durable = &self.centre.durable;
        let numbers = || self.truth.keys.iter().filter(|(of, ..)| *of == obs);
        durable.rows.iter().any(|(row, ..)| *row == obs)
            || durable.dead_letters.iter().any(|(letter, ..)| *letter == obs)
            || numbers().any(|(_, epoch, lane, seq)| durable.declares(*epoch, *lane, *seq))
    }

    /// Whether the centre should have an observation or say that it has not, and does neither. Nobody can tell of what was
    /// in memory only, when no centre had ever heard of that epoch.
    pub(super) fn is_lost(&self, obs: Obs) -> bool {
        let was_on_disk = self.truth.taken.contains(&obs);
        let heard = |epoch| self.truth.in_memory.contains(epoch) && self.centre.durable.knows(*epoch);
        let mut numbers = self.truth.keys.iter().filter(|(of, ..)| *of == obs);
        !self.is_accounted_for(obs) && (was_on_disk || numbers.any(|(_, epoch, ..)| heard(epoch)))
    }

    /// Whether an observation is on a disk that failed and may come back.
    pub(super) fn is_on_a_shelf(&self, obs: Obs) -> bool {
        self.shelf.iter().any(|disk| disk.on_disk().any(|kept| kept == obs))
    }

    /// The number of the next run of any box.
    pub(super) fn next_run(&mut self) -> u64 {
        self.next_run += 1;
        self.next_run - 1
    }

    /// A box takes an observation.
    pub(super) fn take(&mut self, at: usize, lane: Lane) {
        let obs = self.next_obs;
        self.next_obs += 1;
        if let Some(key) = self.boxes.get_mut(at).map(|gateway| gateway.take(lane, obs)) {
            self.truth.keys.insert(key);
        }
    }

    /// Whether the table ever had an observation, under whatever number.
    pub(super) fn was_committed(&self, obs: Obs) -> bool {
        self.truth.committed.iter().any(|(of, ..)| *of == obs)
    }

    pub(super) fn owed(&self) -> impl Iterator<Item = Obs> {
        let Truth { taken, taken_in_memory, .. } = &self.truth;
        taken.iter().chain(taken_in_memory.iter()).copied().filter(|obs| !self.truth.excused.contains(obs))
    }
}
