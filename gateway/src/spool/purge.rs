//! What the centre orders to forget goes out of the batches that wait.

use carebed_contract::command::Purge;
use carebed_contract::labels::Lane;
use carebed_contract::pack::{Pack, Sealed};

use super::{Spool, SpoolError};

impl Spool {
    /// Takes records out of what is not released. Payloads never change under their numbers, so when there are such records a
    /// new epoch begins with what is left, and the files of the old one are removed. Says how many records went.
    pub fn purge(&mut self, purge: &Purge) -> Result<usize, SpoolError> {
        let mut gone = 0;
        for lane in Lane::ALL {
            let entries = self.log(lane).entries.iter();
            gone += entries
                .filter_map(|entry| without(self.payload(lane, entry).ok()?, purge))
                .map(|(_, n)| n)
                .sum::<usize>();
        }
        if gone > 0 {
            self.begin_epoch_with(|sealed| without(sealed.clone(), purge).map_or(sealed, |(left, _)| left))?;
        }
        Ok(gone)
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
    use crate::spool::disk::Memory;
    use crate::spool::{Limits, Span};

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
}
