//! How many values a second are receipted, publishers and broker included, and how soon SQL sees them; then the same publishers
//! before a program that somebody would write in an afternoon with paho, pyarrow and deltalake.
//!
//! The broker is a process of its own, ingest runs in this one with the publishers: what ingest costs, without detection.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed::broker::EmbeddedBroker;
use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock as _, SystemClock};
use carebed_contract::id::Area;
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_pipeline::event::Event;
use carebed_pipeline::mqtt::{self, Events};
use carebed_pipeline::store::{self, Store};
use carebed_queries::engine::{Engine, Limits};
use carebed_queries::episodes::Definitions;
use carebed_queries::home::HomeFacts;
use carebed_queries::live::Live;
use carebed_queries::sql::{Lake, Snapshot, SqlSession};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Shown;
use super::cpu::{self, Cpu, PUBLISHERS};
use super::packs::{Pace, Packs, VALUES};
use crate::process::{Program, until};
use crate::world::{PATIENCE, Programs};

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Gateways, over all areas.
    pub gateways: usize,
    /// Packs of each.
    pub packs: u64,
    /// Areas, each with a connection for its publishers and one for its ingest.
    pub areas: usize,
    /// Memory of ingest, in MiB.
    pub memory_mib: usize,
    /// Values a second to keep to; 0 for as many as are taken.
    pub rate: u64,
    /// A Python with paho-mqtt, cbor2, pyarrow and deltalake, to run the other program with; none runs ours only.
    pub python: Option<PathBuf>,
    /// Packs of each gateway for the other program.
    pub packs_of_other: u64,
}

/// So many observations are fed to live detection afterwards.
const FED: usize = 100_000;
/// Of the questions.
const LIMITS: Limits = Limits { memory_bytes: 1 << 30, partitions: 1, time: PATIENCE };
/// Between two looks at how old the newest row is that SQL sees.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Ours, then the other if a Python is given.
pub async fn ingest(programs: &Programs, plan: &Plan) -> anyhow::Result<Shown> {
    let (ours, text, mut is_good) = ours(programs, plan).await?;
    let mut text = text;
    if let Some(python) = &plan.python {
        let (theirs, rows, expected) = other(programs, plan, python).await?;
        writeln!(
            text,
            "paho+pyarrow+deltalake  {theirs:.0} values/s receipted; {rows} of {expected} rows in its table"
        )?;
        write!(text, "ratio                   {:.1}", ours / theirs)?;
        is_good &= rows == expected;
    }
    Ok(Shown { text: text.trim_end().to_owned(), is_good })
}

