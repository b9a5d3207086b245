//! When a batch was sealed that was sealed without knowing the time. Pure.
//!
//! Such a batch carries the number of its boot and, on each record, the monotonic clock. Once the time is known in the
//! same boot, the monotonic clock ties the two. A boot that ended before anybody knew the time lies between its
//! neighbours: after everything that was known before it, and so early that all of it fits in before what came next. Its
//! own intervals are kept; it stands in the middle of what is possible, and is marked.

use std::collections::BTreeMap;
use std::time::Duration;

use carebed_contract::labels::SealedAt;
use carebed_contract::pack::{Pack, Sealed};
use carebed_contract::record::RecordTime;
use carebed_contract::time::Timestamp;

use crate::spool::{Batch, Span};
use crate::stamp::Anchor;

/// Whether a batch was sealed without knowing the time.
#[must_use]
pub fn is_timeless(span: Span) -> bool {
    span.from == Timestamp::MIN
}

/// What is known of the times of this boot and of those before it that left batches in the spool.
#[derive(Debug, Clone)]
pub struct Boots {
    boot: u64,
    now: Duration,
    anchor: Option<Anchor>,
    earlier: BTreeMap<u64, Earlier>,
}

/// A boot that left batches without a time. As many as there are boots in the spool at start: a spool holds few.
#[derive(Debug, Clone, Default)]
struct Earlier {
    /// The latest of its moments that is known.
    lasted: Duration,
    /// Known before it began.
    before: Option<Timestamp>,
    /// The first time known after it.
    after: Option<Timestamp>,
    /// The time became known while it ran.
    anchor: Option<Anchor>,
}

impl Boots {
    /// In boot number `boot`, of which nothing is known yet.
    #[must_use]
    pub fn new(boot: u64) -> Self {
        Self { boot, now: Duration::ZERO, anchor: None, earlier: BTreeMap::new() }
    }

    /// Takes note of a batch without times that was found in the spool at start.
    pub fn recall(&mut self, batch: &Batch) {
        let Some(read) = Clocks::read(&batch.sealed) else { return };
        let Some(sealed) = read.sealed else { return };
        let boot = self.earlier.entry(read.boot).or_default();
        boot.lasted = boot.lasted.max(sealed);
        boot.before = boot.before.max(Some(batch.span.complete_to).filter(|known| *known > Timestamp::MIN));
    }

    /// Whether batches with times may say something of the boots without.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.earlier.values().any(|boot| boot.anchor.is_none())
    }

    /// Compares with a batch that has times, after all without were recalled; of each lane from its first batch on. Says
    /// whether those behind it in its lane may say more.
    pub fn compare(&mut self, batch: &Batch) -> bool {
        let Some(read) = Clocks::read(&batch.sealed) else { return true };
        if let Some(boot) = self.earlier.get_mut(&read.boot) {
            boot.anchor = boot.anchor.or(read.anchor);
        }
        for (_, boot) in self.earlier.range_mut(..read.boot).filter(|_| batch.span.from < Timestamp::MAX) {
            boot.after = Some(boot.after.map_or(batch.span.from, |after| after.min(batch.span.from)));
        }
        // The boots of a lane come in their order.
        self.earlier.range(read.boot..).any(|(_, boot)| boot.anchor.is_none())
    }

    /// What is known of the time now.
    pub fn learn(&mut self, anchor: Option<Anchor>, now: Duration) {
        (self.anchor, self.now) = (anchor, now);
    }

    /// Whether the time is known in this boot: then every batch can be given one.
    #[must_use]
    pub fn is_time_known(&self) -> bool {
        self.anchor.is_some()
    }

    /// When a batch without times was sealed, as well as it is known now.
    #[must_use]
    pub fn sealed_at(&self, sealed: &Sealed) -> Option<SealedAt> {
        let Clocks { boot, sealed: Some(sealed), .. } = Clocks::read(sealed)? else { return None };
        if boot == self.boot {
            return Some(match self.anchor {
                Some(anchor) => SealedAt::Known(anchor.at(sealed)),
                None => SealedAt::Before(self.now.saturating_sub(sealed)),
            });
        }
        let Earlier { lasted, before, after, anchor } = self.earlier.get(&boot).cloned().unwrap_or_default();
        if let Some(anchor) = anchor {
            return Some(SealedAt::Known(anchor.at(sealed)));
        }
        let lasted = lasted.max(sealed);
        let Some(after) = after.or_else(|| self.anchor.map(|anchor| anchor.at(Duration::ZERO))) else {
            return Some(SealedAt::Before(self.now + (lasted - sealed)));
        };
        let latest = after - lasted;
        let began = match before {
            Some(before) if before < latest => before + latest.since(before) / 2,
            _ => latest,
        };
        Some(SealedAt::Bounded(began + sealed))
    }
}

/// What a pack says of its boot's clocks.
struct Clocks {
    boot: u64,
    /// The monotonic clock when it was sealed; only without times.
    sealed: Option<Duration>,
    /// A moment of which both clocks are known.
    anchor: Option<Anchor>,
}

