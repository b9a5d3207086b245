//! Modbus RTU transactions on one bus. Pure: bytes and times in, bytes and outcomes out.
//!
//! An RTU answer says neither which register it is about nor which request it belongs to: only unit, function and length
//! tell it from others. So three rules keep a value from being taken for another's:
//!
//! - Only the exact answer is taken: unit, function, byte count, checksum. Whole frames of others are skipped whole; their
//!   bytes are never searched for an answer.
//! - After a request without a clean end its answer may still come. Until [`Timing::quarantine`] has passed, that unit is
//!   asked nothing else by the same function: only the same request again, which the late answer would answer, too. If
//!   other requests share the function, that is given up after half the time, or they would never come to their turn.
//! - A request of another master to a unit, heard at any time, bars that unit for as long: nobody knows whose answer follows.
//! - What reads like our own request is its echo, also where it could be an answer, unless the adapter is known not to echo.
//!
//! Random noise passes a checksum of 16 bits once in 65,536 frames of the right shape; nothing on this layer can do better.
//!
//! Times are wire time since an arbitrary start.

use std::time::Duration;

use carebed_device_profiles::modbus::{BITS_MAX, Reject, Request, rtu_frame, rtu_pdu};

/// Bytes kept of one transaction: the longest frame (256 bytes) several times over. More is noise and ends it.
const RECEIVED_MAX: usize = 1_024;
/// Different questions that are remembered; of more, units are taken to be asked many.
const ASKED_MAX: usize = 256;
/// Requests whose answers may still come; with more the oldest is given up, and its unit is asked as if nothing were owed.
const OWED_MAX: usize = 64;
/// The unit that all devices hear and none answers.
const BROADCAST: u8 = 0;
/// How long USB adapters keep bytes back: 16 ms by default at FTDI, and as much again for the machine.
const ADAPTER_LATENCY: Duration = Duration::from_millis(30);

/// How long a network in a home keeps bytes back.
const NETWORK_LATENCY: Duration = Duration::from_millis(100);

/// The times of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// One byte on the wire.
    pub byte: Duration,
    /// Pause before each request (Modbus over Serial Line 2.5.1.1: 3.5 characters, 1.75 ms from 19200 baud on).
    pub pause: Duration,
    /// After this long without a byte a frame that has begun does not go on: its beginning was noise.
    pub silence: Duration,
    /// For how long after a failed request its answer may still come.
    pub quarantine: Duration,
    /// What devices need to act on a broadcast (Modbus over Serial Line 2.4.1: 100 to 200 ms).
    pub turnaround: Duration,
}

impl Timing {
    /// Of a line with so many bits a second and so many bits to a byte (8N1 has ten).
    #[must_use]
    pub fn new(baud: u32, byte_bits: u32) -> Self {
        let byte = Duration::from_secs(1) * byte_bits / baud.max(1);
        let pause = (byte * 7 / 2).max(Duration::from_micros(1_750));
        Self {
            byte,
            pause,
            silence: pause + ADAPTER_LATENCY,
            quarantine: Duration::from_secs(1),
            turnaround: Duration::from_millis(150),
        }
    }

    /// Of a line behind a network: what is sent in one go may come in several, tens of milliseconds apart.
    #[must_use]
    pub fn over_network(self) -> Self {
        Self { silence: self.pause + NETWORK_LATENCY, ..self }
    }

