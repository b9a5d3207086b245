//! What an observation says to the episodes, and no more: a few dozen bytes kept for the recent stretch of each home.

use std::cmp::Ordering;

use carebed_contract::id::{BedId, DeviceId, Room};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::{Kind, Quantity};
use carebed_contract::time::Timestamp;

use super::definition::Definitions;
use crate::coverage::Sensor;

/// The reason by which a gateway says that a device stopped answering.
const NO_ANSWER: &str = "no_answer";

/// An observation that may be used and matters.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) time: Timestamp,
    pub(crate) quantity: Quantity,
    pub(crate) device: DeviceId,
    pub(crate) bed: Option<BedId>,
    pub(crate) room: Option<Room>,
    /// 1 for an event; not a number when a device stopped answering, so that its state is unknown from now on; infinite when it does not
    /// observe this any more, below all numbers when it is gone from the home altogether.
    pub(crate) value: f64,
    pub(crate) watch: Watch,
}

/// What an observation says of who watched before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Nothing.
    Unsaid,
    /// The gateway, as long as it is in this boot.
    Boot(u64),
    /// Nobody since then.
    NotSince(Timestamp),
}

impl Seen {
    /// None when it may not be used or matters to no episode.
    pub(crate) fn new(observation: &Observation, definitions: &Definitions) -> Option<Self> {
        let value = Self::value(&observation.quantity, observation.value.number(), &observation.quality, definitions)?;
        Some(Self {
            time: observation.event_time,
            quantity: observation.quantity.clone(),
            device: observation.device.clone(),
            bed: observation.bed.clone(),
            room: observation.room.clone(),
            value,
            watch: observation.boot.map_or(Watch::Unsaid, Watch::Boot),
        })
    }

    /// What a row says; none when it may not be used or matters to no episode. A call is used whatever its quality: an
    /// odd unit or an impossible time must not silence it.
    pub(crate) fn value(
        quantity: &Quantity,
        number: Option<f64>,
        quality: &Quality,
        definitions: &Definitions,
    ) -> Option<f64> {
        if !definitions.uses(quantity) {
            return None;
        }
        let kind = quantity.definition().map(|d| d.kind);
        match quality {
            Quality::Bad(reason) if reason == NO_ANSWER => Some(f64::NAN),
            Quality::Bad(_) if !definitions.is_immediate(quantity) => None,
            // A measure that its own device doubts is no measure.
            Quality::Uncertain(_) if kind == Some(Kind::Measure) => None,
            // An event has happened whatever number it carries.
            _ if kind == Some(Kind::Event) => Some(1.0),
            _ => number.filter(|number| number.is_finite()),
        }
    }

    /// The home says that a device does not observe this any more, or that the device itself is gone.
    pub(crate) fn ended(sensor: &Sensor, time: Timestamp, device_is_gone: bool) -> Self {
        let Sensor { device, bed, quantity } = sensor.clone();
        let value = if device_is_gone { f64::NEG_INFINITY } else { f64::INFINITY };
        Self { time, quantity, device, bed, room: None, value, watch: Watch::Unsaid }
    }

    /// Whether it says that a state is unknown from now on.
    pub(crate) fn is_unknown(&self) -> bool {
        !self.value.is_finite()
    }

    /// Whether the device should answer and does not.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.value.is_nan()
    }

    /// Whether nobody expects the device to answer any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.value == f64::NEG_INFINITY
    }

    /// The order in which a home's observations are taken. Total, so that the order of arrival cannot matter.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        self.time
            .cmp(&other.time)
            .then_with(|| self.quantity.cmp(&other.quantity))
            .then_with(|| self.device.cmp(&other.device))
            .then_with(|| self.bed.cmp(&other.bed))
            .then_with(|| self.value.total_cmp(&other.value))
    }
}
