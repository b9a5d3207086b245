//! The wire: two connections to the broker, the loop that ingests, and the receipts and commands that go out.
//!
//! Calls have a connection and a queue of their own, so a flood of routine data does not stand before them. Messages are
//! decoded here, not on the tasks that poll the sockets. When ingest cannot keep up, its queue fills, polling stops, receipts
//! stay out, and the gateways keep their data: back-pressure reaches the spools.
//!
//! Every connection is a new clean client: nothing depends on what broker or client remember, because a gateway sends again
//! whatever was not receipted.

mod backoff;
mod connection;
mod outbox;

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::command::Command;
use carebed_contract::crash;
use carebed_contract::id::Area;
use carebed_contract::labels::Lane;
use carebed_contract::topic::{Channel, Topic};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::event::Event;
use crate::ingest::{Done, Ingest};
use crate::store::{Store, StoreError, TableError};

use connection::{Connection, Message};
use outbox::Outbox;

/// Messages of one connection that wait for ingest. Beyond it the connection is not read.
const QUEUE_MAX: usize = 256;
/// Messages taken in before readers are shown what came.
const DRAIN_MAX: usize = 64;

/// Which broker, and what to take from it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// Begins the two connections' client ids; no two centres at one broker may share it.
    pub client_id: String,
    /// User and password, where the broker asks for them.
    pub login: Option<(String, String)>,
    /// The areas this process ingests; none stands for all.
    pub areas: Vec<Area>,
    /// How long accepted routine data may wait for its commit, in product time.
    pub commit_every: Duration,
}

impl Config {
    /// All areas of a broker without login, a commit every two seconds.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            client_id: format!("carebed-{:08x}", rand::random::<u32>()),
            login: None,
            areas: Vec::new(),
            commit_every: Duration::from_secs(2),
        }
    }

    fn filters(&self, channels: &[Channel]) -> Vec<String> {
        let areas: Vec<Option<&Area>> =
            if self.areas.is_empty() { vec![None] } else { self.areas.iter().map(Some).collect() };
        channels.iter().flat_map(|c| areas.iter().map(|area| Topic::filter(*area, *c))).collect()
    }
}

/// Why ingest ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be written any more, or could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody listens to the events any more.
    #[error("nobody takes the events of ingest")]
    EventsClosed,
}

/// Ingests until shut down: on shutdown what is accepted is committed and its receipts are tried once.
///
/// A failing disk does not end it: calls keep ringing from memory, and nothing is receipted until a commit succeeds. It ends
/// when another process writes the same shard, or when nobody takes the events.
pub async fn run(
    config: Config,
    store: Store,
    events: mpsc::Sender<Event>,
    commands: mpsc::Receiver<(Topic, Command)>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let ingest = Ingest::new(store).await?;
    let outbox = Arc::new(Outbox::default());
    let wire = Shutdown::new();
    let _ends_wire = wire.clone().drop_guard();

    // Inventories come first on both, so that rooms are known when rows come.
    let urgent = [Channel::Inventory, Channel::Batch(Lane::Urgent), Channel::Status, Channel::Result];
    let routine = [Channel::Inventory, Channel::Batch(Lane::Routine)];
    let (urgent_in, urgent) = connection(&config, "urgent", &urgent, &wire);
    let (routine_in, routine) = connection(&config, "routine", &routine, &wire);
    let sending = tokio::spawn(urgent_in.run(Some((Arc::clone(&outbox), commands))));
    let receiving = tokio::spawn(routine_in.run(None));

    let ingesting = Loop { config, ingest, events, clock, outbox: Arc::clone(&outbox), urgent, routine };
    let ended = ingesting.run(shutdown).await;
    // The last receipts get a moment; whoever misses one sends again and gets it then.
    let _late = tokio::time::timeout(Duration::from_secs(1), outbox.emptied()).await;
    wire.cancel();
    let _stopped = tokio::join!(sending, receiving);
    ended
}

