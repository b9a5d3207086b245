//! A small world of gateways, a network and a centre.

mod centre;
mod few;
mod gateway;
mod steps;
mod world;

use carebed_contract::digest::Digest;
use carebed_contract::labels::{Epoch, Lane, Origin};

use self::centre::Centre;
use self::few::Few;
use self::gateway::Gateway;
use self::world::Truth;
pub use self::world::World;
use super::explore::Model;

/// An observation, numbered in the order of its event time.
pub type Obs = u8;

/// A batch was committed twice under the same number.
pub const BATCH_TWICE: &str = "a batch was committed twice";
/// An observation was committed under two numbers.
pub const OBSERVATION_TWICE: &str = "an observation was committed twice";
/// An observation was committed that a power cut took from its gateway.
pub const NEVER_ON_DISK: &str = "committed what no disk had";
/// Nothing may be released before it is committed.
pub const RELEASED_EARLY: &str = "a batch was released before it was committed";
/// Silence would be judged on data that is still on its way.
pub const NOT_COMPLETE: &str = "the centre took data for complete that is not";
/// Nothing is on its way and nothing is due, but not everything was delivered.
pub const NOT_EMPTY: &str = "a lane sticks: a spool is not empty at rest";
/// Neither a row nor a dead letter nor a gap tells of an observation.
pub const LOST: &str = "an observation was lost and nobody says so";
/// An epoch was delivered and closed, and yet a gap tells that it may have lost something.
pub const NEEDLESS: &str = "a gap tells of an epoch that was delivered and closed";

/// Batches in flight at most, per gateway and lane.
const WINDOW: u64 = 2;
/// Messages on the way at most, in each direction. A gateway waits for room; a receipt without room is lost.
const ON_THE_WAY_MAX: usize = 2;

/// What may go wrong, each as often as it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    /// A message or a receipt is lost.
    pub lose: u8,
    /// A message or a receipt is delivered, and stays on the way to be delivered again at any later time.
    pub repeat: u8,
    /// A gateway loses power: all that it did not sync, and what it released since the last sync comes back.
    pub gateway_crash: u8,
    /// The centre is killed: between any two of its steps, also between writing gaps and committing.
    pub centre_crash: u8,
    /// A commit fails.
    pub commit_fails: u8,
    /// A spool is full: its oldest batch goes.
    pub overflow: u8,
    /// A gateway's disk is copied into a second box, which lives on beside it.
    pub clone: u8,
    /// A gateway's disk is set back to what it was at some earlier time.
    pub lost_tail: u8,
    /// The centre is restored from a backup made at some earlier time.
    pub restore: u8,
    /// A gateway's disk fails, what was being written may or may not be on it; perhaps it comes back with a restart.
    pub disk: u8,
    /// A batch on a gateway's disk is damaged.
    pub damage: u8,
    /// The gateway is handed to another ingest shard while the old one still works.
    pub handover: u8,
}

/// One part of the protocol left out, to show that the walk finds it missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The gateway deletes a batch when the broker has it.
    ReleaseOnPuback,
    /// The gateway sends a batch before it is synced.
    SendBeforeSync,
    /// The gateway never goes back to the first unreceipted batch.
    NeverGoesBack,
    /// The gateway takes a receipt for its own whatever its digest.
    IgnoresForeignDigest,
    /// The gateway takes a receipt for its own that goes beyond its last batch.
    IgnoresAhead,
    /// The gateway's labels say that it still has all batches.
    HidesBase,
    /// The gateway claims completeness while an earlier urgent batch is not receipted.
    ClaimsTooMuch,
    /// The gateway's routine batches do not say where its urgent lane stands.
    HidesCalls,
    /// The gateway does not say which batch it is that it numbers anew.
    NoOrigins,
    /// The gateway never says that an epoch is at its end.
    NeverCloses,
    /// The centre writes no gap when an epoch is left.
    ForgetsEpochs,
    /// The table takes a commit from a shard that was replaced.
    NoFence,
    /// The centre sends receipts for what it accepted but did not commit.
    ReceiptBeforeCommit,
    /// The centre commits rows and marks one after the other.
    MarksAfterRows,
    /// An attempt to commit writes its marks over those of an attempt that failed.
    SameWatermark,
    /// The centre does not take back what it accepted when a commit fails.
    NoRollBack,
    /// The centre refuses a batch that it cannot decode.
    RefusesUndecodable,
    /// The centre jumps over missing batches and writes no gap.
    KeepsGapsToItself,
}