impl Clocks {
    fn read(sealed: &Sealed) -> Option<Self> {
        let pack = Pack::decode(sealed.content_type.as_str(), &sealed.bytes).ok()?;
        let mut clocks = Self { boot: pack.boot?, sealed: None, anchor: None };
        for record in &pack.records {
            match (record.time, record.monotonic) {
                (RecordTime::BeforeReceive(before), Some(monotonic)) => clocks.sealed = Some(monotonic + before),
                (RecordTime::At(at), Some(monotonic)) => clocks.anchor = Some(Anchor::new(monotonic, at)),
                (_, None) => {}
            }
        }
        Some(clocks)
    }
}

#[cfg(test)]
mod tests {
    use carebed_contract::digest::Digest;
    use carebed_contract::quality::Quality;
    use carebed_contract::record::Series;
    use carebed_contract::value::Value;

    use super::*;
    use crate::stamp::{ClockTrust, Observed, Sample, Stamper};

    /// 2027-01-15T08:00:00Z
    const DAY: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis((DAY + second) * 1000)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A batch of one observation taken at the first and sealed at the second monotonic second.
    fn batch(boot: u64, taken: u64, sealed: u64, time: Option<Anchor>, complete_to: Timestamp) -> Batch {
        let mut stamper = Stamper::new(ClockTrust::System, Timestamp::MIN);
        if let Some(time) = time {
            stamper.look(Sample { monotonic: secs(sealed), wall: time.at(secs(sealed)) }, Some(true));
        }
        let sample = Sample { monotonic: secs(taken), wall: Timestamp::from_millis(0) };
        let series = Series::parse("h1/b1/mat-1/bed_occupancy").unwrap();
        let observed = Observed { series, value: Value::Flag(true), quality: Quality::Good, sample };
        let records = stamper.seal(vec![observed], secs(sealed));
        let from = match records[0].time {
            RecordTime::At(at) => at,
            RecordTime::BeforeReceive(_) => Timestamp::MIN,
        };
        let sealed = Pack { boot: Some(boot), records }.seal().unwrap();
        Batch { seq: 0, prev: Digest::ORIGIN, span: Span { from, complete_to }, origin: None, sealed }
    }

    #[test]
    fn a_batch_of_this_boot_waits_for_the_time_and_then_has_it() {
        let press = batch(7, 60, 60, None, Timestamp::MIN);
        let mut boots = Boots::new(7);
        boots.learn(None, secs(90));
        assert_eq!(boots.sealed_at(&press.sealed), Some(SealedAt::Before(secs(30))));
        boots.learn(Some(Anchor::new(secs(100), at(0))), secs(100));
        assert_eq!(boots.sealed_at(&press.sealed), Some(SealedAt::Known(at(-40))));
    }

    #[test]
    fn a_boot_that_never_knew_lies_between_its_neighbours() {
        // Known until −1000; boot 5 ran for 200 s at least; boot 6 began at 0, so boot 5 at −200 at the latest.
        let known = at(-1000);
        let (first, last) = (batch(5, 9, 10, None, known), batch(5, 190, 200, None, known));
        let mut boots = Boots::new(6);
        boots.recall(&first);
        boots.recall(&last);
        boots.learn(None, secs(3));
        assert_eq!(boots.sealed_at(&first.sealed), Some(SealedAt::Before(secs(193))), "before this boot at least");
        boots.learn(Some(Anchor::new(secs(50), at(50))), secs(50));
        assert_eq!(boots.sealed_at(&first.sealed), Some(SealedAt::Bounded(at(-590))), "in the middle");
        assert_eq!(boots.sealed_at(&last.sealed), Some(SealedAt::Bounded(at(-400))), "its intervals are kept");

        // A boot in between that knew the time bounds it closer, and what claims to be later than possible does not.
        assert!(!boots.compare(&batch(6, 1, 2, Some(Anchor::new(secs(0), at(-900))), known)));
        assert_eq!(boots.sealed_at(&last.sealed), Some(SealedAt::Bounded(at(-899))));
    }

    #[test]
    fn a_boot_that_learned_the_time_later_is_known_exactly() {
        let mut boots = Boots::new(6);
        let early = batch(5, 9, 10, None, Timestamp::MIN);
        boots.recall(&early);
        // The other lane goes on with a later boot; that does not make it less known.
        let calm = Some(Anchor::new(secs(0), at(-5000)));
        assert!(!boots.compare(&batch(6, 1, 2, calm, at(-4000))));
        assert!(boots.is_unsure() && boots.compare(&batch(4, 1, 2, calm, at(-6000))));
        assert!(!boots.compare(&batch(5, 800, 805, calm, at(-5000))));
        assert!(!boots.is_unsure());
        assert_eq!(boots.sealed_at(&early.sealed), Some(SealedAt::Known(at(-4990))));
    }
}
