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
//! **When the disk is full,** a reserve that was allocated at start makes room, and the spool stays as small as it is until
//! the reserve could be allocated again. Then as at the bound; only when no routine segment is left to go does it count as
//! a failed write.
//!
//! **When the bound is reached,** the oldest routine segment goes first, then older ones, urgent ones last; what was not
//! released is counted and the lane's base moves, so that the centre sees the jump.

mod disk;
mod format;
mod lane;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use carebed_contract::crash;
use carebed_contract::digest::Digest;
use carebed_contract::labels::{Epoch, Lane, Origin, UrgentBase};
use carebed_contract::pack::Sealed;
use carebed_contract::receipt::Receipt;
use carebed_contract::time::Timestamp;

pub use disk::{Directory, DirectoryError, Disk, Memory};
use format::{ENTRY_HEADER, EntryHeader, Head, SEGMENT_HEADER, SegmentHeader, encode_mark};
use lane::{End, Entry, LaneLog, Segment, recover};

const HEAD: &str = "head";
/// A file of nothing, which is removed when the disk is full.
const RESERVE: &str = "reserve";
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
    /// Opens what lies on the disk, or begins anew on an empty one. Counts the boot.
    pub fn open(disk: Box<dyn Disk>, limits: Limits) -> Result<Opened, SpoolError> {
        let failed = |source| SpoolError::Disk { doing: "list the files", source };
        let names: Vec<String> =
            disk.names().map_err(failed)?.into_iter().filter(|name| name != HEAD && name != RESERVE).collect();
        let mut damage = Vec::new();
        let head = match disk.read(HEAD) {
            Ok(bytes) => Head::decode(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(SpoolError::Disk { doing: "read the head", source }),
        };
        let mut groups: BTreeMap<u64, Vec<SegmentHeader>> = BTreeMap::new();
        for name in &names {
            let begin = disk.read_at(name, 0, SEGMENT_HEADER);
            match begin
                .ok()
                .and_then(|bytes| SegmentHeader::decode(&bytes).ok())
                .filter(|header| header.file() == *name)
            {
                Some(header) => groups.entry(header.epoch.get()).or_default().push(header),
                None => damage.push(format!("the spool file {name} does not begin as a segment does")),
            }
        }
        if head.is_none() && !names.is_empty() {
            damage.push("the spool's head is missing or damaged".to_owned());
        }
        // Two epochs lie side by side when beginning a new one was interrupted. The head says which one holds; without
        // it the one with more segments is taken: the other's are copies of its batches.
        let largest = groups.iter().max_by_key(|(_, group)| group.len()).map(|(epoch, _)| Epoch::new(*epoch));
        let fresh = head.is_none() && names.is_empty();
        let epoch = head.map(|head| head.epoch).or(largest).unwrap_or_else(Epoch::random);
        let mut segments = groups.remove(&epoch.get()).unwrap_or_default();
        segments.sort_by_key(|header| header.first);

        let mut cuts = Vec::new();
        let mut load = |lane: Lane| {
            let mut log = LaneLog::new(lane, 0);
            let of_lane: Vec<_> = segments.iter().filter(|header| header.lane == lane).collect();
            for (index, header) in of_lane.iter().enumerate() {
                let file = header.file();
                let bytes = disk.read(&file).map_err(|source| SpoolError::Disk { doing: "read a segment", source })?;
                match recover(&mut log, header, &bytes) {
                    End::Clean => {}
                    End::Cut { whole } if index + 1 == of_lane.len() => cuts.push((lane, file, whole)),
                    // In an earlier segment only a release mark can have been cut off without loss; if it was a batch,
                    // the next segment does not continue the chain, and that is damage.
                    End::Cut { .. } => {}
                    End::Damaged => damage.push(format!("the spool file {file} is damaged")),
                }
            }
            if of_lane.is_empty() && !fresh {
                damage.push(format!("the spool has no file of the {lane} lane"));
                log.lost = 1;
            }
            Ok::<_, SpoolError>(log)
        };
        let (urgent, routine) = (load(Lane::Urgent)?, load(Lane::Routine)?);
        let floor = head.map_or(Timestamp::MIN, |head| head.floor);
        let head = Head { epoch, boot: head.map_or(0, |head| head.boot) + 1, floor };
        let mut spool =
            Self { disk, limits, head, urgent, routine, broken: false, squeezed: None, reserve_in: RESERVE_EVERY };

        if fresh || !damage.is_empty() {
            spool.begin_epoch()?;
        } else {
            for (lane, file, whole) in cuts {
                spool.attempt("cut off an unfinished entry", |disk| disk.truncate(&file, whole))?;
                if let Some(last) = spool.log_mut(lane).segments.back_mut() {
                    last.bytes = whole;
                }
            }
            let bytes = spool.head.encode();
            spool.attempt("write the head", |disk| disk.create(HEAD, &bytes))?;
            spool.remove_others()?;
        }
        spool.allocate_reserve();
        Ok(Opened { spool, damage })
    }

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

    /// The first batch of a lane that was sealed without knowing the time: its earliest event time is
    /// [`Timestamp::MIN`].
    #[must_use]
    pub fn first_timeless(&self, lane: Lane) -> Option<u64> {
        self.log(lane).entries.iter().find(|entry| entry.from == Timestamp::MIN).map(|entry| entry.seq)
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

    /// Adds a batch at the end of a lane. When this returns, the batch is on stable storage.
    pub fn append(&mut self, lane: Lane, sealed: &Sealed, span: Span, origin: Origin) -> Result<Appended, SpoolError> {
        self.reserve_in = self.reserve_in.saturating_sub(1);
        if self.squeezed.is_some() && self.reserve_in == 0 {
            self.allocate_reserve();
        }
        let needed = (SEGMENT_HEADER + ENTRY_HEADER + sealed.bytes.len()) as u64;
        let mut given_up = self.make_room(lane, needed)?;
        if self.log(lane).segments.back().is_none_or(|segment| segment.bytes >= self.segment_bytes()) {
            self.begin_segment(lane)?;
        }
        let (epoch, log) = (self.head.epoch, self.log(lane));
        let (seq, prev) = (log.next, log.last);
        let digest = Digest::of_batch(epoch, lane, seq, prev, sealed.content_type.as_str(), &sealed.bytes);
        let Segment { first, bytes: at } = log.segments.back().copied().unwrap_or(Segment { first: seq, bytes: 0 });
        let header = EntryHeader {
            content_type: sealed.content_type,
            length: sealed.bytes.len(),
            from: span.from,
            complete_to: span.complete_to,
            digest,
            origin: Some(origin),
        };
        given_up += self.append_unit(lane, &header.encode(&sealed.bytes), true)?;
        point(lane, "gateway.after_spool_sync");
        self.log_mut(lane).push(Entry {
            seq,
            prev,
            digest,
            content_type: sealed.content_type,
            from: span.from,
            complete_to: span.complete_to,
            origin: header.origin,
            segment: first,
            offset: at + header.bytes() as u64,
            length: sealed.bytes.len(),
        });
        if lane == Lane::Routine && self.bytes() > self.bytes_max() {
            // Urgent batches alone fill the spool: this one has a number, so that giving it up shows.
            given_up += self.give_up_segment(lane)?;
        }
        Ok(Appended { seq, given_up })
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

    /// A spool in memory, whose numbers begin behind as many `missing` ones, by lane, as another spool still holds that
    /// cannot be used now: so that the centre declares them.
    pub fn in_memory(limits: Limits, missing: [u64; 2]) -> Result<Self, SpoolError> {
        let mut spool = Self::open(Box::new(Memory::default()), limits)?.spool;
        [spool.urgent.lost, spool.routine.lost] = missing;
        spool.begin_epoch()?;
        Ok(spool)
    }

    /// Begins a new life: what is not released gets new numbers. Says how many batches could not be read and are lost; the
    /// numbers begin behind so many missing ones, so that the centre declares them even if it never heard of the old life.
    /// When this is interrupted, the old epoch still holds, whole.
    pub fn begin_epoch(&mut self) -> Result<u64, SpoolError> {
        let epoch = Epoch::random();
        let mut lost = 0;
        let mut fresh = Vec::new();
        for lane in Lane::ALL {
            let entries = self.log(lane).entries.clone();
            let is_lost = |entry: &&Entry| self.is_lost(lane, entry);
            let missing = self.log(lane).lost + entries.iter().filter(is_lost).count() as u64;
            lost += missing;
            let mut log = LaneLog::new(lane, missing);
            let mut header = log.header(epoch);
            let mut bytes = header.encode();
            for old in &entries {
                let Some(sealed) = self.payload(lane, old).ok().filter(|_| !self.is_lost(lane, old)) else { continue };
                let (seq, prev) = (log.next, log.last);
                let digest = Digest::of_batch(epoch, lane, seq, prev, sealed.content_type.as_str(), &sealed.bytes);
                let unit = EntryHeader {
                    content_type: old.content_type,
                    length: sealed.bytes.len(),
                    from: old.from,
                    complete_to: old.complete_to,
                    digest,
                    origin: old.origin,
                };
                let (offset, segment) = ((bytes.len() + unit.bytes()) as u64, header.first);
                bytes.extend(unit.encode(&sealed.bytes));
                log.push(Entry { seq, prev, digest, segment, offset, ..old.clone() });
                if bytes.len() as u64 >= self.limits.segment_bytes {
                    self.finish_segment(&mut log, &header, &bytes)?;
                    header = log.header(epoch);
                    bytes = header.encode();
                }
            }
            self.finish_segment(&mut log, &header, &bytes)?;
            fresh.push(log);
        }
        let head = Head { epoch, ..self.head };
        self.attempt("write the head", |disk| disk.create(HEAD, &head.encode()))?;
        self.head = head;
        for log in fresh {
            let lane = log.lane;
            *self.log_mut(lane) = log;
        }
        self.remove_others()?;
        Ok(lost)
    }

    fn finish_segment(&mut self, log: &mut LaneLog, header: &SegmentHeader, bytes: &[u8]) -> Result<(), SpoolError> {
        log.segments.push_back(Segment { first: header.first, bytes: bytes.len() as u64 });
        self.attempt("write a segment", |disk| disk.create(&header.file(), bytes))
    }

    fn is_lost(&self, lane: Lane, entry: &Entry) -> bool {
        self.log(lane).damaged.contains(&entry.seq) || self.payload(lane, entry).is_err()
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

    /// Writes down what is released, and removes the segments that nobody needs any more.
    fn mark_released(&mut self, lane: Lane, next: u64) -> Result<(), SpoolError> {
        if !self.log(lane).segments.is_empty() {
            self.append_unit(lane, &encode_mark(next), false)?;
        }
        self.remove_segments_below(lane, next)
    }

    /// Adds a unit to the lane's last segment, whole or not at all. On a full disk the reserve goes, then the oldest
    /// routine segments. Says how many unreleased batches went.
    fn append_unit(&mut self, lane: Lane, unit: &[u8], sync: bool) -> Result<u64, SpoolError> {
        if self.broken {
            return Err(SpoolError::Broken);
        }
        let log = self.log(lane);
        let Some(Segment { first, bytes: at }) = log.segments.back().copied() else { return Ok(0) };
        let file = SegmentHeader { first, ..log.header(self.head.epoch) }.file();
        let mut given_up = 0;
        loop {
            let written = self.disk.append(&file, unit).and_then(|()| {
                if !sync {
                    return Ok(());
                }
                point(lane, "gateway.before_spool_sync");
                self.disk.sync(&file)
            });
            let Err(source) = written else { break };
            // Whether it is tried again here or goes from memory: as far as this disk obeys, it shall not also wait here.
            let cut = self.disk.truncate(&file, at);
            if source.kind() == io::ErrorKind::StorageFull && cut.is_ok() {
                if self.use_reserve() {
                    continue;
                }
                if self.routine.segments.len() > 1 {
                    given_up += self.give_up_segment(Lane::Routine)?;
                    continue;
                }
            }
            self.broken = true;
            return Err(SpoolError::Disk { doing: "write a batch", source });
        }
        if let Some(segment) = self.log_mut(lane).segments.back_mut() {
            segment.bytes += unit.len() as u64;
        }
        Ok(given_up)
    }

    /// Removes the reserve, when there is one; from then on the spool keeps within what it has and half of that room.
    fn use_reserve(&mut self) -> bool {
        let used = self.squeezed.is_none() && self.limits.reserve_bytes > 0 && self.disk.remove(RESERVE).is_ok();
        if used {
            self.squeezed = Some(self.bytes() + self.limits.reserve_bytes / 2);
            self.reserve_in = RESERVE_EVERY;
        }
        used
    }

    /// Allocates the reserve. Without room for it the spool works all the same, and stays small.
    fn allocate_reserve(&mut self) {
        let Ok(bytes) = usize::try_from(self.limits.reserve_bytes) else { return };
        if bytes == 0 || self.broken {
            return;
        }
        let is_there = self.disk.read_at(RESERVE, self.limits.reserve_bytes - 1, 1).is_ok();
        if is_there || self.disk.create(RESERVE, &vec![0; bytes]).is_ok() {
            self.squeezed = None;
        } else {
            self.squeezed.get_or_insert(self.urgent.bytes() + self.routine.bytes() + self.limits.reserve_bytes / 2);
            self.reserve_in = RESERVE_EVERY;
        }
    }

    fn bytes_max(&self) -> u64 {
        self.squeezed.map_or(self.limits.bytes_max, |squeezed| squeezed.min(self.limits.bytes_max))
    }

    /// In a squeezed spool, what is given up shall be little.
    fn segment_bytes(&self) -> u64 {
        let small = self.limits.reserve_bytes / 8;
        self.squeezed.map_or(self.limits.segment_bytes, |_| self.limits.segment_bytes.min(small))
    }

    fn remove_segments_below(&mut self, lane: Lane, next: u64) -> Result<(), SpoolError> {
        while self.log(lane).segments.get(1).is_some_and(|second| second.first <= next) {
            let Some(first) = self.log_mut(lane).segments.pop_front() else { break };
            let file = SegmentHeader { first: first.first, ..self.log(lane).header(self.head.epoch) }.file();
            self.attempt("remove a segment", |disk| disk.remove(&file))?;
        }
        Ok(())
    }

    /// Gives up the oldest routine segments, and for an urgent batch the oldest urgent ones too, until `needed` bytes
    /// fit. Says how many unreleased batches went.
    fn make_room(&mut self, lane: Lane, needed: u64) -> Result<u64, SpoolError> {
        let mut given_up = 0;
        for victim in [Lane::Routine, Lane::Urgent] {
            while self.bytes() + needed > self.bytes_max()
                && self.log(victim).bytes() > SEGMENT_HEADER as u64
                && (victim == Lane::Routine || lane == Lane::Urgent)
            {
                given_up += self.give_up_segment(victim)?;
            }
        }
        Ok(given_up)
    }

    fn give_up_segment(&mut self, lane: Lane) -> Result<u64, SpoolError> {
        if self.log(lane).segments.len() < 2 {
            self.begin_segment(lane)?;
        }
        let end = self.log(lane).segments.get(1).map_or(0, |second| second.first);
        let given_up = self.log_mut(lane).forget_below(end);
        self.remove_segments_below(lane, end)?;
        Ok(given_up)
    }

    fn begin_segment(&mut self, lane: Lane) -> Result<(), SpoolError> {
        let header = self.log(lane).header(self.head.epoch);
        let bytes = header.encode();
        self.attempt("begin a segment", |disk| disk.create(&header.file(), &bytes))?;
        let segment = Segment { first: header.first, bytes: bytes.len() as u64 };
        let segments = &mut self.log_mut(lane).segments;
        // A segment without batches has the same first number, hence the same file, as its successor.
        segments.retain(|earlier| earlier.first != segment.first);
        segments.push_back(segment);
        Ok(())
    }

    /// Removes what belongs to no segment of this epoch: remains of an epoch's end or of a beginning that did not come to
    /// its end.
    fn remove_others(&mut self) -> Result<(), SpoolError> {
        let epoch = self.head.epoch;
        let of = |log: &LaneLog| -> Vec<String> {
            let file = |segment: &Segment| SegmentHeader { first: segment.first, ..log.header(epoch) }.file();
            log.segments.iter().map(file).collect()
        };
        let ours = [of(&self.urgent), of(&self.routine)].concat();
        let names = self.disk.names().map_err(|source| SpoolError::Disk { doing: "list the files", source })?;
        for name in names.into_iter().filter(|name| name != HEAD && name != RESERVE && !ours.contains(name)) {
            self.attempt("remove an old file", |disk| disk.remove(&name))?;
        }
        Ok(())
    }

    fn attempt(
        &mut self,
        doing: &'static str,
        act: impl Fn(&mut dyn Disk) -> io::Result<()>,
    ) -> Result<(), SpoolError> {
        if self.broken {
            return Err(SpoolError::Broken);
        }
        let mut done = act(&mut *self.disk);
        if done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) && self.use_reserve() {
            done = act(&mut *self.disk);
        }
        done.map_err(|source| {
            self.broken = true;
            SpoolError::Disk { doing, source }
        })
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
