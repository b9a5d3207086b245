//! The whole centre in one process: ingest, live detection, desk and pages, joined by bounded channels.
//!
//! Opened first, so that everything that can be wrong is told before anything runs; then run until told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use carebed_alerts::policy::Policy;
use carebed_alerts::rule::Rule;
use carebed_console::database::Database;
use carebed_console::desk::Desk;
use carebed_console::home_action::HomeAction;
use carebed_console::log::Log;
use carebed_console::registry::Registry;
use carebed_console::{Config as ConsoleConfig, Console};
use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::command::Command;
use carebed_contract::id::HomeId;
use carebed_contract::topic::{Channel, Topic};
use carebed_pipeline::mqtt::Events;
use carebed_pipeline::store::{Store, keep_up};
use carebed_queries::engine::Detection;
use tokio::sync::mpsc;

use crate::analysts::CentreTables;
use crate::config::{Config, host_and_port};
use crate::detections;
use crate::facts::Params;
use crate::live::{Heard, LiveTask, Memories};
use crate::maintain::{Around, Keeper};
use crate::notices;
use crate::storage;

/// Events of one kind on their way from ingest to live detection. When detection falls behind, ingest takes no more
/// routine data, and the spools keep it; calls have a channel of their own.
const EVENTS_MAX: usize = 1_024;
/// Commands on their way to homes. When more wait, acknowledging waits.
const ACTIONS_MAX: usize = 256;

/// The way of commands to homes, and its end.
type Commands = (mpsc::Sender<(Topic, Command)>, mpsc::Receiver<(Topic, Command)>);

/// A centre that has everything it needs and waits to run.
pub struct Centre {
    config: Config,
    broker: String,
    clock: Arc<dyn Clock>,
    store: Store,
    database: Database,
    registry: Registry,
    console: Console,
    live: LiveTask,
    memories: Memories,
    events: (Events, Heard),
    actions: mpsc::Receiver<HomeAction>,
    commands: Commands,
}

impl std::fmt::Debug for Centre {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Centre").field("config", &self.config).field("broker", &self.broker).finish_non_exhaustive()
    }
}

