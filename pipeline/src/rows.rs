//! Makes observations of a pack: the vocabulary's units and ranges, the centre's times, the inventory's rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::id::{Area, DeviceId, GatewayId, Room};
use carebed_contract::inventory::Inventory;
use carebed_contract::labels::{Epoch, Lane, SealedAt};
use carebed_contract::observation::Observation;
use carebed_contract::pack::Pack;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::record::{Record, RecordTime};
use carebed_contract::time::{ClockQuality, Timestamp};

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

/// The days on which the rows fall.
#[must_use]
pub fn days(rows: &[Observation]) -> BTreeSet<i32> {
    let runs = rows.chunk_by(|a, b| day(a.event_time) == day(b.event_time));
    runs.filter_map(|run| run.first().map(|row| day(row.event_time))).collect()
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

/// The observations of a pack, in its order.
#[must_use]
pub fn observations(pack: Pack, origin: &Origin, rooms: &Rooms) -> Vec<Observation> {
    let boot = pack.boot;
    pack.records.into_iter().map(|record| observation(record, boot, origin, rooms)).collect()
}

fn observation(record: Record, boot: Option<u64>, origin: &Origin, rooms: &Rooms) -> Observation {
    let (unit, about_unit) = unit(&record.series.quantity, record.unit.as_deref());
    let range = record.series.quantity.definition().map_or(Quality::Good, |d| d.judge(&record.value));
    let clock = clock(&record, origin.sealed);
    let (event_time, about_time) = event_time(&record, clock, origin);
    let quality = [about_unit, range, about_time].into_iter().fold(record.quality, worse);
    Observation {
        area: origin.area.clone(),
        home: record.series.home,
        bed: record.series.bed,
        room: rooms.0.get(&record.series.device).cloned(),
        device: record.series.device,
        quantity: record.series.quantity,
        unit,
        event_time,
        value: record.value,
        quality,
        clock,
        gateway: origin.gateway.clone(),
        boot,
        epoch: origin.epoch,
        lane: origin.lane,
        seq: origin.seq,
        gateway_time: record.gateway_time.unwrap_or(event_time),
        received_time: origin.received,
    }
}

/// The vocabulary's unit. One that contradicts it is kept as given, since the number is in it, and marked.
fn unit(quantity: &Quantity, given: Option<&str>) -> (Arc<str>, Quality) {
    let Some(known) = quantity.definition() else {
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
fn clock(record: &Record, sealed: Option<SealedAt>) -> ClockQuality {
    match (record.clock, record.time, sealed) {
        (ClockQuality::Unsynchronised, RecordTime::BeforeReceive(_), Some(SealedAt::Known(_))) => {
            ClockQuality::Corrected
        }
        (clock, ..) => clock,
    }
}

fn event_time(record: &Record, clock: ClockQuality, origin: &Origin) -> (Timestamp, Quality) {
    let received = origin.received;
    let event_time = match (record.time, origin.sealed) {
        (RecordTime::At(at), _) => at,
        (RecordTime::BeforeReceive(before), Some(SealedAt::Known(at) | SealedAt::Bounded(at))) => at - before,
        (RecordTime::BeforeReceive(before), Some(SealedAt::Before(ago))) => received - ago - before,
        (RecordTime::BeforeReceive(before), None) => received - before,
    };
    if received.since(event_time) > PAST {
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

#[cfg(test)]
mod tests;
