//! Small lakes made by hand, for tests that only read.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;
use carebed_pipeline::store::{Commit, Store};

/// When [`hourly`] begins: 2026-05-01T12:00:00Z.
pub const START: Timestamp = Timestamp::from_millis(1_777_636_800_000);

/// Heart rates 1, 2, 3, … of a home's bed, an hour apart.
///
/// # Panics
/// When an id is none.
#[must_use]
pub fn hourly(home: &str, area: &str, n: u32) -> Vec<Observation> {
    let row = |n: u32| Observation {
        area: area.parse().expect("an area"),
        home: home.parse().expect("a home"),
        bed: Some(format!("{home}-bed").parse().expect("a bed")),
        device: "mat".parse().expect("a device"),
        room: None,
        quantity: Quantity::new("heart_rate").expect("a quantity"),
        unit: Arc::from("/min"),
        event_time: START + Duration::from_secs(3_600) * n,
        value: Value::Number(f64::from(n + 1)),
        quality: Quality::parse("good"),
        clock: ClockQuality::Synchronised,
        gateway: "gw-1".parse().expect("a gateway"),
        boot: None,
        epoch: Epoch::new(1),
        lane: Lane::Routine,
        seq: 0,
        gateway_time: START,
        received_time: START,
    };
    (0..n).map(row).collect()
}

/// Commits rows.
///
/// # Panics
/// When the lake cannot be written.
pub async fn commit(store: &Store, rows: Vec<Observation>) {
    let marks = [("gw-1".parse().expect("a gateway"), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![rows.into()], marks, ..Commit::default() };
    store.commit(&commit, START).await.expect("the rows are committed");
}
