//! Byte connections to boards: one task owns each, polls on its own time, and gives way to commands.

mod modbus_tcp;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use tokio::sync::mpsc;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Polls in a row that failed.
    pub cycles: u32,
    /// Since the first of them, in wire time.
    pub lasted: Duration,
}

/// An output to set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The command's id.
    pub id: String,
    /// Index of the board in the home file.
    pub board: usize,
    /// Which coil.
    pub coil: u16,
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
        events: &mpsc::Sender<LinkEvent>,
        clock: &Arc<dyn Clock>,
        shutdown: &Shutdown,
    ) -> Self {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut writes = Vec::new();
        for (index, board) in boards.iter().enumerate() {
            let at = endpoints.iter().position(|endpoint| endpoint.address == board.link).unwrap_or_else(|| {
                let (sender, writes) = mpsc::channel(WRITES_MAX);
                endpoints.push(Endpoint { address: board.link.clone(), boards: Vec::new(), sender, writes });
                endpoints.len() - 1
            });
            if let Some(endpoint) = endpoints.get_mut(at) {
                endpoint.boards.push((index, Arc::clone(board)));
                writes.push(endpoint.sender.clone());
            }
        }
        for Endpoint { address, boards, writes, .. } in endpoints {
            let link = modbus_tcp::ModbusTcp::new(address, &boards, events.clone(), Arc::clone(clock));
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = link.run(writes) => {}
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

/// Boards that share a connection.
struct Endpoint {
    address: (String, u16),
    boards: Vec<(usize, Arc<Board>)>,
    sender: mpsc::Sender<Write>,
    writes: mpsc::Receiver<Write>,
}

/// Asks a board once for everything its profile polls, outside any running gateway: pairs of poll and data.
pub async fn read_once(board: &Board) -> Result<Vec<(usize, Vec<u8>)>, String> {
    modbus_tcp::read_once(board).await
}
