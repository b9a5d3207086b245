//! Makes rows of a pack: the vocabulary's units and ranges, the centre's times, the inventory's rooms.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::id::{Area, DeviceId, GatewayId, Room};
use carebed_contract::inventory::Inventory;
use carebed_contract::labels::{Epoch, Lane, SealedAt};
use carebed_contract::pack::{self, DecodeError};
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Definition;
use carebed_contract::record::{RecordTime, Series};
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;

use crate::streak::{About, Point, Streak};

/// Event times later than this after reception are kept but marked `uncertain:future`.
const FUTURE: Duration = Duration::from_secs(24 * 3600);
/// An observation said to be older than this when it is received has no believable time: it gets the receive time and
/// `bad:time`. Ten years: longer than any spool or device log lasts.
const PAST: Duration = Duration::from_secs(3653 * 24 * 3600);
/// Most days that the event times of one pack may fall on. Each day is a file of its own, so a pack beyond this is refused
/// as a dead letter.
pub const DAYS_MAX: usize = 400;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 3600 * 1000;

/// The day an event time falls on, in days since 1970-01-01 UTC.
#[must_use]
pub fn day(event_time: Timestamp) -> i32 {
    let days = event_time.millis().div_euclid(DAY_MS);
    i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX })
}

/// Where a batch came from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where the gateway was enrolled.
    pub area: Area,
    /// The gateway.
    pub gateway: GatewayId,
    /// Which life of the spool.
    pub epoch: Epoch,
    /// Which queue.
    pub lane: Lane,
    /// Which batch.
    pub seq: u64,
    /// When the gateway sealed it, where its times are relative to that.
    pub sealed: Option<SealedAt>,
    /// When the centre took it.
    pub received: Timestamp,
    /// A recording: its times are believed however long ago they were.
    pub recorded: bool,
}

/// Which room each device of a gateway is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rooms(BTreeMap<DeviceId, Room>);

impl Rooms {
    /// A device without a room of its own is in the room of its bed.
    #[must_use]
    pub fn of(inventory: &Inventory) -> Self {
        let bed_rooms: BTreeMap<_, _> = inventory.beds.iter().map(|bed| (&bed.id, &bed.room)).collect();
        let placed = inventory.devices.iter().filter_map(|device| {
            let room = device.room.as_ref().or_else(|| bed_rooms.get(device.bed.as_ref()?).copied())?;
            Some((device.id.clone(), room.clone()))
        });
        Self(placed.collect())
    }
}

/// A pack as it was read, before it is known what the centre says of it.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    boot: Option<u64>,
    of_series: Vec<Reading>,
    n_rows: usize,
}

/// Records that follow each other and differ in time and value only.
#[derive(Debug)]
struct Reading {
    series: Series,
    unit: Option<String>,
    quality: Quality,
    clock: ClockQuality,
    /// When, what, and when the gateway took it, where that was not the same.
    points: Vec<(RecordTime, Value, Option<Timestamp>)>,
}

impl Readings {
    /// Reads a payload.
    pub(crate) fn decode(content_type: &str, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut this = Self::default();
        this.boot = pack::read(content_type, payload, |entry| {
            this.n_rows += 1;
            let point = (entry.time, entry.value, entry.gateway_time);
            let same = |last: &&mut Reading| {
                let Reading { series, unit, quality, clock, .. } = &**last;
                series == entry.series
                    && unit.as_deref() == entry.unit
                    && *quality == entry.quality
                    && *clock == entry.clock
            };
            match this.of_series.last_mut().filter(same) {
                Some(last) => last.points.push(point),
                None => this.of_series.push(Reading {
                    series: entry.series.clone(),
                    unit: entry.unit.map(str::to_owned),
                    quality: entry.quality,
                    clock: entry.clock,
                    points: vec![point],
                }),
            }
        })?;
        Ok(this)
    }

    /// How many rows it will be.
    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }
}