    fn bytes(&self, count: usize) -> Duration {
        self.byte * u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// Whether the adapter gives back what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Echo {
    /// Not known yet: reads tell. Until then a write is confirmed only by two copies.
    #[default]
    Unknown,
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// One request and how long its answer may take, beyond the time on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Who is asked.
    pub unit: u8,
    /// For what.
    pub request: Request,
    /// How long the device may take.
    pub timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing came.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Something came, but not the answer.
    #[error("{0} bytes came that are not the answer")]
    Damaged(usize),
    /// Another master asked the same device meanwhile.
    #[error("another master asks on this bus")]
    OtherMaster,
    /// One copy of the write came back, and nobody knows whether the device or the adapter sent it.
    #[error("the write may only have been echoed by the adapter")]
    Unconfirmed,
    /// The device says why it does not answer.
    #[error(transparent)]
    Rejected(Reject),
}

/// What became of a request.
pub type Outcome = Result<Vec<u8>, Failure>;

/// The transactions of one bus, one at a time.
#[derive(Debug)]
pub struct Transactions {
    timing: Timing,
    echo: Echo,
    /// Whether the echo was said by the configuration and is not learned.
    echo_is_set: bool,
    current: Option<Transaction>,
    owed: Vec<Owed>,
    /// Every different question so far.
    asked: Vec<(u8, Request)>,
    /// Before this nothing is sent.
    quiet_at: Duration,
    /// Bytes that no transaction waited for.
    drained: u64,
    /// The end of them, as far as it may be part of a frame.
    idle: Vec<u8>,
}

#[derive(Debug)]
struct Transaction {
    ask: Ask,
    sent: Vec<u8>,
    deadline: Duration,
    received: Vec<u8>,
    /// How many bytes came, whatever became of them.
    n_received: usize,
    /// How many of them were whole frames: copies of the request, and frames of others.
    n_explained: usize,
    /// When the last of them came.
    last: Duration,
    /// Whether the bytes were looked at after a silence.
    settled: bool,
    /// Whether anything but whole frames came before the answer.
    is_noisy: bool,
    echoed: bool,
}

/// A request whose answer may still come.
#[derive(Debug)]
struct Owed {
    unit: u8,
    /// None: another master's, which may be anything.
    request: Option<Request>,
    since: Duration,
    until: Duration,
}

/// What stands at the beginning of received bytes.
enum Stands {
    /// The answer's data.
    Answer(Vec<u8>),
    /// The device's exception.
    Exception(u8),
    /// A copy of the request, so many bytes long.
    Copy(usize),
    /// A whole frame of somebody else, and the unit it asks if it is a request.
    Foreign(usize, Option<u8>),
    /// A request of another master to the unit that was asked.
    ForeignRequest,
    /// Perhaps a frame: more bytes will tell.
    Perhaps,
    /// Nothing.
    Noise,
}

impl Transactions {
    /// Of a quiet bus. `echo` none: it is learned from the first reads.
    #[must_use]
    pub fn new(timing: Timing, echo: Option<bool>) -> Self {
        let known = match echo {
            None => Echo::Unknown,
            Some(true) => Echo::Yes,
            Some(false) => Echo::No,
        };
        Self {
            timing,
            echo: known,
            echo_is_set: echo.is_some(),
            current: None,
            owed: Vec::new(),
            asked: Vec::new(),
            quiet_at: Duration::ZERO,
            drained: 0,
            idle: Vec::new(),
        }
    }

    /// The earliest moment at which this may be asked, as far as is known `now`; bytes on the line may put it off.
    #[must_use]
    pub fn ready_at(&self, unit: u8, request: Request, now: Duration) -> Duration {
        let barred = self.owed.iter().filter(|owed| owed.unit == unit).filter(|owed| match owed.request {
            None => true,
            Some(same) if same == request => {
                !self.is_only(unit, request) && now >= owed.since + self.timing.quarantine / 2
            }
            Some(other) => is_alike(other, request),
        });
        barred.fold(self.quiet_at, |at, owed| at.max(owed.until))
    }

    /// Whether the unit was never asked anything else by the same function.
    fn is_only(&self, unit: u8, request: Request) -> bool {
        let alike = |(other, asked): &(u8, Request)| *other == unit && is_alike(*asked, request) && *asked != request;
        self.asked.len() < ASKED_MAX && !self.asked.iter().any(alike)
    }

    /// The earliest moment at which anything may be asked.
    #[must_use]
    pub fn quiet_at(&self) -> Duration {
        self.quiet_at
    }

