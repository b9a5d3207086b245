//! The gateway's disk queue: the write-ahead log of the whole system.
//!
//! A spool has an epoch and two lanes of batches, each a chain of digests over numbered, checksummed entries in segment
//! files. **What survives:** when [`Spool::append`] has returned, the batch is on stable storage and outlives a crash of
//! the program and a power cut, until a receipt releases it. A power cut in the middle of an append leaves the batches
//! before it. Release marks may be lost in a power cut; then some batches are sent again, which the centre knows.
//!
//! **When the bytes are not what was written,** the spool says so and keeps every batch it can still prove. Found while
//! opening, that begins a new epoch with them, because nobody knows how far the old one went; found in one batch that is
//! read to be sent, that batch alone is given up. Either way the centre declares the gap. Only a unit that ends before its own length, at the very end of the
//! last segment, counts as a write that was cut off; it was never synced, hence never sent, and is dropped silently.
//!
//! **When a write or sync fails,** the spool is broken for good: nothing more is read from it or written to it in this
//! process, because nobody knows what the disk has. The caller goes on with a spool in [`Memory`].
//!
//! What that memory took and could not send before the process ended is lost, and nobody else may know of it: [`Spool::leave_aside`] notes it with an
//! empty file, for which also a full disk has room, and who opens the spool again begins a new epoch, so that the centre declares the gap.
//!
//! **When the disk is full,** a reserve that was allocated at start makes room, and the spool stays as small as it is until
//! the reserve could be allocated again. Then as at the bound; only when no routine segment is left to go does it count as
//! a failed write.
//!
//! **When the bound is reached,** the oldest routine segment goes first, then older ones, urgent ones last; what was not
//! released is counted and the lane's base moves, so that the centre sees the jump.

mod disk;
mod format;
mod lane;
mod opening;
mod purge;
mod writing;

use std::io;
use std::time::Duration;

use carebed_contract::crash;
use carebed_contract::digest::Digest;
use carebed_contract::labels::{Epoch, Lane, Origin, UrgentBase};
use carebed_contract::pack::Sealed;
use carebed_contract::receipt::Receipt;
use carebed_contract::time::Timestamp;

pub use disk::{Directory, DirectoryError, Disk, Memory};
use format::{Head, SegmentHeader};
use lane::{Entry, LaneLog};
pub use opening::leave_aside;

const HEAD: &str = "head";
/// A file of nothing, which is removed when the disk is full.
const RESERVE: &str = "reserve";
/// An empty file that says: this gateway went on in memory, beside this spool.
const ASIDE: &str = "aside";
/// While the disk is full the reserve is tried again every so many batches.
const RESERVE_EVERY: u32 = 100;
/// The centre's time is written down when it differs this much from what was written: a write a day spares the flash.
const FLOOR_STEP: Duration = Duration::from_secs(24 * 3600);

/// How large a spool may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all segments together. Beginning a new epoch may take as much again for a moment.
    pub bytes_max: u64,
    /// Bytes from which a new segment is begun: what is released or given up goes in such pieces.
    pub segment_bytes: u64,
    /// Bytes allocated beforehand for the time when others have filled the disk; 0: none. Calls need about 400 bytes each.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    /// 64 MiB, in pieces of 1 MiB, and a quarter beside: twelve days offline, at a routine batch of 300 bytes every 5 s.
    fn default() -> Self {
        Self { bytes_max: 64 << 20, segment_bytes: 1 << 20, reserve_bytes: 256 << 10 }
    }
}

/// Why a spool does not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk refused. The spool is broken from now on.
    #[error("failed to {doing} in the spool; the disk may be full or failing")]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// An earlier operation failed.
    #[error("the spool is not used any more since its disk failed")]
    Broken,
    /// A batch changed on disk after it was written. [`Spool::give_up`] goes on without it.
    #[error("batch {seq} of the {lane} lane is not what was written")]
    Damaged {
        /// Its lane.
        lane: Lane,
        /// Its number.
        seq: u64,
    },
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The batch's number.
    pub seq: u64,
    /// Batches that had to go unreceipted to keep within the bound.
    pub given_up: u64,
}

