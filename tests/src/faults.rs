//! Random faults against real programs, and a ledger of what the devices said against what is in the table.
//!
//! In every home two contacts are moved by hand, one in the urgent and one in the routine lane. A level counts as *taken*
//! once the same life of the gateway has polled it for longer than routine data may wait for its sync; only then is it
//! moved again. Whatever was taken must be in the table, each observation once, when everything is well again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use carebed_contract::clock::{Clock, SystemClock};
use carebed_contract::time::Timestamp;
use carebed_simulator::home::SimulatedHome;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::process::until;
use crate::world::{BrokerKind, Programs, World};

/// The contacts that are moved: input of the board, its device's ending, its quantity.
const CONTACTS: [(usize, &str, &str); 2] = [(7, "cord", "call_button"), (6, "fridge", "cabinet_open")];
/// How long one life of a gateway must have polled a level until it counts as taken: three times what routine data
/// may wait in this world, and time for a slow sync.
const TAKEN_AFTER: Duration = Duration::from_millis(800);
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
    /// Observations that stand in the table more than once.
    pub doubled: i64,
    /// Rows that contradict what the devices said.
    pub wrong: Vec<String>,
    /// Rows of `gaps`.
    pub gaps: i64,
    /// Rows of `dead_letters`.
    pub dead_letters: i64,
    /// From an observation to its reception, at worst.
    pub longest_delay: Duration,
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
        writeln!(f, "faults           {faults} {:?}", self.faults)?;
        writeln!(f, "taken            {}", self.taken)?;
        writeln!(f, "committed        {}", self.committed)?;
        writeln!(f, "lost             {}", self.lost.len())?;
        writeln!(f, "doubled          {}", self.doubled)?;
        writeln!(f, "wrong            {}", self.wrong.len())?;
        writeln!(f, "gaps declared    {}", self.gaps)?;
        writeln!(f, "dead letters     {}", self.dead_letters)?;
        write!(f, "longest delay    {:.1} s", self.longest_delay.as_secs_f64())?;
        self.lost.iter().chain(&self.wrong).try_for_each(|story| write!(f, "\n  {story}"))
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillGateway(usize),
    KillCentre,
    KillBroker,
    CutHomes,
    CutCentre,
    StallToBroker,
    StallToHomes,
    StallToCentre,
    RefuseHomes,
    SlowNetwork,
    SilentDevice(usize),
}

impl Fault {
    fn draw(rng: &mut StdRng, homes: usize) -> Self {
        let home = rng.random_range(0..homes);
        match rng.random_range(0..14) {
            0..=2 => Self::KillGateway(home),
            3..=4 => Self::KillCentre,
            5 => Self::KillBroker,
            6 => Self::CutHomes,
            7 => Self::CutCentre,
            8 => Self::StallToBroker,
            9 => Self::StallToHomes,
            10 => Self::StallToCentre,
            11 => Self::RefuseHomes,
            12 => Self::SlowNetwork,
            _ => Self::SilentDevice(home),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::KillGateway(_) => "kill gateway",
            Self::KillCentre => "kill centre",
            Self::KillBroker => "kill broker",
            Self::CutHomes => "cut homes",
            Self::CutCentre => "cut centre",
            Self::StallToBroker => "stall homes→broker",
            Self::StallToHomes => "stall broker→homes",
            Self::StallToCentre => "stall broker→centre",
            Self::RefuseHomes => "refuse homes",
            Self::SlowNetwork => "slow network",
            Self::SilentDevice(_) => "silent device",
        }
    }
}

/// One level that a contact took.
#[derive(Debug, Clone)]
struct Level {
    on: bool,
    shown: Timestamp,
    /// When it counted as taken; none while the contact may not move.
    taken: Option<Timestamp>,
}

