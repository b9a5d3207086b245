//! How much the living side costs at size: a hundred thousand beds, each in a home of its own, in the middle of a night; one round of all
//! detections over all of them, the urgent way of one, and the memory. Run with
//! `cargo bench -p carebed-queries --bench tick -- [BEDS]`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
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

/// Two cores, and no limit that would hide what is measured.
const LIMITS: Limits = Limits { memory_bytes: 8 << 30, partitions: 2, time: Duration::from_secs(600) };

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let beds: u64 = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(100_000);
    let engine = Arc::new(Engine::new(LIMITS).unwrap());
    let (detections, refused) = engine.builtin().await;
    assert!(refused.is_empty(), "{refused:?}");
    let n_detections = detections.len();
    let mut live = Live::new(engine, detections, Arc::new(Definitions::builtin().unwrap()));
    // 20:00 by the clock in Shanghai.
    let start = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
    let before = resident_bytes();
    let mut n_rows = 0;
    let begun = Instant::now();
    for n in 0..beds {
        let (home, bed) = (format!("h{n}"), format!("b{n}"));
        live.set_home(HomeFacts::unregistered(home.parse().unwrap(), "area-1".parse().unwrap()));
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes + n % 60);
        let row = |device, quantity, minutes, on: f64| {
            let bed = if device == "mat" { bed.as_str() } else { "-" };
            observation(&home, bed, device, quantity, at(minutes), Some(on), "good")
        };
        let mut rows = Vec::new();
        // An evening in the rooms, to bed, up once in the night.
        for minutes in (0..120).step_by(12) {
            rows.push(row("pir", "motion_event", minutes, 1.0));
        }
        for (minutes, on) in [(125, 1.0), (305, 0.0), (313, 1.0)] {
            rows.push(row("mat", "bed_occupancy", minutes, on));
        }
        rows.push(row("hall", "motion_event", 306, 1.0));
        rows.push(row("bath", "motion_event", 308, 1.0));
        n_rows += rows.len();
        live.feed(&rows);
    }
    let homes: Vec<_> = live.episodes().homes().cloned().collect();
    let now = start + Duration::from_secs(60 * 360);
    homes.iter().for_each(|home| live.advance(home, now));
    let fed = begun.elapsed();
    let bytes = resident_bytes().saturating_sub(before);
    live.tick(now).await;
    // One home has gone on: what an ordinary round finds.
    live.advance(&homes[0], now + Duration::from_secs(1));
    let begun = Instant::now();
    let look = live.look(now + Duration::from_secs(1));
    let gathered = begun.elapsed();
    let round = look.run().await;
    let tick = begun.elapsed();
    assert!(round.failed.is_empty(), "{:?}", round.failed);
    let begun = Instant::now();
    live.tick_home(&homes[0], now).await;
    let urgent = begun.elapsed();
    println!("{beds} beds, {n_detections} detections, {n_rows} rows fed in {fed:?}");
    println!("episodes: {:.2} KiB a bed", bytes as f64 / 1_024.0 / beds as f64);
    println!("a round {tick:?}, of which gathering {gathered:?}; {} findings", round.findings.len());
    println!("the urgent way of one home {urgent:?}");
}

/// What the process holds, as the kernel says; 0 where it does not.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}
