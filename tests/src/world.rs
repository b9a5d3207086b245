//! A whole system of real programs: broker, centre, homes with gateways, and a network in between that can be told to
//! misbehave. Every part can be killed and started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed::broker::{EmbeddedBroker, free_port};
use carebed_contract::clock::SystemClock;
use carebed_contract::id::HomeId;
use carebed_simulator::home::{SimulatedHome, SimulatedHomeConfig};
use tempfile::TempDir;

use crate::clock::{CLOCK, ClockFile};
use crate::process::{Program, until};
use crate::proxy::Proxy;

/// How long anything may take before a test gives up on it. Generous: the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a world may take to come up: centres made without optimisation, started on a busy machine.
const COMES_UP: Duration = Duration::from_secs(240);

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `carebed`
    pub centre: PathBuf,
    /// `carebed-gateway`
    pub gateway: PathBuf,
}

/// Which broker stands in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    /// rumqttd, as shipped.
    Embedded,
    /// mosquitto with its defaults, those that drop messages included.
    Mosquitto,
}

/// A running broker.
#[derive(Debug)]
pub enum Broker {
    /// rumqttd, as shipped.
    Embedded(EmbeddedBroker),
    /// mosquitto.
    Mosquitto {
        /// Its process.
        program: Program,
        /// Where it listens.
        address: SocketAddr,
    },
}

impl Broker {
    async fn start(kind: BrokerKind, programs: &Programs, folder: &Path) -> anyhow::Result<Self> {
        if kind == BrokerKind::Embedded {
            return Ok(Self::Embedded(
                EmbeddedBroker::start(&programs.centre, SocketAddr::from(([127, 0, 0, 1], 0))).await?,
            ));
        }
        let mosquitto = crate::real::program(&["mosquitto"], "mosquitto").context("mosquitto is absent")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = folder.join("mosquitto.conf");
        std::fs::write(&config, format!("listener {} 127.0.0.1\nallow_anonymous true\n", address.port()))?;
        let config = config.to_string_lossy().into_owned();
        let program = Program::new(&mosquitto, &["-c", &config], &folder.join("mosquitto.log"));
        let mut broker = Self::Mosquitto { program, address };
        broker.restart().await?;
        Ok(broker)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Embedded(broker) => broker.address(),
            Self::Mosquitto { address, .. } => *address,
        }
    }

    /// What it has said; the embedded one says nothing.
    #[must_use]
    pub fn said(&self) -> String {
        match self {
            Self::Embedded(_) => String::new(),
            Self::Mosquitto { program, .. } => program.said(),
        }
    }

    /// Kills it; it forgets everything.
    pub async fn kill(&mut self) {
        match self {
            Self::Embedded(broker) => broker.kill().await,
            Self::Mosquitto { program, .. } => program.kill().await,
        }
    }

    /// Starts it again on the same port, empty, and waits until it answers.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Embedded(broker) => Ok(broker.restart().await?),
            Self::Mosquitto { program, address } => {
                program.kill().await;
                program.start(None)?;
                let address = *address;
                let answered = until(PATIENCE, || async move { tokio::net::TcpStream::connect(address).await.ok() });
                answered.await.map(drop).context("mosquitto does not answer")
            }
        }
    }
}

/// How a world's centre is set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long routine rows wait for their commit.
    pub commit_every: &'static str,
    /// Memory of ingest, in MiB.
    pub memory_mib: usize,
    /// Whether the centre reaches the broker through [`World::centre_network`].
    pub proxied: bool,
}

impl Default for Settings {
    /// Quick commits, the usual memory, a network that can misbehave.
    fn default() -> Self {
        Self { commit_every: "200ms", memory_mib: 192, proxied: true }
    }
}

/// A home: its devices, played by the test, and its gateway.
#[derive(Debug)]
pub struct Home {
    /// Its id.
    pub id: HomeId,
    /// Its devices.
    pub devices: Arc<SimulatedHome>,
    /// How its home file begins the names of devices.
    pub devices_name: String,
    /// Its gateway's id.
    pub gateway_id: String,
    /// Where its gateway's spool lies.
    pub spool: PathBuf,
    /// Where its home file lies.
    pub home_file: PathBuf,
    /// Its gateway.
    pub gateway: Program,
    /// The clock of its gateway's box.
    pub clock: ClockFile,
}

