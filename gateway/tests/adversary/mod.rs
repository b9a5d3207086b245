//! A bus that does everything a bus may do to a master, with valid checksums, and a check that no value is wrong.
//!
//! Every register block has one content, made from unit, function, address and count, so that an answer that was meant for
//! another question is recognised. What is thrown in: answers that come late (up to the end of the quarantine), echoes,
//! frames of other units and masters, whole answers of ours inside other units' data, damaged and cut answers, noise, and
//! everything cut into pieces at any byte.

use std::collections::VecDeque;
use std::time::Duration;

use carebed_device_profiles::modbus::{Function, Request, rtu_frame};
use carebed_gateway::link::rtu::{Ask, Failure, Timing, Transactions};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const TIMEOUT: Duration = Duration::from_millis(200);

/// What became of the transactions of one run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Answered with the right value.
    pub(crate) right: u64,
    /// Answered with a value of something else: must stay 0.
    pub(crate) wrong: u64,
    /// Nothing came.
    pub(crate) timeouts: u64,
    /// Something came that was not the answer.
    pub(crate) damaged: u64,
    /// Exceptions, other masters, unconfirmed writes.
    pub(crate) refused: u64,
}

impl Tally {
    /// All transactions.
    pub(crate) fn total(&self) -> u64 {
        self.right + self.wrong + self.timeouts + self.damaged + self.refused
    }
}

/// The bus, the master, and bytes that are still on their way.
pub(crate) struct Trial {
    chance: StdRng,
    transactions: Transactions,
    timing: Timing,
    echoes: bool,
    now: Duration,
    /// Frames to come in their order, whether they may pause, and the pieces of the one that has begun: one after the other,
    /// as on a wire.
    coming: Vec<(Duration, Vec<u8>, bool)>,
    pieces: VecDeque<(Duration, Vec<u8>)>,
    free_at: Duration,
    /// The outcome of the transactions so far.
    pub(crate) tally: Tally,
}

fn content(unit: u8, request: Request) -> Vec<u8> {
    let Request::Read { function, address, count } = request else { return Vec::new() };
    let key = u64::from(unit) << 40 | u64::from(function.code()) << 32 | u64::from(address) << 16 | u64::from(count);
    let byte = |at: usize| {
        let mixed = (key + at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> 32 ^ mixed >> 51) as u8
    };
    (0..function.answer_length(count)).map(byte).collect()
}

fn answer(unit: u8, request: Request) -> Vec<u8> {
    let data = content(unit, request);
    match request {
        Request::Read { function, .. } => {
            let head = [function.code(), u8::try_from(data.len()).expect("at most 250 bytes")];
            rtu_frame(unit, &[&head[..], &data].concat())
        }
        _ => rtu_frame(unit, &request.pdu()),
    }
}