    /// Begins a transaction and says what to send; none while it may not be sent (see [`Self::ready_at`]) or another runs.
    pub fn begin(&mut self, ask: Ask, now: Duration) -> Option<Vec<u8>> {
        self.owed.retain(|owed| owed.until > now);
        if self.current.is_some() || now < self.ready_at(ask.unit, ask.request, now) {
            return None;
        }
        let question = (ask.unit, ask.request);
        if self.asked.len() < ASKED_MAX && !self.asked.contains(&question) {
            self.asked.push(question);
        }
        self.idle.clear();
        let sent = rtu_frame(ask.unit, &ask.request.pdu());
        let wait = match ask.unit {
            BROADCAST => self.timing.turnaround,
            _ => ask.timeout + self.timing.bytes(answer_length(ask.request)),
        };
        self.current = Some(Transaction {
            ask,
            deadline: now + self.timing.bytes(sent.len()) + wait,
            received: Vec::new(),
            n_received: 0,
            n_explained: 0,
            last: now,
            settled: true,
            is_noisy: false,
            echoed: false,
            sent: sent.clone(),
        });
        Some(sent)
    }

    /// Takes bytes off the line. Without a transaction they are thrown away, and the line has to become quiet again.
    pub fn received(&mut self, bytes: &[u8], now: Duration) -> Option<Outcome> {
        self.quiet_at = now + self.timing.pause;
        let Some(current) = &mut self.current else {
            self.drained += bytes.len() as u64;
            self.idle.extend_from_slice(bytes);
            self.overhear(now);
            return None;
        };
        current.received.extend_from_slice(bytes);
        current.n_received += bytes.len();
        (current.last, current.settled) = (now, false);
        let outcome = self.look(false);
        let n_received = self.current.as_ref().map_or(0, |current| current.n_received);
        let outcome = outcome.or_else(|| (n_received > RECEIVED_MAX).then_some(Err(Failure::Damaged(n_received))));
        outcome.map(|outcome| self.end(outcome, now))
    }

    /// When [`Self::tick`] is to be called, if nothing comes before.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let current = self.current.as_ref()?;
        let silent = current.last + self.timing.silence;
        Some(if current.settled { current.deadline } else { current.deadline.min(silent) })
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) -> Option<Outcome> {
        let current = self.current.as_mut()?;
        let mut outcome = None;
        if !current.settled && now >= current.last + self.timing.silence {
            current.settled = true;
            outcome = self.look(true).or_else(|| {
                // As many bytes as the answer has, and then silence: that was it, and it is damaged.
                let current = self.current.as_ref()?;
                let n_noise = current.n_noise();
                (n_noise >= answer_length(current.ask.request)).then_some(Err(Failure::Damaged(n_noise)))
            });
        }
        let current = self.current.as_ref()?;
        if outcome.is_none() && now >= current.deadline {
            outcome = Some(match (current.ask.unit, current.n_noise()) {
                (BROADCAST, _) => Ok(Vec::new()),
                _ if current.is_write() && current.echoed && self.echo == Echo::Unknown => Err(Failure::Unconfirmed),
                (_, 0) => Err(Failure::Timeout(current.ask.timeout)),
                (_, n_noise) => Err(Failure::Damaged(n_noise)),
            });
        }
        outcome.map(|outcome| self.end(outcome, now))
    }

    /// How many bytes came that nobody waited for.
    #[must_use]
    pub fn drained(&self) -> u64 {
        self.drained
    }

    /// The connection is a new one. What was asked over the old one, perhaps by another program, may still be answered: the
    /// line is listened to for as long as an answer may be late before anything is asked.
    pub fn reset(&mut self, now: Duration) {
        self.current = None;
        self.quiet_at = self.quiet_at.max(now + self.timing.quarantine);
    }

    fn end(&mut self, outcome: Outcome, now: Duration) -> Outcome {
        if let Some(Transaction { ask: Ask { unit, request, .. }, last, deadline, .. }) = self.current.take() {
            self.quiet_at = self.quiet_at.max(last.max(now) + self.timing.pause);
            let is_clean = matches!(outcome, Ok(_) | Err(Failure::Rejected(_)));
            let until = deadline.max(now) + self.timing.quarantine;
            // An answer that came while one was owed may be that one; then this request's own is still to come.
            match self.owed.iter_mut().find(|owed| owed.unit == unit && owed.request == Some(request)) {
                Some(owed) => owed.until = until,
                None if is_clean => {}
                None => self.owe(Owed { unit, request: Some(request), since: now, until }),
            }
            if matches!(outcome, Err(Failure::OtherMaster)) {
                self.owe(Owed { unit, request: None, since: now, until });
            }
        }
        outcome
    }

