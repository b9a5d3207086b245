//! Writing: batches and release marks, within the bounds and on a full disk.

use std::io;

use carebed_contract::digest::Digest;
use carebed_contract::labels::{Lane, Origin};
use carebed_contract::pack::Sealed;

use super::disk::Disk;
use super::format::{ENTRY_HEADER, EntryHeader, SEGMENT_HEADER, SegmentHeader, encode_mark};
use super::lane::{Entry, Segment};
use super::{Appended, RESERVE, RESERVE_EVERY, Span, Spool, SpoolError, point};

impl Spool {
    /// Adds a batch at the end of a lane. When this returns, the batch is on stable storage.
    pub fn append(&mut self, lane: Lane, sealed: &Sealed, span: Span, origin: Origin) -> Result<Appended, SpoolError> {
        self.reserve_in = self.reserve_in.saturating_sub(1);
        if self.squeezed.is_some() && self.reserve_in == 0 {
            self.allocate_reserve();
        }
        let needed = (SEGMENT_HEADER + ENTRY_HEADER + sealed.bytes.len()) as u64;
        let mut given_up = self.make_room(lane, needed)?;
        if self.log(lane).segments.back().is_none_or(|segment| segment.bytes >= self.segment_bytes()) {
            given_up += self.begin_segment(lane)?;
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

    /// Writes down what is released, and removes the segments that nobody needs any more.
    pub(super) fn mark_released(&mut self, lane: Lane, next: u64) -> Result<(), SpoolError> {
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
            if is_full(&source) && cut.is_ok() {
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
    pub(super) fn allocate_reserve(&mut self) {
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

    pub(super) fn remove_segments_below(&mut self, lane: Lane, next: u64) -> Result<(), SpoolError> {
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
        let mut given_up = 0;
        if self.log(lane).segments.len() < 2 {
            given_up += self.begin_segment(lane)?;
        }
        let end = self.log(lane).segments.get(1).map_or(0, |second| second.first);
        given_up += self.log_mut(lane).forget_below(end);
        self.remove_segments_below(lane, end)?;
        Ok(given_up)
    }

    /// Begins a segment. On a full disk the reserve goes, then the oldest routine segments. Says how many unreleased batches
    /// went.
    pub(super) fn begin_segment(&mut self, lane: Lane) -> Result<u64, SpoolError> {
        if self.broken {
            return Err(SpoolError::Broken);
        }
        let header = self.log(lane).header(self.head.epoch);
        let bytes = header.encode();
        let mut given_up = 0;
        while let Err(source) = self.disk.create(&header.file(), &bytes) {
            if is_full(&source) && self.use_reserve() {
                continue;
            }
            if is_full(&source) && self.routine.segments.len() > 1 {
                given_up += self.give_up_segment(Lane::Routine)?;
                continue;
            }
            self.broken = true;
            return Err(SpoolError::Disk { doing: "begin a segment", source });
        }
        let segment = Segment { first: header.first, bytes: bytes.len() as u64 };
        let segments = &mut self.log_mut(lane).segments;
        // A segment without batches has the same first number, hence the same file, as its successor.
        segments.retain(|earlier| earlier.first != segment.first);
        segments.push_back(segment);
        Ok(given_up)
    }

    pub(super) fn attempt(
        &mut self,
        doing: &'static str,
        act: impl Fn(&mut dyn Disk) -> io::Result<()>,
    ) -> Result<(), SpoolError> {
        if self.broken {
            return Err(SpoolError::Broken);
        }
        let mut done = act(&mut *self.disk);
        if done.as_ref().is_err_and(is_full) && self.use_reserve() {
            done = act(&mut *self.disk);
        }
        done.map_err(|source| {
            self.broken = true;
            SpoolError::Disk { doing, source }
        })
    }
}

/// Whether the disk, or this user's share of it, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
