//! What the centre orders to forget goes out of the batches that wait.

use std::collections::VecDeque;

use carebed_contract::command::Purge;
use carebed_contract::labels::Lane;
use carebed_contract::pack::{Pack, Sealed};

use super::format::{EntryHeader, SegmentHeader};
use super::lane::{Entry, Segment};
use super::{Spool, SpoolError};

impl Spool {
    /// Takes records out of what is not released, and removes from the disk what was released: receipted batches lie in their
    /// segment until it is full. Payloads never change under their numbers, so when there are such records a new epoch begins
    /// with what is left. Says how many records went.
    pub fn purge(&mut self, purge: &Purge) -> Result<usize, SpoolError> {
        let mut gone = 0;
        for lane in Lane::ALL {
            let entries = self.log(lane).entries.iter().filter(|entry| entry.from < purge.until);
            gone += entries
                .filter_map(|entry| without(self.payload(lane, entry).ok()?, purge))
                .map(|(_, n)| n)
                .sum::<usize>();
        }
        if gone > 0 {
            self.begin_epoch_with(|sealed| without(sealed.clone(), purge).map_or(sealed, |(left, _)| left))?;
            return Ok(gone);
        }
        let has_released = |lane: &Lane| {
            let log = self.log(*lane);
            log.segments.front().is_some_and(|segment| segment.first < log.base())
        };
        for lane in Lane::ALL.into_iter().filter(has_released).collect::<Vec<_>>() {
            self.drop_released(lane)?;
        }
        Ok(gone)
    }

    /// Writes what waits in a lane anew, in one segment, and removes the others. A power cut in between leaves both; whoever opens
    /// the spool then finds that they do not follow each other, and begins a new epoch with what waits.
    fn drop_released(&mut self, lane: Lane) -> Result<(), SpoolError> {
        let Some(front) = self.log(lane).entries.front() else {
            self.begin_segment(lane)?;
            return self.remove_segments_below(lane, self.log(lane).next);
        };
        let log = self.log(lane);
        let header = SegmentHeader {
            first: front.seq,
            prev: front.prev,
            complete_to: log.receipted_to,
            ..log.header(self.epoch())
        };
        let (mut bytes, mut entries) = (header.encode(), VecDeque::with_capacity(log.entries.len()));
        for entry in &log.entries {
            let Ok(sealed) = self.payload(lane, entry) else {
                // Something is damaged, and that begins an epoch anyway.
                return self.begin_epoch().map(drop);
            };
            let unit = EntryHeader {
                content_type: entry.content_type,
                length: entry.length,
                from: entry.from,
                complete_to: entry.complete_to,
                digest: entry.digest,
                origin: entry.origin,
            };
            let offset = (bytes.len() + unit.bytes()) as u64;
            bytes.extend(unit.encode(&sealed.bytes));
            entries.push_back(Entry { segment: header.first, offset, ..entry.clone() });
        }
        let old: Vec<String> =
            log.segments.iter().map(|segment| SegmentHeader { first: segment.first, ..header }.file()).collect();
        self.attempt("write a segment", |disk| disk.create(&header.file(), &bytes))?;
        let log = self.log_mut(lane);
        log.segments = [Segment { first: header.first, bytes: bytes.len() as u64 }].into();
        log.entries = entries;
        for file in old.into_iter().filter(|file| *file != header.file()) {
            self.attempt("remove a segment", |disk| disk.remove(&file))?;
        }
        Ok(())
    }
}

/// A payload without such records, and how many they were; none when it holds none. What cannot be read is left to the centre,
/// where it becomes a dead letter and goes with those of its gateway.
fn without(sealed: Sealed, purge: &Purge) -> Option<(Sealed, usize)> {
    let mut pack = Pack::decode(sealed.content_type.as_str(), &sealed.bytes).ok()?;
    let before = pack.records.len();
    pack.records.retain(|record| !purge.covers(record));
    let gone = before - pack.records.len();
    // What was sealed once can be sealed without some of its records.
    (gone > 0).then(|| Some((pack.seal().ok()?, gone)))?
}

#[cfg(test)]
mod tests {
    use carebed_contract::labels::Origin;
    use carebed_contract::quality::Quality;
    use carebed_contract::record::{Record, RecordTime, Series};
    use carebed_contract::time::{ClockQuality, Timestamp};
    use carebed_contract::value::Value;

    use super::*;
    use crate::spool::disk::{Directory, Memory};
    use crate::spool::{Limits, Released, Span};
    use carebed_contract::receipt::Receipt;

    fn record(bed: &str, time: RecordTime) -> Record {
        Record {
            series: Series::parse(&format!("h1/{bed}/mat-1/heart_rate")).unwrap(),
            time,
            value: Value::Number(61.0),
            unit: None,
            quality: Quality::Good,
            clock: ClockQuality::Synchronised,
            gateway_time: None,
            monotonic: None,
        }
    }

    fn beds(spool: &Spool, lane: Lane) -> Vec<Vec<String>> {
        let batches = (spool.base(lane)..spool.next(lane)).map(|seq| spool.batch(lane, seq).unwrap().unwrap().sealed);
        let names = |sealed: Sealed| {
            let pack = Pack::decode(sealed.content_type.as_str(), &sealed.bytes).unwrap();
            pack.records.iter().map(|record| record.series.bed.as_ref().unwrap().to_string()).collect()
        };
        batches.map(names).collect()
    }

