//! One lane as it lies on disk: its segments, and an index of the batches that are still needed.

use std::collections::{BTreeSet, VecDeque};

use carebed_contract::digest::Digest;
use carebed_contract::labels::{Epoch, Lane, Origin};
use carebed_contract::pack::ContentType;
use carebed_contract::time::Timestamp;

use super::format::{SEGMENT_HEADER, SegmentHeader, Unit, Unread};

/// A batch of the index: everything but its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) prev: Digest,
    pub(super) digest: Digest,
    pub(super) content_type: ContentType,
    pub(super) from: Timestamp,
    pub(super) complete_to: Timestamp,
    pub(super) origin: Option<Origin>,
    /// First number of the segment it lies in.
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) length: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) first: u64,
    pub(super) bytes: u64,
}

/// One lane of a spool.
#[derive(Debug)]
pub(super) struct LaneLog {
    pub(super) lane: Lane,
    /// Never empty; the last one is being written. Its header carries number and digest over to a lane without batches.
    pub(super) segments: VecDeque<Segment>,
    pub(super) entries: VecDeque<Entry>,
    /// Those of them that turned out to be damaged: never sent; they go when all before them have been released.
    pub(super) damaged: BTreeSet<u64>,
    /// Batches that are known to be lost with the damage that was found in opening; of an unreadable stretch, at least one.
    pub(super) lost: u64,
    pub(super) next: u64,
    pub(super) last: Digest,
    pub(super) complete_to: Timestamp,
    /// The latest `complete_to` of the batches that were released.
    pub(super) receipted_to: Timestamp,
}

impl LaneLog {
    /// Numbers from `first` on: those below are missing, and the base says so.
    pub(super) fn new(lane: Lane, first: u64) -> Self {
        Self {
            lane,
            segments: VecDeque::new(),
            entries: VecDeque::new(),
            damaged: BTreeSet::new(),
            lost: 0,
            next: first,
            last: Digest::ORIGIN,
            complete_to: Timestamp::MIN,
            receipted_to: Timestamp::MIN,
        }
    }

    /// The lowest batch it still has; `next` when it has none.
    pub(super) fn base(&self) -> u64 {
        self.entries.front().map_or(self.next, |entry| entry.seq)
    }

    /// The number of the first batch that cannot be sent before others are released: it is damaged, or not there yet.
    pub(super) fn end(&self) -> u64 {
        self.damaged.first().copied().unwrap_or(self.next)
    }

    /// The digest of batch `seq - 1`, where it is still known.
    pub(super) fn digest_before(&self, seq: u64) -> Option<Digest> {
        if seq == self.next {
            return Some(self.last);
        }
        self.entry(seq).map(|entry| entry.prev)
    }

    pub(super) fn entry(&self, seq: u64) -> Option<&Entry> {
        let at = usize::try_from(seq.checked_sub(self.base())?).ok()?;
        self.entries.get(at)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The header of the segment that would be begun now.
    pub(super) fn header(&self, epoch: Epoch) -> SegmentHeader {
        SegmentHeader { lane: self.lane, epoch, first: self.next, prev: self.last, complete_to: self.complete_to }
    }

    /// Forgets batches below `seq` and the damaged ones behind them, and says how many it forgot.
    pub(super) fn forget_below(&mut self, seq: u64) -> u64 {
        let before = self.entries.len();
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.seq < seq || self.damaged.contains(&entry.seq))
        {
            self.damaged.remove(&entry.seq);
            self.receipted_to = self.receipted_to.max(entry.complete_to);
        }
        (before - self.entries.len()) as u64
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.next = entry.seq + 1;
        self.last = entry.digest;
        self.complete_to = self.complete_to.max(entry.complete_to);
        self.entries.push_back(entry);
    }
}

/// How reading a segment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At its end.
    Clean,
    /// In a unit that was never written whole; the length of what stands before it.
    Cut { whole: u64 },
    /// In bytes that are not what was written. What could be read beyond was read.
    Damaged,
}

/// Takes a segment's bytes into the lane. Segments come in order of their first number.
pub(super) fn recover(log: &mut LaneLog, header: &SegmentHeader, bytes: &[u8]) -> End {
    let continues = log.segments.is_empty() || (header.first == log.next && header.prev == log.last);
    let mut end = if continues { End::Clean } else { End::Damaged };
    if !continues {
        log.lost += header.first.saturating_sub(log.next).max(1);
    }
    log.segments.push_back(Segment { first: header.first, bytes: bytes.len() as u64 });
    (log.next, log.last) = (header.first, header.prev);
    log.complete_to = log.complete_to.max(header.complete_to);
    let mut at = SEGMENT_HEADER;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return end;
        }
        let (unit, length) = match Unit::decode(rest) {
            Ok(read) => read,
            Err(Unread::Cut) if end == End::Clean => return End::Cut { whole: at as u64 },
            Err(_) => {
                log.lost += 1;
                return End::Damaged;
            }
        };
        match unit {
            Unit::Mark { released } => drop(log.forget_below(released)),
            Unit::Entry(entry) => {
                let seq = log.next;
                let payload = rest.get(entry.bytes()..length).unwrap_or_default();
                let content = entry.content_type.as_str();
                let digest = Digest::of_batch(header.epoch, header.lane, seq, log.last, content, payload);
                if digest == entry.digest {
                    log.push(Entry {
                        seq,
                        prev: log.last,
                        digest,
                        content_type: entry.content_type,
                        from: entry.from,
                        complete_to: entry.complete_to,
                        origin: entry.origin,
                        segment: header.first,
                        offset: (at + entry.bytes()) as u64,
                        length: entry.length,
                    });
                } else {
                    // This payload is lost; the header holds, so the chain goes on behind it.
                    end = End::Damaged;
                    log.lost += 1;
                    (log.next, log.last) = (seq + 1, entry.digest);
                }
            }
        }
        at += length;
    }
}
