//! Random faults against real programs, and a ledger of what the devices said against what is in the table.
//!
//! In every home two contacts are moved by hand, one in the urgent and one in the routine lane. A level counts as *taken*
//! once the same life of the gateway has polled it for longer than routine data may wait for its sync; only then is it
//! moved again. Whatever was taken must be in the table, each observation once, when everything is well again. What a
//! gateway took while its disk had failed lies in its memory; if it dies then, the loss must be a row of `gaps`.

mod fault;
mod ledger;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carebed_contract::time::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::process::until;
use crate::world::{BrokerKind, Programs, World};

use fault::Fault;
use ledger::{Compared, Contact, Mover};

/// The contacts that are moved: input of the board, its device's ending.
const CONTACTS: [(usize, &str); 2] = [(7, "cord"), (6, "fridge")];
/// How long the system may take to become whole after the last fault.
const RECOVERY: Duration = Duration::from_secs(180);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Seed of the faults.
    pub seed: u64,
    /// How many.
    pub n: usize,
    /// Homes.
    pub homes: usize,
    /// The broker in the middle.
    pub broker: BrokerKind,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, usize>,
    /// Levels that gateways took.
    pub taken: usize,
    /// Observations of the two contacts in the table; restarts tell a level again, so they may be more than `taken`.
    pub committed: usize,
    /// Levels taken that no row shows, each with its story.
    pub lost: Vec<String>,
    /// Levels that died in the memory of a gateway whose disk had failed, and whose loss `gaps` declares; each with its story.
    pub declared: Vec<String>,
    /// Observations that stand in the table more than once.
    pub doubled: i64,
    /// Rows that contradict what the devices said.
    pub wrong: Vec<String>,
    /// Rows of `gaps`.
    pub gaps: i64,
    /// Rows of `dead_letters`.
    pub dead_letters: i64,
    /// From a call to its reception, at worst.
    pub longest_call: Delay,
    /// From a routine observation to its reception, at worst.
    pub longest_routine: Delay,
    /// Programs that ended by themselves and were started again, as a service manager does; with their last words.
    pub ended: Vec<String>,
    /// What the programs said, when something is lost or not good.
    pub said: String,
}

/// From an observation to its reception.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub length: Duration,
    /// Of which device, and when it was observed.
    pub of: String,
}

impl std::fmt::Display for Delay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s ({})", self.length.as_secs_f64(), self.of)
    }
}

impl Outcome {
    /// Nothing lost, nothing twice, nothing wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost.is_empty() && self.doubled == 0 && self.wrong.is_empty()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let faults: usize = self.faults.values().sum();
        writeln!(f, "faults                 {faults} {:?}", self.faults)?;
        writeln!(f, "taken                  {}", self.taken)?;
        writeln!(f, "committed              {}", self.committed)?;
        writeln!(f, "lost                   {}", self.lost.len())?;
        writeln!(f, "lost and declared      {}", self.declared.len())?;
        writeln!(f, "doubled                {}", self.doubled)?;
        writeln!(f, "wrong                  {}", self.wrong.len())?;
        writeln!(f, "gaps declared          {}", self.gaps)?;
        writeln!(f, "dead letters           {}", self.dead_letters)?;
        writeln!(f, "longest delay, calls   {}", self.longest_call)?;
        writeln!(f, "longest delay, routine {}", self.longest_routine)?;
        write!(f, "ended by themselves    {}", self.ended.len())?;
        self.ended
            .iter()
            .chain(&self.declared)
            .chain(&self.lost)
            .chain(&self.wrong)
            .chain([&self.said])
            .filter(|s| !s.is_empty())
            .try_for_each(|story| write!(f, "\n  {story}"))
    }
}

/// One life of a gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Life {
    number: u64,
    /// Its disk has refused writes: what it takes lies in memory.
    disk_failed: bool,
}

/// The lives of all gateways.
#[derive(Debug)]
struct Lives(Mutex<Vec<Life>>);

impl Lives {
    fn of(&self, home: usize) -> Life {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(home).copied().unwrap_or_default()
    }

    fn end(&self, home: usize) {
        self.change(home, |life| *life = Life { number: life.number + 1, ..Life::default() });
    }

    fn distrust(&self, home: usize) {
        self.change(home, |life| life.disk_failed = true);
    }

    fn change(&self, home: usize, change: impl FnOnce(&mut Life)) {
        if let Some(life) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(home) {
            change(life);
        }
    }
}

/// Runs a plan.
pub async fn run(programs: &Programs, plan: &Plan) -> anyhow::Result<Outcome> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut world = World::start(programs, plan.broker, plan.homes).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let lives = Arc::new(Lives(Mutex::new(vec![Life::default(); plan.homes])));
    let mut movers = Vec::new();
    for (index, home) in world.homes.iter().enumerate() {
        for (input, device) in CONTACTS {
            let device = format!("{}-{device}", home.devices_name);
            let contact = Contact { home: index, gateway: home.gateway_id.clone(), device, levels: Vec::new() };
            let (devices, lives, stop) = (Arc::clone(&home.devices), Arc::clone(&lives), Arc::clone(&stop));
            let probe = world.data().with_file_name(format!("probe-{index}-{input}"));
            movers.push(tokio::spawn(Mover { contact, devices, lives, stop, input, probe }.run()));
        }
    }

    let mut outcome = Outcome::default();
    for _ in 0..plan.n {
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..900))).await;
        let fault = Fault::draw(&mut rng, plan.homes);
        *outcome.faults.entry(fault.name()).or_default() += 1;
        let length = Duration::from_micros(rng.random_range(50_000..1_500_000));
        fault.suffer(&mut world, &lives, length).await?;
        outcome.ended.extend(revive(&mut world, &lives)?);
    }

    stop.store(true, Ordering::Relaxed);
    let mut ledger = Vec::new();
    for mover in movers {
        ledger.push(mover.await?);
    }
    judge(&mut world, &lives, &ledger, &mut outcome).await?;
    Ok(outcome)
}

