//! Beginning: with what lies on the disk, or with a new epoch.

use std::collections::BTreeMap;
use std::io;

use carebed_contract::digest::Digest;
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::pack::Sealed;
use carebed_contract::time::Timestamp;

use super::disk::{Disk, Memory};
use super::format::{EntryHeader, Head, SEGMENT_HEADER, SegmentHeader};
use super::lane::{End, Entry, LaneLog, Segment, recover};
use super::{ASIDE, HEAD, Limits, Opened, RESERVE, RESERVE_EVERY, Spool, SpoolError};

impl Spool {
    /// Opens what lies on the disk, or begins anew on an empty one. Counts the boot.
    pub fn open(disk: Box<dyn Disk>, limits: Limits) -> Result<Opened, SpoolError> {
        let failed = |source| SpoolError::Disk { doing: "list the files", source };
        let names: Vec<String> = disk
            .names()
            .map_err(failed)?
            .into_iter()
            .filter(|name| ![HEAD, RESERVE, ASIDE].contains(&&**name))
            .collect();
        let (mut damage, mut unread) = (Vec::new(), Vec::new());
        if disk.read(ASIDE).is_ok() {
            damage.push(
                "when its disk failed the gateway went on in memory: what it could not send before it ended is lost"
                    .to_owned(),
            );
        }
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
                None => {
                    damage.push(format!("the spool file {name} does not begin as a segment does"));
                    unread.push(name);
                }
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
        let (mut urgent, mut routine) = (load(Lane::Urgent)?, load(Lane::Routine)?);
        for log in [&mut urgent, &mut routine] {
            let lane = format!("-{}-", log.lane);
            let lost_unread = log.lost == 0 && unread.iter().any(|name| name.contains(&lane));
            log.lost += u64::from(lost_unread);
        }
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

    /// A spool in memory, whose numbers begin behind as many `missing` ones, by lane, as another spool still holds that
    /// cannot be used now: so that the centre declares them.
    pub fn in_memory(limits: Limits, missing: [u64; 2]) -> Result<Self, SpoolError> {
        let mut spool = Self::open(Box::new(Memory::default()), limits)?.spool;
        [spool.urgent.lost, spool.routine.lost] = missing;
        spool.begin_epoch()?;
        Ok(spool)
    }

    /// Notes on the disk, as far as it obeys, that its owner goes on in memory.
    pub fn leave_aside(&mut self) {
        leave_aside(&mut *self.disk);
    }

    /// Begins a new life: what is not released gets new numbers. Says how many batches could not be read and are lost; the
    /// numbers begin behind so many missing ones, so that the centre declares them even if it never heard of the old life.
    /// When this is interrupted, the old epoch still holds, whole.
    pub fn begin_epoch(&mut self) -> Result<u64, SpoolError> {
        self.begin_epoch_with(|sealed| sealed)
    }

    /// The same, with payloads that may change.
    pub(super) fn begin_epoch_with(&mut self, change: impl Fn(Sealed) -> Sealed) -> Result<u64, SpoolError> {
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
                let sealed = change(sealed);
                let (seq, prev) = (log.next, log.last);
                let digest = Digest::of_batch(epoch, lane, seq, prev, sealed.content_type.as_str(), &sealed.bytes);
                let unit = EntryHeader {
                    content_type: sealed.content_type,
                    length: sealed.bytes.len(),
                    from: old.from,
                    complete_to: old.complete_to,
                    digest,
                    origin: old.origin,
                };
                let (offset, segment) = ((bytes.len() + unit.bytes()) as u64, header.first);
                bytes.extend(unit.encode(&sealed.bytes));
                let (content_type, length) = (sealed.content_type, sealed.bytes.len());
                log.push(Entry { seq, prev, digest, content_type, segment, offset, length, ..old.clone() });
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
}

/// The same on the disk of a spool that could not even be opened.
pub fn leave_aside(disk: &mut dyn Disk) {
    // A disk that does not even take this keeps nothing: then only the centre may know of what is lost.
    let _refused = disk.create(ASIDE, &[]);
}
