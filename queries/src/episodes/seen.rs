//! What an observation says to the episodes, and no more: a few dozen bytes kept for the recent stretch of each home.

use std::cmp::Ordering;

use carebed_contract::id::{BedId, DeviceId, Room};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::{Kind, Quantity};
use carebed_contract::time::Timestamp;

use super::definition::Definitions;

/// An observation that may be used and matters.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) time: Timestamp,
    pub(crate) quantity: Quantity,
    pub(crate) device: DeviceId,
    pub(crate) bed: Option<BedId>,
    pub(crate) room: Option<Room>,
    /// 1 for an event.
    pub(crate) value: f64,
}

impl Seen {
    /// None when it may not be used or matters to no episode.
    pub(crate) fn new(observation: &Observation, definitions: &Definitions) -> Option<Self> {
        let usable = observation.quality.is_usable() && definitions.uses(&observation.quantity);
        let value = if usable { value(&observation.quantity, observation.value.number())? } else { return None };
        Some(Self {
            time: observation.event_time,
            quantity: observation.quantity.clone(),
            device: observation.device.clone(),
            bed: observation.bed.clone(),
            room: observation.room.clone(),
            value,
        })
    }

    /// The value of a row that may be used.
    pub(crate) fn value(quantity: &Quantity, number: Option<f64>, quality: &str) -> Option<f64> {
        if Quality::parse(quality).is_usable() { value(quantity, number) } else { None }
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

fn value(quantity: &Quantity, number: Option<f64>) -> Option<f64> {
    let is_event = quantity.definition().is_some_and(|d| d.kind == Kind::Event);
    // An event has happened whatever number it carries.
    if is_event { Some(1.0) } else { number }
}