    #[test]
    fn what_is_to_be_forgotten_leaves_the_spool_and_nothing_else_does() {
        let now = Timestamp::RELEASED;
        let at = |seconds| RecordTime::At(now + std::time::Duration::from_secs(seconds));
        let mut spool = Spool::open(Box::new(Memory::default()), Limits::default()).unwrap().spool;
        let mut put = |lane, number, records: Vec<Record>| {
            let sealed = Pack { boot: Some(1), records }.seal().unwrap();
            let span = Span { from: now, complete_to: now };
            spool.append(lane, &sealed, span, Origin { run: 7, number }).unwrap();
        };
        put(Lane::Routine, 0, vec![record("one", at(1)), record("other", at(1))]);
        put(Lane::Routine, 1, vec![record("one", at(2))]);
        put(
            Lane::Routine,
            2,
            vec![record("one", at(9)), record("one", RecordTime::BeforeReceive(std::time::Duration::ZERO))],
        );
        put(Lane::Urgent, 0, vec![record("one", at(3))]);
        let epoch = spool.epoch();
        let until = now + std::time::Duration::from_secs(5);
        let purge =
            |bed: &str| Purge { home: "h1".parse().unwrap(), bed: Some(bed.parse().unwrap()), from: None, until };

        assert_eq!(spool.purge(&purge("none")).unwrap(), 0);
        assert_eq!(spool.epoch(), epoch, "nothing to forget, nothing changes");
        assert_eq!(spool.purge(&purge("one")).unwrap(), 3);
        assert_ne!(spool.epoch(), epoch);
        // Empty batches stay: they say how far the home is known.
        assert_eq!(beds(&spool, Lane::Routine), [vec!["other"], vec![], vec!["one", "one"]]);
        assert_eq!(beds(&spool, Lane::Urgent), [Vec::<String>::new()]);
        let origin = spool.batch(Lane::Routine, 0).unwrap().unwrap().origin;
        assert_eq!(origin, Some(Origin { run: 7, number: 0 }), "the centre knows it again, should it have it");
        let everything = Purge { bed: None, until: Timestamp::MAX, ..purge("one") };
        assert_eq!(spool.purge(&everything).unwrap(), 2, "what has no time is the centre's to judge");
        assert_eq!(beds(&spool, Lane::Routine), [vec![], vec![], vec!["one"]]);
    }

    /// Bytes on a real disk, which a reader of the card finds.
    #[test]
    fn what_the_centre_has_leaves_the_disk_too() {
        let now = Timestamp::RELEASED;
        let folder = tempfile::tempdir().unwrap();
        let on_disk = |text: &str| {
            let files =
                std::fs::read_dir(folder.path()).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
            files.filter(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes())).count()
        };
        let disk = Box::new(Directory::open(folder.path()).unwrap());
        let mut spool = Spool::open(disk, Limits::default()).unwrap().spool;
        let put = |spool: &mut Spool, bed: &str, seconds: u64| {
            let record = record(bed, RecordTime::At(now + std::time::Duration::from_secs(seconds)));
            let sealed = Pack { boot: Some(1), records: vec![record] }.seal().unwrap();
            let span = Span { from: now + std::time::Duration::from_secs(seconds), complete_to: now };
            spool.append(Lane::Routine, &sealed, span, Origin { run: 7, number: seconds }).unwrap();
        };
        let release = |spool: &mut Spool, next: u64| {
            let digest = match spool.batch(Lane::Routine, next).unwrap() {
                Some(batch) => batch.prev,
                None => spool.log(Lane::Routine).last,
            };
            let receipt = Receipt { epoch: spool.epoch(), lane: Lane::Routine, next, digest, centre_time: now };
            assert_eq!(spool.release(&receipt).unwrap(), Released::Upto { batches: 1, next });
        };
        let until = now + std::time::Duration::from_secs(5);
        let purge = Purge { home: "h1".parse().unwrap(), bed: Some("one".parse().unwrap()), from: None, until };

        put(&mut spool, "one", 0);
        release(&mut spool, 1);
        assert_eq!(on_disk("one"), 1, "a receipted batch lies there until its segment is full");
        let epoch = spool.epoch();
        assert_eq!(spool.purge(&purge).unwrap(), 0);
        assert_eq!((on_disk("one"), spool.epoch(), spool.next(Lane::Routine)), (0, epoch, 1));

        // Beside a batch that waits, and again after a restart.
        put(&mut spool, "one", 1);
        put(&mut spool, "other", 2);
        release(&mut spool, 2);
        assert_eq!(spool.purge(&purge).unwrap(), 0);
        assert_eq!((on_disk("one"), on_disk("other"), spool.epoch()), (0, 1, epoch));
        put(&mut spool, "more", 3);
        drop(spool);
        let again = Spool::open(Box::new(Directory::open(folder.path()).unwrap()), Limits::default()).unwrap();
        assert_eq!(
            (again.damage, beds(&again.spool, Lane::Routine)),
            (vec![], vec![vec!["other".to_owned()], vec!["more".to_owned()]])
        );
    }
}
