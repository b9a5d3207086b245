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

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_device_profiles::decoder::Decoded;
use tokio::sync::mpsc;

use self::address::Address;
pub use self::mqtt::LocalBroker;
pub use self::mqtt::broker::{HomeBrokerError, serve as serve_broker};
use crate::home::Board;
use crate::stamp::Sample;

/// Commands that may wait for one link. One more is refused at once: a link that far behind does not answer anyway.
const WRITES_MAX: usize = 16;

/// What comes from a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// A poll ended.
    Polled {
        /// Index of the board in the home file.
        board: usize,
        /// Index of the poll in the board's profile.
        poll: usize,
        /// When it ended.
        sample: Sample,
        /// The data bytes of the answer, or for how long there was none.
        result: Result<Vec<u8>, Silence>,
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
    /// A write ended.
    Written {
        /// As in [`Write`].
        id: String,
        /// Whether the board confirmed it, else why not.
        result: Result<(), String>,
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

/// An output to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The command's id.
    pub id: String,
    /// Index of the board in the home file.
    pub board: usize,
    /// Index of the output in the board's profile.
    pub output: usize,
    /// On or off.
    pub value: bool,
}

/// The links of a home.
#[derive(Debug)]
pub struct Links {
    /// Boards by index, and the way to the link that owns each.
    writes: Vec<mpsc::Sender<Write>>,
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
        let mut endpoints: Vec<(Endpoint, mpsc::Sender<Write>, mpsc::Receiver<Write>)> = Vec::new();
        let mut writes = Vec::new();
        for (index, board) in boards.iter().enumerate() {
            let shares = |(endpoint, ..): &(Endpoint, _, _)| endpoint.address.is_same_place(&board.link);
            let at = endpoints.iter().position(shares).unwrap_or_else(|| {
                let (sender, receiver) = mpsc::channel(WRITES_MAX);
                endpoints.push((Endpoint { address: board.link.clone(), boards: Vec::new() }, sender, receiver));
                endpoints.len() - 1
            });
            if let Some((endpoint, sender, _)) = endpoints.get_mut(at) {
                endpoint.boards.push((index, Arc::clone(board)));
                writes.push(sender.clone());
            }
        }
        for (endpoint, _, writes) in endpoints {
            let (events, clock, shutdown) = (events.clone(), Arc::clone(clock), shutdown.clone());
            let broker = broker.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = endpoint.run(broker, writes, events, clock) => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
        Self { writes }
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

/// An error with its cause, for people.
fn told(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Boards that share a connection.
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
