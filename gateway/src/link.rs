//! Connections to devices: one task owns each port or endpoint, asks and listens on its own time, and gives way to commands.
//!
//! A device's failing never slows another's: [`schedule`] decides whom to ask next, [`rtu`] which bytes are an answer. What
//! is asked by Modbus is [`polled`]; what speaks by itself on a serial line is [`streamed`]; [`http`] and [`mqtt`] are
//! what their names say.

pub mod address;
mod blocks;
mod http;
mod line;
mod modbus_rtu;
mod modbus_tcp;
mod mqtt;
mod polled;
pub mod reading;
pub mod rtu;
pub mod scan;
mod schedule;
mod streamed;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_device_profiles::decoder::Decoded;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::address::Address;
pub use self::mqtt::LocalBroker;
pub use self::mqtt::broker::{HomeBrokerError, serve as serve_broker};
pub use self::tally::Tally;
use crate::home::Board;
use crate::stamp::Sample;

/// Commands that may wait for one link. One more is refused at once: a link that far behind does not answer anyway.
const WRITES_MAX: usize = 16;

/// What comes from a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// A poll ended. An answer that only repeats the one before it is told once a second at most.
    Polled {
        /// Index of the board in the home file.
        board: usize,
        /// Index of the poll in the board's profile.
        poll: usize,
        /// When it ended.
        sample: Sample,
        /// The data bytes of the answer, or for how long there was none.
        result: Result<Vec<u8>, Silence>,
        /// What came of asking the board since the last event.
        tally: Tally,
        /// Whether its circuit is open: it has failed for so long that it is only probed.
        is_given_up: bool,
    },
    /// A device said something by itself, or has said nothing for too long.
    Heard {
        /// Index of the board in the home file.
        board: usize,
        /// When it was heard.
        sample: Sample,
        /// What was heard, or for how long nothing was.
        result: Result<Decoded, Silence>,
    },
    /// Something is wrong that an installer should know.
    Trouble(String),
    /// What the home shows by itself did not reach its output.
    NotShown {
        /// Index of the board in the home file.
        board: usize,
        /// Index of the output in the board's profile.
        output: usize,
        /// Why.
        why: NotConfirmed,
    },
    /// A write ended.
    Written {
        /// As in [`Write`].
        id: String,
        /// Whether the device confirmed it, else why not.
        result: Result<(), NotConfirmed>,
        /// When it ended.
        sample: Sample,
    },
}

/// How long a board has not answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Silence {
    /// Polls in a row that failed.
    pub cycles: u32,
    /// Since the first of them, in wire time.
    pub lasted: Duration,
    /// What came of the last one, for people.
    pub why: String,
}

/// Why a write was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotConfirmed {
    /// It was not done.
    Failed(String),
    /// It was sent; whether the device did it is not known.
    Sent(String),
}

/// An output to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The command's id; empty for what the home shows by itself.
    pub id: String,
    /// Index of the board in the home file.
    pub board: usize,
    /// Index of the output in the board's profile.
    pub output: usize,
    /// On or off.
    pub value: bool,
    /// How long its confirmation is worth waiting for where it may take long. Product time.
    pub within: Duration,
}

/// The links of a home.
#[derive(Debug)]
pub struct Links {
    broker: LocalBroker,
    events: mpsc::Sender<LinkEvent>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    running: Vec<Running>,
    /// Boards by index, and the way to the link that owns each.
    writes: Vec<mpsc::Sender<Write>>,
}

/// A task that owns an endpoint.
#[derive(Debug)]
struct Running {
    endpoint: Endpoint,
    writes: mpsc::Sender<Write>,
    stop: Shutdown,
    task: JoinHandle<()>,
}

impl Links {
    /// Starts one task per endpoint. They end when `shutdown` is cancelled or nobody listens to `events` any more.
    pub fn start(
        boards: &[Arc<Board>],
        broker: &LocalBroker,
        events: &mpsc::Sender<LinkEvent>,
        clock: &Arc<dyn Clock>,
        shutdown: &Shutdown,
    ) -> Self {
        let mut links = Self {
            broker: broker.clone(),
            events: events.clone(),
            clock: Arc::clone(clock),
            shutdown: shutdown.clone(),
            running: Vec::new(),
            writes: Vec::new(),
        };
        links.start_missing(boards);
        links
    }

