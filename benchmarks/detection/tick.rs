//! How much the living side costs at size: a hundred thousand beds, each in a home of its own, in the middle of a night, every home told of
//! once a minute and compared with what is usual there. Ordinary rounds of all detections, one a second; a round over all homes at once, as
//! after a start; the urgent way of one; and the memory. Run with
//! `cargo build --release -p carebed --example tick && target/release/examples/tick [BEDS]`.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark stops at what it did not expect and prints its figures"
)]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use carebed_contract::id::HomeId;
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;
use carebed_queries::engine::{Engine, Limits, baselines_schema};
use carebed_queries::episodes::Definitions;
use carebed_queries::home::HomeFacts;
use carebed_queries::live::Live;
use tokio::time::Instant;

/// No limit that would hide what is measured; two cores are those of the runtime.
const LIMITS: Limits = Limits { memory_bytes: 8 << 30, partitions: 1, time: Duration::from_secs(600) };

/// Ordinary rounds measured.
const ROUNDS: u64 = 10;

fn observation(home: &str, bed: Option<&str>, device: &str, quantity: &str, at: Timestamp, value: f64) -> Observation {
    Observation {
        area: "area-1".parse().unwrap(),
        home: home.parse().unwrap(),
        bed: bed.map(|bed| bed.parse().unwrap()),
        device: device.parse().unwrap(),
        room: device.parse().ok(),
        quantity: Quantity::new(quantity).unwrap(),
        unit: Arc::from("1"),
        event_time: at,
        value: Value::Number(value),
        quality: Quality::Good,
        clock: ClockQuality::Synchronised,
        gateway: "gw-1".parse().unwrap(),
        boot: Some(1),
        epoch: Epoch::new(1),
        lane: Lane::Routine,
        seq: 0,
        gateway_time: at,
        received_time: at,
    }
}

/// Limits of quiet of all homes, as two nights leave them: for every half hour, three rooms and all together.
fn baselines(beds: u64, night: Timestamp) -> RecordBatch {
    let keys = [None, Some("living"), Some("bath"), Some("hall")];
    let per_home = 2 * 48 * keys.len();
    let n = usize::try_from(beds).unwrap() * per_home;
    let home = |row: usize| format!("h{}", row / per_home);
    let slot = |row: usize| i64::try_from(row / (2 * keys.len()) % 48).unwrap();
    let known = |row: usize| night.millis() - if row.is_multiple_of(2) { 0 } else { 86_400_000 };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values((0..n).map(|_| "inactivity"))),
        Arc::new(StringArray::from_iter_values((0..n).map(home))),
        Arc::new((0..n).map(|_| None::<&str>).collect::<StringArray>()),
        Arc::new((0..n).map(|row| keys[row / 2 % keys.len()]).collect::<StringArray>()),
        Arc::new((0..n).map(slot).collect::<Int64Array>()),
        Arc::new(TimestampMillisecondArray::from_iter_values((0..n).map(known)).with_timezone("UTC")),
        Arc::new(Float64Array::from_iter_values((0..n).map(|row| 120.0 + (row % 97) as f64))),
        Arc::new(Int64Array::from_iter_values((0..n).map(|_| 60))),
    ];
    RecordBatch::try_new(baselines_schema(), columns).unwrap()
}

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
    live.listen_from(start);
    let before = resident_bytes();
    let mut n_rows = 0;
    let begun = Instant::now();
    let homes: Vec<HomeId> = (0..beds).map(|n| format!("h{n}").parse().unwrap()).collect();
    for (n, home) in (0..beds).zip(&homes) {
        let bed = format!("b{n}");
        live.set_home(HomeFacts::unregistered(home.clone(), format!("area-{}", n % 100).parse().unwrap()));
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes + n % 60);
        let row = |device, quantity, minutes, value: f64| {
            let bed = (device == "mat").then_some(bed.as_str());
            observation(home.as_str(), bed, device, quantity, at(minutes), value)
        };
        let mut rows = Vec::new();
        // An evening in the rooms, to bed with heart and breath, up once in the night.
        for minutes in (0..120).step_by(12) {
            rows.push(row("living", "motion_event", minutes, 1.0));
        }
        for (minutes, on) in [(125, 1.0), (305, 0.0), (313, 1.0)] {
            rows.push(row("mat", "bed_occupancy", minutes, on));
        }
        for minutes in (126..300).step_by(10) {
            rows.extend([row("mat", "heart_rate", minutes, 61.0), row("mat", "respiratory_rate", minutes, 14.0)]);
        }
        rows.push(row("hall", "motion_event", 306, 1.0));
        rows.push(row("bath", "motion_event", 308, 1.0));
        n_rows += rows.len();
        live.feed(&rows);
    }
    let now = start + Duration::from_secs(60 * 360);
    for home in &homes {
        live.advance(home, now);
        live.signs().heard(home, now);
    }
    let fed = begun.elapsed();
    let episodes = resident_bytes().saturating_sub(before);
    live.set_baselines(&baselines(beds, start + Duration::from_secs(4 * 3_600)));
    let learnt = resident_bytes().saturating_sub(before + episodes);
    println!("{beds} beds, {n_detections} detections, {n_rows} rows fed in {fed:?}");
    let kib = |bytes: u64| bytes as f64 / 1_024.0 / beds as f64;
    println!("memory: {:.2} KiB a bed of episodes, {:.2} KiB of what is usual there", kib(episodes), kib(learnt));
    // All homes have changed, as after a start: as many rounds as it takes.
    let begun = Instant::now();
    let (mut looked, mut n_findings, mut rounds) = (0, 0, 0);
    while looked < homes.len() {
        let look = live.look(now);
        looked += look.homes().len();
        rounds += 1;
        let round = look.run().await;
        assert!(round.failed.is_empty(), "{:?}", round.failed);
        n_findings += round.findings.len();
    }
    println!("all homes: {:?} in {rounds} rounds; {n_findings} findings", begun.elapsed());
    let mut slowest = Duration::ZERO;
    let mut together = Duration::ZERO;
    for second in 1..=ROUNDS {
        let now = now + Duration::from_secs(second);
        // A sixtieth of the homes tells something every second.
        let begun = Instant::now();
        for home in homes.iter().skip(usize::try_from(second).unwrap()).step_by(60) {
            let bed = format!("b{}", &home.as_str()[1..]);
            live.feed(&[observation(home.as_str(), Some(&bed), "mat", "heart_rate", now, 62.0)]);
            live.advance(home, now);
            live.signs().heard(home, now);
        }
        let taken = begun.elapsed();
        let begun = Instant::now();
        let look = live.look(now);
        let (gathered, n_homes) = (begun.elapsed(), look.homes().len());
        let round = look.run().await;
        assert!(round.failed.is_empty(), "{:?}", round.failed);
        let tick = begun.elapsed();
        (slowest, together) = (slowest.max(tick), together + tick);
        if second == 1 {
            println!(
                "a round: {tick:?}, of which gathering {gathered:?}; {n_homes} homes looked at (taking their rows {taken:?})"
            );
        }
    }
    println!("{ROUNDS} rounds: {:?} on the mean, {slowest:?} at most", together / u32::try_from(ROUNDS).unwrap());
    let begun = Instant::now();
    live.tick_home(&homes[0], now).await;
    println!("the urgent way of one home: {:?}", begun.elapsed());
}

/// What the process holds, as the kernel says; 0 where it does not.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}
