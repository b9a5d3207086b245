//! The centre under load: a backlog that drains, a thousand homes that return at once, a flood beyond what it can commit.
//!
//! The centre and the broker are real programs; the homes are light ([`home`]) and live in this process, so on one machine
//! they take their share of the processors. What counts is in the table: each figure is compared with what was offered.

mod cpu;
pub mod home;
pub mod ingest;
pub mod packs;

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock as _, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::process::until;
use crate::world::{BrokerKind, PATIENCE, Programs, Settings, World};
use home::{Kind, LightHome, Progress, note};

/// The area of all light homes.
const AREA: &str = "360702";
/// Between two looks at the homes.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two lines of what a flood does.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The broker in the middle.
    pub broker: BrokerKind,
    /// Homes.
    pub homes: usize,
    /// How long to go on at most; of a flood, how long it lasts.
    pub within: Duration,
    /// Memory of the centre's ingest, in MiB.
    pub memory_mib: usize,
}

/// What a run showed: text for people, and whether all is well.
#[derive(Debug)]
pub struct Shown {
    /// The figures, a line each.
    pub text: String,
    /// Nothing lost, nothing twice, everything in time.
    pub is_good: bool,
}

/// Three days of a typical home: a batch of ten records every ten seconds, and a call twice a day.
pub async fn drain(programs: &Programs, plan: &Plan) -> anyhow::Result<Shown> {
    const BATCHES: u64 = 3 * 24 * 360;
    const CALLS: u32 = 6;
    let world = world(programs, plan).await?;
    let start = SystemClock::new().now() - Duration::from_secs(3 * 24 * 3600);
    let kind = kind(&world, start, Duration::from_secs(10), 10);
    let spool = tempfile::tempdir()?;
    let mut home = LightHome::new(&kind, 1, Some(spool.path()))?;
    for _ in 0..BATCHES {
        home.offer().await?;
    }
    for call in 0..CALLS {
        home.call(start + Duration::from_secs(12 * 3600) * call).await?;
    }
    let load = Load::start(vec![home], 0);
    let began = Instant::now();
    let emptied = load.emptied(plan.within).await;
    let progress = load.progress().remove(0);
    let table = load.stop(&world).await?;
    let inversions = "SELECT count(*) FROM (SELECT received_time, lag(received_time) OVER (ORDER BY lane, seq) AS before, \
        lane, lag(lane) OVER (ORDER BY lane, seq) AS lane_before FROM observations) WHERE lane = lane_before AND received_time < before";
    let inversions = world.numbers(inversions).await?.first().copied().unwrap_or(-1);
    let overtaken = "SELECT count(*) FROM observations WHERE lane = 'routine' AND received_time < \
        (SELECT max(received_time) FROM observations WHERE lane = 'urgent')";
    let overtaken = world.numbers(overtaken).await?.first().copied().unwrap_or(-1);
    let mut text = String::new();
    writeln!(text, "backlog                 {BATCHES} routine batches of 10 records, {CALLS} calls")?;
    writeln!(text, "all calls receipted     {}", after(began, progress.calls_receipted))?;
    writeln!(text, "all receipted           {}", after(began, progress.emptied))?;
    writeln!(text, "rows out of order       {inversions}")?;
    writeln!(text, "rows before last call   {overtaken}")?;
    write!(text, "{table}")?;
    Ok(Shown { text, is_good: emptied && inversions == 0 && table.is_good() })
}

