//! A link whose devices are polled by Modbus: one task asks by schedule, one question at a time.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::Clock;
use carebed_device_profiles::modbus::{Reject, Request};
use carebed_device_profiles::profile::Send;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::address::Address;
use super::blocks::{self, Block};
use super::line::LineError;
use super::modbus_rtu::ModbusRtu;
use super::modbus_tcp::ModbusTcp;
use super::rtu::{Ask, Failure};
use super::schedule::{Came, Schedule, Slot};
use super::tally::Tally;
use super::{Endpoint, LinkEvent, NotConfirmed, Silence, Write, told};
use crate::home::Board;
use crate::stamp::Sample;

/// An answer that only repeats the one before it says that the device is there: that is told once in this time. A button
/// polled every 20 ms then wakes the rest of the gateway when it is pressed, not fifty times a second. Product time.
const SAME_EVERY: Duration = Duration::from_secs(1);
/// After a write that came to nothing, what the gateway shows by itself (a lamp that blinks) waits so long, up to the longer
/// pause: a dead lamp must not take the line from those who live. Commands of the centre do not wait.
const SHOW_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("the line does not fall silent")]
    Busy,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection broke")]
    Broken(#[source] tokio_modbus::Error),
    #[error(transparent)]
    Rejected(#[from] Reject),
    #[error(transparent)]
    Failed(Failure),
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Rejected(reject) => Self::Rejected(reject),
            failure => Self::Failed(failure),
        }
    }
}

/// What carries questions and answers.
pub(super) enum Wire {
    Tcp(ModbusTcp),
    Rtu(Box<ModbusRtu>),
}

impl Wire {
    pub(super) fn new(address: &Address, echo: Option<bool>, start: Instant) -> Option<Self> {
        match address {
            Address::ModbusTcp(host) => Some(Self::Tcp(ModbusTcp::new(host.clone()))),
            Address::Serial { line, .. } | Address::SerialServer { line, .. } => {
                Some(Self::Rtu(Box::new(ModbusRtu::new(address.clone(), *line, echo, start))))
            }
            Address::Http(_) | Address::Broker => None,
        }
    }

    pub(super) async fn ask(&mut self, ask: Ask, wake: Option<&(Vec<u8>, Duration)>) -> Result<Vec<u8>, NoAnswer> {
        match self {
            Self::Tcp(tcp) => tcp.ask(ask).await,
            Self::Rtu(rtu) => rtu.ask(ask, wake).await,
        }
    }

    /// Opens what is closed, so that the time it takes is not held against the device that is asked.
    async fn open(&mut self) -> Result<(), NoAnswer> {
        match self {
            Self::Tcp(tcp) => tcp.open().await,
            Self::Rtu(rtu) => rtu.open().await,
        }
    }

    /// Listens while nothing is asked.
    async fn idle(&mut self) {
        match self {
            Self::Tcp(_) => std::future::pending().await,
            Self::Rtu(rtu) => rtu.idle().await,
        }
    }

    pub(super) fn ready_at(&self, unit: u8, request: Request) -> Duration {
        match self {
            Self::Tcp(_) => Duration::ZERO,
            Self::Rtu(rtu) => rtu.ready_at(unit, request),
        }
    }

    pub(super) fn open_at_once(&mut self) {
        match self {
            Self::Tcp(tcp) => tcp.open_at_once(),
            Self::Rtu(rtu) => rtu.open_at_once(),
        }
    }

    /// How many bytes came that no request waited for.
    fn drained(&self) -> u64 {
        match self {
            Self::Tcp(_) => 0,
            Self::Rtu(rtu) => rtu.drained(),
        }
    }
}

pub(super) struct Polled {
    wire: Wire,
    targets: Vec<Target>,
    schedule: Schedule,
    start: Instant,
    /// Of the line's drained bytes, those that were told.
    drained: u64,
    events: mpsc::Sender<LinkEvent>,
    clock: Arc<dyn Clock>,
}

