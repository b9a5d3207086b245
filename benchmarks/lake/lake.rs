//! The lake measured from inside: makes seeded data through the product's own commits and compaction, and times what the
//! product does with it. `run.py` puts the figures beside those of other programs.
//!
//! `lake generate <lake> <homes> <days> <polls-a-batch>` · `lake ask <lake> plain|memory`: answers statements from standard input, one a
//! line, with how long each took; with the memory of live detection or without · `lake commits <lake> <n> compact|leave` ·
//! `lake contend <lake> <n>` · `lake erase <lake> <home>`. Each prints JSON objects, one a line.

#![expect(clippy::print_stdout, reason = "a benchmark's answer is its output")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use carebed_contract::clock::{Clock, SystemClock};
use carebed_contract::id::HomeId;
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;
use carebed_pipeline::accept::Marks;
use carebed_pipeline::store::{Commit, Config, Erasure, Store};
use carebed_queries::engine::Limits;
use carebed_queries::episodes::{Definitions, Episode, Episodes};
use carebed_queries::history::{self, Span};
use carebed_queries::home::HomeFacts;
use carebed_queries::sql::{Lake, Recent, Snapshot, SqlSession};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use tokio::sync::Mutex;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// 2026-03-01T00:00:00Z.
const START: i64 = 1_772_323_200_000;
const POLL_MS: i64 = 30_000;
const POLLS_A_DAY: i64 = 2_880;
const SEED: u64 = 1;
/// Rows of one commit of the generator, about.
const COMMIT_ROWS: usize = 300_000;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let answer = runtime.block_on(async {
        match arguments[..] {
            ["generate", lake, homes, days, polls] => {
                generate(lake.as_ref(), homes.parse()?, days.parse()?, polls.parse()?).await
            }
            ["ask", lake, memory] => ask(lake.as_ref(), memory == "memory").await,
            ["commits", lake, n, upkeep] => commits(lake.as_ref(), n.parse()?, upkeep == "compact").await,
            ["contend", lake, n] => contend(lake.as_ref(), n.parse()?).await,
            ["erase", lake, home] => erase(lake.as_ref(), home).await,
            _ => Err("usage: lake generate|ask|commits|contend|erase …, see the head of lake.rs".into()),
        }
    })?;
    // Whoever has asked enough may be gone.
    let _gone = writeln!(std::io::stdout(), "{answer}");
    Ok(())
}

/// One bed with one sensor board: presence, heart rate and respiratory rate come with one poll.
struct Bed {
    row: Observation,
    chance: StdRng,
    heart: f64,
    breath: f64,
    present: bool,
    seq: u64,
    polls: u32,
}

