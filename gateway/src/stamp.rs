//! What time it was, as far as anybody knows. Pure.
//!
//! A gateway may boot in 1970, its clock may step either way, and it may lose its time server for days. So nothing is
//! stamped with the wall clock as it stood: a sample keeps the monotonic clock, and when a batch is sealed the time is
//! carried back from the latest moment at which it was known. That is the machine's own clock while something keeps it
//! right, else the centre's receipts. While nobody knows, a batch is sealed with times relative to its sealing, and its
//! labels say later when that was (see [`crate::boots`]).

use std::time::Duration;

use carebed_contract::clock::Clock;
use carebed_contract::quality::Quality;
use carebed_contract::record::{Record, RecordTime, Series};
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;

/// 2²⁸ s, in 1978: SenML reads earlier times as relative, so no pack can carry them, however trusted.
const EARLIEST: Timestamp = Timestamp::from_millis(268_435_456_000);
/// A moment known from the centre is replaced by the next receipt when it is older than this: a quartz drifts by 100 ppm
/// at most, 60 ms in that time. Until then only a receipt that shows a later time replaces it: it was less under way.
const CARRIED_MAX: Duration = Duration::from_secs(600);
/// A clock that is kept right and yet differs this much from the centre's is told as a trouble.
const DISAGREES: Duration = Duration::from_secs(300);

/// How far the machine's clock is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockTrust {
    /// Always: something else guarantees it, such as a simulation.
    Trusted,
    /// While the system says that something keeps it right. Where the system cannot say, from a possible time on.
    System,
}

/// The clocks at the moment at which something was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Since an arbitrary start; never steps.
    pub monotonic: Duration,
    /// As the machine believes.
    pub wall: Timestamp,
}

impl Sample {
    /// Both clocks now.
    #[must_use]
    pub fn take(clock: &dyn Clock) -> Self {
        Self { monotonic: clock.monotonic(), wall: clock.now() }
    }
}

/// Something observed, before it has a time that may travel.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// What it is about.
    pub series: Series,
    /// What was observed.
    pub value: Value,
    /// How far to trust it.
    pub quality: Quality,
    /// When.
    pub sample: Sample,
}

/// A moment of this boot at which the time was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    monotonic: Duration,
    time: Timestamp,
}

impl Anchor {
    /// Both clocks of one moment.
    #[must_use]
    pub fn new(monotonic: Duration, time: Timestamp) -> Self {
        Self { monotonic, time }
    }

    /// What time it is when the monotonic clock shows this.
    #[must_use]
    pub fn at(&self, monotonic: Duration) -> Timestamp {
        self.time + monotonic.saturating_sub(self.monotonic) - self.monotonic.saturating_sub(monotonic)
    }
}

/// Knows the time, or that nobody does.
#[derive(Debug, Clone, Copy)]
pub struct Stamper {
    trust: ClockTrust,
    floor: Timestamp,
    anchor: Option<Anchor>,
    /// Since when without a break the machine's own clock is right.
    right_since: Option<Duration>,
}

impl Stamper {
    /// `floor` is the latest event time known from before.
    #[must_use]
    pub fn new(trust: ClockTrust, floor: Timestamp) -> Self {
        Self { trust, floor: floor.max(Timestamp::RELEASED), anchor: None, right_since: None }
    }

    /// Looks at the clocks; `word` is what the system says of its clock. To be called before anything is stamped.
    pub fn look(&mut self, now: Sample, word: Option<bool>) {
        let right = match (self.trust, word) {
            (ClockTrust::Trusted, _) => now.wall >= EARLIEST,
            // A floor that a clock once ahead has left behind does not hold against the system's word.
            (ClockTrust::System, Some(word)) => word && now.wall >= Timestamp::RELEASED,
            // What the centre said goes before a guess.
            (ClockTrust::System, None) => {
                now.wall >= self.floor && (self.anchor.is_none() || self.right_since.is_some())
            }
        };
        if right {
            self.anchor = Some(Anchor { monotonic: now.monotonic, time: now.wall });
            self.right_since.get_or_insert(now.monotonic);
        } else {
            self.right_since = None;
        }
    }