struct Target {
    /// Index in the home file.
    index: usize,
    board: Arc<Board>,
    blocks: Vec<Block>,
    /// The last answer of each block that was told, and when; none after a failure.
    last: Vec<Option<(Vec<u8>, Duration)>>,
    tally: Tally,
    /// How many of the profile's start-up steps were done since it was last silent.
    steps_done: usize,
    /// When something may be shown on it again, and the pause after the next failure.
    shows_at: Duration,
    pause: Duration,
}

impl Target {
    fn new(index: usize, board: Arc<Board>, blocks: Vec<Block>) -> Self {
        let last = vec![None; blocks.len()];
        let (tally, steps_done) = (Tally::default(), 0);
        Self { index, board, blocks, last, tally, steps_done, shows_at: Duration::ZERO, pause: SHOW_AGAIN.0 }
    }

    /// Whether an answer says no more than the one that was told, and that one is young. What is not polled more often than
    /// twice in [`SAME_EVERY`] is always told.
    fn repeats(&mut self, block: usize, data: Option<&[u8]>, now: Duration) -> bool {
        let (Some(every), Some(last)) = (self.blocks.get(block).map(|block| block.every), self.last.get_mut(block))
        else {
            return false;
        };
        let same = last.as_ref().is_some_and(|(told, at)| {
            Some(told.as_slice()) == data && 2 * every <= SAME_EVERY && now < *at + SAME_EVERY.saturating_sub(every)
        });
        if !same {
            *last = data.map(|data| (data.to_vec(), now));
        }
        same
    }

    /// The next start-up step.
    fn step(&self) -> Option<Request> {
        let mut steps = self.board.profile.startup.iter().filter_map(|step| match &step.send {
            Some(Send::Modbus(request)) => Some(*request),
            _ => None,
        });
        steps.nth(self.steps_done)
    }

    fn ask(&self, request: Request) -> Ask {
        Ask { unit: self.board.unit, request, timeout: self.board.timeout() }
    }
}

