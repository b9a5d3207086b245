//! The PostgreSQL wire protocol, so that analysts use the tools they have.
//!
//! Every connection signs in (SCRAM-SHA-256), off loopback only under TLS; it may read what its user's [`Scope`](crate::sql::Scope) holds and change
//! nothing. Each statement sees the newest snapshot of its [`Source`] when it starts. Statements have bounds in time, rows, memory
//! and number; what was asked is written to an audit log. Run it on a runtime of its own, so that no query takes ingest's threads.

mod audit;
mod comments;
mod guard;
mod prepared;
mod service;
mod settings;
mod socket;
mod startup;
mod stops;
mod users;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion_postgres::pgwire::api::RandomPidSecretKeyGenerator;
use datafusion_postgres::pgwire::tokio::TlsAcceptor;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::engine::{EngineError, Limits, runtime};
use crate::sql::{self, Source};

use audit::Audit;
use stops::Stops;
pub use users::{User, Users, UsersError, UsersFile, password_line};

/// How SQL is served.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where; off loopback only with TLS.
    pub listen: SocketAddr,
    /// Certificate chain and key, both PEM.
    pub tls: Option<Tls>,
    /// What all statements together may use of memory, and each of cores and time.
    pub limits: Limits,
    /// Most rows of an answer; a statement with more ends with an error.
    pub rows_max: usize,
    /// Connections at once; more are told so and turned away.
    pub connections_max: usize,
    /// Statements at once; more wait, and the wait counts as their time.
    pub statements_max: usize,
    /// Where it is written down who asked what: one JSON object a line.
    pub audit: Option<PathBuf>,
}

/// Files of a server's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Its certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why SQL is not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Without TLS passwords and health data would cross the network in the clear.
    #[error("SQL would listen on {0} without TLS: set a certificate and a key, or listen on loopback")]
    OffLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("failed to use {path} for TLS: {reason}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The audit log cannot be written.
    #[error("failed to open the audit log {path}")]
    Audit {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The query engine refused its bounds.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A server that has its port and waits to run.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What all connections use together.
struct Shared {
    config: Config,
    users: UsersFile,
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    runtime: Arc<RuntimeEnv>,
    statements: Arc<Semaphore>,
    /// Gives each connection a number of its own, and a secret: what a client brings that wants a statement to end.
    numbers: Arc<RandomPidSecretKeyGenerator>,
    /// One for each connection that has its place.
    room: Arc<Semaphore>,
    stops: Arc<Stops>,
    audit: Audit,
}

/// Sockets beyond [`Config::connections_max`] that are told that they are too many, or bring the wish to end a statement. Those
/// beyond are closed without a word.
const AT_THE_DOOR: usize = 64;

/// How long the last statements may go on when the server stops.
const GOODBYE: Duration = Duration::from_secs(2);

impl Server {
    /// Takes the port and reads certificate and key.
    ///
    /// # Errors
    /// When it would listen off loopback without TLS, or a file or the port cannot be used.
    pub async fn bind(
        config: Config,
        users: UsersFile,
        source: Arc<dyn Source>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        if config.tls.is_none() && !config.listen.ip().is_loopback() {
            return Err(Error::OffLoopback(config.listen));
        }
        let tls = config.tls.as_ref().map(acceptor).transpose()?;
        let failed = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let audit = Audit::open(config.audit.as_deref())?;
        let shared = Arc::new(Shared {
            runtime: runtime(config.limits)?,
            statements: Arc::new(Semaphore::new(config.statements_max)),
            numbers: Arc::default(),
            room: Arc::new(Semaphore::new(config.connections_max)),
            stops: Arc::default(),
            audit,
            users,
            source,
            clock,
            config,
        });
        Ok(Self { listener, address, tls, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until told to stop; what is running then has two seconds.
    pub async fn run(self, shutdown: Shutdown) {
        let doors = Arc::new(Semaphore::new(self.shared.config.connections_max + AT_THE_DOOR));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = shutdown.cancelled() => break,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Too many open files pass; the pause keeps the loop from spinning until then.
                    tracing::warn!(%error, "a SQL connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(door) = Arc::clone(&doors).try_acquire_owned() else {
                tracing::warn!(%peer, "a SQL connection was closed unheard: too many");
                continue;
            };
            let (tls, shared) = (self.tls.clone(), Arc::clone(&self.shared));
            connections.spawn(async move {
                let _door = door;
                if let Err(error) = socket::serve(socket, tls, &shared).await {
                    tracing::debug!(%error, %peer, "a SQL connection ended");
                }
            });
        }
        let _left = tokio::time::timeout(GOODBYE, async { while connections.join_next().await.is_some() {} }).await;
    }
}

/// Threads on which SQL is served: their stacks hold the deepest statement that is taken.
///
/// # Errors
/// When the machine gives no threads.
pub fn threads(cores: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // One more, so that whoever comes is heard while all others compute.
        .worker_threads(cores.max(1) + 1)
        .thread_stack_size(sql::STACK_BYTES)
        .thread_name("carebed-sql")
        .enable_all()
        .build()
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let wrong = |path: &Path, reason: String| Error::Tls { path: path.to_owned(), reason };
    let open = |path: &Path| File::open(path).map(BufReader::new).map_err(|error| wrong(path, error.to_string()));
    let chain = CertificateDer::pem_reader_iter(open(&tls.certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(&tls.certificate, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_reader(open(&tls.key)?).map_err(|error| wrong(&tls.key, error.to_string()))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| wrong(&tls.certificate, error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