    /// A receipt came: its time is a lower bound of the present, by what it was under way. Returns how far a clock that
    /// is kept right differs from it, when that is too far.
    pub fn receipt(&mut self, centre_time: Timestamp, now: Duration) -> Option<Duration> {
        if centre_time < Timestamp::RELEASED {
            return None;
        }
        let receipt = Anchor { monotonic: now, time: centre_time };
        match self.anchor {
            Some(ours) if self.right_since.is_some() => {
                let differs = centre_time.since(ours.at(now)).max(ours.at(now).since(centre_time));
                return (differs >= DISAGREES).then_some(differs);
            }
            Some(ours) if now.saturating_sub(ours.monotonic) < CARRIED_MAX && ours.at(now) >= centre_time => {}
            _ => self.anchor = Some(receipt),
        }
        None
    }

    /// The latest moment at which the time was known; none while nobody knows it.
    #[must_use]
    pub fn anchor(&self) -> Option<Anchor> {
        self.anchor
    }

    /// Whether the machine's own clock is right, and if not, whether the time is known all the same.
    #[must_use]
    pub fn quality(&self) -> ClockQuality {
        match (self.right_since, self.anchor) {
            (Some(_), _) => ClockQuality::Synchronised,
            (None, Some(_)) => ClockQuality::Corrected,
            (None, None) => ClockQuality::Unsynchronised,
        }
    }

    /// The records of what is sealed now: all with the time at which they were taken, or, while nobody knows the time, all
    /// with how long that was before now.
    #[must_use]
    pub fn seal(&self, observed: Vec<Observed>, now: Duration) -> Vec<Record> {
        // One of them ties the boot's monotonic clock to the time: for batches of this boot that were sealed before.
        let record = |(index, observed)| self.record(observed, now, index == 0);
        observed.into_iter().enumerate().map(record).collect()
    }

