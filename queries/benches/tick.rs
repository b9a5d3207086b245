//! How much the living side costs: a tick of all detections over a hundred homes, and the urgent way of one. Run with
//! `cargo bench -p carebed-queries --bench tick`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark stops at what it did not expect and prints its figures"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::time::Timestamp;
use carebed_queries::engine::{Engine, Limits};
use carebed_queries::episodes::Definitions;
use carebed_queries::home::HomeFacts;
use carebed_queries::live::Live;
use common::observation;
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let engine = Arc::new(Engine::new(Limits::default()).unwrap());
    let (detections, refused) = engine.builtin().await;
    assert!(refused.is_empty(), "{refused:?}");
    let mut live = Live::new(engine, detections, Arc::new(Definitions::builtin().unwrap()));
    let start = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
    let mut rows = Vec::new();
    for n in 0..100 {
        let (home, bed) = (format!("h{n}"), format!("b{n}"));
        live.set_home(HomeFacts::unregistered(home.parse().unwrap(), "area-1".parse().unwrap()));
        for hour in 0..30u64 {
            let time = start + Duration::from_secs(3_600 * hour + n);
            let on = f64::from(u8::from(hour % 2 == 0));
            rows.push(observation(&home, &bed, "mat", "bed_occupancy", time, Some(on), "good"));
            rows.push(observation(
                &home,
                "-",
                "pir",
                "motion_event",
                time + Duration::from_secs(90),
                Some(1.0),
                "good",
            ));
        }
    }
    let begun = Instant::now();
    live.feed(&rows);
    let homes: Vec<_> = live.episodes().homes().cloned().collect();
    let now = start + Duration::from_secs(31 * 3_600);
    homes.iter().for_each(|home| live.advance(home, now));
    let fed = begun.elapsed();
    let found = live.tick(now).await.findings.len();
    let begun = Instant::now();
    let ticks = 5;
    for _ in 0..ticks {
        live.advance(&homes[0], now + Duration::from_secs(1));
        assert_eq!(live.tick(now).await.findings.len(), found);
    }
    let tick = begun.elapsed() / ticks;
    let begun = Instant::now();
    live.tick_home(&homes[0], now).await;
    let urgent = begun.elapsed();
    println!("{} rows fed in {fed:?}; a tick {tick:?}; the urgent way {urgent:?}; {found} findings", rows.len());
}