/// The event times a batch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Its earliest event time; [`Timestamp::MAX`] when it holds none.
    pub from: Timestamp,
    /// All event times before this one are in it or in batches appended before it, of either lane.
    pub complete_to: Timestamp,
}

/// A batch as it lies in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub seq: u64,
    /// The digest of the batch before.
    pub prev: Digest,
    /// What it is about.
    pub span: Span,
    /// Which batch it is, whatever its number; none when it was taken before this was noted.
    pub origin: Option<Origin>,
    /// The payload.
    pub sealed: Sealed,
}

/// What a receipt means to this spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It is ours. So many batches more are no longer needed; the centre wants `next`.
    Upto {
        /// How many were released now.
        batches: u64,
        /// The first batch the centre does not have.
        next: u64,
    },
    /// The centre asks for batches that are gone: it was restored from an older copy. It will get our base.
    Below,
    /// The centre has another batch under that number: a cloned box, or a disk that lost its tail.
    ForeignDigest,
    /// The centre has batches that this spool never had: likewise.
    Ahead,
    /// It is about another life of the spool.
    OtherEpoch,
}

/// A spool.
#[derive(Debug)]
pub struct Spool {
    disk: Box<dyn Disk>,
    limits: Limits,
    head: Head,
    urgent: LaneLog,
    routine: LaneLog,
    broken: bool,
    /// While the disk is full: no more bytes than these.
    squeezed: Option<u64>,
    /// Batches until the reserve is tried again.
    reserve_in: u32,
}

/// A spool that was opened, and what was wrong with it.
#[derive(Debug)]
pub struct Opened {
    /// The spool.
    pub spool: Spool,
    /// What was damaged, in sentences for the status. When there is any, a new epoch was begun.
    pub damage: Vec<String>,
}