impl Centre {
    /// Opens lake, database and pages, and rebuilds what detections need from history. `speed` is how many product
    /// seconds pass in a real one: 1, but for a demo.
    pub async fn open(config: &Config, broker: String, clock: Arc<dyn Clock>, speed: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&config.data)
            .with_context(|| format!("failed to make the data folder {}", config.data.display()))?;
        let lake = config.storage.store(config)?;
        let store = Store::open(lake.clone()).await.context("failed to open the lake")?;
        storage::note_begun(&lake, &config.data)?;
        let detections = detections::load(carebed_queries::engine::Limits::default()).await?;
        let params = Params::load(&config.params())?;
        let database = Database::open(&config.database()).await.context("failed to open the centre's database")?;
        let registry = Registry::load(&database).await.context("failed to read the registry")?;
        let homes: Vec<HomeId> = registry.homes().iter().map(|home| home.id.clone()).collect();
        params.strangers(&homes).for_each(|line| tracing::warn!("{line}"));
        let (actions_in, actions) = mpsc::channel(ACTIONS_MAX);
        let console = ConsoleConfig { listen: config.console.listen, policy: policy(&detections.list), speed };
        let console = Console::bind(console, database.clone(), registry.clone(), actions_in, Arc::clone(&clock))
            .await
            .context("failed to open the console")?;
        let commands = mpsc::channel(ACTIONS_MAX);
        let (live, in_memory) = LiveTask::open(
            &store,
            detections,
            &registry,
            (&console, Log::new(database.clone())),
            (config.detection.clone(), params),
            Arc::clone(&clock),
            commands.0.clone(),
        );
        Ok(Self {
            config: config.clone(),
            broker,
            clock,
            store,
            database,
            registry,
            console,
            live,
            memories: Memories { live: in_memory, latest: Arc::default() },
            events: events(),
            actions,
            commands,
        })
    }

    /// Where the pages are.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.console.addr()
    }

    /// Where homes and people are registered.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The way to the alerts.
    #[must_use]
    pub fn desk(&self) -> Desk {
        self.console.desk()
    }

    /// What analysts may read of this centre.
    ///
    /// # Errors
    /// When `params.toml` cannot be read.
    pub fn tables(&self) -> anyhow::Result<CentreTables> {
        let params = Params::load(&self.config.params())?;
        let memories = self.memories.clone();
        Ok(CentreTables::new(&self.store, &self.registry, &self.console, params, &self.database, memories))
    }

    /// Runs until told to stop, in order: ingest commits what it has, detection takes the last events, the desk logs
    /// them. A part that fails ends the others.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let stop = shutdown.child_token();
        let (live_stop, console_stop) = (Shutdown::new(), Shutdown::new());
        let (commands_in, commands) = self.commands;
        let (events_in, events) = self.events;

        let (host, port) =
            host_and_port(&self.broker).with_context(|| format!("{:?} is not host:port", self.broker))?;
        let ingest = carebed_pipeline::mqtt::Config {
            areas: self.config.ingest.areas.clone(),
            connections: self.config.ingest.connections,
            commit_every: self.config.ingest.commit_every,
            memory: self.config.ingest.memory_mib << 20,
            security: self.config.broker.security(),
            ..carebed_pipeline::mqtt::Config::new(host, port)
        };
        let ingest = async {
            let clock = Arc::clone(&self.clock);
            let ended =
                carebed_pipeline::mqtt::run(ingest, self.store.clone(), events_in, commands, clock, stop.clone()).await;
            stop.cancel();
            live_stop.cancel();
            ended.context("ingest stopped")
        };
        let live = async {
            let ended = self.live.run(events, live_stop.clone()).await;
            stop.cancel();
            console_stop.cancel();
            ended.context("detection stopped")
        };
        let console = async {
            let ended = self.console.run(console_stop.clone()).await;
            stop.cancel();
            ended.context("the console stopped")
        };
        // Beside ingest, which never waits for it.
        let upkeep = self.config.storage.upkeep();
        let lake = (self.store.clone(), Arc::clone(&self.clock), stop.clone());
        let kept = tokio::spawn(keep_up(lake.0.clone(), upkeep.clone(), Arc::clone(&lake.1), stop.clone()));
        let around = Around { memories: self.memories, registry: self.registry, commands: commands_in.clone() };
        let keeper = Keeper { store: lake.0, upkeep, centre: Some(around) };
        let asked = tokio::spawn(crate::maintain::listen(self.config.data.clone(), keeper, lake.1, lake.2));
        let actions = pass_on(self.actions, commands_in);
        let (ingest, live, console, ()) = tokio::join!(ingest, live, console, actions);
        kept.await.and(asked.await).context("the upkeep of the lake broke off")?;
        ingest.and(live).and(console)
    }
}

fn events() -> (Events, Heard) {
    let (urgent, calls) = mpsc::channel(EVENTS_MAX);
    let (signs, news) = mpsc::channel(EVENTS_MAX);
    let (routine, rest) = mpsc::channel(EVENTS_MAX);
    (Events { urgent, signs, routine }, Heard { urgent: calls, signs: news, routine: rest })
}

/// What the desk asks of homes, as commands on their topics. Ends with the desk.
async fn pass_on(mut actions: mpsc::Receiver<HomeAction>, commands: mpsc::Sender<(Topic, Command)>) {
    while let Some(HomeAction { area, gateway, home, command }) = actions.recv().await {
        let topic = Topic::new(area, gateway, Channel::Command);
        if commands.send((topic, command)).await.is_err() {
            tracing::warn!(%home, "a command for the home was not sent: the centre is stopping");
        }
    }
}

/// What alerts need to know of the detections.
pub(crate) fn policy(detections: &[Detection]) -> Policy {
    let rules = detections.iter().map(|detection| Rule {
        detection: detection.name.clone(),
        priority: detection.meaning.priority,
        class: detection.meaning.class,
        title: detection.meaning.title.clone(),
        wording: detection.meaning.wording.clone(),
        words: detection.meaning.words.clone(),
        suppressible: detection.meaning.suppressible,
        wait: detection.meaning.wait,
    });
    Policy::new(rules.chain([detections::off_rule()]).chain(notices::rules()))
}
