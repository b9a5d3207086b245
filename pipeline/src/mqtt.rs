//! The wire: the connections to the broker, the loop that ingests, and the receipts and commands that go out.
//!
//! Calls have a connection, a queue, memory and events of their own, so neither a flood of routine data stands before them
//! nor all the gateways of a city saying at once how they are, as after an outage.
//! Each connection has a task that polls the socket and decodes; one loop accepts; commits run beside it. When
//! ingest cannot keep up, its memory is taken ([`crate::memory`]), polling stops, receipts stay out, and the gateways keep
//! their data: back-pressure reaches the spools. A connection that is not polled for long is closed by its broker and made
//! again; what the broker then drops comes again, too.
//!
//! Every connection is a new clean client: nothing depends on what broker or client remember, because a gateway sends again
//! whatever was not receipted.

mod backoff;
mod connection;
mod feed;
mod outbox;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::command::Command;
use carebed_contract::crash;
use carebed_contract::id::Area;
use carebed_contract::labels::Lane;
use carebed_contract::security::Security;
use carebed_contract::topic::{Channel, Topic};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Sleep;

use crate::event::Event;
use crate::ingest::{Done, Ingest};
use crate::memory::{Memory, ROW_BYTES};
use crate::message::{Message, with_causes};
use crate::store::{Store, StoreError, TableError};

use connection::Connection;
use feed::Feed;
use outbox::Outbox;

/// Decoded messages of one lane that wait for ingest. Beyond it, or without memory, its connections are not read.
const QUEUE_MAX: usize = 256;
/// Messages taken in before it is looked for anything else.
const DRAIN_MAX: usize = 64;
/// Readers see routine rows so long after they came, at most: each time costs something for every home that is known.
const SHOWN_AFTER: Duration = Duration::from_millis(50);
/// Memory for what was taken and is not committed, where the configuration does not say.
pub const MEMORY: usize = 192 << 20;
/// The part of the memory that only calls may take: one in so many.
const MEMORY_FOR_CALLS: usize = 8;
/// The part that is kept for what gateways say of themselves.
const MEMORY_FOR_SIGNS: usize = 32;
/// A commit begins early when what waits for it fills this part of the memory: then there is room for what comes meanwhile,
/// and for what is still being told.
const MEMORY_FOR_A_COMMIT: usize = 4;
/// Urgent events that wait for detection. Beyond it no more urgent messages are read.
const CALLS_MAX: usize = 10_000;

/// Which broker, and what to take from it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// Begins the connections' client ids; no two centres at one broker may share it.
    pub client_id: String,
    /// How the connections are secured.
    pub security: Security,
    /// The areas this process ingests; none stands for all.
    pub areas: Vec<Area>,
    /// How many connections share the areas' routine data; never more than areas are named.
    pub connections: usize,
    /// How long accepted routine data may wait for its commit, in product time.
    pub commit_every: Duration,
    /// Bytes that may hold what was taken and is not committed. When they are taken, gateways keep their data.
    pub memory: usize,
}

