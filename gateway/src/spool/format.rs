//! The bytes of a spool: one head, and segments of entries. Numbers are big-endian.
//!
//! ```text
//! head     "CBSH" 1 | epoch u64 | boot u64 | floor i64                                              | check
//! segment  "CBSG" 1 | lane u8 | epoch u64 | first u64 | prev 32 | complete_to i64                    | check
//! entry    'N' | content type u8 | payload length u32 | from i64 | complete_to i64 | digest 32 | run u64 | number u64 | check | payload
//! entry    'B' | content type u8 | payload length u32 | from i64 | complete_to i64 | digest 32        | check | payload
//! mark     'M' | released u64                                                                        | check
//! ```
//!
//! `check` is the first 8 bytes of the SHA-256 of what stands before it in its unit. An entry's digest is its batch's in
//! the chain, so it covers payload, content type, number and everything before. A mark says which batches need not be
//! sent again; it is not synced by itself, and a lost one costs only repetition. Entries of kind 'B' are from spools of
//! before origins were known; they are read, and keep their kind when an epoch begins.

use carebed_contract::digest::Digest;
use carebed_contract::labels::{Epoch, Lane, Origin};
use carebed_contract::pack::{BYTES_MAX, ContentType};
use carebed_contract::time::Timestamp;

const HEAD_MAGIC: &[u8; 5] = b"CBSH\x01";
const SEGMENT_MAGIC: &[u8; 5] = b"CBSG\x01";
const CHECK: usize = 8;
const BATCH: u8 = b'N';
const BATCH_WITHOUT_ORIGIN: u8 = b'B';
const MARK: u8 = b'M';
/// Length of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 5 + 1 + 8 + 8 + 32 + 8 + CHECK;
/// Length of the longest entry before its payload.
pub(super) const ENTRY_HEADER: usize = 1 + 1 + 4 + 8 + 8 + 32 + ORIGIN + CHECK;
const ORIGIN: usize = 8 + 8;
const MARK_LENGTH: usize = 1 + 8 + CHECK;

/// What a spool remembers besides its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    /// How many times the spool was opened: the number of the gateway's boot.
    pub(super) boot: u64,
    /// The time that the centre last told, to a day: no true clock shows less.
    pub(super) floor: Timestamp,
}

/// The beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) lane: Lane,
    pub(super) epoch: Epoch,
    pub(super) first: u64,
    pub(super) prev: Digest,
    pub(super) complete_to: Timestamp,
}

/// A batch without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryHeader {
    pub(super) content_type: ContentType,
    pub(super) length: usize,
    pub(super) from: Timestamp,
    pub(super) complete_to: Timestamp,
    pub(super) digest: Digest,
    pub(super) origin: Option<Origin>,
}

/// One unit in a segment after its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Entry(EntryHeader),
    Mark { released: u64 },
}

/// Why no unit could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// The bytes end before the unit does.
    Cut,
    /// The bytes are not what was written.
    Damaged,
}

fn with_check(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = Digest::of_bytes(&bytes);
    bytes.extend(digest.as_bytes().iter().take(CHECK));
    bytes
}

