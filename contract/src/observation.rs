//! One observation as the centre accepted it: a row of the table.

use std::sync::Arc;

use crate::id::{Area, BedId, DeviceId, GatewayId, HomeId, Room};
use crate::labels::{Epoch, Lane};
use crate::quality::Quality;
use crate::quantity::Quantity;
use crate::time::{ClockQuality, Timestamp};
use crate::value::Value;

/// A row of the table `observations`. (gateway, epoch, lane, seq, position in the batch) names it for ever.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// Where the gateway was enrolled.
    pub area: Area,
    /// The home.
    pub home: HomeId,
    /// The bed, or none for what belongs to the whole home.
    pub bed: Option<BedId>,
    /// The device.
    pub device: DeviceId,
    /// The device's room, from the inventory valid then.
    pub room: Option<Room>,
    /// What was observed.
    pub quantity: Quantity,
    /// Its unit in UCUM.
    pub unit: Arc<str>,
    /// When it was so at the bed.
    pub event_time: Timestamp,
    /// What was observed.
    pub value: Value,
    /// How far to trust it.
    pub quality: Quality,
    /// How far to trust its time.
    pub clock: ClockQuality,
    /// The gateway that took it.
    pub gateway: GatewayId,
    /// The gateway's boot, where the payload says.
    pub boot: Option<u64>,
    /// Which life of the spool.
    pub epoch: Epoch,
    /// Which queue.
    pub lane: Lane,
    /// Which batch.
    pub seq: u64,
    /// When the gateway took it.
    pub gateway_time: Timestamp,
    /// When the centre took it.
    pub received_time: Timestamp,
}