    fn owe(&mut self, owed: Owed) {
        if self.owed.len() == OWED_MAX {
            self.owed.remove(0);
        }
        self.owed.push(owed);
    }

    /// Looks for requests of another master in what nobody waited for.
    fn overhear(&mut self, now: Duration) {
        let excess = self.idle.len().saturating_sub(RECEIVED_MAX);
        self.idle.drain(..excess);
        while !self.idle.is_empty() {
            let whole = shapes(&self.idle).find_map(|(length, is_request)| {
                let frame = self.idle.get(..length?).filter(|frame| is_whole(frame))?;
                Some((frame.len(), *frame.first()?, is_request || may_be_request(frame)))
            });
            let skipped = match whole {
                Some((length, unit, is_request)) => {
                    if is_request {
                        self.owe(Owed { unit, request: None, since: now, until: now + self.timing.quarantine });
                    }
                    length
                }
                None if shapes(&self.idle).any(|(length, _)| length.is_none_or(|n| n > self.idle.len())) => return,
                None => 1,
            };
            self.idle.drain(..skipped.min(self.idle.len()));
        }
    }

    /// Looks for the answer in what came; `silent`: what has begun does not go on.
    fn look(&mut self, silent: bool) -> Option<Outcome> {
        let current = self.current.as_mut()?;
        let mut overheard = Vec::new();
        let outcome = loop {
            let rest = &current.received[..];
            if rest.is_empty() {
                break None;
            }
            let skipped = match current.stands(rest, silent, self.echo) {
                Stands::Answer(data) => break Some(Ok(data)),
                Stands::Exception(code) => break Some(Err(Failure::Rejected(Reject::Exception(code)))),
                Stands::ForeignRequest => break Some(Err(Failure::OtherMaster)),
                Stands::Perhaps if silent => 1,
                Stands::Perhaps => break None,
                Stands::Copy(length) => {
                    if current.confirms(self.echo) {
                        break Some(Ok(Vec::new()));
                    }
                    current.echoed = true;
                    current.n_explained += length;
                    length
                }
                Stands::Foreign(length, asked) => {
                    current.n_explained += length;
                    overheard.extend(asked);
                    length
                }
                Stands::Noise => {
                    current.is_noisy = true;
                    1
                }
            };
            current.received.drain(..skipped.min(current.received.len()));
        };
        let since = current.last;
        for unit in overheard {
            self.owe(Owed { unit, request: None, since, until: since + self.timing.quarantine });
        }
        let current = self.current.as_ref()?;
        // While an answer is owed, what came may be that one, before the echo.
        if let Some(Ok(_)) = outcome
            && !self.echo_is_set
            && self.owed.is_empty()
        {
            self.echo = current.learned(self.echo);
        }
        outcome
    }
}

/// Whether the answer to one could be taken for the answer to the other.
fn is_alike(one: Request, other: Request) -> bool {
    one.pdu().first() == other.pdu().first()
}

impl Transaction {
    fn is_write(&self) -> bool {
        !matches!(self.ask.request, Request::Read { .. })
    }

    /// How many bytes came that belong to no whole frame.
    fn n_noise(&self) -> usize {
        self.n_received.saturating_sub(self.n_explained)
    }

    /// Whether one more copy of a write is the device's confirmation.
    fn confirms(&self, echo: Echo) -> bool {
        self.is_write()
            && match echo {
                Echo::No => true,
                Echo::Yes | Echo::Unknown => self.echoed,
            }
    }

    /// What an answered transaction says about the adapter. Only a clean one says that there is no echo: a damaged one
    /// looks like noise.
    fn learned(&self, before: Echo) -> Echo {
        match (self.echoed, self.is_write()) {
            (true, _) => Echo::Yes,
            (false, false) if !self.is_noisy => Echo::No,
            (false, _) => before,
        }
    }