/// Everything.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
    programs: Programs,
    /// Boxes copied so far.
    copies: usize,
    /// The broker in the middle.
    pub broker: Broker,
    /// Between the gateways and the broker.
    pub home_network: Proxy,
    /// Between the centre and the broker.
    pub centre_network: Proxy,
    /// The centre.
    pub centre: Program,
    /// The homes.
    pub homes: Vec<Home>,
    console: SocketAddr,
    http: reqwest::Client,
}

impl World {
    /// Starts everything and waits until every home's devices are known at the centre.
    pub async fn start(programs: &Programs, kind: BrokerKind, n_homes: usize) -> anyhow::Result<Self> {
        Self::start_with(programs, kind, n_homes, &Settings::default()).await
    }

    /// As [`World::start`], with settings of its own.
    pub async fn start_with(
        programs: &Programs,
        kind: BrokerKind,
        n_homes: usize,
        settings: &Settings,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let broker = Broker::start(kind, programs, folder.path()).await?;
        let home_network = Proxy::start(broker.address()).await?;
        let centre_network = Proxy::start(broker.address()).await?;
        let console = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = folder.path().join("centre.toml");
        let Settings { commit_every, memory_mib, proxied } = settings;
        std::fs::write(
            &config,
            format!(
                "data = {:?}\n[broker]\naddress = \"{}\"\n[ingest]\ncommit_every = \"{commit_every}\"\nmemory_mib = {memory_mib}\n[detection]\nevery = \"2s\"\n[console]\nlisten = \"{console}\"\n",
                folder.path().join("data"),
                if *proxied { centre_network.address() } else { broker.address() },
            ),
        )?;
        let mut centre = Program::new(
            &programs.centre,
            &["serve", "--config", &config.to_string_lossy()],
            &folder.path().join("centre.log"),
        )
        // As its service unit does.
        .with("MALLOC_ARENA_MAX", Path::new("1"));
        centre.start(None)?;
        let mut homes = Vec::new();
        for number in 1..=n_homes {
            homes.push(home(programs, folder.path(), number, home_network.address()).await?);
        }
        let mut world = Self {
            folder,
            programs: programs.clone(),
            copies: 0,
            broker,
            home_network,
            centre_network,
            centre,
            homes,
            console,
            http: reqwest::Client::new(),
        };
        for index in 0..n_homes {
            world.start_gateway(index, None)?;
        }
        world.settled().await?;
        Ok(world)
    }

    /// Starts a home's gateway.
    pub fn start_gateway(&mut self, index: usize, crash_at: Option<&str>) -> anyhow::Result<()> {
        let home = self.homes.get_mut(index).context("no such home")?;
        Ok(home.gateway.start(crash_at)?)
    }

    /// Copies a gateway's box as its disk is now, and starts the copy beside it.
    pub fn copy_gateway(&mut self, index: usize) -> anyhow::Result<Program> {
        self.copies += 1;
        let home = self.homes.get(index).context("no such home")?;
        let spool = self.folder.path().join(format!("copy-{}", self.copies));
        std::fs::create_dir(&spool)?;
        for file in std::fs::read_dir(&home.spool)? {
            let file = file?;
            match std::fs::copy(file.path(), spool.join(file.file_name())) {
                // The original goes on working meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied?),
            }
        }
        let clock = ClockFile::create(&spool.with_extension("clock"))?;
        let network = self.home_network.address();
        let mut copy = gateway(&self.programs.gateway, network, &spool, &home.home_file, &clock)?;
        copy.start(None)?;
        Ok(copy)
    }

    /// The centre's data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Waits until every home's door contact, bed mat and call button have a row.
    async fn settled(&mut self) -> anyhow::Result<()> {
        let wanted = 3 * self.homes.len();
        let counted = until(COMES_UP, || async {
            let rows = self
                .numbers("SELECT count(DISTINCT home_id || quantity) FROM observations WHERE quantity IN ('call_button', 'door_open', 'bed_occupancy')")
                .await
                .ok()?;
            (rows.first().copied() == Some(i64::try_from(wanted).ok()?)).then_some(())
        });
        if counted.await.is_none() {
            bail!("the world did not settle:\n{}", self.said());
        }
        Ok(())
    }