impl Polled {
    /// None for an address that carries no Modbus.
    pub(super) fn new(endpoint: &Endpoint, events: mpsc::Sender<LinkEvent>, clock: Arc<dyn Clock>) -> Option<Self> {
        let start = Instant::now();
        let echo = endpoint.boards.iter().find_map(|(_, board)| board.echo);
        let wire = Wire::new(&endpoint.address, echo, start)?;
        let mut schedule = Schedule::default();
        let mut targets = Vec::new();
        for (index, board) in &endpoint.boards {
            let blocks = blocks::plan(&board.profile.polls, board.every, true);
            let device = schedule.add_device(board.timeout());
            schedule.plan(device, blocks.iter().map(|block| block.every), Duration::ZERO);
            targets.push(Target::new(*index, Arc::clone(board), blocks));
        }
        Some(Self { wire, targets, schedule, start, drained: 0, events, clock })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Polls and writes until nobody listens any more.
    pub(super) async fn run(mut self, mut writes: mpsc::Receiver<Write>) {
        loop {
            let next = self.next();
            let due = next.map_or(Duration::from_secs(u64::from(u32::MAX)), |(_, due)| due);
            let due = self.start + due;
            let events = tokio::select! {
                // A command goes before polls: a lamp is waited for.
                biased;
                write = writes.recv() => match write {
                    Some(write) => self.write(write).await.into_iter().collect(),
                    None => return,
                },
                () = sleep_until(due) => match next {
                    Some((slot, _)) => self.poll(slot).await,
                    None => Vec::new(),
                },
                () = self.wire.idle() => Vec::new(),
            };
            for event in events {
                // When nobody takes events, polling waits: samples keep the time at which they were taken.
                if self.events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    fn next(&self) -> Option<(Slot, Duration)> {
        let ready = |slot: Slot| {
            let target = self.targets.get(slot.device);
            let block = target.and_then(|target| target.blocks.get(slot.block));
            let ready = target.zip(block).map(|(target, block)| self.wire.ready_at(target.board.unit, block.request()));
            ready.unwrap_or_default()
        };
        self.schedule.next(self.now(), ready)
    }

    async fn poll(&mut self, slot: Slot) -> Vec<LinkEvent> {
        let Some(target) = self.targets.get(slot.device) else { return Vec::new() };
        let Some(block) = target.blocks.get(slot.block).cloned() else { return Vec::new() };
        let (index, board, ask) = (target.index, Arc::clone(&target.board), target.ask(block.request()));
        let opened = self.wire.open().await;
        let began = self.now();
        let mut answer = match opened {
            Ok(()) => self.wire.ask(ask, board.profile.link.wake.as_ref()).await,
            Err(error) => Err(error),
        };
        let mut tally = Tally::default();
        tally.count(&answer);
        for _ in 0..board.retries {
            if matches!(answer, Err(NoAnswer::Failed(Failure::Damaged(_)))) {
                answer = self.wire.ask(ask, board.profile.link.wake.as_ref()).await;
                tally.count(&answer);
            }
        }
        let now = self.now();
        let refuses = match &answer {
            Err(NoAnswer::Rejected(Reject::Exception(code))) if block.is_joined() => Some(*code),
            _ => None,
        };
        let came = match &answer {
            Err(NoAnswer::Rejected(Reject::Exception(_))) if refuses.is_none() => Came::Refusal,
            Err(_) if refuses.is_none() => Came::Nothing,
            _ => Came::Answer,
        };
        let failed = self.schedule.done(slot, began, now, came, board.profile.link.gap);
        if matches!(came, Came::Answer) {
            self.set_up(slot.device).await;
        } else if failed.as_ref().is_some_and(|failed| failed.cycles >= 2)
            && let Some(target) = self.targets.get_mut(slot.device)
        {
            // Perhaps it was replaced, or lost its power.
            target.steps_done = 0;
        }
        if let Some(code) = refuses {
            tracing::info!(device = %board.id, code, "it refuses blocks; asking poll by poll");
            self.replan(slot.device);
        }
        let drained = self.wire.drained();
        tally.drained = drained - std::mem::replace(&mut self.drained, drained);
        let Some(target) = self.targets.get_mut(slot.device) else { return Vec::new() };
        target.tally += tally;
        let sample = Sample::take(&*self.clock);
        if refuses.is_some() || target.repeats(slot.block, answer.as_deref().ok(), sample.monotonic) {
            return Vec::new();
        }
        let mut tally = std::mem::take(&mut target.tally);
        let is_given_up = self.schedule.is_given_up(slot.device);
        let mut polled = |poll, result| {
            let tally = std::mem::take(&mut tally);
            LinkEvent::Polled { board: index, poll, sample, result, tally, is_given_up }
        };
        match answer {
            Ok(data) => block.split(&data).into_iter().map(|(poll, data)| polled(poll, Ok(data))).collect(),
            Err(error) => {
                let (cycles, since) = failed.map_or((0, now), |failed| (failed.cycles, failed.since));
                let silence = Silence { cycles, lasted: now.saturating_sub(since), why: told(&error) };
                if silence.cycles <= 1 {
                    tracing::debug!(device = %board.id, error = silence.why, "poll failed");
                }
                block.polls().map(|poll| polled(poll, Err(silence.clone()))).collect()
            }
        }
    }

    /// Does the next of the profile's start-up steps on a device that has just answered: one at a time, so that others wait for
    /// one exchange only. What it refuses is told and left; what is not answered is tried again after its next answer.
    async fn set_up(&mut self, device: usize) {
        let Some(target) = self.targets.get(device) else { return };
        let Some(step) = target.step() else { return };
        let (ask, board) = (target.ask(step), Arc::clone(&target.board));
        let done = match self.wire.ask(ask, board.profile.link.wake.as_ref()).await {
            Ok(_) => true,
            Err(NoAnswer::Rejected(Reject::Exception(code))) => {
                tracing::warn!(device = %board.id, ?step, code, "it refuses a step of its start-up; going on without");
                true
            }
            Err(error) => {
                tracing::debug!(device = %board.id, error = told(&error), "a step of the start-up was not answered");
                false
            }
        };
        if let Some(target) = self.targets.get_mut(device) {
            target.steps_done += usize::from(done);
        }
    }

    fn replan(&mut self, device: usize) {
        let now = self.now();
        if let Some(target) = self.targets.get_mut(device) {
            target.blocks = blocks::plan(&target.board.profile.polls, target.board.every, false);
            target.last = vec![None; target.blocks.len()];
            self.schedule.plan(device, target.blocks.iter().map(|block| block.every), now);
        }
    }

    async fn write(&mut self, write: Write) -> Option<LinkEvent> {
        let Write { id, board, output, value, .. } = write;
        let now = self.now();
        let target = self.targets.iter_mut().find(|target| target.index == board)?;
        let send = target.board.profile.outputs.get(output).and_then(|output| output.send(value));
        let result = match send {
            _ if id.is_empty() && now < target.shows_at => {
                Err(NotConfirmed::Failed("it did not answer the last time".to_owned()))
            }
            Some(Send::Modbus(request)) => {
                let (ask, wake) = (target.ask(*request), target.board.profile.link.wake.clone());
                // Whoever waits for a lamp does not wait for the pause between two attempts.
                self.wire.open_at_once();
                let answer = self.wire.ask(ask, wake.as_ref()).await;
                let now = self.start.elapsed();
                (target.shows_at, target.pause) = match answer {
                    Ok(_) => (Duration::ZERO, SHOW_AGAIN.0),
                    Err(_) => (now + target.pause, (2 * target.pause).min(SHOW_AGAIN.1)),
                };
                answer.map(drop).map_err(|error| match error {
                    NoAnswer::Failed(Failure::Unconfirmed) => NotConfirmed::Sent(told(&error)),
                    error => NotConfirmed::Failed(told(&error)),
                })
            }
            Some(_) => Err(NotConfirmed::Failed("the output is not reached over Modbus".to_owned())),
            None => Err(NotConfirmed::Failed("the output cannot be set so".to_owned())),
        };
        Some(match result {
            Err(why) if id.is_empty() => LinkEvent::NotShown { board, output, why },
            result => LinkEvent::Written { id, result, sample: Sample::take(&*self.clock) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::HomeFile;

    #[test]
    fn an_answer_that_only_repeats_the_last_is_told_once_a_second() {
        let home = HomeFile::parse("home.toml", include_str!("../../../deploy/gateway/home.toml")).unwrap();
        let target = |every: u64| {
            let board = Arc::new(home.boards[0].clone());
            let blocks = blocks::plan(&board.profile.polls, Some(Duration::from_millis(every)), true);
            Target::new(0, board, blocks)
        };
        // Milliseconds, the answer, whether it is held back.
        let steps: [(u64, Option<&[u8]>, bool); 11] = [
            (0, Some(&[0]), false),
            (20, Some(&[0]), true),
            (40, Some(&[1]), false),
            (60, Some(&[1]), true),
            (80, Some(&[0]), false),
            (100, None, false),
            (120, Some(&[0]), false), // after a failure the same is news
            (140, Some(&[0]), true),
            (1_080, Some(&[0]), true),
            (1_100, Some(&[0]), false),
            (1_120, Some(&[0]), true),
        ];
        let mut quick = target(20);
        for (at, data, held_back) in steps {
            assert_eq!(quick.repeats(0, data, Duration::from_millis(at)), held_back, "at {at} ms");
        }
        let mut slow = target(600);
        assert!((0..5).all(|n| !slow.repeats(0, Some(&[0]), Duration::from_millis(600 * n))), "seldom enough");
    }
}