/// Many homes return in the same second, each with an hour's backlog and a call that waits.
pub async fn herd(programs: &Programs, plan: &Plan) -> anyhow::Result<Shown> {
    const BATCHES: u64 = 120;
    let world = world(programs, plan).await?;
    let start = SystemClock::new().now() - Duration::from_secs(3600);
    let kind = kind(&world, start, Duration::from_secs(30), 10);
    let mut homes = Vec::new();
    for number in 0..plan.homes {
        let mut home = LightHome::new(&kind, number, None)?;
        for _ in 0..BATCHES {
            home.offer().await?;
        }
        home.call(start).await?;
        homes.push(home);
    }
    let usage = Usage::watch(world.centre.id());
    let load = Load::start(homes, 0);
    let began = Instant::now();
    let emptied = load.emptied(plan.within).await;
    let progress = load.progress();
    let table = load.stop(&world).await?;
    let latest = |of: fn(&Progress) -> Option<Instant>| progress.iter().map(of).max().flatten();
    let missing = progress.iter().filter(|p| p.calls_receipted.is_none()).count();
    let mut text = String::new();
    writeln!(text, "homes                   {}, each {BATCHES} batches of 10 records and a call", plan.homes)?;
    writeln!(text, "last call receipted     {}, {missing} without", after(began, latest(|p| p.calls_receipted)))?;
    writeln!(
        text,
        "all receipted           {}",
        if emptied { after(began, latest(|p| p.emptied)) } else { "not in time".into() }
    )?;
    writeln!(text, "connections lost        {}", progress.iter().map(|p| p.disconnections).sum::<u64>())?;
    writeln!(text, "troubles of gateways    {}", progress.iter().map(|p| p.troubles).sum::<u64>())?;
    writeln!(text, "centre's RSS            {} MiB before, {} MiB at most", usage.first(), usage.most())?;
    write!(text, "{table}")?;
    Ok(Shown { text, is_good: emptied && missing == 0 && table.is_good() })
}

/// Homes send more than mosquitto queues by default for a centre that does not read: it acknowledges, drops, and says so in
/// its log only.
pub async fn dropped(programs: &Programs, plan: &Plan) -> anyhow::Result<Shown> {
    const HOMES: usize = 5;
    /// More than a window, so that the next batches show the hole.
    const BATCHES: u64 = 700;
    let world = World::start_with(programs, BrokerKind::Mosquitto, 0, &Settings::default()).await?;
    let start = SystemClock::new().now() - Duration::from_secs(3600);
    let kind = kind(&world, start, Duration::from_secs(1), 1);
    // The centre listens once somebody has a receipt.
    let mut first = LightHome::new(&kind, HOMES, None)?;
    first.offer().await?;
    let load = Load::start(vec![first], 0);
    if !load.emptied(PATIENCE).await {
        anyhow::bail!("the centre does not listen\n{}", world.said());
    }
    load.stop(&world).await?;
    world.centre_network.set(|weather| weather.stall_down = true);
    let mut homes = Vec::new();
    for number in 0..HOMES {
        let mut home = LightHome::new(&kind, number, None)?;
        for _ in 0..BATCHES {
            home.offer().await?;
        }
        homes.push(home);
    }
    let load = Load::start(homes, 0);
    let drops = until(PATIENCE, || async { world.broker.said().contains("being dropped").then_some(()) }).await;
    world.centre_network.clear();
    let emptied = load.emptied(plan.within).await;
    let table = load.stop(&world).await?;
    let text = format!(
        "the broker dropped messages: {}\nall receipted: {emptied}\n{table}{}",
        drops.is_some(),
        if emptied { String::new() } else { world.said() },
    );
    Ok(Shown { text, is_good: drops.is_some() && emptied && table.is_good() })
}