    fn stands(&self, rest: &[u8], silent: bool, echo: Echo) -> Stands {
        let Ask { unit, request, .. } = self.ask;
        let expected = answer_length(request);
        // An answer may begin like the request. Worse, a checksum's own bytes continue it: an echo whose third byte is the
        // asked byte count, and a zero behind it, are a valid answer.
        if !self.echoed && echo != Echo::No && rest.starts_with(&self.sent) {
            return Stands::Copy(self.sent.len());
        }
        if !self.is_write()
            && let Some(frame) = rest.get(..expected)
            && let Ok(data) = rtu_pdu(unit, frame).and_then(|pdu| request.answer(pdu))
        {
            // An answer of 17 to 24 bits is as long as a request. Whoever asked so is answered at once; who was asked falls
            // silent.
            return match (may_be_request(frame), rest.len() > expected) {
                (true, true) => Stands::ForeignRequest,
                (true, false) if !silent => Stands::Perhaps,
                _ => Stands::Answer(data.to_vec()),
            };
        }
        if let Some(frame) = rest.get(..5)
            && let Err(Reject::Exception(code)) = rtu_pdu(unit, frame).and_then(|pdu| request.answer(pdu))
        {
            return Stands::Exception(code);
        }
        // Our own answer has begun; what of it has come may look like something shorter.
        let [function, ..] = request.pdu();
        let is_ours = rest.first() == Some(&unit) && rest.get(1) == Some(&function);
        if is_ours && !silent && rest.len() < expected && rest.get(2).is_some_and(|n| usize::from(*n) + 5 == expected) {
            return Stands::Perhaps;
        }
        if rest.starts_with(&self.sent) {
            return Stands::Copy(self.sent.len());
        }
        let mut perhaps = false;
        for (length, is_request) in shapes(rest) {
            match length.and_then(|length| rest.get(..length)) {
                Some(frame) if is_whole(frame) => {
                    // Whoever asks must be assumed.
                    let asked = frame.first().filter(|_| is_request || may_be_request(frame)).copied();
                    return if asked == Some(unit) {
                        Stands::ForeignRequest
                    } else {
                        Stands::Foreign(frame.len(), asked)
                    };
                }
                Some(_) => {}
                None => perhaps = true,
            }
        }
        if perhaps { Stands::Perhaps } else { Stands::Noise }
    }
}

/// How long the answer's frame is.
fn answer_length(request: Request) -> usize {
    match request {
        Request::Read { function, count, .. } => 5 + function.answer_length(count),
        Request::WriteCoil { .. } | Request::WriteRegister { .. } => 8,
    }
}

/// Whether a whole frame of a read may be a request as well as an answer.
fn may_be_request(frame: &[u8]) -> bool {
    let [_, 1..=4, _, _, high, low, _, _] = frame else { return false };
    (1..=BITS_MAX).contains(&u16::from_be_bytes([*high, *low]))
}

fn is_whole(frame: &[u8]) -> bool {
    frame.first().is_some_and(|unit| rtu_pdu(*unit, frame).is_ok())
}

/// The lengths that a frame beginning so may have, as answer and as request; none: it takes more bytes to tell. Public
/// functions only; of others no length is known, so their bytes are noise.
fn shapes(bytes: &[u8]) -> impl Iterator<Item = (Option<usize>, bool)> {
    let after = |at: usize, fixed: usize| (bytes.get(at).map(|count| fixed + usize::from(*count)), true);
    let shapes = match bytes.get(1) {
        None => [Some((None, false)), None],
        Some(1..=4) => {
            let possible = |count: &u8| (1..=250).contains(count);
            let answer = match bytes.get(2) {
                Some(count) if possible(count) => Some((Some(5 + usize::from(*count)), false)),
                Some(_) => None,
                None => Some((None, false)),
            };
            [answer, Some((Some(8), true))]
        }
        Some(5 | 6) => [Some((Some(8), false)), None],
        Some(15 | 16) => [Some((Some(8), false)), Some(after(6, 9))],
        Some(0x81..=0x86 | 0x8F | 0x90) => [Some((Some(5), false)), None],
        Some(_) => [None, None],
    };
    shapes.into_iter().flatten()
}

#[cfg(test)]
mod tests;