/// Runs a plan.
pub async fn run(programs: &Programs, plan: &Plan) -> anyhow::Result<Outcome> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut world = World::start(programs, plan.broker, plan.homes).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let lives: Vec<Arc<AtomicU64>> = world.homes.iter().map(|_| Arc::default()).collect();
    let mut movers = Vec::new();
    for (home, life) in world.homes.iter().zip(&lives) {
        for (input, device, quantity) in CONTACTS {
            let mover = Mover {
                devices: Arc::clone(&home.devices),
                life: Arc::clone(life),
                stop: Arc::clone(&stop),
                clock: Arc::new(SystemClock::new()),
                input,
            };
            let name = (format!("{}-{device}", home.devices_name), quantity);
            movers.push((name, tokio::spawn(mover.run())));
        }
    }

    let mut outcome = Outcome::default();
    for _ in 0..plan.n {
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..900))).await;
        let fault = Fault::draw(&mut rng, plan.homes);
        *outcome.faults.entry(fault.name()).or_default() += 1;
        let length = Duration::from_millis(rng.random_range(50..1_500));
        suffer(&mut world, &lives, fault, length).await?;
    }

    world.home_network.clear();
    world.centre_network.clear();
    stop.store(true, Ordering::Relaxed);
    let mut ledger = BTreeMap::new();
    for (name, mover) in movers {
        ledger.insert(name, mover.await?);
    }
    judge(&world, &ledger, &mut outcome).await?;
    Ok(outcome)
}

async fn suffer(world: &mut World, lives: &[Arc<AtomicU64>], fault: Fault, length: Duration) -> anyhow::Result<()> {
    let (homes, centre) = (&world.home_network, &world.centre_network);
    match fault {
        Fault::KillGateway(index) => {
            if let Some(life) = lives.get(index) {
                life.fetch_add(1, Ordering::SeqCst);
            }
            if let Some(home) = world.homes.get_mut(index) {
                home.gateway.kill().await;
            }
            tokio::time::sleep(length / 4).await;
            world.start_gateway(index, None)?;
        }
        Fault::KillCentre => {
            world.centre.kill().await;
            tokio::time::sleep(length / 4).await;
            world.centre.start(None)?;
        }
        Fault::KillBroker => {
            world.broker.kill().await;
            tokio::time::sleep(length / 4).await;
            world.broker.restart().await?;
        }
        Fault::CutHomes => homes.cut(),
        Fault::CutCentre => centre.cut(),
        Fault::StallToBroker => {
            homes.set(|w| w.stall_up = true);
            tokio::time::sleep(length).await;
            homes.clear();
        }
        Fault::StallToHomes => {
            homes.set(|w| w.stall_down = true);
            tokio::time::sleep(length).await;
            homes.clear();
        }
        Fault::StallToCentre => {
            centre.set(|w| w.stall_down = true);
            tokio::time::sleep(length).await;
            centre.clear();
        }
        Fault::RefuseHomes => {
            homes.set(|w| w.refuse = true);
            homes.cut();
            tokio::time::sleep(length).await;
            homes.clear();
        }
        Fault::SlowNetwork => {
            homes.set(|w| w.delay = Duration::from_millis(80));
            tokio::time::sleep(length).await;
            homes.clear();
        }
        Fault::SilentDevice(index) => {
            if let Some(home) = world.homes.get(index) {
                home.devices.silent(true);
                tokio::time::sleep(length).await;
                home.devices.silent(false);
            }
        }
    }
    Ok(())
}

/// Moves one contact, and remembers what it showed.
struct Mover {
    devices: Arc<SimulatedHome>,
    life: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clock: Arc<SystemClock>,
    input: usize,
}

impl Mover {
    async fn run(self) -> Vec<Level> {
        let mut levels = Vec::new();
        let mut on = true;
        while !self.stop.load(Ordering::Relaxed) || levels.is_empty() {
            let shown = self.clock.now();
            self.devices.switch(self.input, on);
            let taken = self.taken().await.then(|| self.clock.now());
            levels.push(Level { on, shown, taken });
            on = !on;
        }
        levels
    }

