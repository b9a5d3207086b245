//! What the tests of this crate share.

use std::sync::Arc;

use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;

/// An observation as the centre accepts it; `bed` may be `-` or `NULL`.
pub(crate) fn observation(
    home: &str,
    bed: &str,
    device: &str,
    quantity: &str,
    at: Timestamp,
    value: Option<f64>,
    quality: &str,
) -> Observation {
    Observation {
        area: "area-1".parse().unwrap(),
        home: home.parse().unwrap(),
        bed: bed.parse().ok().filter(|_| bed != "NULL"),
        device: device.parse().unwrap(),
        room: None,
        quantity: Quantity::new(quantity).unwrap(),
        unit: Arc::from("1"),
        event_time: at,
        value: value.map_or(Value::Missing, Value::Number),
        quality: Quality::parse(quality),
        clock: ClockQuality::Synchronised,
        gateway: "gw-1".parse().unwrap(),
        boot: None,
        epoch: Epoch::new(1),
        lane: Lane::Routine,
        seq: 0,
        gateway_time: at,
        received_time: at,
    }
}