impl Spool {
    /// Which life of the spool this is.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.head.epoch
    }

    /// How many times it was opened: the number of the gateway's boot.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.head.boot
    }

    /// The time that the centre last told, to a day: a clock that shows less is wrong. No clock of this box has a say in
    /// it, so that one which was ahead once is forgotten.
    #[must_use]
    pub fn floor(&self) -> Timestamp {
        self.head.floor
    }

    /// The lowest batch it still has in a lane; the next number when it has none.
    #[must_use]
    pub fn base(&self, lane: Lane) -> u64 {
        self.log(lane).base()
    }

    /// The number after the last batch of a lane that can be sent before others are released: [`Spool::next`], or that of a
    /// damaged batch.
    #[must_use]
    pub fn end(&self, lane: Lane) -> u64 {
        self.log(lane).end()
    }

    /// Where the urgent lane stands; none when this epoch never had a call.
    #[must_use]
    pub fn calls(&self) -> Option<UrgentBase> {
        let base = self.urgent.base();
        self.urgent.digest_before(base).filter(|_| self.urgent.next > 0).map(|prev| UrgentBase { base, prev })
    }

    /// The number of the next batch of a lane.
    #[must_use]
    pub fn next(&self, lane: Lane) -> u64 {
        self.log(lane).next
    }

    /// The latest [`Span::complete_to`] of any batch of this epoch.
    #[must_use]
    pub fn complete_to(&self) -> Timestamp {
        self.routine.complete_to.max(self.urgent.complete_to)
    }

    /// The latest [`Span::complete_to`] of a routine batch that the centre has.
    #[must_use]
    pub fn receipted_to(&self) -> Timestamp {
        self.routine.receipted_to
    }

    /// The earliest event time in the urgent batches that are not receipted; [`Timestamp::MAX`] when there is none.
    #[must_use]
    pub fn urgent_from(&self) -> Timestamp {
        self.urgent.entries.iter().map(|entry| entry.from).min().unwrap_or(Timestamp::MAX)
    }

    /// The batches of a lane that were sealed without knowing the time: their earliest event time is
    /// [`Timestamp::MIN`].
    pub fn timeless(&self, lane: Lane) -> impl Iterator<Item = u64> + '_ {
        self.log(lane).entries.iter().filter(|entry| entry.from == Timestamp::MIN).map(|entry| entry.seq)
    }

    /// Batches not yet released.
    #[must_use]
    pub fn batches(&self) -> u64 {
        (self.urgent.entries.len() + self.routine.entries.len()) as u64
    }

    /// Bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.urgent.bytes() + self.routine.bytes()
    }

    /// A batch that is still there, checked against the chain.
    pub fn batch(&self, lane: Lane, seq: u64) -> Result<Option<Batch>, SpoolError> {
        if self.broken {
            return Err(SpoolError::Broken);
        }
        let Some(entry) = self.log(lane).entry(seq) else { return Ok(None) };
        let sealed = self.payload(lane, entry)?;
        let span = Span { from: entry.from, complete_to: entry.complete_to };
        Ok(Some(Batch { seq, prev: entry.prev, span, origin: entry.origin, sealed }))
    }

    /// Goes on without a batch that is [`SpoolError::Damaged`]: it is never sent, and when all before it are released it
    /// goes, too, so that the centre sees the jump.
    pub fn give_up(&mut self, lane: Lane, seq: u64) -> Result<(), SpoolError> {
        let log = self.log_mut(lane);
        if log.entry(seq).is_some() {
            log.damaged.insert(seq);
        }
        let base = log.base();
        match log.forget_below(base) {
            0 => Ok(()),
            _ => self.mark_released(lane, self.log(lane).base()),
        }
    }

    /// Notes what time it is, from one who knows: the floor is set to it, and nothing that a wrong clock once claimed for
    /// complete counts beyond it. Times of batches that wait are left as they are.
    pub fn learn_time(&mut self, now: Timestamp) -> Result<(), SpoolError> {
        for log in [&mut self.urgent, &mut self.routine] {
            log.complete_to = log.complete_to.min(now);
            log.receipted_to = log.receipted_to.min(now);
        }
        let floor = self.head.floor;
        if now.since(floor) < FLOOR_STEP && floor.since(now) < FLOOR_STEP {
            return Ok(());
        }
        let head = Head { floor: now, ..self.head };
        self.attempt("write the head", |disk| disk.create(HEAD, &head.encode()))?;
        self.head = head;
        Ok(())
    }

    /// What a receipt means; releases what the centre has, when the receipt is about our own batches.
    pub fn release(&mut self, receipt: &Receipt) -> Result<Released, SpoolError> {
        if self.broken {
            return Err(SpoolError::Broken);
        }
        let Receipt { lane, next, .. } = *receipt;
        let log = self.log(lane);
        if receipt.epoch != self.head.epoch {
            return Ok(Released::OtherEpoch);
        }
        if next > log.next {
            return Ok(Released::Ahead);
        }
        match log.digest_before(next) {
            None => return Ok(Released::Below),
            Some(ours) if ours != receipt.digest => return Ok(Released::ForeignDigest),
            Some(_) => {}
        }
        let batches = self.log_mut(lane).forget_below(next);
        if batches > 0 {
            point(lane, "gateway.before_release");
            self.mark_released(lane, self.log(lane).base())?;
        }
        Ok(Released::Upto { batches, next })
    }

    fn payload(&self, lane: Lane, entry: &Entry) -> Result<Sealed, SpoolError> {
        let header = self.log(lane).header(self.head.epoch);
        let file = SegmentHeader { first: entry.segment, ..header }.file();
        let damaged = SpoolError::Damaged { lane, seq: entry.seq };
        let Ok(bytes) = self.disk.read_at(&file, entry.offset, entry.length) else { return Err(damaged) };
        let content = entry.content_type.as_str();
        let digest = Digest::of_batch(self.head.epoch, lane, entry.seq, entry.prev, content, &bytes);
        if digest == entry.digest { Ok(Sealed { content_type: entry.content_type, bytes }) } else { Err(damaged) }
    }

    fn log(&self, lane: Lane) -> &LaneLog {
        match lane {
            Lane::Urgent => &self.urgent,
            Lane::Routine => &self.routine,
        }
    }

    fn log_mut(&mut self, lane: Lane) -> &mut LaneLog {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Routine => &mut self.routine,
        }
    }
}

/// Crash points are reached by urgent batches only, so that a test can aim at one press of a button.
fn point(lane: Lane, name: &str) {
    if lane == Lane::Urgent {
        crash::point(name);
    }
}

#[cfg(test)]
mod tests;