impl Bed {
    fn new(number: usize) -> Outcome<Self> {
        let mut chance = StdRng::seed_from_u64(SEED ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let row = Observation {
            area: format!("3607{:02}", number % 40).parse()?,
            home: format!("home-{number:05}").parse()?,
            bed: Some(format!("bed-{number:05}").parse()?),
            device: "mat-1".parse()?,
            room: Some("bedroom".parse()?),
            quantity: quantity("heart_rate")?,
            unit: "/min".into(),
            event_time: Timestamp::MIN,
            value: Value::Missing,
            quality: Quality::Good,
            clock: ClockQuality::Synchronised,
            gateway: format!("gw-{number:05}").parse()?,
            boot: Some(1 + number as u64 % 7),
            epoch: Epoch::new(chance.random()),
            lane: Lane::Routine,
            seq: 0,
            gateway_time: Timestamp::MIN,
            received_time: Timestamp::MIN,
        };
        let heart = 55.0 + chance.random::<f64>() * 20.0;
        Ok(Self { row, chance, heart, breath: 15.0, present: true, seq: 0, polls: 0 })
    }

    /// Rows of the polls of one batch, received a few seconds after the last of them.
    fn batch(&mut self, polls: std::ops::Range<i64>, names: &[Quantity; 3], rows: &mut Vec<Observation>) {
        let times: Vec<i64> = polls.map(|poll| START + poll * POLL_MS + self.chance.random_range(-500..=500)).collect();
        let Some(last) = times.last() else { return };
        let received = Timestamp::from_millis(last + 2_000 + self.chance.random_range(0..3_000));
        let seq = self.seq;
        self.seq += 1;
        for time in times {
            self.polls += 1;
            // Leaves the bed for minutes or hours, about ten times a day.
            if self.chance.random_bool(if self.present { 1.0 / 250.0 } else { 1.0 / 60.0 }) {
                self.present = !self.present;
            }
            self.heart = (self.heart + self.chance.random_range(-1.2..1.2)).clamp(42.0, 120.0);
            self.breath = (self.breath + self.chance.random_range(-0.8..0.8)).clamp(9.0, 28.0);
            let at = Timestamp::from_millis(time);
            let values = [f64::from(u8::from(self.present)), self.heart.round(), self.breath.round()];
            for (quantity, value) in names.iter().zip(values) {
                let unit = if quantity.as_str() == "bed_occupancy" { "1" } else { "/min" };
                rows.push(Observation {
                    quantity: quantity.clone(),
                    unit: unit.into(),
                    event_time: at,
                    gateway_time: at,
                    received_time: received,
                    value: Value::Number(value),
                    seq,
                    ..self.row.clone()
                });
            }
        }
    }
}

fn quantity(name: &str) -> Outcome<Quantity> {
    Quantity::new(name).ok_or_else(|| format!("no quantity {name}").into())
}

fn marks() -> BTreeMap<carebed_contract::id::GatewayId, Marks> {
    "gw-00000".parse().map(|gateway| (gateway, Marks::default())).into_iter().collect()
}

async fn generate(lake: &Path, homes: usize, days: i64, polls_a_batch: i64) -> Outcome<serde_json::Value> {
    let clock = SystemClock::new();
    let store = Store::open(Config::local(lake)?).await?;
    let names = [quantity("bed_occupancy")?, quantity("heart_rate")?, quantity("respiratory_rate")?];
    let mut beds = (0..homes).map(Bed::new).collect::<Outcome<Vec<_>>>()?;
    let (mut rows, mut n_rows, mut n_commits) = (Vec::new(), 0, 0);
    let (mut committing, mut compacting) = (Duration::ZERO, Duration::ZERO);
    let started = clock.monotonic();
    let polls = days * POLLS_A_DAY;
    for from in (0..polls).step_by(usize::try_from(polls_a_batch)?) {
        for bed in &mut beds {
            bed.batch(from..polls.min(from + polls_a_batch), &names, &mut rows);
            if rows.len() >= COMMIT_ROWS {
                n_rows += rows.len();
                n_commits += 1;
                committing += commit(&store, &clock, std::mem::take(&mut rows), from).await?;
            }
        }
        let before = clock.monotonic();
        while store.compact(Timestamp::from_millis(START + from * POLL_MS)).await?.is_some() {}
        compacting += clock.monotonic() - before;
    }
    n_rows += rows.len();
    committing += commit(&store, &clock, rows, polls).await?;
    let before = clock.monotonic();
    while store.compact(Timestamp::from_millis(START + (polls + 3 * POLLS_A_DAY) * POLL_MS)).await?.is_some() {}
    compacting += clock.monotonic() - before;
    store.vacuum(Duration::ZERO, Timestamp::MAX).await?;
    let view = store.view();
    let data: u64 = view.observations.files.iter().map(|file| file.size).sum();
    let all = size(&lake.join("observations"))?;
    Ok(json!({
        "rows": n_rows, "commits": n_commits, "files": view.observations.files.len(), "data_bytes": data,
        "bytes_with_log": all, "bytes_a_value": all as f64 / n_rows as f64,
        "seconds": (clock.monotonic() - started).as_secs_f64(), "seconds_committing": committing.as_secs_f64(),
        "seconds_compacting": compacting.as_secs_f64(), "rss_mib": rss_mib(),
    }))
}

async fn commit(store: &Store, clock: &SystemClock, rows: Vec<Observation>, poll: i64) -> Outcome<Duration> {
    let commit = Commit { rows: vec![rows.into()], marks: marks(), ..Commit::default() };
    let before = clock.monotonic();
    store.commit(&commit, Timestamp::from_millis(START + poll * POLL_MS)).await?;
    Ok(clock.monotonic() - before)
}

fn size(path: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        bytes += if path.is_dir() { size(&path)? } else { path.metadata()?.len() };
    }
    Ok(bytes)
}

/// What the system says this process has in memory; 0 where it does not say.
fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) / 1024
}

const LIMITS: Limits = Limits { memory_bytes: 8 << 30, partitions: 2, time: Duration::from_secs(600) };