    /// Waits until one life of the gateway has polled the level for long enough.
    async fn taken(&self) -> bool {
        let patience = tokio::time::Instant::now() + RECOVERY;
        loop {
            let (life, polled) = (self.life.load(Ordering::SeqCst), self.devices.counts().answered);
            tokio::time::sleep(TAKEN_AFTER).await;
            let polls = self.devices.counts().answered - polled;
            // A gateway that was killed, or could not poll for most of the time, has not taken it for sure.
            if self.life.load(Ordering::SeqCst) == life && polls >= 20 {
                return true;
            }
            if tokio::time::Instant::now() > patience {
                return false;
            }
        }
    }
}

type Ledger = BTreeMap<(String, &'static str), Vec<Level>>;

async fn judge(world: &World, ledger: &Ledger, outcome: &mut Outcome) -> anyhow::Result<()> {
    outcome.taken = ledger.values().flatten().filter(|level| level.taken.is_some()).count();
    let complete = until(RECOVERY, || async {
        let rows = rows(world).await.ok()?;
        let lost = compare(ledger, &rows).0;
        lost.is_empty().then_some(())
    });
    // When it never becomes complete, what is missing is told below.
    let _whole = complete.await;
    let rows = rows(world).await?;
    (outcome.lost, outcome.wrong) = compare(ledger, &rows);
    outcome.committed = rows.values().map(Vec::len).sum();
    outcome.doubled = world.numbers(DOUBLED).await?.iter().sum();
    outcome.gaps = world.numbers("SELECT count(*) FROM gaps").await?.iter().sum();
    outcome.dead_letters = world.numbers("SELECT count(*) FROM dead_letters").await?.iter().sum();
    let delay = "SELECT CAST(max(arrow_cast(received_time, 'Int64') - arrow_cast(event_time, 'Int64')) AS BIGINT) FROM observations";
    let millis = world.numbers(delay).await?.first().copied().unwrap_or(0);
    outcome.longest_delay = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    if !outcome.is_good() {
        outcome.wrong.push(world.said());
    }
    Ok(())
}

/// Rows beyond the first of each observation: the same value of the same series at the same instant, in whichever batch.
const DOUBLED: &str = "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM observations WHERE quality = 'good' \
    GROUP BY gateway_id, device_id, quantity, event_time)";

type Rows = BTreeMap<String, Vec<(Timestamp, bool)>>;

async fn rows(world: &World) -> anyhow::Result<Rows> {
    let sql = "SELECT device_id, arrow_cast(event_time, 'Int64'), value FROM observations \
        WHERE (device_id LIKE '%-cord' OR device_id LIKE '%-fridge') AND quality = 'good' ORDER BY event_time";
    let csv = carebed::sql::answer(&world.data(), sql, carebed::cli::Format::Csv).await?;
    let mut rows = Rows::new();
    for line in csv.lines().skip(1) {
        let mut cells = line.split(',');
        let (Some(device), Some(at), Some(value)) = (cells.next(), cells.next(), cells.next()) else { continue };
        let row = (Timestamp::from_millis(at.parse()?), value.starts_with('1'));
        rows.entry(device.to_owned()).or_default().push(row);
    }
    Ok(rows)
}

/// What was lost and what is wrong.
fn compare(ledger: &Ledger, rows: &Rows) -> (Vec<String>, Vec<String>) {
    let (mut lost, mut wrong) = (Vec::new(), Vec::new());
    for ((device, _), levels) in ledger {
        let empty = Vec::new();
        let rows = rows.get(device).unwrap_or(&empty);
        for (index, level) in levels.iter().enumerate() {
            let end = levels.get(index + 1).map_or(Timestamp::MAX, |next| next.shown);
            let during = || rows.iter().filter(|(at, _)| *at >= level.shown && *at < end);
            if level.taken.is_some() && !during().any(|(_, on)| *on == level.on) {
                lost.push(format!("{device}: level {} shown at {} has no row", level.on, level.shown));
            }
            // Until the first poll after a move an answer under way may still tell the level before.
            let settled = level.shown + Duration::from_millis(250);
            if let Some((at, _)) = during().find(|(at, on)| *at > settled && *on != level.on) {
                wrong.push(format!("{device}: a row at {at} says {}, but the contact shows {}", !level.on, level.on));
            }
        }
    }
    (lost, wrong)
}
