//! How far a sample's time can be trusted, and what an observation's time is.
//!
//! A gateway may boot in 1970. A wall clock below the floor (the latest event time in the spool, or this version's
//! release) was certainly never set. Until it is, calls travel with no absolute time at all, and routine observations
//! wait in memory; once the clock is right, the monotonic clock carries their times back.

use std::time::Duration;

use carebed_contract::clock::Clock;
use carebed_contract::quality::Quality;
use carebed_contract::record::{Record, RecordTime, Series};
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;

/// 2026-01-01T00:00:00Z: no gateway of this version ran before.
const RELEASED: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// 2²⁸ s, in 1978: SenML reads earlier times as relative, so no pack can carry them, however trusted.
const EARLIEST: Timestamp = Timestamp::from_millis(268_435_456_000);

/// How far the machine's clock is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockTrust {
    /// Always: something else guarantees it, such as a simulation.
    Trusted,
    /// Once it shows a possible time.
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

/// Gives observations their time.
#[derive(Debug, Clone, Copy)]
pub struct Stamper {
    trust: ClockTrust,
    floor: Timestamp,
}

impl Stamper {
    /// `floor` is the latest event time known from before.
    #[must_use]
    pub fn new(trust: ClockTrust, floor: Timestamp) -> Self {
        Self { trust, floor: floor.max(RELEASED) }
    }

    /// Whether a wall clock that shows `wall` can be right.
    #[must_use]
    pub fn is_synchronised(&self, wall: Timestamp) -> bool {
        wall >= if self.trust == ClockTrust::Trusted { EARLIEST } else { self.floor }
    }

    /// The record of something that must travel at once. Without a clock, its time is the moment of reception.
    #[must_use]
    pub fn at_once(&self, observed: Observed) -> Record {
        let Observed { series, value, quality, sample } = observed;
        if self.is_synchronised(sample.wall) {
            return record(series, value, quality, RecordTime::At(sample.wall), ClockQuality::Synchronised, None);
        }
        let quality = match quality {
            Quality::Good => Quality::Uncertain("clock".into()),
            worse => worse,
        };
        let time = RecordTime::BeforeReceive(Duration::ZERO);
        record(series, value, quality, time, ClockQuality::Unsynchronised, Some(sample.monotonic))
    }

    /// The record of something that may wait for the clock; given back when it still has to, at `now`.
    #[expect(clippy::result_large_err, reason = "what is given back is kept by the caller, not passed up")]
    pub fn when_known(&self, observed: Observed, now: Sample) -> Result<Record, Observed> {
        let sample = observed.sample;
        if !self.is_synchronised(now.wall) {
            return Err(observed);
        }
        let Observed { series, value, quality, .. } = observed;
        Ok(if self.is_synchronised(sample.wall) {
            record(series, value, quality, RecordTime::At(sample.wall), ClockQuality::Synchronised, None)
        } else {
            let at = now.wall - now.monotonic.saturating_sub(sample.monotonic);
            let mono = Some(sample.monotonic);
            record(series, value, quality, RecordTime::At(at), ClockQuality::Corrected, mono)
        })
    }
}

fn record(
    series: Series,
    value: Value,
    quality: Quality,
    time: RecordTime,
    clock: ClockQuality,
    monotonic: Option<Duration>,
) -> Record {
    let unit = series.quantity.definition().and_then(|d| d.senml.as_deref().map(str::to_owned));
    Record { series, time, value, unit, quality, clock, gateway_time: None, monotonic }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(monotonic: u64, wall: i64) -> Observed {
        let sample = Sample { monotonic: Duration::from_secs(monotonic), wall: Timestamp::from_millis(wall) };
        let series = Series::parse("h1/b1/call-1/call_button").unwrap();
        Observed { series, value: Value::Flag(true), quality: Quality::Good, sample }
    }

    #[test]
    fn times_and_how_they_are_known() {
        const NOW: i64 = 1_800_000_000_000;
        let stamper = Stamper::new(ClockTrust::System, Timestamp::MIN);
        let good = stamper.at_once(observed(5, NOW));
        assert_eq!((good.time, good.clock), (RecordTime::At(Timestamp::from_millis(NOW)), ClockQuality::Synchronised));

        let blind = stamper.at_once(observed(5, 7_000));
        assert_eq!(blind.time, RecordTime::BeforeReceive(Duration::ZERO));
        assert_eq!(
            (blind.quality.to_string().as_str(), blind.clock),
            ("uncertain:clock", ClockQuality::Unsynchronised)
        );
        assert_eq!(blind.monotonic, Some(Duration::from_secs(5)));

        let waiting = stamper.when_known(observed(5, 7_000), observed(6, 8_000).sample).unwrap_err();
        let later = stamper.when_known(waiting, observed(65, NOW).sample).unwrap();
        assert_eq!(later.time, RecordTime::At(Timestamp::from_millis(NOW - 60_000)));
        assert_eq!(later.clock, ClockQuality::Corrected);

        let trusted = Stamper::new(ClockTrust::Trusted, Timestamp::MAX);
        assert!(trusted.is_synchronised(EARLIEST) && !trusted.is_synchronised(Timestamp::from_millis(0)));
        let restarted = Stamper::new(ClockTrust::System, Timestamp::from_millis(NOW));
        assert!(!restarted.is_synchronised(Timestamp::from_millis(NOW - 1)), "before what the spool already has");
    }
}