async fn ours(programs: &Programs, plan: &Plan) -> anyhow::Result<(f64, String, bool)> {
    let folder = tempfile::tempdir()?;
    let packs = make(plan, plan.packs)?;
    let broker = EmbeddedBroker::start(&programs.centre, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let store = Store::open(store::Config::local(folder.path())?).await?;
    let areas = areas(plan)?;
    let config = mqtt::Config {
        connections: areas.len(),
        areas,
        commit_every: Duration::from_secs(1),
        memory: plan.memory_mib << 20,
        ..mqtt::Config::new(broker.address().ip().to_string(), broker.address().port())
    };
    let (urgent, urgent_heard) = mpsc::channel(256);
    let (signs, signs_heard) = mpsc::channel(256);
    let (routine, routine_heard) = mpsc::channel(256);
    let (_commands, no_commands) = mpsc::channel(1);
    let shutdown = Shutdown::new();
    let clock = Arc::new(SystemClock::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(async { drop(hear(urgent_heard, 0).await) });
    tasks.spawn(async { drop(hear(signs_heard, 0).await) });
    let hearing = tokio::spawn(hear(routine_heard, FED));
    let keep = store::UpkeepConfig::default();
    tasks.spawn(store::keep_up(store.clone(), keep, Arc::<SystemClock>::clone(&clock), shutdown.clone()));
    let events = Events { urgent, signs, routine };
    let ingesting = tokio::spawn(mqtt::run(config, store.clone(), events, no_commands, clock, shutdown.clone()));
    let seeing = tokio::spawn(see(store.clone(), shutdown.clone()));

    let before = Cpu::now(broker.id());
    let (publishers, seconds, n_packs) = publish(packs, plan.rate, broker.address()).await?;
    let cpu = Cpu::now(broker.id()).since(before);
    publishers.shutdown_background();
    shutdown.cancel();
    ingesting.await??;
    let looks = seeing.await??;
    let feed = feed(&hearing.await?).await?;
    tasks.shutdown().await;
    let commits = store.view().observations.version;
    let session = SqlSession::open(Snapshot::new(&Lake::of(&store), store.view(), &[]), LIMITS, 1).await?;
    let rows = number(&session, "SELECT count(*) FROM observations").await?;
    let distinct = "SELECT count(*) FROM (SELECT DISTINCT gateway_id, epoch, seq FROM observations)";
    let batches = number(&session, distinct).await?;
    // A first pack waits alone for its commit, and behind the last nothing comes: only between them can rows be late.
    let first = number(&session, "SELECT CAST(min(received_time) AS bigint) FROM observations WHERE seq > 0").await?;
    let last = number(&session, "SELECT CAST(max(received_time) AS bigint) FROM observations").await?;
    let mut ages: Vec<i64> =
        looks.iter().filter(|look| (first..=last).contains(&look.at)).map(|look| look.age).collect();
    ages.sort_unstable();
    let age = |percent: usize| ages.get((ages.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
    let values = n_packs * VALUES;
    let rate = values as f64 / seconds;
    let mut text = String::new();
    writeln!(
        text,
        "carebed                 {rate:.0} values/s receipted: {values} values in packs of {VALUES}, {seconds:.1} s"
    )?;
    writeln!(text, "in the table            {rows} rows of {batches} packs, log version {commits}")?;
    let each = |seconds: f64| seconds * 1e6 / values as f64;
    writeln!(
        text,
        "processor time          {:.2} µs a value: centre {:.2}, publishers {:.2}, broker {:.2}; load {}",
        each(cpu.total()),
        each(cpu.rest),
        each(cpu.publishers),
        each(cpu.broker),
        cpu::load(),
    )?;
    writeln!(text, "live detection          {feed:.2} µs more a value to take it in; not in these figures")?;
    writeln!(
        text,
        "newest row SQL sees     {} ms old p50, {} ms p99, {} ms at most ({} looks while rows came, the question's own time \
         included)",
        age(50),
        age(99),
        age(100),
        ages.len()
    )?;
    Ok((rate, text, u64::try_from(rows) == Ok(values) && u64::try_from(batches) == Ok(n_packs)))
}

/// The same publishers, and `benchmarks/ingest/peer.py` in the place of the centre.
async fn other(programs: &Programs, plan: &Plan, python: &Path) -> anyhow::Result<(f64, i64, i64)> {
    let folder = tempfile::tempdir()?;
    let packs = make(plan, plan.packs_of_other)?;
    let broker = EmbeddedBroker::start(&programs.centre, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benchmarks/ingest/peer.py");
    let (table, port) = (folder.path().join("table"), broker.address().port().to_string());
    let arguments = [script.to_string_lossy(), table.to_string_lossy(), port.into()];
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let mut peer = Program::new(python, &arguments, &folder.path().join("peer.log"));
    peer.start(None)?;
    if until(PATIENCE, || async { peer.said().contains("listening").then_some(()) }).await.is_none() {
        bail!("peer.py does not listen\n{}", peer.said());
    }
    let (publishers, seconds, n_packs) = publish(packs, 0, broker.address()).await.with_context(|| peer.said())?;
    publishers.shutdown_background();
    peer.kill().await;
    let counted = tokio::process::Command::new(python).args([script.as_os_str(), table.as_os_str()]).output().await?;
    let rows: i64 = String::from_utf8_lossy(&counted.stdout).trim().parse().context("peer.py counts its rows")?;
    let values = n_packs * VALUES;
    Ok((values as f64 / seconds, rows, i64::try_from(values)?))
}

fn areas(plan: &Plan) -> anyhow::Result<Vec<Area>> {
    Ok((0..plan.areas).map(|number| format!("3607{number:02}").parse()).collect::<Result<_, _>>()?)
}

fn make(plan: &Plan, packs: u64) -> anyhow::Result<Vec<Packs>> {
    let each = plan.gateways.div_ceil(plan.areas);
    // Of yesterday, so that nothing is in the future.
    let start = Timestamp::from_millis(SystemClock::new().now().millis() / 86_400_000 * 86_400_000)
        - Duration::from_secs(20 * 86_400);
    let areas = areas(plan)?;
    areas.iter().enumerate().map(|(n, area)| Packs::make(area, n * each, each, packs, start)).collect()
}

/// Publishes everything, from threads of its own, at so many values a second; seconds it took, and packs receipted in them.
async fn publish(packs: Vec<Packs>, rate: u64, broker: SocketAddr) -> anyhow::Result<(Runtime, f64, u64)> {
    let threads = packs.len().min(2);
    let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name(PUBLISHERS).enable_all().build()?;
    let receipted = watch::Sender::new(0);
    let pace = Pace::of(rate.div_ceil(VALUES * packs.len() as u64));
    let began = Instant::now();
    let mut publishing = JoinSet::new();
    for packs in packs {
        publishing.spawn_on(packs.publish(broker, pace, receipted.clone()), runtime.handle());
    }
    let mut ended = Ok(());
    while let Some(one) = publishing.join_next().await {
        ended = ended.and(one.map_err(Into::into).flatten());
    }
    let (seconds, n) = (began.elapsed().as_secs_f64(), *receipted.borrow());
    match ended {
        Ok(()) => Ok((runtime, seconds, n)),
        Err(error) => {
            runtime.shutdown_background();
            Err(error)
        }
    }
}

/// Takes what comes, and keeps the first observations.
async fn hear(mut events: mpsc::Receiver<Event>, keep: usize) -> Vec<Observation> {
    let mut kept = Vec::new();
    while let Some(event) = events.recv().await {
        if let Event::Accepted { rows, .. } = event
            && kept.len() < keep
        {
            kept.extend(rows.iter());
        }
    }
    kept
}

/// What live detection's part of taking an observation costs, in microseconds: it keeps the episodes up to date.
async fn feed(observations: &[Observation]) -> anyhow::Result<f64> {
    let engine = Arc::new(Engine::new(Limits::default())?);
    let (detections, _) = engine.builtin().await;
    let mut live = Live::new(engine, detections, Arc::new(Definitions::builtin()?));
    for rows in observations.chunk_by(|a, b| a.home == b.home) {
        let Some(first) = rows.first() else { continue };
        live.set_home(HomeFacts::unregistered(first.home.clone(), first.area.clone()));
    }
    let began = Instant::now();
    for batch in observations.chunk_by(|a, b| (&a.gateway, a.seq) == (&b.gateway, b.seq)) {
        live.feed(batch);
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / observations.len().max(1) as f64)
}

/// How old the newest row is that a question of an open session sees when it has its answer.
struct Look {
    /// When it had it; in milliseconds, as the age.
    at: i64,
    age: i64,
}

/// Looks again and again.
async fn see(store: Store, shutdown: Shutdown) -> anyhow::Result<Vec<Look>> {
    let mut looks = Vec::new();
    let lake = Lake::of(&store);
    let session = SqlSession::open(Snapshot::new(&lake, store.view(), &[]), LIMITS, 1).await?;
    while !shutdown.is_cancelled() {
        tokio::time::sleep(LOOK_EVERY).await;
        // The newest commit's files and what is on its way; older files cannot hold it.
        let since = SystemClock::new().now() - Duration::from_secs(5);
        let sql = format!(
            "SELECT CAST(max(received_time) AS bigint) FROM observations WHERE received_time > TIMESTAMP '{since}'"
        );
        session.see(Snapshot::new(&lake, store.view(), &[]));
        let newest = number(&session, &sql).await?;
        let at = SystemClock::new().now().millis();
        // Nothing from the last five seconds is at least so old.
        let age = if newest > 0 { at - newest } else { at - since.millis() };
        looks.push(Look { at, age });
    }
    Ok(looks)
}

/// The one number of a question; 0 for none.
async fn number(session: &SqlSession, sql: &str) -> anyhow::Result<i64> {
    let answer = session.run(sql).await?;
    let mut text = Vec::new();
    carebed_queries::sql::write(&answer, carebed_queries::sql::Format::Csv, &mut text)?;
    let text = String::from_utf8(text)?;
    Ok(text.lines().nth(1).and_then(|cell| cell.parse().ok()).unwrap_or(0))
}