    fn record(&self, observed: Observed, now: Duration, ties: bool) -> Record {
        let Observed { series, value, quality, sample: Sample { monotonic, .. } } = observed;
        let unit = series.quantity.definition().and_then(|d| d.senml.as_deref().map(str::to_owned));
        let (time, clock) = match (self.anchor, self.right_since) {
            (None, _) => (RecordTime::BeforeReceive(now.saturating_sub(monotonic)), ClockQuality::Unsynchronised),
            (Some(anchor), Some(since)) if since <= monotonic => {
                (RecordTime::At(anchor.at(monotonic)), ClockQuality::Synchronised)
            }
            (Some(anchor), _) => (RecordTime::At(anchor.at(monotonic)), ClockQuality::Corrected),
        };
        let monotonic = (ties || clock != ClockQuality::Synchronised).then_some(monotonic);
        Record { series, time, value, unit, quality, clock, gateway_time: None, monotonic }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2027-01-15T08:00:00Z
    const NOW: i64 = 1_800_000_000;

    fn sample(monotonic: u64, wall: i64) -> Sample {
        Sample { monotonic: Duration::from_secs(monotonic), wall: Timestamp::from_millis(wall * 1000) }
    }

    fn observed(monotonic: u64) -> Observed {
        let series = Series::parse("h1/b1/call-1/call_button").unwrap();
        Observed { series, value: Value::Flag(true), quality: Quality::Good, sample: sample(monotonic, 0) }
    }

    /// One thing that happens, at a monotonic second.
    enum Step {
        /// The wall clock shows this, and the system says that of it.
        Clock(u64, i64, Option<bool>),
        /// A receipt with this time comes.
        Receipt(u64, i64),
        /// What was taken at the first second and is sealed at the second has this time and clock quality.
        Seal(u64, u64, Result<i64, u64>, ClockQuality),
    }
    use ClockQuality::{Corrected, Synchronised, Unsynchronised};
    use Step::{Clock, Receipt, Seal};

    fn check(story: &str, trust: ClockTrust, floor: i64, steps: &[Step]) {
        let mut stamper = Stamper::new(trust, Timestamp::from_millis(floor * 1000));
        for step in steps {
            match *step {
                Clock(monotonic, wall, word) => stamper.look(sample(monotonic, wall), word),
                Receipt(monotonic, time) => {
                    stamper.receipt(Timestamp::from_millis(time * 1000), Duration::from_secs(monotonic));
                }
                Seal(taken, now, expected, clock) => {
                    let record = stamper.seal(vec![observed(taken)], Duration::from_secs(now)).remove(0);
                    let time = match record.time {
                        RecordTime::At(at) => Ok(at.millis() / 1000),
                        RecordTime::BeforeReceive(before) => Err(before.as_secs()),
                    };
                    assert_eq!((time, record.clock), (expected, clock), "{story}: taken at {taken} s");
                }
            }
        }
    }

    #[test]
    fn times_are_right_or_marked() {
        let system = ClockTrust::System;
        check(
            "a boot in 1970, then NTP",
            system,
            0,
            &[
                Clock(5, 5, Some(false)),
                Seal(3, 5, Err(2), Unsynchronised),
                Clock(65, NOW, Some(true)),
                Seal(5, 65, Ok(NOW - 60), Corrected),
                Seal(65, 66, Ok(NOW), Synchronised),
            ],
        );
        check(
            "a time restored from a file does not count",
            system,
            NOW - 100,
            &[Clock(5, NOW - 90, Some(false)), Seal(5, 5, Err(0), Unsynchronised)],
        );
        check(
            "steps both ways while it is kept right",
            system,
            0,
            &[
                Clock(10, NOW, Some(true)),
                Seal(9, 10, Ok(NOW - 1), Corrected),
                Clock(11, NOW - 3600, Some(true)),
                Seal(10, 11, Ok(NOW - 3601), Synchronised),
                Clock(12, NOW + 3600, Some(true)),
                Seal(10, 12, Ok(NOW + 3598), Synchronised),
            ],
        );
        check(
            "no time server for a night: the monotonic clock carries on, whatever the wall clock does",
            system,
            0,
            &[
                Clock(10, NOW, Some(true)),
                Clock(40_000, 7, Some(false)),
                Seal(40_000, 40_001, Ok(NOW + 39_990), Corrected),
            ],
        );
        check(
            "no time server at all: the centre's receipts tell the time",
            system,
            0,
            &[
                Clock(5, NOW + 9_999, Some(false)),
                Receipt(20, NOW),
                Seal(10, 21, Ok(NOW - 10), Corrected),
                // Under way for longer than the first: worse. Under way for less: better. Much later: drift counts.
                Receipt(30, NOW + 5),
                Seal(30, 31, Ok(NOW + 10), Corrected),
                Receipt(40, NOW + 22),
                Seal(40, 41, Ok(NOW + 22), Corrected),
                Receipt(700, NOW + 681),
                Seal(700, 701, Ok(NOW + 681), Corrected),
            ],
        );
        check(
            "a centre in 1970 tells nothing",
            system,
            0,
            &[Clock(5, 5, None), Receipt(6, 6), Seal(6, 6, Err(0), Unsynchronised)],
        );
        check(
            "a clock once ahead is forgotten once the system keeps it right",
            system,
            NOW + 100_000,
            &[Clock(5, NOW, Some(true)), Seal(5, 6, Ok(NOW), Synchronised)],
        );
        check(
            "a system that cannot say is believed from the floor on",
            system,
            NOW,
            &[
                Clock(5, NOW - 1, None),
                Seal(5, 5, Err(0), Unsynchronised),
                Clock(6, NOW, None),
                Seal(6, 6, Ok(NOW), Synchronised),
            ],
        );
        check(
            "and below the floor as far as the centre says",
            system,
            NOW + 100_000,
            &[
                Clock(5, NOW, None),
                Receipt(6, NOW + 1),
                Clock(7, NOW + 200_000, None),
                Seal(7, 7, Ok(NOW + 2), Corrected),
            ],
        );
        check(
            "a simulated clock is always right",
            ClockTrust::Trusted,
            NOW,
            &[Clock(5, 300_000_000, Some(false)), Seal(5, 5, Ok(300_000_000), Synchronised)],
        );
    }

    #[test]
    fn a_clock_far_from_the_centres_is_told() {
        let mut stamper = Stamper::new(ClockTrust::System, Timestamp::MIN);
        stamper.look(sample(5, NOW), Some(true));
        let differs = |wall: i64| stamper.clone().receipt(Timestamp::from_millis(wall * 1000), Duration::from_secs(5));
        assert_eq!(
            [differs(NOW), differs(NOW - 299), differs(NOW + 3600)],
            [None, None, Some(Duration::from_secs(3600))]
        );
    }

    #[test]
    fn the_first_record_ties_both_clocks() {
        let mut stamper = Stamper::new(ClockTrust::System, Timestamp::MIN);
        stamper.look(sample(5, NOW), Some(true));
        let records = stamper.seal(vec![observed(5), observed(6)], Duration::from_secs(7));
        assert_eq!(records.iter().map(|r| r.monotonic.map(|m| m.as_secs())).collect::<Vec<_>>(), [Some(5), None]);
    }
}
