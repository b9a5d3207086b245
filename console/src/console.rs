//! The whole console: bound first, so that its address is known, then run.

use std::net::SocketAddr;
use std::sync::Arc;

use carebed_alerts::policy::Policy;
use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::board::Board;
use crate::database::Database;
use crate::desk::{self, Desk, DeskError, DeskTask};
use crate::home_action::HomeAction;
use crate::http::{self, App};
use crate::intervals::Intervals;
use crate::registry::Registry;

/// Settings of the console.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where pages and API are served; port 0 takes a free one. Loopback only.
    pub listen: SocketAddr,
    /// Rules and timers.
    pub policy: Policy,
    /// How many product seconds pass in a real one: 1, but for a demo that runs fast. Pages need it for their ages.
    pub speed: u32,
}

/// Why the console does not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not loopback.
    #[error(
        "refusing to listen on {0}: the console has neither TLS nor authentication, so it serves this machine only; \
         listen on 127.0.0.1, and from elsewhere use a tunnel (ssh -L) or a proxy that encrypts and authenticates"
    )]
    OffLoopback(SocketAddr),
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}: choose another port, or stop the program that has it")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The desk failed.
    #[error("the alert desk does not work")]
    Desk(#[from] DeskError),
    /// The server failed.
    #[error("the console's server stopped")]
    Serve(#[source] std::io::Error),
}

/// A console that has its address and its alerts, and waits to run.
#[derive(Debug)]
pub struct Console {
    listener: TcpListener,
    addr: SocketAddr,
    task: DeskTask,
    app: App,
}

impl Console {
    /// Takes the address and takes up the alerts where the log left them. What homes are to do comes out of
    /// `actions`' other end.
    pub async fn bind(
        config: Config,
        database: Database,
        registry: Registry,
        actions: mpsc::Sender<HomeAction>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        if !config.listen.ip().is_loopback() {
            return Err(Error::OffLoopback(config.listen));
        }
        let listen = |source| Error::Listen { addr: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let intervals = Intervals::load(&database, clock.now()).await.map_err(DeskError::Database)?;
        let (desk, task) = desk::open(database, registry.clone(), config.policy, actions, Arc::clone(&clock)).await?;
        let board = Board::new(registry.clone());
        let app = App::new(desk, registry, intervals, board, clock, config.speed.max(1));
        Ok(Self { listener, addr, task, app })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The way to its alerts. Requests wait until it runs.
    #[must_use]
    pub fn desk(&self) -> Desk {
        self.app.desk.clone()
    }

    /// What people said about absences and visits.
    #[must_use]
    pub fn intervals(&self) -> Intervals {
        self.app.intervals.clone()
    }

    /// Where to note how the gateways are.
    #[must_use]
    pub fn board(&self) -> Board {
        self.app.board.clone()
    }

    /// Works until `shutdown`: answers what was asked, closes the event streams, and leaves everything logged.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        // If either side fails, the other must end too.
        let stop = shutdown.child_token();
        let desk_stop = Shutdown::new();
        let desk = async {
            let ended = self.task.run(desk_stop.clone()).await;
            stop.cancel();
            ended
        };
        let server = async {
            let ended = http::serve(self.listener, self.app, stop.clone()).await;
            desk_stop.cancel();
            ended
        };
        let (desk, server) = tokio::join!(desk, server);
        desk?;
        server.map_err(Error::Serve)
    }
}