impl Trial {
    /// A run that the seed alone decides.
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let echoes = chance.random_bool(0.3);
        let timing = Timing::new(9_600, 10);
        let said = chance.random_bool(0.5).then_some(echoes);
        Self {
            transactions: Transactions::new(timing, said),
            timing,
            echoes,
            chance,
            now: Duration::ZERO,
            coming: Vec::new(),
            pieces: VecDeque::new(),
            free_at: Duration::ZERO,
            tally: Tally::default(),
        }
    }

    /// One of few questions, so that many answers have the same shape: unit, function and length.
    fn question(&mut self) -> (u8, Request) {
        let unit = self.chance.random_range(1..=3);
        let address = self.chance.random_range(0..6_u16) * 0x0100 + self.chance.random_range(0..2);
        let request = match self.chance.random_range(0..10) {
            0 => Request::WriteCoil { address, value: self.chance.random() },
            1 => Request::WriteRegister { address, value: self.chance.random_range(0..3) },
            2..=3 => Request::Read { function: Function::ReadDiscreteInputs, address, count: 8 },
            4 => Request::Read { function: Function::ReadCoils, address, count: 24 },
            5 => Request::Read { function: Function::ReadInputRegisters, address, count: 10 },
            _ => Request::Read { function: Function::ReadHoldingRegisters, address, count: 2 },
        };
        (unit, request)
    }

    /// A frame that wants the line at a time; it gets it when the line is free.
    fn put(&mut self, at: Duration, frame: &[u8], may_pause: bool) {
        self.coming.push((at, frame.to_vec(), may_pause));
        self.coming.sort_by_key(|(at, ..)| *at);
    }

    /// When the next bytes come, if they come until then. A frame is cut into pieces that follow each other closely. A
    /// pause longer than the silence ends a foreign frame by the standard; so only our own answers meet such pauses.
    fn next_bytes(&mut self, until: Duration) -> Option<(Duration, Vec<u8>)> {
        if self.pieces.is_empty() && self.coming.first().is_some_and(|(at, ..)| (*at).max(self.free_at) <= until) {
            let (at, frame, may_pause) = self.coming.remove(0);
            let (mut at, mut rest) = (at.max(self.free_at), &frame[..]);
            while !rest.is_empty() {
                let cut =
                    if self.chance.random_bool(0.5) { rest.len() } else { self.chance.random_range(1..=rest.len()) };
                let (piece, after) = rest.split_at(cut);
                self.pieces.push_back((at, piece.to_vec()));
                rest = after;
                let long = may_pause && self.chance.random_bool(0.1);
                let pause = if long { self.timing.silence * 2 } else { self.timing.pause };
                at += self.chance.random_range(Duration::ZERO..pause);
            }
            self.free_at = at;
        }
        self.pieces.pop_front_if(|(at, _)| *at <= until)
    }

    /// What the bus makes of a request that is sent now and given up at `deadline`.
    fn respond(&mut self, unit: u8, request: Request, sent: &[u8], deadline: Duration) {
        let right = answer(unit, request);
        let mut at = self.now + Duration::from_millis(2);
        if self.echoes {
            self.put(at, sent, false);
            at += Duration::from_millis(10);
        }
        let (other_unit, other) = self.question();
        match self.chance.random_range(0..16) {
            0..=4 => self.put(at, &right, true),
            // Late: after it was given up, within the quarantine.
            5..=7 => {
                let late = deadline + self.timing.quarantine.mul_f64(self.chance.random_range(0.001..0.95));
                self.put(late, &right, false);
            }
            8 => {}
            // Somebody else says something first, perhaps with our answer inside of it.
            9 => {
                self.put(at, &answer(other_unit + 10, other), false);
                self.put(at + Duration::from_millis(8), &right, true);
            }
            10 => {
                let mut head = vec![0x03, 0];
                head.extend_from_slice(&right);
                if head.len() % 2 == 1 {
                    head.push(0);
                }
                head[1] = u8::try_from(head.len() - 2).expect("short");
                self.put(at, &rtu_frame(unit + 20, &head), false);
            }
            // Another master asks the same unit something of the same shape.
            11 => {
                self.put(at, &rtu_frame(unit, &other.pdu()), false);
                self.put(at + Duration::from_millis(8), &answer(unit, other), false);
            }
            // Damaged, cut, too long.
            12 => {
                let mut damaged = right.clone();
                let at_byte = self.chance.random_range(0..damaged.len());
                damaged[at_byte] ^= 1 << self.chance.random_range(0..8);
                self.put(at, &damaged, true);
            }
            13 => {
                let cut = self.chance.random_range(1..right.len());
                self.put(at, &right[..cut], true);
            }
            14 => self.put(at, &rtu_frame(unit, &[request.pdu()[0] | 0x80, 6]), true),
            _ => {
                let noise: Vec<u8> = (0..self.chance.random_range(1..30)).map(|_| self.chance.random()).collect();
                self.put(at, &noise, false);
                self.put(at + Duration::from_millis(8), &right, true);
            }
        }
    }

    /// One transaction; mostly the same again after a failure, as the schedule does, sometimes another.
    pub(crate) fn step(&mut self) {
        let (unit, request) = self.question();
        self.ask(unit, request);
        while self.chance.random_bool(0.3) {
            self.ask(unit, request);
        }
    }

    fn ask(&mut self, unit: u8, request: Request) {
        let sent = loop {
            let ready = self.transactions.ready_at(unit, request, self.now).max(self.now);
            match self.next_bytes(ready) {
                Some((at, bytes)) => {
                    self.now = self.now.max(at);
                    assert!(self.transactions.received(&bytes, self.now).is_none(), "an answer that nobody asked for");
                }
                _ => {
                    self.now = ready;
                    if let Some(sent) = self.transactions.begin(Ask { unit, request, timeout: TIMEOUT }, self.now) {
                        break sent;
                    }
                }
            }
        };
        let deadline = self.transactions.due().expect("a transaction runs");
        self.respond(unit, request, &sent, deadline);
        let outcome = loop {
            let due = self.transactions.due().expect("a transaction runs");
            assert!(due <= deadline && self.now <= deadline, "a transaction that is not given up in time");
            let outcome = match self.next_bytes(due) {
                Some((at, bytes)) => {
                    self.now = self.now.max(at);
                    self.transactions.received(&bytes, self.now)
                }
                _ => {
                    self.now = self.now.max(due);
                    self.transactions.tick(self.now)
                }
            };
            if let Some(outcome) = outcome {
                break outcome;
            }
        };
        match outcome {
            Ok(data) if data == content(unit, request) => self.tally.right += 1,
            Ok(_) => self.tally.wrong += 1,
            Err(Failure::Timeout(_)) => self.tally.timeouts += 1,
            Err(Failure::Damaged(_)) => self.tally.damaged += 1,
            Err(Failure::Rejected(_) | Failure::OtherMaster | Failure::Unconfirmed) => self.tally.refused += 1,
        }
    }
}
