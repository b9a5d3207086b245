//! Events on their way out. Ingest never waits for who hears them: while some wait here, it takes no more of their lane.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::Error;
use crate::event::Event;

/// Holds what one round of taking in brings, and sends it in order.
#[derive(Debug)]
pub(super) struct Feed {
    waiting: VecDeque<Event>,
    to: mpsc::Sender<Event>,
}

impl Feed {
    pub(super) fn new(to: mpsc::Sender<Event>) -> Self {
        Self { waiting: VecDeque::new(), to }
    }

    pub(super) fn extend(&mut self, events: Vec<Event>) {
        self.waiting.extend(events);
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Sends what can be sent at once, after waiting for room for the first; never ends while nothing waits. May be
    /// dropped at any time.
    pub(super) async fn send(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return std::future::pending().await;
        }
        let mut room = self.to.reserve().await.map_err(|_| Error::EventsClosed)?;
        while let Some(event) = self.waiting.pop_front() {
            room.send(event);
            match self.to.try_reserve() {
                Ok(more) => room = more,
                Err(mpsc::error::TrySendError::Full(())) => return Ok(()),
                Err(mpsc::error::TrySendError::Closed(())) => return Err(Error::EventsClosed),
            }
        }
        Ok(())
    }

    pub(super) async fn send_all(&mut self) -> Result<(), Error> {
        while !self.waiting.is_empty() {
            self.send().await?;
        }
        Ok(())
    }
}