/// The size of a world and what goes wrong in it.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// Observations per lane used, urgent and routine.
    pub observations: [u8; 2],
    /// The observation that the centre cannot decode.
    pub undecodable: Option<Obs>,
    /// What may go wrong.
    pub faults: Faults,
    /// At most so many faults together.
    pub faults_max: u8,
    /// After a fault there is no further call, only heartbeats.
    pub quiet_urgent_lane: bool,
    /// What is left out.
    pub broken: Option<Broken>,
}

/// A batch on its way to the centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Message {
    epoch: Epoch,
    lane: Lane,
    seq: u64,
    base: u64,
    prev: Digest,
    /// All observations below it are in this or earlier batches.
    complete_to: Obs,
    obs: Obs,
    origin: Option<Origin>,
    /// Where the urgent lane stands: its base, and the digest before.
    calls: Option<(u64, Digest)>,
    closes: bool,
}

/// A receipt on its way to the gateways: with a cloned box there are two of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    epoch: Epoch,
    lane: Lane,
    next: u64,
    digest: Digest,
}

/// Where an observation was put: the key of its row.
type Key = (Obs, Epoch, Lane, u64);

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    /// A box takes an observation.
    Take(usize, Lane),
    /// A box's heartbeat, in its routine lane.
    Beat(usize),
    /// A box syncs its disk.
    Sync(usize),
    /// A box sends its next batch.
    Send(usize, Lane),
    /// A box goes back to its first unreceipted batch: a timer, or a new connection.
    GoBack(usize, Lane),
    /// The centre gets a message.
    Arrive(Message),
    /// The centre gets a message that will come again.
    ArriveAndStay(Message),
    /// A message is lost.
    Lose(Message),
    /// A box gets a receipt.
    Hear(Receipt, usize),
    /// All boxes get a receipt.
    HearAll(Receipt),
    /// A box gets a receipt that will come again.
    HearAndStay(Receipt, usize),
    /// A receipt is lost.
    LoseReceipt(Receipt),
    /// The centre commits.
    Commit,
    /// The centre's commit fails.
    CommitFails,
    /// The centre's commit fails as far as it can see, and counts all the same.
    CommitFailsAndCounts,
    /// The centre is killed.
    CentreCrash,
    /// The centre is killed after it wrote gaps and dead letters, before it commits.
    CentreCrashHalfWay,
    /// A box loses power; so many of its unsynced batches reached the disk all the same.
    GatewayCrash(usize, u64),
    /// A box drops its oldest batch to have room.
    Overflow(usize, Lane),
    /// A box's disk is copied into another box.
    Clone,
    /// Somebody makes an image of a box's disk.
    Image,
    /// A box's disk is set back to the image.
    LoseTail,
    /// Somebody makes a backup of the centre.
    Backup,
    /// The centre is restored from the backup.
    Restore,
    /// A box's disk fails; so many of its unsynced batches reached it all the same.
    DiskFails(usize, u64),
    /// A box restarts with the disk that had failed.
    DiskIsBack(usize),
    /// A box without a disk takes a last observation and stops when everything is delivered.
    Close(usize),
    /// A batch on a box's disk is damaged.
    Damage(usize, Lane, u64),
    /// Another shard takes over; the old one does not know yet.
    HandOver,
    /// The shard that was replaced commits, or finds that it cannot.
    ReplacedCommits,
}

