//! Modbus TCP: one connection, used by one task.
//!
//! tokio-modbus matches transaction and unit of every answer, but only asserts its length; so the answer is taken as it
//! came and must have exactly the asked count. After a timeout or anything that is no answer the connection is dropped: a
//! late answer dies with it.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::Clock;
use carebed_device_profiles::modbus::{Function, Reject, Request};
use rand::RngExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_modbus::client::{Client as _, Context, tcp};
use tokio_modbus::prelude::{Slave, SlaveContext as _};

use super::schedule::{Schedule, Slot};
use super::{LinkEvent, Silence, Write};
use crate::home::Board;
use crate::stamp::Sample;

/// How long connecting may take: a host in the same home answers within milliseconds or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause after a connection failed, and the longest.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A board is treated as silent in the schedule after this many failed polls.
const SILENT_CYCLES: u32 = 2;

pub(super) struct ModbusTcp {
    address: (String, u16),
    boards: Vec<Target>,
    schedule: Schedule,
    connection: Option<Context>,
    /// Not before this moment a new connection is tried, and the pause that led to it.
    reconnect: (Instant, Duration),
    start: Instant,
    events: mpsc::Sender<LinkEvent>,
    clock: Arc<dyn Clock>,
}

struct Target {
    /// Index in the home file.
    index: usize,
    board: Arc<Board>,
    failed: Option<(u32, Instant)>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    #[error("waiting before the next attempt to connect")]
    Waiting,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection broke")]
    Broken(#[source] tokio_modbus::Error),
    #[error(transparent)]
    Rejected(#[from] Reject),
}

impl ModbusTcp {
    pub(super) fn new(
        address: (String, u16),
        boards: &[(usize, Arc<Board>)],
        events: mpsc::Sender<LinkEvent>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let mut schedule = Schedule::default();
        for (at, (_, board)) in boards.iter().enumerate() {
            for (poll, group) in board.profile.polls.iter().enumerate() {
                schedule.add(at, poll, board.every.unwrap_or(group.every));
            }
        }
        let target =
            |(index, board): &(usize, Arc<Board>)| Target { index: *index, board: Arc::clone(board), failed: None };
        let boards = boards.iter().map(target).collect();
        let start = Instant::now();
        let reconnect = (start, RECONNECT.0);
        Self { address, boards, schedule, connection: None, reconnect, start, events, clock }
    }

    /// Polls and writes until nobody listens any more.
    pub(super) async fn run(mut self, mut writes: mpsc::Receiver<Write>) {
        loop {
            let next = self.schedule.next();
            let due =
                next.map_or_else(|| self.start + Duration::from_secs(u64::from(u32::MAX)), |(_, due)| self.start + due);
            let event = tokio::select! {
                // A command goes before polls: a lamp is waited for.
                biased;
                write = writes.recv() => match write {
                    Some(write) => self.write(write).await,
                    None => return,
                },
                () = sleep_until(due) => match next {
                    Some((slot, _)) => self.poll(slot).await,
                    None => None,
                },
            };
            if let Some(event) = event {
                // When nobody takes events, polling waits: samples keep the time at which they were taken.
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn poll(&mut self, slot: Slot) -> Option<LinkEvent> {
        let board = Arc::clone(&self.boards.get(slot.board)?.board);
        let request = board.profile.polls.get(slot.poll)?.request();
        let answer = self.ask(&board, request).await;
        let now = Instant::now();
        let target = self.boards.get_mut(slot.board)?;
        let result = match answer {
            Ok(data) => {
                target.failed = None;
                Ok(data)
            }
            Err(error) => {
                let (cycles, since) = target.failed.map_or((0, now), |failed| failed);
                target.failed = Some((cycles.saturating_add(1), since));
                if cycles == 0 {
                    tracing::debug!(device = %board.id, error = &error as &dyn std::error::Error, "poll failed");
                }
                Err(Silence { cycles: cycles.saturating_add(1), lasted: now - since })
            }
        };
        let silent = target.failed.is_some_and(|(cycles, _)| cycles >= SILENT_CYCLES);
        let board = target.index;
        self.schedule.done(slot, now - self.start, silent);
        Some(LinkEvent::Polled { board, poll: slot.poll, sample: Sample::take(&*self.clock), result })
    }

    async fn write(&mut self, write: Write) -> Option<LinkEvent> {
        let Write { id, board, coil, value } = write;
        let target = self.boards.iter().find(|target| target.index == board)?;
        let board = Arc::clone(&target.board);
        // Whoever waits for a lamp does not wait for the pause between two attempts.
        self.reconnect.0 = Instant::now();
        let answer = self.ask(&board, Request::WriteCoil { address: coil, value }).await;
        let result = answer.map(drop).map_err(|error| error.to_string());
        Some(LinkEvent::Written { id, result, sample: Sample::take(&*self.clock) })
    }

    async fn ask(&mut self, board: &Board, request: Request) -> Result<Vec<u8>, NoAnswer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let answer = exchange(&mut connection, board, request).await;
        if matches!(answer, Ok(_) | Err(NoAnswer::Rejected(Reject::Exception(_)))) {
            self.connection = Some(connection);
            self.reconnect.1 = RECONNECT.0;
        }
        answer
    }

    async fn connect(&mut self) -> Result<Context, NoAnswer> {
        if Instant::now() < self.reconnect.0 {
            return Err(NoAnswer::Waiting);
        }
        let connected = connect(&self.address).await;
        // Also after a success: a connection that is accepted and dropped at once must not be tried without pause.
        let pause = rand::rng().random_range(RECONNECT.0..=(self.reconnect.1 * 3).min(RECONNECT.1));
        self.reconnect = (Instant::now() + pause, pause);
        connected
    }
}

async fn connect((host, port): &(String, u16)) -> Result<Context, NoAnswer> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = match timeout(CONNECT_TIMEOUT, TcpStream::connect((host, *port))).await {
        Ok(stream) => stream.map_err(NoAnswer::Connect)?,
        Err(_) => return Err(NoAnswer::Timeout(CONNECT_TIMEOUT)),
    };
    stream.set_nodelay(true).map_err(NoAnswer::Connect)?;
    Ok(tcp::attach(stream))
}

async fn exchange(connection: &mut Context, board: &Board, request: Request) -> Result<Vec<u8>, NoAnswer> {
    use tokio_modbus::{Request as Wire, Response};
    connection.set_slave(Slave(board.unit));
    let wire = match request {
        Request::Read { function, address, count } => match function {
            Function::ReadCoils => Wire::ReadCoils(address, count),
            Function::ReadDiscreteInputs => Wire::ReadDiscreteInputs(address, count),
            Function::ReadHoldingRegisters => Wire::ReadHoldingRegisters(address, count),
            Function::ReadInputRegisters => Wire::ReadInputRegisters(address, count),
        },
        Request::WriteCoil { address, value } => Wire::WriteSingleCoil(address, value),
        Request::WriteRegister { address, value } => Wire::WriteSingleRegister(address, value),
    };
    let limit = board.profile.link.timeout;
    let response = match timeout(limit, connection.call(wire)).await {
        Err(_) => return Err(NoAnswer::Timeout(limit)),
        Ok(Err(error)) => return Err(NoAnswer::Broken(error)),
        Ok(Ok(Err(exception))) => return Err(Reject::Exception(exception.into()).into()),
        Ok(Ok(Ok(response))) => response,
    };
    // Back to the bytes as they stood on the wire, so that there is one judge of answers for all links.
    let (code, data): (u8, Vec<u8>) = match response {
        Response::ReadCoils(bits) => (1, pack(&bits)),
        Response::ReadDiscreteInputs(bits) => (2, pack(&bits)),
        Response::ReadHoldingRegisters(words) => (3, words.into_iter().flat_map(u16::to_be_bytes).collect()),
        Response::ReadInputRegisters(words) => (4, words.into_iter().flat_map(u16::to_be_bytes).collect()),
        Response::WriteSingleCoil(address, value) => {
            let pdu = Request::WriteCoil { address, value }.pdu();
            return Ok(request.answer(&pdu)?.to_vec());
        }
        Response::WriteSingleRegister(address, value) => {
            let pdu = Request::WriteRegister { address, value }.pdu();
            return Ok(request.answer(&pdu)?.to_vec());
        }
        other => return Err(Reject::Function { asked: 0, answered: other.function_code().value() }.into()),
    };
    let length = u8::try_from(data.len()).map_err(|_| Reject::Length { expected: 0, found: data.len() })?;
    let pdu: Vec<u8> = [code, length].into_iter().chain(data).collect();
    Ok(request.answer(&pdu)?.to_vec())
}

fn pack(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |packed, bit| packed << 1 | u8::from(*bit))).collect()
}

pub(super) async fn read_once(board: &Board) -> Result<Vec<(usize, Vec<u8>)>, String> {
    let told = |error: NoAnswer| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let mut connection = connect(&board.link).await.map_err(told)?;
    let mut answers = Vec::new();
    for (index, poll) in board.profile.polls.iter().enumerate() {
        answers.push((index, exchange(&mut connection, board, poll.request()).await.map_err(told)?));
    }
    Ok(answers)
}