/// The episodes of a lake, as live detection has those of the last days.
#[derive(Debug)]
struct Memory(Mutex<Episodes>);

#[async_trait]
impl Recent for Memory {
    async fn of(&self, homes: Vec<HomeId>) -> Option<(Timestamp, Vec<Episode>)> {
        let mut episodes = self.0.lock().await;
        Some((Timestamp::from_millis(START), homes.iter().flat_map(|home| episodes.of(home)).collect()))
    }
}

async fn session(lake: &Path, with_memory: bool) -> Outcome<SqlSession> {
    let store = Store::open_read(Config::local(lake)?).await?;
    let (lake, view) = (Lake::of(&store), store.view());
    if !with_memory {
        return Ok(SqlSession::open(Snapshot::new(&lake, view, &[]), LIMITS, usize::MAX).await?);
    }
    let plain = SqlSession::open(Snapshot::new(&lake, Arc::clone(&view), &[]), LIMITS, usize::MAX).await?;
    let answer = plain.run("SELECT DISTINCT home_id, area FROM observations").await?;
    let mut csv = Vec::new();
    carebed_queries::sql::write(&answer, carebed_queries::sql::Format::Csv, &mut csv)?;
    let mut homes = Vec::new();
    for line in String::from_utf8(csv)?.lines().skip(1) {
        let (home, area) = line.split_once(',').ok_or("home and area")?;
        homes.push(HomeFacts::unregistered(home.parse()?, area.parse()?));
    }
    let (definitions, all) = (Arc::new(Definitions::builtin()?), Span { from: Timestamp::MIN, to: Timestamp::MAX });
    let episodes = history::episodes(&lake, &view, all, &homes, definitions, LIMITS).await?;
    let recent: Arc<dyn Recent> = Arc::new(Memory(Mutex::new(episodes)));
    let snapshot = Snapshot::new(&lake, view, &homes).with_recent(&recent);
    Ok(SqlSession::open(snapshot, LIMITS, usize::MAX).await?)
}