impl Delivery {
    fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn network(&self, w: &World, actions: &mut Vec<Action>) {
        for message in w.up.iter() {
            actions.push(Action::Arrive(*message));
            if w.may(|f| f.repeat) {
                actions.push(Action::ArriveAndStay(*message));
            }
            if w.may(|f| f.lose) {
                actions.push(Action::Lose(*message));
            }
        }
        for receipt in w.down.iter() {
            for at in 0..w.boxes.len() {
                actions.push(Action::Hear(*receipt, at));
                if w.may(|f| f.repeat) {
                    actions.push(Action::HearAndStay(*receipt, at));
                }
            }
            if w.may(|f| f.lose) {
                actions.push(Action::LoseReceipt(*receipt));
            }
        }
    }

    fn homes(&self, w: &World, actions: &mut Vec<Action>) {
        for (at, gateway) in w.boxes.iter().enumerate() {
            if gateway.wants_sync() {
                actions.push(Action::Sync(at));
            }
            if w.may(|f| f.disk) && w.shelf.is_none() {
                actions.extend((0..=gateway.unsynced()).map(|kept| Action::DiskFails(at, kept)));
            }
            if gateway.is_in_memory() {
                actions.push(Action::DiskIsBack(at));
                if gateway.takes() {
                    actions.push(Action::Close(at));
                }
            }
            if w.may(|f| f.gateway_crash) && !gateway.is_in_memory() {
                actions.extend((0..=gateway.unsynced()).map(|kept| Action::GatewayCrash(at, kept)));
            }
            for (lane, left) in Lane::ALL.into_iter().zip(w.to_take) {
                if left > 0 && gateway.takes() {
                    actions.push(Action::Take(at, lane));
                }
                if w.up.len() < ON_THE_WAY_MAX && gateway.may_send(lane, self) {
                    actions.push(Action::Send(at, lane));
                }
                if gateway.may_go_back(lane, self) {
                    actions.push(Action::GoBack(at, lane));
                }
                if w.may(|f| f.overflow) && gateway.may_overflow(lane) {
                    actions.push(Action::Overflow(at, lane));
                }
                if w.may(|f| f.damage) && !gateway.is_in_memory() {
                    actions.extend(gateway.unreleased_on_disk(lane).map(|seq| Action::Damage(at, lane, seq)));
                }
            }
        }
        if w.may(|f| f.clone) && w.boxes.len() == 1 {
            actions.push(Action::Clone);
        }
        if w.may(|f| f.lost_tail) {
            actions.push(if w.old_disk.is_none() { Action::Image } else { Action::LoseTail });
        }
    }

    fn service_centre(&self, w: &World, actions: &mut Vec<Action>) {
        if w.centre.has_uncommitted() {
            actions.push(Action::Commit);
            if w.may(|f| f.commit_fails) {
                actions.extend([Action::CommitFails, Action::CommitFailsAndCounts]);
            }
            if w.may(|f| f.centre_crash) {
                actions.extend([Action::CentreCrash, Action::CentreCrashHalfWay]);
            }
        }
        if w.may(|f| f.handover) {
            actions.push(Action::HandOver);
        }
        if w.replaced.is_some() {
            actions.push(Action::ReplacedCommits);
        }
        if w.may(|f| f.restore) {
            actions.push(if w.backup.is_none() { Action::Backup } else { Action::Restore });
        }
    }
}

impl Model for Delivery {
    type State = World;
    type Action = Action;

    fn initial(&self) -> World {
        World {
            boxes: vec![Gateway::new(Epoch::new(1))],
            up: Few::default(),
            down: Few::default(),
            centre: Centre::default(),
            backup: None,
            old_disk: None,
            shelf: None,
            replaced: None,
            to_take: self.observations,
            next_obs: 0,
            next_epoch: 2,
            next_run: 1,
            faults: self.faults,
            faults_left: self.faults_max,
            truth: Truth::default(),
        }
    }

