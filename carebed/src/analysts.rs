//! SQL for analysts' tools, served beside the centre on a runtime of its own, so that no question takes ingest's threads.

pub(crate) mod tables;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use carebed_console::Console;
use carebed_console::board::Board;
use carebed_console::database::{Database, DatabaseError};
use carebed_console::intervals::Intervals;
use carebed_console::log::Log;
use carebed_console::registry::Registry;
use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::time::Timestamp;
use carebed_pipeline::store::Store;
use carebed_queries::engine::Limits;
use carebed_queries::home::HomeFacts;
use carebed_queries::postgres::{self, Server, UsersFile};
use carebed_queries::sql::{Lake, Latest, Recent, Snapshot, Source, SqlError};
use tokio::sync::{Mutex, oneshot, watch};

use crate::alert_times::Times;
use crate::config::{Config, Sql};
use crate::facts::{Params, intervals_of};
use crate::live::Memories;

use tables::AlertLog;

/// What analysts read: the lake, the registry without persons, what gateways and operators said, and the log of alerts.
#[derive(Debug)]
pub struct CentreTables {
    store: Store,
    lake: Lake,
    registry: Registry,
    board: Board,
    params: Params,
    database: Database,
    said: Mutex<Said>,
    latest: Arc<Latest>,
    episodes: Arc<dyn Recent>,
}

/// What was read of the centre's database so far.
#[derive(Debug)]
struct Said {
    /// The log of alerts, which is only ever appended to, in two ways.
    alerts: AlertLog,
    times: Times,
    /// Absences and visits of all times; read again when somebody has entered one or ended one.
    intervals: Option<Intervals>,
    changes: watch::Receiver<u64>,
}

impl CentreTables {
    /// Reads beside a centre in this process.
    #[must_use]
    pub fn new(
        store: &Store,
        registry: &Registry,
        console: &Console,
        params: Params,
        database: &Database,
        memories: Memories,
    ) -> Self {
        let Memories { live, latest } = memories;
        let episodes: Arc<dyn Recent> = Arc::new(live);
        let changes = console.intervals().changes();
        let said = Said { alerts: AlertLog::default(), times: Times::default(), intervals: None, changes };
        let (store, lake, registry, database) = (store.clone(), Lake::of(store), registry.clone(), database.clone());
        Self {
            store,
            lake,
            registry,
            board: console.board(),
            params,
            database,
            said: Mutex::new(said),
            latest,
            episodes,
        }
    }
}

impl Said {
    async fn read(&mut self, database: &Database) -> Result<(), DatabaseError> {
        let new = Log::new(database.clone()).since(self.alerts.last()).await?;
        self.times.take(&new);
        self.alerts.take(new);
        if self.changes.has_changed().unwrap_or(false) || self.intervals.is_none() {
            self.changes.mark_unchanged();
            self.intervals = Some(Intervals::load(database, Timestamp::from_millis(0)).await?);
        }
        Ok(())
    }
}

#[async_trait]
impl Source for CentreTables {
    async fn snapshot(&self) -> Result<Snapshot, SqlError> {
        let homes = self.registry.homes();
        let mut said = self.said.lock().await;
        said.read(&self.database).await.map_err(|error| SqlError::Snapshot(Box::new(error)))?;
        let mut alerts = said.times.by_home();
        let facts = homes.iter().map(|home| HomeFacts {
            intervals: said.intervals.as_ref().map(|all| intervals_of(all, &home.id)).unwrap_or_default(),
            alerts: alerts.remove(&home.id).unwrap_or_default(),
            ..self.params.facts(home)
        });
        let facts: Vec<HomeFacts> = facts.collect();
        let mut tables = tables::registry(&self.registry, &homes);
        tables.extend(tables::status(&self.board, &homes));
        tables.push(("alerts", said.alerts.table()));
        let snapshot = Snapshot::new(&self.lake, self.store.view(), &facts);
        Ok(snapshot.with_tables(tables).with_latest(&self.latest).with_recent(&self.episodes))
    }
}

/// Analysts' SQL, running on threads of its own.
#[derive(Debug)]
pub struct Analysts {
    address: SocketAddr,
    shutdown: Shutdown,
    ended: oneshot::Receiver<()>,
}

impl Analysts {
    /// Takes the port and begins to serve.
    pub async fn start(
        config: &Config,
        sql: &Sql,
        source: CentreTables,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let users = UsersFile::open(&sql.users).context("SQL cannot be served")?;
        let settings = postgres::Config {
            listen: sql.listen,
            tls: sql.tls(),
            limits: Limits { memory_bytes: sql.memory_mib << 20, partitions: sql.cores, time: sql.time },
            rows_max: sql.rows_max,
            connections_max: sql.connections_max,
            statements_max: sql.statements_max,
            audit: Some(config.data.join("audit").join("sql.jsonl")),
        };
        let runtime = postgres::threads(sql.cores).context("failed to make threads for SQL")?;
        let server = runtime
            .spawn(Server::bind(settings, users, Arc::new(source), clock))
            .await?
            .context("SQL cannot be served")?;
        let address = server.address();
        let shutdown = Shutdown::new();
        let (end, ended) = oneshot::channel();
        let stop = shutdown.clone();
        // A runtime must not be dropped on another one's thread: it lives and ends on its own.
        std::thread::Builder::new().name("carebed-sql".to_owned()).spawn(move || {
            runtime.block_on(server.run(stop));
            runtime.shutdown_background();
            let _told = end.send(());
        })?;
        Ok(Self { address, shutdown, ended })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; what runs has a moment.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let _ended = self.ended.await;
    }
}