/// The rows of a pack, in its order.
pub(crate) fn streaks(readings: Readings, origin: &Origin, rooms: &Rooms) -> Vec<Streak> {
    let boot = readings.boot;
    let mut streaks: Vec<Streak> = Vec::with_capacity(readings.of_series.len());
    for Reading { series, unit: given, quality, clock, points } in readings.of_series {
        let known = series.quantity.definition();
        let (unit, about_unit) = unit(known, given.as_deref());
        let quality = worse(quality, about_unit);
        let first = streaks.len();
        for (time, value, gateway_time) in points {
            let range = known.map_or(Quality::Good, |known| known.judge(&value));
            let clock = as_learned(clock, time, origin.sealed);
            let (event_time, about_time) = event_time(time, clock, origin);
            let quality = worse(worse(quality.clone(), range), about_time);
            let point = Point { event_time, gateway_time: gateway_time.unwrap_or(event_time), value };
            let last = streaks.get_mut(first..).and_then(<[_]>::last_mut);
            match last.filter(|last| last.about.quality == quality && last.about.clock == clock) {
                Some(last) => last.points.push(point),
                None => {
                    let about = About {
                        area: origin.area.clone(),
                        home: series.home.clone(),
                        bed: series.bed.clone(),
                        device: series.device.clone(),
                        room: rooms.0.get(&series.device).cloned(),
                        quantity: series.quantity.clone(),
                        unit: Arc::clone(&unit),
                        quality,
                        clock,
                        gateway: origin.gateway.clone(),
                        boot,
                        epoch: origin.epoch,
                        lane: origin.lane,
                        seq: origin.seq,
                        received_time: origin.received,
                    };
                    streaks.push(Streak { about, points: vec![point] });
                }
            }
        }
    }
    streaks
}

/// The vocabulary's unit. One that contradicts it is kept as given, since the number is in it, and marked.
fn unit(known: Option<&Definition>, given: Option<&str>) -> (Arc<str>, Quality) {
    let Some(known) = known else {
        return (given.unwrap_or_default().into(), Quality::Uncertain("unknown_quantity".into()));
    };
    match given {
        Some(other) if *other != *known.ucum && Some(other) != known.senml.as_deref() => {
            (other.into(), Quality::Bad("unit".into()))
        }
        _ => (Arc::clone(&known.ucum), Quality::Good),
    }
}

/// What was sealed without a clock is as good as what the gateway learned of it until it sent it.
fn as_learned(clock: ClockQuality, time: RecordTime, sealed: Option<SealedAt>) -> ClockQuality {
    match (clock, time, sealed) {
        (ClockQuality::Unsynchronised, RecordTime::BeforeReceive(_), Some(SealedAt::Known(_))) => {
            ClockQuality::Corrected
        }
        (clock, ..) => clock,
    }
}

fn event_time(time: RecordTime, clock: ClockQuality, origin: &Origin) -> (Timestamp, Quality) {
    let received = origin.received;
    let event_time = match (time, origin.sealed) {
        (RecordTime::At(at), _) => at,
        (RecordTime::BeforeReceive(before), Some(SealedAt::Known(at) | SealedAt::Bounded(at))) => at - before,
        (RecordTime::BeforeReceive(before), Some(SealedAt::Before(ago))) => received - ago - before,
        (RecordTime::BeforeReceive(before), None) => received - before,
    };
    if !origin.recorded && received.since(event_time) > PAST {
        (received, Quality::Bad("time".into()))
    } else if event_time.since(received) > FUTURE {
        (event_time, Quality::Uncertain("future".into()))
    } else if clock == ClockQuality::Unsynchronised {
        (event_time, Quality::Uncertain("clock".into()))
    } else {
        (event_time, Quality::Good)
    }
}

/// The worse of two; the first when they are equally bad.
fn worse(one: Quality, other: Quality) -> Quality {
    let rank = |quality: &Quality| match quality {
        Quality::Good => 0,
        Quality::Uncertain(_) => 1,
        Quality::Bad(_) => 2,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

/// The observations of a pack in JSON.
#[cfg(test)]
pub(crate) fn observations(
    json: &[u8],
    origin: &Origin,
    rooms: &Rooms,
) -> Vec<carebed_contract::observation::Observation> {
    let readings = Readings::decode("application/senml+json", json).unwrap();
    streaks(readings, origin, rooms).iter().flat_map(Streak::observations).collect()
}

#[cfg(test)]
mod tests;