/// Homes that offer ten times what the centre commits, for as long as the plan says; `tell` gets a line now and then. Each batch
/// is a quarter of an hour of a typical home, so that what detection makes of the rows is what it makes of real ones.
pub async fn flood(programs: &Programs, plan: &Plan, tell: impl Fn(&str) + Send + Sync) -> anyhow::Result<Shown> {
    const TIMES: u64 = 10;
    const RECORDS: u64 = 100;
    /// Batches a home may offer before anything is committed.
    const FIRST: u64 = 100;
    let world = world(programs, plan).await?;
    let start = SystemClock::new().now() - Duration::from_secs(60 * 86_400);
    let kind = kind(&world, start, Duration::from_secs(900), RECORDS);
    let homes = (0..plan.homes).map(|number| LightHome::new(&kind, number, None)).collect::<anyhow::Result<_>>()?;
    // On one machine the homes take their share of the processors: the centre steps back, so that they can offer so much.
    if let Some(id) = world.centre.id() {
        let steps_back =
            tokio::process::Command::new("renice").args(["-n", "19", "-p", &id.to_string()]).output().await?;
        anyhow::ensure!(steps_back.status.success(), "renice ended with {}", steps_back.status);
    }
    let usage = Usage::watch(world.centre.id());
    let load = Load::start(homes, FIRST);
    let (began, mut told, mut before) = (Instant::now(), Instant::now(), (0, 0));
    let mut rates = (0_u64, 0_u64);
    while began.elapsed() < plan.within {
        tokio::time::sleep(LOOK_EVERY).await;
        let (offered, receipted, bytes) = load.sums();
        load.allow(FIRST.max(TIMES * receipted / plan.homes.max(1) as u64));
        let elapsed = told.elapsed();
        if elapsed >= TELL_EVERY {
            let rate = |now: u64, before: u64| {
                (now.saturating_sub(before) * RECORDS * 1000)
                    .checked_div(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
                    .unwrap_or(0)
            };
            rates = (rate(offered, before.0), rate(receipted, before.1));
            tell(&format!(
                "{:>5.0} s  offered {:>9} rows/s  committed {:>8} rows/s  in spools {:>6} MiB  centre's RSS {:>5} MiB",
                began.elapsed().as_secs_f64(),
                rates.0,
                rates.1,
                bytes >> 20,
                usage.last(),
            ));
            (told, before) = (Instant::now(), (offered, receipted));
        }
    }
    let (offered, receipted, bytes) = load.sums();
    let seconds = began.elapsed().as_secs_f64();
    let table = load.stop(&world).await?;
    let bound = usage.first() + plan.memory_mib as u64;
    let mut text = String::new();
    writeln!(
        text,
        "offered                 {:.0} rows/s, {:.1} times what was committed",
        (offered * RECORDS) as f64 / seconds,
        offered as f64 / receipted.max(1) as f64
    )?;
    writeln!(text, "committed               {:.0} rows/s", (receipted * RECORDS) as f64 / seconds)?;
    writeln!(
        text,
        "kept in spools          {} rows, {} MiB",
        offered.saturating_sub(receipted) * RECORDS,
        bytes >> 20
    )?;
    writeln!(
        text,
        "centre's RSS            {} MiB before, {} MiB at most, bound {bound} MiB (before + ingest.memory_mib {})",
        usage.first(),
        usage.most(),
        plan.memory_mib
    )?;
    write!(text, "{table}")?;
    Ok(Shown { text, is_good: table.is_good() && usage.most() <= bound && rates.1 > 0 })
}

async fn world(programs: &Programs, plan: &Plan) -> anyhow::Result<World> {
    let settings = Settings { commit_every: "2s", memory_mib: plan.memory_mib, proxied: false };
    World::start_with(programs, plan.broker, 0, &settings).await
}

fn kind(world: &World, start: carebed_contract::time::Timestamp, every: Duration, records_per_batch: u64) -> Kind {
    Kind { broker: world.broker.address(), records_per_batch, start, every }
}

fn after(began: Instant, at: Option<Instant>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| format!("after {:.1} s", (at - began).as_secs_f64()))
}

/// Light homes that run.
struct Load {
    running: JoinSet<anyhow::Result<()>>,
    progress: Vec<Arc<Mutex<Progress>>>,
    allowed: watch::Sender<u64>,
    stop: Shutdown,
    records_per_batch: u64,
}

impl Load {
    fn start(homes: Vec<LightHome>, allowed: u64) -> Self {
        let (allowed, stop) = (watch::Sender::new(allowed), Shutdown::new());
        let records_per_batch = homes.first().map_or(1, LightHome::records_per_batch);
        let progress = homes.iter().map(LightHome::progress).collect();
        let running = homes.into_iter().map(|home| home.run(allowed.subscribe(), stop.clone())).collect();
        Self { running, progress, allowed, stop, records_per_batch }
    }

