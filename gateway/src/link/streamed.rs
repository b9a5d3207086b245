//! A serial line whose devices speak frames of their own: one task listens, and says what the [`Dialogue`]s want said, one
//! question on the line at a time.

mod dialogue;

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::Clock;
use carebed_device_profiles::decoder::Decoded;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::dialogue::{Dialogue, Do};
use super::line::{Line, LineError};
use super::{Endpoint, LinkEvent, Write, told};
use crate::stamp::Sample;

/// Bytes taken off the line at once.
const CHUNK: usize = 1_024;

pub(super) struct Streamed {
    line: Line,
    /// Index in the home file, and the talk.
    devices: Vec<(usize, Dialogue)>,
    start: Instant,
    events: mpsc::Sender<LinkEvent>,
    clock: Arc<dyn Clock>,
}

/// Nobody takes events any more.
struct Over;

impl Streamed {
    pub(super) fn new(endpoint: &Endpoint, events: mpsc::Sender<LinkEvent>, clock: Arc<dyn Clock>) -> Self {
        let dialogue = |(index, board): &(usize, Arc<crate::home::Board>)| (*index, Dialogue::new(board));
        let devices = endpoint.boards.iter().map(dialogue).collect();
        Self { line: Line::new(endpoint.address.clone()), devices, start: Instant::now(), events, clock }
    }

    /// Listens and speaks until nobody takes events any more.
    pub(super) async fn run(mut self, mut writes: mpsc::Receiver<Write>) {
        while self.step(&mut writes).await.is_ok() {}
    }

    async fn step(&mut self, writes: &mut mpsc::Receiver<Write>) -> Result<(), Over> {
        self.open().await?;
        let mut bytes = [0; CHUNK];
        let due = if self.line.is_open() {
            let due = self.devices.iter().map(|(_, dialogue)| dialogue.due()).min();
            self.start + due.unwrap_or(Duration::from_secs(3_600))
        } else {
            self.line.reopens_at()
        };
        tokio::select! {
            biased;
            write = writes.recv() => {
                let write = write.ok_or(Over)?;
                let device = self.devices.iter_mut().find(|(index, _)| *index == write.board);
                if let Some((index, done)) = device.and_then(|(index, dialogue)| Some((*index, dialogue.write(write)?))) {
                    self.act(index, done).await?;
                }
            }
            read = self.line.read(&mut bytes) => match read {
                Ok(n_bytes) => self.heard(bytes.get(..n_bytes).unwrap_or_default()).await?,
                Err(error) => self.lost(&error).await?,
            },
            () = sleep_until(due) => self.heard(&[]).await?,
        }
        self.tick().await
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn open(&mut self) -> Result<(), Over> {
        match self.line.open().await {
            Ok(false) | Err(LineError::Waiting(_)) => {}
            Ok(true) => {
                let now = self.now();
                self.devices.iter_mut().for_each(|(_, dialogue)| dialogue.opened(now));
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "line not opened");
                self.lost(&error).await?;
            }
        }
        Ok(())
    }

    async fn lost(&mut self, error: &LineError) -> Result<(), Over> {
        let (now, why) = (self.now(), told(error));
        let lost: Vec<(usize, Vec<Do>)> =
            self.devices.iter_mut().map(|(index, dialogue)| (*index, dialogue.lost(now, &why))).collect();
        for (index, done) in lost {
            for done in done {
                self.act(index, done).await?;
            }
        }
        Ok(())
    }

    async fn heard(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let now = self.now();
        let heard: Vec<(usize, (Decoded, Vec<Do>))> =
            self.devices.iter_mut().map(|(index, dialogue)| (*index, dialogue.heard(bytes, now))).collect();
        let sample = Sample::take(&*self.clock);
        for (board, (decoded, done)) in heard {
            if !decoded.messages.is_empty() || decoded.available.is_some() || !decoded.rejects.is_empty() {
                self.tell(LinkEvent::Heard { board, sample, result: Ok(decoded) }).await?;
            }
            for done in done {
                self.act(board, done).await?;
            }
        }
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), Over> {
        if !self.line.is_open() {
            return Ok(());
        }
        let now = self.now();
        for at in 0..self.devices.len() {
            let others_wait = self.devices.iter().enumerate().any(|(other, (_, d))| other != at && d.is_waiting());
            let Some((index, dialogue)) = self.devices.get_mut(at) else { break };
            let (index, done) = (*index, dialogue.tick(now, !others_wait));
            for done in done {
                self.act(index, done).await?;
            }
        }
        Ok(())
    }

    async fn act(&mut self, board: usize, what: Do) -> Result<(), Over> {
        match what {
            Do::Say(bytes) => match self.line.send(&bytes).await {
                Ok(()) => Ok(()),
                Err(error) => Box::pin(self.lost(&error)).await,
            },
            Do::Silent(silence) => {
                let sample = Sample::take(&*self.clock);
                self.tell(LinkEvent::Heard { board, sample, result: Err(silence) }).await
            }
            Do::NotShown { board, output, why } => self.tell(LinkEvent::NotShown { board, output, why }).await,
            Do::Written { id, result } => {
                let sample = Sample::take(&*self.clock);
                self.tell(LinkEvent::Written { id, result, sample }).await
            }
        }
    }

    /// When nobody takes events, listening waits; the line's own buffer holds what comes meanwhile.
    async fn tell(&self, event: LinkEvent) -> Result<(), Over> {
        self.events.send(event).await.map_err(|_| Over)
    }
}