    /// The first column of the answer to a query over the table as it is on disk now.
    pub async fn numbers(&self, sql: &str) -> anyhow::Result<Vec<i64>> {
        let csv = carebed::sql::answer(&self.data(), sql, carebed::cli::Format::Csv).await?;
        csv.lines().skip(1).map(|line| Ok(line.split(',').next().unwrap_or_default().parse()?)).collect()
    }

    /// Waits until a query's first number satisfies; otherwise says what every program said.
    pub async fn number(&self, sql: &str, satisfies: fn(i64) -> bool) -> anyhow::Result<i64> {
        let found =
            until(PATIENCE, || async { self.numbers(sql).await.ok()?.first().copied().filter(|n| satisfies(*n)) });
        match found.await {
            Some(number) => Ok(number),
            None => bail!("{sql} gave {:?}\n{}", self.numbers(sql).await, self.said()),
        }
    }

    /// The operator's page.
    #[must_use]
    pub fn page(&self) -> String {
        format!("http://{}/", self.console)
    }

    /// The open alerts as the console gives them; none while it does not answer.
    pub async fn open_alerts(&self) -> Option<Vec<serde_json::Value>> {
        let url = format!("http://{}/api/v1/alerts?state=open", self.console);
        let answer = self.http.get(url).timeout(Duration::from_secs(5)).send().await.ok()?;
        let body: serde_json::Value = answer.error_for_status().ok()?.json().await.ok()?;
        let list = body.get("alerts").cloned().unwrap_or(body);
        list.as_array().cloned()
    }

    /// Waits until a detection has an open alert, and gives all open alerts of it.
    pub async fn alerts(&self, detection: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let found = until(PATIENCE, || async {
            let of_detection: Vec<_> =
                self.open_alerts().await?.into_iter().filter(|a| a["detection"] == detection).collect();
            (!of_detection.is_empty()).then_some(of_detection)
        });
        match found.await {
            Some(alerts) => Ok(alerts),
            None => bail!("no alert of {detection}; open: {:?}\n{}", self.open_alerts().await, self.said()),
        }
    }

    /// What centre and gateways said, for a failed test.
    #[must_use]
    pub fn said(&self) -> String {
        let mut said = format!("--- centre\n{}", self.centre.said());
        for home in &self.homes {
            said.push_str(&format_args!("--- gateway {}\n{}", home.id, home.gateway.said()).to_string());
        }
        said
    }
}

async fn home(programs: &Programs, folder: &Path, number: usize, broker: SocketAddr) -> anyhow::Result<Home> {
    let id = HomeId::new(format!("h{number}"))?;
    let devices =
        SimulatedHome::start(SimulatedHomeConfig::new(id.clone(), number as u64, Arc::new(SystemClock::new()))).await?;
    let spool = folder.join(format!("spool-{number}"));
    let home_file = folder.join(format!("home-{number}.toml"));
    let text = carebed::demo::home_file(number, devices.addr());
    let gateway_id = toml::from_str::<toml::Table>(&text)?
        .get("gateway")
        .and_then(|gateway| Some(gateway.get("id")?.as_str()?.to_owned()));
    std::fs::write(&home_file, text)?;
    let clock = ClockFile::create(&spool.with_extension("clock"))?;
    let gateway = gateway(&programs.gateway, broker, &spool, &home_file, &clock)?;
    let gateway_id = gateway_id.context("the home file names no gateway")?;
    let devices_name = format!("home-{number}");
    Ok(Home { id, devices: Arc::new(devices), devices_name, gateway_id, spool, home_file, gateway, clock })
}

/// A gateway over a spool; its configuration and its log lie beside that.
fn gateway(
    program: &Path,
    broker: SocketAddr,
    spool: &Path,
    home_file: &Path,
    clock: &ClockFile,
) -> anyhow::Result<Program> {
    let (config, log) = (spool.with_extension("toml"), spool.with_extension("log"));
    let text = format!(
        "[broker]\nurl = \"mqtt://{broker}\"\n[spool]\ndirectory = {spool:?}\n[send]\nroutine_every = \"200ms\"\n"
    );
    std::fs::write(&config, text)?;
    let arguments = ["run", "--config", &config.to_string_lossy(), "--home", &home_file.to_string_lossy()];
    Ok(Program::new(program, &arguments, &log).with(CLOCK, clock.path()))
}