    fn actions(&self, w: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        self.network(w, &mut actions);
        self.homes(w, &mut actions);
        self.service_centre(w, &mut actions);
        actions
    }

    fn heal(&self, w: &World) -> Option<Action> {
        let boxes = || w.boxes.iter().enumerate();
        let lanes = || boxes().flat_map(|(at, gateway)| Lane::ALL.map(|lane| (at, gateway, lane)));
        let arrives = || w.up.first().map(|message| Action::Arrive(*message));
        let sync = || boxes().find(|(_, gateway)| gateway.wants_sync()).map(|(at, _)| Action::Sync(at));
        let send = || {
            lanes().find(|(_, gateway, lane)| gateway.may_send(*lane, self)).map(|(at, _, lane)| Action::Send(at, lane))
        };
        let take = || {
            let mut left = Lane::ALL.into_iter().zip(w.to_take).filter(|_| w.boxes.first().is_some_and(Gateway::takes));
            left.find(|(_, left)| *left > 0).map(|(lane, _)| Action::Take(0, lane))
        };
        let go_back = || {
            lanes()
                .find(|(_, gateway, lane)| gateway.may_go_back(*lane, self))
                .map(|(at, _, lane)| Action::GoBack(at, lane))
        };
        let hears = w.down.first().map(|receipt| Action::HearAll(*receipt));
        let commit = || w.centre.has_uncommitted().then_some(Action::Commit);
        // Heartbeats go on for ever; these are the ones that tell something new: where the calls stand, and that it is this
        // epoch which goes on. Two boxes of one name would take turns in that for ever.
        let is_alone = w.boxes.len() == 1;
        let is_new = |gateway: &Gateway| w.centre.durable.current().is_some_and(|current| current != gateway.epoch());
        let tells = |gateway: &Gateway| gateway.takes() && (gateway.has_to_tell() || is_alone && is_new(gateway));
        let beat = || boxes().find(|(_, gateway)| tells(gateway)).map(|(at, _)| Action::Beat(at));
        hears.or_else(arrives).or_else(commit).or_else(sync).or_else(send).or_else(take).or_else(go_back).or_else(beat)
    }

    fn after(&self, world: &World, action: &Action) -> World {
        let mut next = world.clone();
        self.act(&mut next, action);
        // Which of two cloned boxes is which makes no difference: half the states.
        next.boxes.sort_unstable();
        next
    }

    fn broken(&self, w: &World) -> Option<&'static str> {
        let durable = &w.centre.durable;
        let keys: Few<Key> = durable.rows.iter().copied().collect();
        if keys.len() < durable.rows.len() {
            return Some(BATCH_TWICE);
        }
        let rows: Few<Obs> = durable.rows.iter().map(|(obs, ..)| *obs).collect();
        if rows.len() < keys.len() {
            return Some(OBSERVATION_TWICE);
        }
        if !rows.iter().all(|obs| w.truth.taken.contains(obs) || w.truth.taken_in_memory.contains(obs)) {
            return Some(NEVER_ON_DISK);
        }
        if w.truth.released_early {
            return Some(RELEASED_EARLY);
        }
        let complete_to = durable.complete_to();
        // A box that comes back with its disk knows nothing of what was in memory only: that is told with its next batch.
        let on_disk = || w.owed().filter(|obs| w.truth.taken.contains(obs));
        if !w.truth.forked && on_disk().any(|obs| obs < complete_to && w.is_lost(obs)) {
            return Some(NOT_COMPLETE);
        }
        w.truth.closed.iter().any(|epoch| durable.declares_left(*epoch)).then_some(NEEDLESS)
    }

    fn broken_at_rest(&self, w: &World) -> Option<&'static str> {
        if !w.boxes.iter().all(Gateway::is_empty) {
            return Some(NOT_EMPTY);
        }
        w.owed().any(|obs| w.is_lost(obs) && !w.is_on_a_shelf(obs)).then_some(LOST)
    }
}
