//! Accepted rows, in the form in which they wait for their file: what many have in common is said once. Gateways group their
//! records by series, so a pack of fifty is a handful of streaks.

use std::collections::BTreeSet;

use carebed_contract::id::{Area, BedId, DeviceId, GatewayId, HomeId, Room};
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;

use crate::rows::day;

/// Rows of one batch that follow each other and differ in time and value only.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Streak {
    pub(crate) about: About,
    pub(crate) points: Vec<Point>,
}

/// What the rows of a streak have in common; the fields are those of [`Observation`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct About {
    pub(crate) area: Area,
    pub(crate) home: HomeId,
    pub(crate) bed: Option<BedId>,
    pub(crate) device: DeviceId,
    pub(crate) room: Option<Room>,
    pub(crate) quantity: Quantity,
    pub(crate) unit: std::sync::Arc<str>,
    pub(crate) quality: Quality,
    pub(crate) clock: ClockQuality,
    pub(crate) gateway: GatewayId,
    pub(crate) boot: Option<u64>,
    pub(crate) epoch: Epoch,
    pub(crate) lane: Lane,
    pub(crate) seq: u64,
    pub(crate) received_time: Timestamp,
}

/// What a row has for itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) event_time: Timestamp,
    pub(crate) gateway_time: Timestamp,
    pub(crate) value: Value,
}

impl Streak {
    /// Its rows.
    pub(crate) fn observations(&self) -> impl Iterator<Item = Observation> {
        let About { area, home, bed, device, room, quantity, unit, .. } = &self.about;
        let About { quality, clock, gateway, boot, epoch, lane, seq, received_time, .. } = &self.about;
        self.points.iter().map(move |point| Observation {
            area: area.clone(),
            home: home.clone(),
            bed: bed.clone(),
            device: device.clone(),
            room: room.clone(),
            quantity: quantity.clone(),
            unit: std::sync::Arc::clone(unit),
            event_time: point.event_time,
            value: point.value.clone(),
            quality: quality.clone(),
            clock: *clock,
            gateway: gateway.clone(),
            boot: *boot,
            epoch: *epoch,
            lane: *lane,
            seq: *seq,
            gateway_time: point.gateway_time,
            received_time: *received_time,
        })
    }

    /// Its rows of each day that it touches, in its order.
    pub(crate) fn days(&self) -> impl Iterator<Item = (i32, &[Point])> {
        let runs = self.points.chunk_by(|a, b| day(a.event_time) == day(b.event_time));
        runs.filter_map(|points| Some((day(points.first()?.event_time), points)))
    }
}

/// The days on which rows fall.
pub(crate) fn days(streaks: &[Streak]) -> BTreeSet<i32> {
    streaks.iter().flat_map(Streak::days).map(|(day, _)| day).collect()
}

/// Rows as streaks, in their order.
pub(crate) fn streaks(rows: impl IntoIterator<Item = Observation>) -> Vec<Streak> {
    let mut streaks: Vec<Streak> = Vec::new();
    for row in rows {
        let point = Point { event_time: row.event_time, gateway_time: row.gateway_time, value: row.value };
        let about = About {
            area: row.area,
            home: row.home,
            bed: row.bed,
            device: row.device,
            room: row.room,
            quantity: row.quantity,
            unit: row.unit,
            quality: row.quality,
            clock: row.clock,
            gateway: row.gateway,
            boot: row.boot,
            epoch: row.epoch,
            lane: row.lane,
            seq: row.seq,
            received_time: row.received_time,
        };
        match streaks.last_mut().filter(|last| last.about == about) {
            Some(last) => last.points.push(point),
            None => streaks.push(Streak { about, points: vec![point] }),
        }
    }
    streaks
}
