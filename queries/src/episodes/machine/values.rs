//! What a predicate looks at where it is not the value itself: a median, how much a meter has grown, how long nothing has changed; and
//! which values are none.

use std::collections::VecDeque;
use std::time::Duration;

use carebed_contract::id::{BedId, DeviceId};
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;

use super::super::definition::{Restless, While};
use super::super::seen::Seen;

/// The values of a home that are remembered for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Values {
    /// The latest values of measures that are smoothed.
    recent: Vec<Recent>,
    /// Readings of meters, per rule and device.
    meters: Vec<Meter>,
    /// Values that are asked whether they change, per rule and device.
    steady: Vec<Steady>,
    /// When the person of a bed last moved about.
    moved: Vec<(Option<BedId>, Timestamp)>,
}

/// Values kept per smoothed measure; of a device that talks faster the oldest count no more.
const RECENT_MAX: usize = 128;

#[derive(Debug, Clone)]
struct Recent {
    quantity: Quantity,
    device: DeviceId,
    values: VecDeque<(Timestamp, f64)>,
}

/// How much denser than the span looked at a meter's readings are kept.
const READINGS: u32 = 64;

#[derive(Debug, Clone)]
struct Meter {
    rule: usize,
    device: DeviceId,
    /// In order of time: the newest, and of the others no two closer than a [`READINGS`]th of the span.
    readings: VecDeque<(Timestamp, f64)>,
}

/// Fewer equal values than this may be chance: a sleeper's heart is steady, and gateways tell again what does not change.
const EQUAL_MIN: u32 = 20;

#[derive(Debug, Clone)]
struct Steady {
    rule: usize,
    device: DeviceId,
    value: f64,
    since: Timestamp,
    at: Timestamp,
    n: u32,
}

impl Values {
    /// Whether the body moves about too much for this to be a value.
    pub(super) fn is_spoilt(&mut self, restless: &Restless, seen: &Seen) -> bool {
        let moved = self.moved.iter_mut().find(|(bed, _)| *bed == seen.bed);
        if seen.quantity == restless.movement && seen.value > restless.above {
            match moved {
                Some((_, at)) => *at = seen.time,
                None => self.moved.push((seen.bed.clone(), seen.time)),
            }
            return false;
        }
        restless.spoils.contains(&seen.quantity) && moved.is_some_and(|(_, at)| seen.time.since(*at) < restless.lasts)
    }

    /// What the rule's predicate is asked about.
    pub(super) fn meant(&mut self, rule: usize, definition: &While, seen: &Seen) -> f64 {
        if definition.unchanged {
            return self.unchanged(rule, definition.stale, seen);
        }
        match definition.over {
            Duration::ZERO => self.smoothed(definition.smooth, seen),
            over => self.grown(rule, over, seen),
        }
    }

    /// For how many minutes the device has said nothing but this; not a number while that may be chance.
    fn unchanged(&mut self, rule: usize, stale: Duration, seen: &Seen) -> f64 {
        let Seen { time, value, .. } = *seen;
        let begun = Steady { rule, device: seen.device.clone(), value, since: time, at: time, n: 1 };
        let Some(steady) = self.steady.iter_mut().find(|s| s.rule == rule && s.device == seen.device) else {
            self.steady.push(begun);
            return f64::NAN;
        };
        if steady.value.total_cmp(&value).is_ne() || time.since(steady.at) > stale {
            *steady = begun;
            return f64::NAN;
        }
        steady.at = time;
        steady.n = steady.n.saturating_add(1);
        // Of nobody in bed nothing is measured.
        if steady.n < EQUAL_MIN || value <= 0.0 { f64::NAN } else { time.since(steady.since).as_secs_f64() / 60.0 }
    }

    /// The median of what the device said of late, this value included.
    fn smoothed(&mut self, over: Duration, seen: &Seen) -> f64 {
        if over.is_zero() {
            return seen.value;
        }
        let place = self.recent.iter().position(|r| r.quantity == seen.quantity && r.device == seen.device);
        let place = place.unwrap_or_else(|| {
            let (quantity, device) = (seen.quantity.clone(), seen.device.clone());
            self.recent.push(Recent { quantity, device, values: VecDeque::new() });
            self.recent.len() - 1
        });
        let Some(Recent { values, .. }) = self.recent.get_mut(place) else { return seen.value };
        while values.len() >= RECENT_MAX || values.front().is_some_and(|(at, _)| seen.time.since(*at) >= over) {
            values.pop_front();
        }
        if values.back().is_none_or(|last| *last != (seen.time, seen.value)) {
            values.push_back((seen.time, seen.value));
        }
        let mut sorted: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(seen.value)
    }

    /// By how much a meter's reading has grown over so long, or a little longer; not a number while that is not known.
    fn grown(&mut self, rule: usize, over: Duration, seen: &Seen) -> f64 {
        let place = self.meters.iter().position(|m| m.rule == rule && m.device == seen.device);
        let place = place.unwrap_or_else(|| {
            self.meters.push(Meter { rule, device: seen.device.clone(), readings: VecDeque::new() });
            self.meters.len() - 1
        });
        let Some(Meter { readings, .. }) = self.meters.get_mut(place) else { return f64::NAN };
        if readings.back().is_some_and(|(_, last)| seen.value < *last) {
            // Another meter, or one that began anew.
            readings.clear();
        }
        let is_close = |readings: &VecDeque<(Timestamp, f64)>| {
            let before = readings.len().checked_sub(2).and_then(|place| readings.get(place));
            before.is_some_and(|(at, _)| seen.time.since(*at) < over / READINGS)
        };
        if is_close(readings) {
            readings.pop_back();
        }
        readings.push_back((seen.time, seen.value));
        while readings.get(1).is_some_and(|(at, _)| seen.time.since(*at) >= over) {
            readings.pop_front();
        }
        match readings.front() {
            // Whatever was used in a longer gap was not used in this span alone.
            Some((at, first)) if (over..=over + over / 4).contains(&seen.time.since(*at)) => seen.value - first,
            _ => f64::NAN,
        }
    }
}
