//! What the devices of a home say at this moment, without the rest of the gateway.
//!
//! The links are those of the running gateway, so what is read here is read there.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_device_profiles::decoder::{Decoded, Decoder, Point};
use carebed_device_profiles::reject::Reject;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::{LinkEvent, Links, LocalBroker, Silence};
use crate::home::Board;

/// Events that may wait here; then the links wait.
const EVENTS_MAX: usize = 256;
/// So many failures in a row settle that a board which is asked does not answer.
const FAILURES_MAX: u32 = 2;

/// What one board said.
#[derive(Debug)]
pub struct Reading {
    /// The last value of each input, in the profile's order.
    pub points: Vec<Point>,
    /// What could not be used of what it said.
    pub rejects: Vec<Reject>,
    /// Whether everything was heard that there is to hear: each poll, and each wired input that has a state.
    pub is_whole: bool,
    /// Why not, as far as is known.
    pub failure: Option<String>,
}

struct Heard {
    board: Arc<Board>,
    decoder: Decoder,
    answered: Vec<bool>,
    is_settled: bool,
    reading: Reading,
}

impl Heard {
    fn new(board: &Arc<Board>) -> Self {
        let reading = Reading { points: Vec::new(), rejects: Vec::new(), is_whole: false, failure: None };
        Self {
            decoder: Decoder::at(Arc::clone(&board.profile), board.address.as_deref()),
            answered: vec![false; board.profile.polls.len()],
            is_settled: false,
            reading,
            board: Arc::clone(board),
        }
    }

    fn said(&mut self, decoded: Decoded) {
        self.reading.failure = None;
        self.reading.rejects.extend(decoded.rejects);
        for point in decoded.points {
            self.reading.points.retain(|known| known.input != point.input);
            self.reading.points.push(point);
        }
        self.reading.points.sort_by_key(|point| point.input);
        let is_told = |input: usize| self.reading.points.iter().any(|point| point.input == input);
        let mut wired = self.board.inputs.iter().map(|wired| wired.input).filter(|input| {
            // An event may not come for hours.
            self.board.profile.inputs.get(*input).is_some_and(|input| !input.policy.event)
        });
        self.reading.is_whole = self.answered.iter().all(|answered| *answered) && wired.all(is_told);
        self.is_settled = self.reading.is_whole;
    }

    fn failed(&mut self, silence: Silence) {
        // Devices that speak by themselves may still do so.
        self.is_settled |= silence.cycles >= FAILURES_MAX && !self.answered.is_empty();
        self.reading.failure = Some(silence.why);
    }
}

/// Asks and listens until everything was heard, or for so long (wire time). One reading for each board, in their order.
pub async fn read(
    boards: &[Arc<Board>],
    broker: &LocalBroker,
    clock: &Arc<dyn Clock>,
    patience: Duration,
) -> Vec<Reading> {
    let (sender, mut events) = mpsc::channel(EVENTS_MAX);
    let stop = Shutdown::new();
    let _links = Links::start(boards, broker, &sender, clock, &stop);
    drop(sender);
    let mut all: Vec<Heard> = boards.iter().map(Heard::new).collect();
    let deadline = Instant::now() + patience;
    while !all.iter().all(|heard| heard.is_settled) {
        let Ok(Some(event)) = timeout_at(deadline, events.recv()).await else { break };
        match event {
            LinkEvent::Polled { board, poll, result, .. } => {
                let Some(heard) = all.get_mut(board) else { continue };
                match result {
                    Ok(data) => {
                        heard.answered.iter_mut().skip(poll).take(1).for_each(|answered| *answered = true);
                        let decoded = heard.decoder.answer(poll, &data);
                        heard.said(decoded);
                    }
                    Err(silence) => heard.failed(silence),
                }
            }
            LinkEvent::Heard { board, result, .. } => {
                let Some(heard) = all.get_mut(board) else { continue };
                match result {
                    Ok(decoded) => heard.said(decoded),
                    Err(silence) => heard.failed(silence),
                }
            }
            LinkEvent::Written { .. } | LinkEvent::NotShown { .. } | LinkEvent::Trouble(_) => {}
        }
    }
    stop.cancel();
    all.into_iter().map(|heard| heard.reading).collect()
}
