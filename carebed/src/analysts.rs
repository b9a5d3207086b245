//! SQL for analysts' tools, served beside the centre on a runtime of its own, so that no question takes ingest's threads.

pub(crate) mod tables;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use carebed_console::database::Database;
use carebed_console::log::Log;
use carebed_console::registry::Registry;
use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_pipeline::store::Store;
use carebed_queries::engine::Limits;
use carebed_queries::home::HomeFacts;
use carebed_queries::postgres::{self, Server, Users};
use carebed_queries::sql::{Lake, Latest, Recent, Snapshot, Source, SqlError};
use tokio::sync::{Mutex, oneshot};

use crate::config::{Config, Sql};
use crate::facts::Params;
use crate::live::Memories;

use tables::AlertLog;

/// What analysts read: the lake, the registry without persons, and the log of alerts.
#[derive(Debug)]
pub struct CentreTables {
    store: Store,
    registry: Registry,
    params: Params,
    log: Log,
    /// What was read of the log so far; it is only ever appended to.
    alerts: Mutex<AlertLog>,
    latest: Arc<Latest>,
    episodes: Arc<dyn Recent>,
}

impl CentreTables {
    /// Reads beside a centre in this process.
    #[must_use]
    pub fn new(store: &Store, registry: &Registry, params: Params, database: &Database, memories: Memories) -> Self {
        let Memories { live, latest } = memories;
        let episodes: Arc<dyn Recent> = Arc::new(live);
        let (store, registry, log) = (store.clone(), registry.clone(), Log::new(database.clone()));
        Self { store, registry, params, log, alerts: Mutex::default(), latest, episodes }
    }
}

#[async_trait]
impl Source for CentreTables {
    async fn snapshot(&self) -> Result<Snapshot, SqlError> {
        let homes = self.registry.homes();
        let facts: Vec<HomeFacts> = homes.iter().map(|home| self.params.facts(home)).collect();
        let mut alerts = self.alerts.lock().await;
        let new = self.log.since(alerts.last()).await.map_err(|error| SqlError::Snapshot(Box::new(error)))?;
        alerts.take(new);
        let mut tables = tables::registry(&self.registry, &homes);
        tables.push(("alerts", alerts.table()));
        let snapshot = Snapshot::new(&Lake::of(&self.store), self.store.view(), &facts);
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
        let users = Users::load(&sql.users).context("SQL cannot be served")?;
        let settings = postgres::Config {
            listen: sql.listen,
            tls: sql.tls(),
            limits: Limits { memory_bytes: sql.memory_mib << 20, partitions: sql.cores, time: sql.time },
            rows_max: sql.rows_max,
            connections_max: sql.connections_max,
            statements_max: sql.statements_max,
            audit: Some(config.data.join("audit").join("sql.jsonl")),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(sql.cores.max(1))
            .thread_name("carebed-sql")
            .enable_all()
            .build()
            .context("failed to make threads for SQL")?;
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