    fn allow(&self, batches: u64) {
        self.allowed.send_if_modified(|allowed| std::mem::replace(allowed, batches) != batches);
    }

    fn progress(&self) -> Vec<Progress> {
        self.progress.iter().map(|progress| note(progress, |p| *p)).collect()
    }

    /// Batches offered, batches receipted, bytes in spools.
    fn sums(&self) -> (u64, u64, u64) {
        self.progress().iter().fold((0, 0, 0), |(offered, receipted, bytes), p| {
            (offered + p.offered, receipted + p.offered.saturating_sub(p.spooled), bytes + p.spooled_bytes)
        })
    }

    /// Waits until every spool was empty once; false when that takes too long.
    async fn emptied(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while self.progress().iter().any(|p| p.emptied.is_none()) {
            if Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        true
    }

    /// Stops the homes and the way to the centre, and compares with the table.
    async fn stop(mut self, world: &World) -> anyhow::Result<Compared> {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        let receipted: u64 = self.progress().iter().map(|p| p.offered.saturating_sub(p.spooled)).sum();
        // What was committed last may still be on its way into the table's log.
        let sql = "SELECT CAST(count(*) AS BIGINT), CAST(count(DISTINCT seq) AS BIGINT), CAST(max(seq) + 1 AS BIGINT) \
            FROM observations WHERE lane = 'routine' GROUP BY gateway_id, epoch";
        let csv = carebed::sql::answer(&world.data(), sql, carebed::cli::Format::Csv).await?;
        let mut compared = Compared { receipted, ..Compared::default() };
        for line in csv.lines().skip(1) {
            let mut numbers = line.split(',').map(|cell| cell.parse::<u64>().unwrap_or(0));
            let (Some(rows), Some(batches), Some(next)) = (numbers.next(), numbers.next(), numbers.next()) else {
                continue;
            };
            compared.lanes += 1;
            compared.batches += batches;
            compared.rows += rows;
            compared.lost += next.saturating_sub(batches) * self.records_per_batch
                + (batches * self.records_per_batch).saturating_sub(rows);
            compared.doubled += rows.saturating_sub(batches * self.records_per_batch);
        }
        compared.lost += receipted.saturating_sub(compared.batches) * self.records_per_batch;
        compared.gaps = world.numbers("SELECT count(*) FROM gaps").await?.first().copied().unwrap_or(-1);
        Ok(compared)
    }
}

/// What the table says of what was receipted.
#[derive(Debug, Default)]
struct Compared {
    lanes: u64,
    receipted: u64,
    batches: u64,
    rows: u64,
    lost: u64,
    doubled: u64,
    gaps: i64,
}

impl Compared {
    fn is_good(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.gaps == 0
    }
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "in the table            {} rows, {} batches of {} lanes; {} receipted",
            self.rows, self.batches, self.lanes, self.receipted
        )?;
        write!(f, "lost {}, doubled {}, gaps {}", self.lost, self.doubled, self.gaps)
    }
}

/// The memory of a process over time.
struct Usage {
    seen: Arc<Mutex<Vec<u64>>>,
    watching: tokio::task::JoinHandle<()>,
}

impl Usage {
    fn watch(process: Option<u32>) -> Self {
        let seen = Arc::new(Mutex::new(vec![process.map_or(0, rss_mib)]));
        let noted = Arc::clone(&seen);
        let watching = tokio::spawn(async move {
            while let Some(process) = process {
                tokio::time::sleep(LOOK_EVERY).await;
                noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(rss_mib(process));
            }
        });
        Self { seen, watching }
    }

    fn all(&self) -> Vec<u64> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn first(&self) -> u64 {
        self.all().first().copied().unwrap_or(0)
    }

    fn last(&self) -> u64 {
        self.all().last().copied().unwrap_or(0)
    }

    fn most(&self) -> u64 {
        self.all().into_iter().max().unwrap_or(0)
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// Resident memory in MiB; 0 of a process that is gone.
fn rss_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