/// The fields of a unit of `length` bytes, when its check holds.
fn checked(bytes: &[u8], length: usize) -> Result<Reader<'_>, Unread> {
    let unit = bytes.get(..length).ok_or(Unread::Cut)?;
    let (fields, check) = unit.split_at_checked(length - CHECK).ok_or(Unread::Cut)?;
    let holds = Digest::of_bytes(fields).as_bytes().starts_with(check);
    if holds { Ok(Reader(fields)) } else { Err(Unread::Damaged) }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Unread> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Unread::Damaged)?;
        self.0 = rest;
        Ok(*bytes)
    }
    fn byte(&mut self) -> Result<u8, Unread> {
        self.take::<1>().map(|[byte]| byte)
    }
    fn number(&mut self) -> Result<u64, Unread> {
        self.take().map(u64::from_be_bytes)
    }
    fn time(&mut self) -> Result<Timestamp, Unread> {
        self.take().map(|bytes| Timestamp::from_millis(i64::from_be_bytes(bytes)))
    }
    fn digest(&mut self) -> Result<Digest, Unread> {
        Digest::from_slice(&self.take::<32>()?).ok_or(Unread::Damaged)
    }
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = HEAD_MAGIC.to_vec();
        bytes.extend(self.epoch.get().to_be_bytes());
        bytes.extend(self.boot.to_be_bytes());
        bytes.extend(self.floor.millis().to_be_bytes());
        with_check(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unread> {
        let mut r = checked(bytes, 5 + 8 + 8 + 8 + CHECK)?;
        if &r.take::<5>()? != HEAD_MAGIC {
            return Err(Unread::Damaged);
        }
        Ok(Self { epoch: Epoch::new(r.number()?), boot: r.number()?, floor: r.time()? })
    }
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = SEGMENT_MAGIC.to_vec();
        bytes.push(self.lane.code());
        bytes.extend(self.epoch.get().to_be_bytes());
        bytes.extend(self.first.to_be_bytes());
        bytes.extend(self.prev.as_bytes());
        bytes.extend(self.complete_to.millis().to_be_bytes());
        with_check(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unread> {
        let mut r = checked(bytes, SEGMENT_HEADER)?;
        if &r.take::<5>()? != SEGMENT_MAGIC {
            return Err(Unread::Damaged);
        }
        let lane = Lane::from_code(r.byte()?).ok_or(Unread::Damaged)?;
        let (epoch, first) = (Epoch::new(r.number()?), r.number()?);
        Ok(Self { lane, epoch, first, prev: r.digest()?, complete_to: r.time()? })
    }

    /// The name of its file.
    pub(super) fn file(&self) -> String {
        format!("{}-{}-{:016x}", self.epoch, self.lane, self.first)
    }
}

impl EntryHeader {
    /// Its own length, before the payload.
    pub(super) const fn bytes(&self) -> usize {
        if self.origin.is_some() { ENTRY_HEADER } else { ENTRY_HEADER - ORIGIN }
    }

    pub(super) fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENTRY_HEADER + payload.len());
        let kind = if self.origin.is_some() { BATCH } else { BATCH_WITHOUT_ORIGIN };
        bytes.extend([kind, content_code(self.content_type)]);
        bytes.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(self.from.millis().to_be_bytes());
        bytes.extend(self.complete_to.millis().to_be_bytes());
        bytes.extend(self.digest.as_bytes());
        if let Some(Origin { run, number }) = self.origin {
            bytes.extend(run.to_be_bytes());
            bytes.extend(number.to_be_bytes());
        }
        let mut bytes = with_check(bytes);
        bytes.extend(payload);
        bytes
    }

    fn decode(bytes: &[u8], has_origin: bool) -> Result<Self, Unread> {
        let mut r = checked(bytes, if has_origin { ENTRY_HEADER } else { ENTRY_HEADER - ORIGIN })?;
        r.byte()?;
        let content_type = content_of(r.byte()?).ok_or(Unread::Damaged)?;
        let length = u32::from_be_bytes(r.take()?) as usize;
        if length > BYTES_MAX {
            return Err(Unread::Damaged);
        }
        let (from, complete_to, digest) = (r.time()?, r.time()?, r.digest()?);
        let origin = if has_origin { Some(Origin { run: r.number()?, number: r.number()? }) } else { None };
        Ok(Self { content_type, length, from, complete_to, digest, origin })
    }
}

pub(super) fn encode_mark(released: u64) -> Vec<u8> {
    let mut bytes = vec![MARK];
    bytes.extend(released.to_be_bytes());
    with_check(bytes)
}

impl Unit {
    /// Reads the unit at the start of `bytes`, and says how long it is altogether.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, usize), Unread> {
        match bytes.first() {
            None => Err(Unread::Cut),
            Some(&MARK) => {
                let mut r = checked(bytes, MARK_LENGTH)?;
                r.byte()?;
                Ok((Self::Mark { released: r.number()? }, MARK_LENGTH))
            }
            Some(kind @ (&BATCH | &BATCH_WITHOUT_ORIGIN)) => {
                let entry = EntryHeader::decode(bytes, *kind == BATCH)?;
                let whole = entry.bytes() + entry.length;
                if bytes.len() < whole { Err(Unread::Cut) } else { Ok((Self::Entry(entry), whole)) }
            }
            Some(_) => Err(Unread::Damaged),
        }
    }
}

const fn content_code(content_type: ContentType) -> u8 {
    match content_type {
        ContentType::Cbor => 0,
        ContentType::CborZstd => 1,
        ContentType::Json => 2,
    }
}

const fn content_of(code: u8) -> Option<ContentType> {
    match code {
        0 => Some(ContentType::Cbor),
        1 => Some(ContentType::CborZstd),
        2 => Some(ContentType::Json),
        _ => None,
    }
}
