//! What each action does to the world.

use carebed_contract::labels::{Epoch, Lane};

use super::centre::{self, Centre};
use super::gateway::Gateway;
use super::world::World;
use super::{Action, Broken, Delivery, Message, Obs, Receipt};

impl Delivery {
    /// Lets an action happen.
    pub(super) fn act(&self, w: &mut World, action: &Action) {
        match *action {
            Action::Take(at, lane) => {
                for (of, left) in Lane::ALL.into_iter().zip(&mut w.to_take) {
                    *left -= u8::from(of == lane);
                }
                w.take(at, lane);
            }
            Action::Beat(at) => w.take(at, Lane::Routine),
            Action::Sync(at) => w.with(at, Gateway::sync),
            Action::Send(at, lane) => {
                let sent = w.boxes.get_mut(at).and_then(|gateway| gateway.send(lane, self));
                if let Some(message) = sent {
                    w.up.insert(message);
                }
                if self.is(Broken::ReleaseOnPuback)
                    && let Some(gateway) = w.boxes.get_mut(at)
                {
                    let released = gateway.release_all_sent(lane);
                    w.truth.released_early |= released.iter().any(|(obs, ..)| !w.was_committed(*obs));
                }
            }
            Action::GoBack(at, lane) => w.with(at, |gateway| gateway.go_back(lane)),
            Action::Arrive(message) => {
                w.up.remove(&message);
                self.arrive(w, &message);
            }
            Action::ArriveAndStay(message) => {
                w.spend(|f| &mut f.repeat);
                self.arrive(w, &message);
            }
            Action::Lose(message) => {
                w.spend(|f| &mut f.lose);
                w.up.remove(&message);
            }
            Action::Hear(receipt, at) => {
                w.down.remove(&receipt);
                self.hear(w, &receipt, at);
            }
            Action::HearAll(receipt) => {
                w.down.remove(&receipt);
                for at in 0..w.boxes.len() {
                    self.hear(w, &receipt, at);
                }
            }
            Action::HearAndStay(receipt, at) => {
                w.spend(|f| &mut f.repeat);
                self.hear(w, &receipt, at);
            }
            Action::LoseReceipt(receipt) => {
                w.spend(|f| &mut f.lose);
                w.down.remove(&receipt);
            }
            Action::Commit => {
                if let Some(old) = &mut w.replaced {
                    old.stale = true;
                }
                let receipts = w.centre.commit(self);
                w.committed(receipts);
            }
            Action::CommitFails => {
                w.spend(|f| &mut f.commit_fails);
                w.centre.commit_fails(self, false);
            }
            Action::CommitFailsAndCounts => {
                w.spend(|f| &mut f.commit_fails);
                w.centre.commit_fails(self, true);
                w.committed(Vec::new());
            }
            Action::CentreCrash => {
                w.spend(|f| &mut f.centre_crash);
                w.centre.crash();
                w.committed(Vec::new());
            }
            Action::CentreCrashHalfWay => {
                w.spend(|f| &mut f.centre_crash);
                w.centre.crash_half_way(self);
                w.committed(Vec::new());
            }
            Action::GatewayCrash(at, kept) => {
                w.spend(|f| &mut f.gateway_crash);
                let run = w.next_run();
                let mut keys = Vec::new();
                let mut next_epoch = w.next_epoch;
                w.with(at, |gateway| keys = gateway.crash(kept, Some((run, &mut next_epoch))));
                w.next_epoch = next_epoch;
                keys.into_iter().for_each(|key| w.truth.keys.insert(key));
                self.goes_on(w);
            }
            Action::Overflow(at, lane) => {
                w.spend(|f| &mut f.overflow);
                w.with(at, |gateway| gateway.overflow(lane));
            }
            Action::Clone => {
                w.spend(|f| &mut f.clone);
                w.truth.forked = true;
                let mut copy = w.boxes.clone();
                let run = w.next_run();
                copy.iter_mut().for_each(|gateway| drop(gateway.crash(0, Some((run, &mut w.next_epoch)))));
                w.boxes.extend(copy);
            }
            Action::Image => w.old_disk = w.boxes.first().cloned(),
            Action::LoseTail => {
                w.spend(|f| &mut f.lost_tail);
                w.truth.forked = true;
                if let Some(mut old) = w.old_disk.take() {
                    let run = w.next_run();
                    old.crash(0, Some((run, &mut w.next_epoch)));
                    let gone = w.boxes.iter().flat_map(Gateway::on_disk);
                    let gone: Vec<Obs> = gone.filter(|obs| old.on_disk().all(|kept| kept != *obs)).collect();
                    gone.into_iter().for_each(|obs| w.truth.excused.insert(obs));
                    w.boxes = vec![old];
                }
                self.goes_on(w);
            }
            Action::Backup => w.backup = Some(w.centre.durable.clone()),
            Action::Restore => {
                w.spend(|f| &mut f.restore);
                if let Some(backup) = w.backup.take() {
                    w.centre = Centre::resume(backup);
                }
                self.goes_on(w);
            }
            Action::DiskFails(at, kept) => {
                w.spend(|f| &mut f.disk);
                let epoch = Epoch::new(w.next_epoch);
                w.next_epoch += 1;
                w.truth.in_memory.insert(epoch);
                let keys = &mut w.truth.keys;
                w.shelf = w.boxes.get_mut(at).map(|gateway| gateway.disk_fails(kept, epoch, keys));
                w.note_taken();
            }
            Action::DiskIsBack(at) => {
                let run = w.next_run();
                if let Some((gateway, mut disk)) = w.boxes.get_mut(at).zip(w.shelf.take()) {
                    let epoch = gateway.epoch();
                    if gateway.said_goodbye() && gateway.is_empty() && !w.centre.durable.declares_left(epoch) {
                        w.truth.closed.insert(epoch);
                    }
                    disk.crash(0, Some((run, &mut w.next_epoch)));
                    *gateway = disk;
                }
                w.note_taken();
            }
            Action::Close(at) => {
                w.take(at, Lane::Routine);
                w.with(at, Gateway::close);
            }
            Action::Damage(at, lane, seq) => {
                w.spend(|f| &mut f.damage);
                w.with(at, |gateway| gateway.damage(lane, seq));
                self.goes_on(w);
            }
            Action::HandOver => {
                w.spend(|f| &mut f.handover);
                let next = Centre::resume(w.centre.durable.clone());
                let mut old = std::mem::replace(&mut w.centre, next);
                old.durable = centre::Durable::default();
                w.replaced = Some(old);
            }
            Action::ReplacedCommits => {
                if let Some(mut old) = w.replaced.take() {
                    old.durable = std::mem::take(&mut w.centre.durable);
                    let receipts = if old.has_uncommitted() { old.commit(self) } else { Vec::new() };
                    w.centre.durable = old.durable;
                    w.centre.stale = !receipts.is_empty();
                    w.committed(receipts);
                }
            }
        }
    }

    fn arrive(&self, w: &mut World, message: &Message) {
        let answer = w.centre.arrive(message, self);
        w.say(answer);
    }

    fn hear(&self, w: &mut World, receipt: &Receipt, at: usize) {
        let Some(gateway) = w.boxes.get_mut(at) else { return };
        for (obs, ..) in gateway.hear(receipt, &mut w.next_epoch, &mut w.truth.keys, self) {
            w.truth.released_early |= !w.was_committed(obs);
        }
        w.note_taken();
    }

    /// The homes go on observing: after this, at least a heartbeat comes.
    fn goes_on(&self, w: &mut World) {
        for ((left, used), lane) in w.to_take.iter_mut().zip(self.observations).zip(Lane::ALL) {
            // A call may not come for months; heartbeats are routine.
            *left += u8::from(lane == Lane::Routine || used > 0 && !self.quiet_urgent_lane);
        }
    }
}