fn connection(
    config: &Config,
    name: &str,
    channels: &[Channel],
    shutdown: &Shutdown,
) -> (Connection, mpsc::Receiver<Message>) {
    let (messages, queue) = mpsc::channel(QUEUE_MAX);
    let connection = Connection {
        host: config.host.clone(),
        port: config.port,
        client_id: format!("{}-{name}", config.client_id),
        login: config.login.clone(),
        filters: config.filters(channels),
        messages,
        shutdown: shutdown.clone(),
    };
    (connection, queue)
}

/// The task that ingests.
struct Loop {
    config: Config,
    ingest: Ingest,
    events: mpsc::Sender<Event>,
    clock: Arc<dyn Clock>,
    outbox: Arc<Outbox>,
    urgent: mpsc::Receiver<Message>,
    routine: mpsc::Receiver<Message>,
}

impl Loop {
    async fn run(mut self, shutdown: Shutdown) -> Result<(), Error> {
        let mut flight: Option<JoinHandle<Done>> = None;
        // Runs while something waits for a commit.
        let mut timer = None;
        let mut due = false;
        loop {
            if flight.is_none() && self.ingest.is_pending() {
                if due || self.ingest.is_pressing() {
                    (timer, due) = (None, false);
                    flight = self.ingest.begin().map(|work| tokio::spawn(work.run(self.clock.now())));
                } else if timer.is_none() {
                    timer = Some(self.clock.sleep(self.config.commit_every));
                }
            }
            let room = !self.ingest.is_full();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                done = async { flight.as_mut().expect("guarded").await }, if flight.is_some() => {
                    flight = None;
                    self.finish(done)?;
                }
                () = async { timer.as_mut().expect("guarded").await }, if timer.is_some() => {
                    (timer, due) = (None, true);
                }
                // A call is taken however much waits for a slow commit: gateways' windows bound how many there can be.
                Some(message) = self.urgent.recv() => self.take(message).await?,
                Some(message) = self.routine.recv(), if room => self.take(message).await?,
            }
        }
        if let Some(flight) = flight {
            self.finish(flight.await)?;
        }
        match self.ingest.commit(self.clock.now()).await {
            Ok(receipts) => self.outbox.put(receipts),
            Err(error) => {
                tracing::error!(error = %causes(&error), "failed to commit at the end; gateways send it again")
            }
        }
        Ok(())
    }

    /// Takes a message and what waits behind it, calls first.
    async fn take(&mut self, first: Message) -> Result<(), Error> {
        let mut next = Some(first);
        for _ in 0..DRAIN_MAX {
            let Some(message) = next else { break };
            let Message { topic, labels, content_type, payload } = message;
            let offered = self.ingest.offer(&topic, labels.as_deref(), &content_type, &payload, self.clock.now());
            self.outbox.put(offered.receipt);
            for event in offered.events {
                self.events.send(event).await.map_err(|_| Error::EventsClosed)?;
            }
            if self.ingest.is_pressing() {
                break;
            }
            next = self.urgent.try_recv().or_else(|_| self.routine.try_recv()).ok();
        }
        self.ingest.show();
        Ok(())
    }

    fn finish(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), Error> {
        // A commit that panicked or was stopped leaves the store as it was on disk; nothing more can be learned here.
        let Ok(done) = done else { return Err(StoreError::Stopped.into()) };
        match self.ingest.finish(done) {
            Ok(receipts) => {
                self.outbox.put(receipts);
                Ok(())
            }
            Err(error @ StoreError::Table(TableError::Overtaken { .. })) => Err(error.into()),
            Err(error) => {
                tracing::error!(error = %causes(&error), "failed to commit; nothing is receipted, gateways send it again");
                Ok(())
            }
        }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// After a receipt has gone to the client.
fn receipt_sent() {
    crash::point("centre.after_receipt");
}

#[cfg(test)]
mod tests;