    /// Ends the tasks of endpoints that are no longer, or whose boards have changed; the others go on as if nothing had
    /// happened. When it returns, nothing more comes of those that ended.
    pub async fn end_changed(&mut self, boards: &[Arc<Board>], broker: &LocalBroker) {
        let wanted = endpoints(boards);
        let is_kept = |running: &Running| {
            let same_broker = self.broker == *broker || running.endpoint.address != Address::Broker;
            same_broker && wanted.contains(&running.endpoint)
        };
        let (kept, ended): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running).into_iter().partition(is_kept);
        (self.running, self.broker) = (kept, broker.clone());
        for Running { stop, task, .. } in ended {
            stop.cancel();
            // A task that panicked has ended, too.
            let _ended = task.await;
        }
    }

    /// Starts what [`Self::end_changed`] ended, and what is new.
    pub fn start_missing(&mut self, boards: &[Arc<Board>]) {
        let missing: Vec<Endpoint> = endpoints(boards)
            .into_iter()
            .filter(|endpoint| self.running.iter().all(|running| running.endpoint != *endpoint))
            .collect();
        for endpoint in missing {
            let (writes, waiting) = mpsc::channel(WRITES_MAX);
            let stop = self.shutdown.child_token();
            let (of, stopped, broker) = (endpoint.clone(), stop.clone(), self.broker.clone());
            let (events, clock) = (self.events.clone(), Arc::clone(&self.clock));
            let task = tokio::spawn(async move {
                tokio::select! {
                    () = of.run(broker, waiting, events, clock) => {}
                    () = stopped.cancelled() => {}
                }
            });
            self.running.push(Running { endpoint, writes, stop, task });
        }
        let owner = |index: usize| {
            let owner = self.running.iter().find(|running| running.endpoint.boards.iter().any(|(at, _)| *at == index));
            owner.map(|running| running.writes.clone())
        };
        self.writes = (0..boards.len()).filter_map(owner).collect();
    }

    /// Hands a write to the link that owns the board; given back when the link has no room for it.
    pub fn write(&self, write: Write) -> Result<(), Write> {
        match self.writes.get(write.board) {
            Some(sender) => sender.try_send(write).map_err(|error| match error {
                mpsc::error::TrySendError::Full(write) | mpsc::error::TrySendError::Closed(write) => write,
            }),
            None => Err(write),
        }
    }
}

/// Which boards share a connection.
fn endpoints(boards: &[Arc<Board>]) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (index, board) in boards.iter().enumerate() {
        let board = (index, Arc::clone(board));
        match endpoints.iter_mut().find(|endpoint| endpoint.address.is_same_place(&board.1.link)) {
            Some(endpoint) => endpoint.boards.push(board),
            None => endpoints.push(Endpoint { address: board.1.link.clone(), boards: vec![board] }),
        }
    }
    endpoints
}

/// An error with its cause, for people.
fn told(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Boards that share a connection.
#[derive(Debug, Clone, PartialEq)]
struct Endpoint {
    address: Address,
    boards: Vec<(usize, Arc<Board>)>,
}

impl Endpoint {
    async fn run(
        self,
        broker: LocalBroker,
        writes: mpsc::Receiver<Write>,
        events: mpsc::Sender<LinkEvent>,
        clock: Arc<dyn Clock>,
    ) {
        match &self.address {
            Address::Http(host) => http::run(host.clone(), &self.boards, events, clock).await,
            Address::Broker => mqtt::run(&broker, &self.boards, writes, events, clock).await,
            _ if self.boards.iter().all(|(_, board)| board.profile.polls.is_empty()) => {
                streamed::Streamed::new(&self, events, clock).run(writes).await;
            }
            _ => {
                if let Some(polled) = polled::Polled::new(&self, events, clock) {
                    polled.run(writes).await;
                }
            }
        }
    }
}