/// Starts what has ended, as a service manager does. Says what that was.
fn revive(world: &mut World, lives: &Lives) -> anyhow::Result<Vec<String>> {
    let mut ended = Vec::new();
    if !world.centre.runs() {
        ended.push(format!("the centre ended: {}", world.centre.last_words()));
        world.centre.start(None)?;
    }
    for index in 0..world.homes.len() {
        if let Some(home) = world.homes.get_mut(index)
            && !home.gateway.runs()
        {
            ended.push(format!("gateway {} ended: {}", home.id, home.gateway.last_words()));
            lives.end(index);
            world.start_gateway(index, None)?;
        }
    }
    Ok(ended)
}

/// Rows of the contacts in the table, and what ledger and table disagree on.
async fn compared(world: &World, ledger: &[Contact]) -> anyhow::Result<(usize, Compared)> {
    let (rows, gaps) = (ledger::rows(world).await?, gaps(world).await?);
    Ok((rows.values().map(|told| told.timed.len() + told.marked.len()).sum(), ledger::compare(ledger, &rows, &gaps)))
}

/// Waits until nothing is missing.
async fn completed(world: &World, ledger: &[Contact]) -> Option<()> {
    until(RECOVERY, || async { compared(world, ledger).await.ok().filter(|(_, c)| c.lost.is_empty()).map(drop) }).await
}

async fn judge(world: &mut World, lives: &Lives, ledger: &[Contact], outcome: &mut Outcome) -> anyhow::Result<()> {
    outcome.taken = ledger.iter().map(Contact::taken).sum();
    outcome.ended.extend(revive(world, lives)?);
    // When it never becomes complete, what is missing is told below.
    if completed(world, ledger).await.is_none() {
        // What a disk held when it failed goes on its way when the disk is mended and the gateway is started again.
        for index in 0..world.homes.len() {
            if lives.of(index).disk_failed
                && let Some(home) = world.homes.get_mut(index)
            {
                home.gateway.kill().await;
                lives.end(index);
                world.start_gateway(index, None)?;
            }
        }
        completed(world, ledger).await;
    }
    let world = &*world;
    let (committed, Compared { lost, declared, wrong }) = compared(world, ledger).await?;
    (outcome.committed, outcome.lost, outcome.declared, outcome.wrong) = (committed, lost, declared, wrong);
    outcome.doubled = world.numbers(DOUBLED).await?.iter().sum();
    outcome.gaps = world.numbers("SELECT count(*) FROM gaps").await?.iter().sum();
    outcome.dead_letters = world.numbers("SELECT count(*) FROM dead_letters").await?.iter().sum();
    outcome.longest_call = longest(world, "urgent").await?;
    outcome.longest_routine = longest(world, "routine").await?;
    if !outcome.is_good() || !outcome.declared.is_empty() {
        let twice = carebed::sql::answer(&world.data(), TWICE, carebed::cli::Format::Csv).await?;
        outcome.said = format!("{}\nin two batches at least:\n{twice}\n{}", ledger::told(world).await?, world.said());
    }
    Ok(())
}

/// Rows beyond the first of each observation: the same value of the same series at the same instant, in whichever batch
/// and epoch. A copy of a box counts its boots on from the original, so what both saw at one instant stays two.
const DOUBLED: &str = "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM observations \
    WHERE quality <> 'uncertain:clock' GROUP BY gateway_id, boot, device_id, quantity, event_time)";

/// Which batches brought what stands in the table more than once.
const TWICE: &str = "SELECT o.gateway_id, o.lane, o.epoch, o.seq, o.boot, min(o.received_time) AS received, \
    min(o.event_time) AS event, count(*) AS rows FROM observations o JOIN (SELECT gateway_id, boot, device_id, quantity, \
    event_time FROM observations WHERE quality = 'good' GROUP BY ALL HAVING count(*) > 1) t USING (gateway_id, boot, \
    device_id, quantity, event_time) WHERE o.quality = 'good' GROUP BY ALL ORDER BY received LIMIT 200";

async fn longest(world: &World, lane: &str) -> anyhow::Result<Delay> {
    // Whose time is marked has no delay to speak of.
    let sql = format!(
        "SELECT arrow_cast(received_time, 'Int64') - arrow_cast(event_time, 'Int64') AS delay, device_id, event_time \
         FROM observations WHERE lane = '{lane}' AND quality = 'good' ORDER BY delay DESC LIMIT 1"
    );
    let csv = carebed::sql::answer(&world.data(), &sql, carebed::cli::Format::Csv).await?;
    let mut cells = csv.lines().nth(1).unwrap_or_default().splitn(2, ',');
    let millis = cells.next().and_then(|millis| millis.parse().ok()).unwrap_or(0);
    Ok(Delay { length: Duration::from_millis(millis), of: cells.next().unwrap_or_default().to_owned() })
}

/// When the last loss of each gateway was noted.
async fn gaps(world: &World) -> anyhow::Result<BTreeMap<String, Timestamp>> {
    let sql = "SELECT gateway_id, arrow_cast(max(noted_at), 'Int64') FROM gaps GROUP BY gateway_id";
    let csv = carebed::sql::answer(&world.data(), sql, carebed::cli::Format::Csv).await?;
    let line = |line: &str| {
        let (gateway, n) = line.split_once(',')?;
        Some((gateway.to_owned(), Timestamp::from_millis(n.parse().ok()?)))
    };
    Ok(csv.lines().skip(1).filter_map(line).collect())
}