/// Answers statements as they come: milliseconds, and how many rows. The session stays open, as an analyst's does.
async fn ask(lake: &Path, with_memory: bool) -> Outcome<serde_json::Value> {
    let clock = SystemClock::new();
    let before = clock.monotonic();
    let session = session(lake, with_memory).await?;
    println!("{}", json!({"open_ms": millis(clock.monotonic() - before)}));
    let mut statement = String::new();
    while std::io::stdin().read_line(&mut statement)? > 0 {
        let before = clock.monotonic();
        let answer = session.run(&statement).await?;
        let took = millis(clock.monotonic() - before);
        let rows: usize = answer.batches.iter().map(|batch| batch.num_rows()).sum();
        println!("{}", json!({"ms": took, "rows": rows}));
        statement.clear();
    }
    Ok(json!({"rss_mib": rss_mib()}))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Many small commits: how long each takes, and what memory does meanwhile.
async fn commits(lake: &Path, n: u32, compact: bool) -> Outcome<serde_json::Value> {
    let clock = SystemClock::new();
    let store = Store::open(Config::local(lake)?).await?;
    let names = [quantity("bed_occupancy")?, quantity("heart_rate")?, quantity("respiratory_rate")?];
    let mut beds = (0..20).map(Bed::new).collect::<Outcome<Vec<_>>>()?;
    let (mut times, mut memory, mut files_most) = (Vec::new(), Vec::new(), 0);
    for number in 0..n {
        let mut rows = Vec::new();
        // Ten polls a commit: 600 rows, 28 days in all for 8,000 commits.
        let from = i64::from(number) * 10;
        beds.iter_mut().for_each(|bed| bed.batch(from..from + 10, &names, &mut rows));
        times.push(millis(commit(&store, &clock, rows, from).await?));
        if compact {
            while store.compact(Timestamp::from_millis(START + from * POLL_MS)).await?.is_some() {}
            if number % 100 == 0 {
                store.vacuum(Duration::from_secs(60), clock.now()).await?;
            }
        }
        files_most = files_most.max(store.view().observations.files.len());
        if number % (n / 10).max(1) == 0 {
            memory.push(rss_mib());
        }
    }
    memory.push(rss_mib());
    times.sort_by(f64::total_cmp);
    let at = |per_10_000: usize| times.get(times.len() * per_10_000 / 10_000).copied().unwrap_or(f64::NAN);
    Ok(json!({
        "commits": n, "compact": compact, "ms_p50": at(5_000), "ms_p99": at(9_900), "ms_most": at(9_999),
        "rss_mib": memory, "files": store.view().observations.files.len(), "files_most": files_most,
        "log_files": std::fs::read_dir(lake.join("observations/_delta_log"))?.count(),
    }))
}

/// What three queries that never end take from commits: how long a commit of 3,000 rows takes without and with them, in turns, so
/// that both meet the same lake. The queries run as the centre runs them: on threads of their own, bounded.
async fn contend(lake: &Path, n: u32) -> Outcome<serde_json::Value> {
    const TURNS: u32 = 4;
    const QUERIES: [&str; 3] = [
        "SELECT bed_id, quantity, date_trunc('hour', event_time) AS hour, avg(value) FROM observations GROUP BY 1, 2, 3",
        "SELECT bed_id, event_time, lag(value) OVER (PARTITION BY bed_id ORDER BY event_time) AS l FROM observations \
         WHERE quantity = 'heart_rate' ORDER BY l DESC LIMIT 10",
        "SELECT count(*) FROM observations a JOIN observations b ON a.bed_id = b.bed_id AND a.event_time = b.event_time",
    ];
    let clock = SystemClock::new();
    let store = Store::open(Config::local(lake)?).await?;
    let names = [quantity("bed_occupancy")?, quantity("heart_rate")?, quantity("respiratory_rate")?];
    let mut beds = (0..100).map(Bed::new).collect::<Outcome<Vec<_>>>()?;
    let analysts = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (mut idle, mut busy, mut asked) = (Vec::new(), Vec::new(), 0);
    for turn in 0..2 * TURNS {
        let with_queries = turn % 2 == 1;
        let running: Vec<_> = QUERIES
            .iter()
            .filter(|_| with_queries)
            .map(|sql| {
                let (lake, view) = (Lake::of(&store), store.view());
                analysts.spawn(async move {
                    let limits = Limits { memory_bytes: 256 << 20, partitions: 1, time: Duration::from_secs(600) };
                    while let Ok(session) =
                        SqlSession::open(Snapshot::new(&lake, Arc::clone(&view), &[]), limits, 1_000).await
                    {
                        // Over its memory is an end like another.
                        let _answer = session.run(sql).await;
                    }
                })
            })
            .collect();
        for number in 0..n {
            let mut rows = Vec::new();
            let from = i64::from(turn * n + number) * 10;
            beds.iter_mut().for_each(|bed| bed.batch(from..from + 10, &names, &mut rows));
            let took = millis(commit(&store, &clock, rows, from).await?);
            if with_queries {
                busy.push(took)
            } else {
                idle.push(took)
            }
            // As often as a busy centre commits, so that the queries have their time.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        asked += running.len();
        running.iter().for_each(tokio::task::JoinHandle::abort);
    }
    analysts.shutdown_background();
    let at = |times: &[f64], percent: usize| {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times.get(times.len() * percent / 100).copied().unwrap_or(f64::NAN)
    };
    let (p99_idle, p99_busy) = (at(&idle, 99), at(&busy, 99));
    Ok(json!({
        "commits": idle.len() + busy.len(), "queries_started": asked,
        "idle_ms_p50": at(&idle, 50), "idle_ms_p99": p99_idle, "busy_ms_p50": at(&busy, 50), "busy_ms_p99": p99_busy,
        "ratio_p99": p99_busy / p99_idle,
    }))
}

async fn erase(lake: &Path, home: &str) -> Outcome<serde_json::Value> {
    let clock = SystemClock::new();
    let store = Store::open(Config::local(lake)?).await?;
    let home: HomeId = home.parse()?;
    let now = clock.now();
    let id = format!("benchmark-{home}");
    let until = Timestamp::MAX;
    let erasure = Erasure { id, home, bed: None, from: None, until, received_before: None, asked_at: now };
    let view = Arc::clone(&store.view());
    let (files, rows) =
        (view.observations.files.len(), view.observations.files.iter().filter_map(|f| f.rows).sum::<u64>());
    drop(view);
    let before = clock.monotonic();
    let report = store.erase(&erasure, Duration::from_secs(5), now).await?;
    let seconds = (clock.monotonic() - before).as_secs_f64();
    Ok(json!({"seconds": seconds, "rows_of_lake": rows, "files_of_lake": files, "report": report}))
}