impl Config {
    /// All areas of a broker on this machine, a commit every two seconds.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            client_id: format!("carebed-{:08x}", rand::random::<u32>()),
            security: Security::default(),
            areas: Vec::new(),
            connections: 1,
            commit_every: Duration::from_secs(2),
            memory: MEMORY,
        }
    }

    /// The areas in as many parts as there are connections for routine data. A gateway is in one area, so its batches
    /// come over one connection, in order.
    fn parts(&self) -> Vec<Vec<Area>> {
        let n = self.connections.clamp(1, self.areas.len().max(1));
        (0..n).map(|part| self.areas.iter().skip(part).step_by(n).cloned().collect()).collect()
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
    /// A connection's task is gone, and with it what it listened to.
    #[error("a connection to the broker has failed for good: start carebed again, gateways keep their data")]
    Connection(#[source] tokio::task::JoinError),
}

/// Who hears of what was taken, each kind in a channel of its own: calls stand behind nothing else.
#[derive(Debug, Clone)]
pub struct Events {
    /// Urgent observations, and their losses.
    pub urgent: mpsc::Sender<Event>,
    /// What gateways say of themselves and their homes. While nobody takes it, no more of it is taken in.
    pub signs: mpsc::Sender<Event>,
    /// Routine observations. While nobody takes them, no more routine data is taken in.
    pub routine: mpsc::Sender<Event>,
}

fn filters(areas: &[Area], channels: &[Channel]) -> Vec<String> {
    let areas: Vec<Option<&Area>> = if areas.is_empty() { vec![None] } else { areas.iter().map(Some).collect() };
    channels.iter().flat_map(|c| areas.iter().map(|area| Topic::filter(*area, *c))).collect()
}

/// Ingests until shut down: on shutdown what is accepted is committed and its receipts are tried once.
///
/// A failing disk does not end it: calls keep ringing from memory, and nothing is receipted until a commit succeeds. It ends
/// when another process writes the same shard, or when nobody takes the events.
pub async fn run(
    config: Config,
    store: Store,
    events: Events,
    commands: mpsc::Receiver<(Topic, Command)>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let ingest = Ingest::new(store).await?;
    let outbox = Arc::new(Outbox::default());
    let wire = Shutdown::new();
    let _ends_wire = wire.clone().drop_guard();

    // Inventories come first on all, so that rooms are known when rows come.
    let urgent = [Channel::Inventory, Channel::Batch(Lane::Urgent)];
    let signs = [Channel::Inventory, Channel::Status, Channel::Result];
    let routine = [Channel::Inventory, Channel::Batch(Lane::Routine)];
    let (for_calls, for_signs) = (config.memory / MEMORY_FOR_CALLS, config.memory / MEMORY_FOR_SIGNS);
    let (urgent_in, urgent_queue) = intake(Memory::new(for_calls));
    let (signs_in, signs_queue) = intake(Memory::new(for_signs));
    let (routine_in, routine_queue) = intake(Memory::new(config.memory - for_calls - for_signs));
    let connection = |name: String, areas: &[Area], channels: &[Channel]| Connection {
        host: config.host.clone(),
        port: config.port,
        client_id: format!("{}-{name}", config.client_id),
        security: config.security.clone(),
        clock: Arc::clone(&clock),
        filters: filters(areas, channels),
        shutdown: wire.clone(),
    };
    let mut wires = JoinSet::new();
    let outgoing = (Arc::clone(&outbox), commands);
    wires.spawn(connection("urgent".to_owned(), &config.areas, &urgent).run(urgent_in, Some(outgoing)));
    wires.spawn(connection("signs".to_owned(), &config.areas, &signs).run(signs_in, None));
    for (number, areas) in config.parts().iter().enumerate() {
        wires.spawn(connection(format!("routine-{number}"), areas, &routine).run(routine_in.clone(), None));
    }
    drop(routine_in);

    let ingesting = Loop {
        commit_every: config.commit_every,
        ingest,
        urgent: urgent_queue,
        signs: signs_queue,
        routine: routine_queue,
        rows_early: config.memory / MEMORY_FOR_A_COMMIT / ROW_BYTES,
        calls: Feed::new(events.urgent),
        news: Feed::new(events.signs),
        rest: Feed::new(events.routine),
        clock,
        outbox: Arc::clone(&outbox),
    };
    let ended = tokio::select! {
        ended = ingesting.run(shutdown) => ended,
        // They end when told to; one that panicked leaves calls that nobody hears.
        Some(Err(gone)) = wires.join_next() => Err(Error::Connection(gone)),
    };
    // The last receipts get a moment; whoever misses one sends again and gets it then.
    let _late = tokio::time::timeout(Duration::from_secs(1), outbox.emptied()).await;
    wire.cancel();
    while wires.join_next().await.is_some() {}
    ended
}

/// Where the connections of one lane put what they decoded.
#[derive(Debug, Clone)]
struct Intake {
    memory: Memory,
    messages: mpsc::Sender<Message>,
}

fn intake(memory: Memory) -> (Intake, mpsc::Receiver<Message>) {
    let (messages, queue) = mpsc::channel(QUEUE_MAX);
    (Intake { memory, messages }, queue)
}

/// The task that ingests.
struct Loop {
    commit_every: Duration,
    ingest: Ingest,
    urgent: mpsc::Receiver<Message>,
    signs: mpsc::Receiver<Message>,
    routine: mpsc::Receiver<Message>,
    /// So many rows do not wait for the commit's time.
    rows_early: usize,
    /// Events on their way out.
    calls: Feed,
    news: Feed,
    rest: Feed,
    clock: Arc<dyn Clock>,
    outbox: Arc<Outbox>,
}

impl Loop {
    async fn run(mut self, shutdown: Shutdown) -> Result<(), Error> {
        let mut flight: Option<JoinHandle<Done>> = None;
        // Runs while something waits for a commit.
        let mut timer = None;
        let mut due = false;
        // Runs while something waits to be shown.
        let mut unseen: Option<Pin<Box<Sleep>>> = None;
        loop {
            if flight.is_none() && self.ingest.is_pending() {
                if due || self.ingest.is_pressing() || self.ingest.rows() >= self.rows_early {
                    (timer, due) = (None, false);
                    flight = self.ingest.begin().map(|work| tokio::spawn(work.run(self.clock.now())));
                } else if timer.is_none() {
                    timer = Some(self.clock.sleep(self.commit_every));
                }
            }
            let room = !self.ingest.is_full() && self.rest.len() == 0;
            let room_for_news = self.news.len() == 0;
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
                sent = self.calls.send() => sent?,
                // A call is taken however much waits for a slow commit: its memory bounds how many there can be.
                Some(message) = self.urgent.recv(), if self.calls.len() < CALLS_MAX => self.take(message),
                sent = self.news.send() => sent?,
                Some(message) = self.signs.recv(), if room_for_news => self.take(message),
                () = async { unseen.as_mut().expect("guarded").await }, if unseen.is_some() => {
                    unseen = None;
                    self.ingest.show();
                }
                sent = self.rest.send() => sent?,
                Some(message) = self.routine.recv(), if room => {
                    self.take(message);
                    unseen.get_or_insert_with(|| Box::pin(tokio::time::sleep(SHOWN_AFTER)));
                }
            }
        }
        if let Some(flight) = flight {
            self.finish(flight.await)?;
        }
        match self.ingest.commit(self.clock.now()).await {
            Ok(receipts) => self.outbox.put(receipts),
            Err(error) => {
                tracing::error!(error = %with_causes(&error), "failed to commit at the end; gateways send it again")
            }
        }
        self.calls.send_all().await?;
        self.news.send_all().await?;
        self.rest.send_all().await
    }

    /// Takes a message and what waits behind it, calls first. Nothing is taken off a queue that is not offered.
    fn take(&mut self, first: Message) {
        let mut message = first;
        for left in (0..DRAIN_MAX).rev() {
            let channel = message.topic.channel;
            let offered = self.ingest.offer(message, self.clock.now());
            self.outbox.put(offered.receipt);
            let feed = match channel {
                Channel::Batch(Lane::Urgent) => &mut self.calls,
                Channel::Batch(Lane::Routine) => &mut self.rest,
                _ => &mut self.news,
            };
            feed.extend(offered.events);
            // A call is shown and committed at once; and there may be no room for more news, or for routine data behind it.
            if channel == Channel::Batch(Lane::Urgent) {
                self.ingest.show();
            }
            if left == 0 || channel != Channel::Batch(Lane::Routine) || self.ingest.is_full() {
                break;
            }
            let Ok(next) = self.urgent.try_recv().or_else(|_| self.routine.try_recv()) else { break };
            message = next;
        }
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
                tracing::error!(error = %with_causes(&error), "failed to commit; nothing is receipted, gateways send it again");
                Ok(())
            }
        }
    }
}

/// After a receipt has gone to the client.
fn receipt_sent() {
    crash::point("centre.after_receipt");
}

#[cfg(test)]
mod tests;
