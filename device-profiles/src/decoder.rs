//! From what a link hears of one device to the values of its named inputs.
//!
//! One decoder stands for one device. A link hands it what came, as it came: the data that answer a Modbus poll, bytes of
//! a stream, or the payload of a topic or page. What comes back are points, and rejects for what could not be used. A
//! point exists only where a whole, checked frame or document stood; its value is missing where the device said that it
//! has none, or said something that cannot be.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::quality::Quality;
use carebed_contract::quantity::{Kind, Quantity};
use carebed_contract::value::Value;

use crate::documents::Payload;
use crate::field::{Field, Raw, Type};
use crate::framing::{Frame, Scanner, Seen};
use crate::meaning::judged;
use crate::presses::{Counted, Presses};
use crate::profile::{Input, Message, Profile, Send, Source, Transport};
use crate::reject::Reject;

/// Reads what one device says. Pure.
#[derive(Debug, Clone)]
pub struct Decoder {
    profile: Arc<Profile>,
    address: Option<String>,
    scanner: Scanner,
    /// The frames that ask this device: on a line that echoes they come back, and are no answer.
    questions: Vec<Vec<u8>>,
    /// Per input, for those that count presses.
    presses: Vec<Presses>,
}

/// One value of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Index into [`Profile::inputs`]; the first of that name.
    pub input: usize,
    /// What was observed.
    pub value: Value,
    /// How far to trust it.
    pub quality: Quality,
    /// How long before it was heard it was so.
    pub age: Duration,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decoded {
    /// Values, in the order in which they came.
    pub points: Vec<Point>,
    /// What could not be used, and why.
    pub rejects: Vec<Reject>,
    /// Which messages came, as indexes into [`Profile::messages`]: a query that was sent is answered by its own.
    pub messages: Vec<usize>,
    /// The whole frames of this device, good ones only, also those that no message knows.
    pub frames: Vec<Frame>,
    /// The documents that were read, each with its message.
    pub documents: Vec<(usize, Vec<u8>)>,
    /// Whether the device itself was heard just now, even if it had nothing to tell: an answer, a frame, a payload that was
    /// not retained. That somebody else says it is available does not count.
    pub alive: bool,
    /// Whether the device says that it is there, or somebody says that it is not.
    pub available: Option<bool>,
    /// Whether the device has started anew: it said so, or its counters began again.
    pub restarted: bool,
}

impl Decoder {
    /// For a device at the profile's own address, or where addresses mean nothing.
    #[must_use]
    pub fn new(profile: Arc<Profile>) -> Self {
        Self::at(profile, None)
    }

    /// For a device at an address of its own in frames or topics.
    #[must_use]
    pub fn at(profile: Arc<Profile>, address: Option<&str>) -> Self {
        let address = address.or(profile.link.address.as_deref()).map(str::to_owned);
        let presses = vec![Presses::default(); profile.inputs.len()];
        let questions = profile.messages.iter().filter_map(|message| match message.query.as_ref()? {
            Send::Frame { framing, key, data, .. } => {
                profile.framings.get(*framing)?.build(address.as_deref(), key, data).ok()
            }
            _ => None,
        });
        let questions = questions.collect();
        Self { profile, address, scanner: Scanner::default(), questions, presses }
    }

    /// Takes the data that answer poll `poll` (an index into [`Profile::polls`]). Data that are not exactly as long as the
    /// poll asked for are refused whole.
    pub fn answer(&mut self, poll: usize, data: &[u8]) -> Decoded {
        let expected = self.profile.polls.get(poll).map_or(0, |p| p.function.answer_length(p.count));
        let mut decoded = Decoded::default();
        if data.len() == expected && expected > 0 {
            decoded.alive = true;
            self.points(Source::Poll(poll), Said::Bytes(data), false, &mut decoded);
        } else {
            decoded.rejects.push(Reject::Length { expected, found: data.len() });
        }
        decoded
    }

    /// Takes bytes of the device's stream, heard at `now` (monotonic). However the stream is cut, the points are the same.
    /// Without bytes it looks whether an unfinished frame was cut off; call so when a second has passed in silence.
    pub fn push(&mut self, bytes: &[u8], now: Duration) -> Decoded {
        let mut decoded = Decoded::default();
        let profile = Arc::clone(&self.profile);
        for seen in self.scanner.push(&profile.framings, bytes, now) {
            match seen {
                Seen::Reject(reject) => decoded.rejects.push(reject),
                Seen::Frame(frame) => self.frame(&profile, frame, &mut decoded),
            }
        }
        decoded
    }

    /// Whether part of a frame has come and the rest is awaited.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.scanner.is_waiting()
    }

    /// Takes the payload of message `message` (an index into [`Profile::messages`]). One that the broker had retained says
    /// how things were, not that something happened: it gives no event, and its states are uncertain.
    pub fn payload(&mut self, message: usize, payload: &[u8], retained: bool) -> Decoded {
        let mut decoded = Decoded::default();
        let profile = Arc::clone(&self.profile);
        let Some(said) = profile.messages.get(message) else { return decoded };
        self.document(message, said, payload, retained, &mut decoded);
        decoded
    }

    /// The topic on which a message comes to this device's address.
    #[must_use]
    pub fn topic(&self, message: usize) -> Option<String> {
        match &self.profile.messages.get(message)?.transport {
            Transport::Topic(topic) => Some(topic.replace("{address}", self.address.as_deref().unwrap_or_default())),
            _ => None,
        }
    }

    fn frame(&mut self, profile: &Profile, frame: Frame, decoded: &mut Decoded) {
        if let Some(other) = frame.address.as_deref().filter(|address| !self.is_asked(address)) {
            decoded.rejects.push(Reject::Address(other.to_owned()));
            return;
        }
        if self.questions.contains(&frame.raw) {
            decoded.rejects.push(Reject::Echo);
            return;
        }
        decoded.alive = true;
        let mut known = None;
        for (index, message) in profile.messages.iter().enumerate() {
            let Transport::Frame(matcher) = &message.transport else { continue };
            if matcher.names(&frame) {
                let fits = matcher.fits(frame.data.len());
                known = known.max(Some(fits));
                if fits {
                    match message.document {
                        None => {
                            decoded.messages.push(index);
                            decoded.restarted |= message.restart;
                            self.points(Source::Message(index), Said::Bytes(&frame.data), false, decoded);
                        }
                        Some(_) => self.document(index, message, &frame.data, false, decoded),
                    }
                }
            }
        }
        match known {
            Some(true) => {}
            Some(false) => {
                let expected = profile.messages.iter().find_map(|message| match &message.transport {
                    Transport::Frame(matcher) if matcher.names(&frame) => Some(matcher.length_min),
                    _ => None,
                });
                let expected = expected.unwrap_or(0);
                decoded.rejects.push(Reject::Length { expected, found: frame.data.len() });
            }
            None => decoded.rejects.push(Reject::Unknown(crate::hex::Hex(frame.key.clone()).to_string())),
        }
        decoded.frames.push(frame);
    }

    /// Whether a frame from `address` is from this device. The broadcast address `AA…` asks whoever is there.
    fn is_asked(&self, address: &str) -> bool {
        self.address.as_deref().is_none_or(|asked| {
            let asked = format!("{asked:0>width$}", width = address.len());
            asked == address || asked.bytes().all(|digit| digit == b'A')
        })
    }

    fn document(&mut self, index: usize, message: &Message, bytes: &[u8], retained: bool, decoded: &mut Decoded) {
        let Some(document) = message.document else { return };
        match Payload::read(document, bytes) {
            Ok(payload) => {
                let says_available = self.profile.availability.as_ref().is_some_and(|a| a.message == index);
                decoded.alive |= !retained && !says_available;
                decoded.messages.push(index);
                decoded.documents.push((index, bytes.to_vec()));
                decoded.restarted |= message.restart;
                self.points(Source::Message(index), Said::Document(&payload), retained, decoded);
            }
            Err(reject) => decoded.rejects.push(reject),
        }
    }

    fn points(&mut self, source: Source, said: Said<'_>, retained: bool, decoded: &mut Decoded) {
        let profile = Arc::clone(&self.profile);
        for input in profile.inputs.iter().filter(|input| input.source == source) {
            let Some(index) = profile.inputs.iter().position(|first| first.name == input.name) else { continue };
            for (raw, age) in said.read(&input.field) {
                match input.counter {
                    Some(_) => self.presses(index, input, &raw, decoded),
                    None => decoded.points.extend(point(index, input, &raw, age, retained)),
                }
            }
        }
        let availability = profile.availability.as_ref().filter(|a| source == Source::Message(a.message));
        if let Some(availability) = availability {
            let said = said.read(&availability.field);
            let meant = said.iter().filter_map(|(raw, _)| availability.meaning.of(raw)).next_back();
            if let Some((Value::Flag(available), _)) = meant {
                decoded.available = Some(available);
            }
        }
    }

    /// Each press is a point of its own.
    fn presses(&mut self, index: usize, input: &Input, raw: &Raw, decoded: &mut Decoded) {
        let (Some(counter), Some(presses)) = (input.counter, self.presses.get_mut(index)) else { return };
        let one = |value, quality| Point { input: index, value, quality, age: Duration::ZERO };
        let (count, meant) = match raw {
            Raw::Integer(count) => (u64::try_from(*count).ok(), input.meaning.of(raw)),
            _ => (None, None),
        };
        match (count, meant) {
            (_, Some((_, bad @ Quality::Bad(_)))) => decoded.points.push(one(Value::Missing, bad)),
            (Some(count), Some((_, quality))) => match presses.read(count, counter.bits, counter.jump_max) {
                Counted::Presses(n_presses) => {
                    decoded.points.extend((0..n_presses).map(|_| one(Value::Flag(true), quality.clone())));
                }
                Counted::Restarted { pressed } => {
                    decoded.restarted = true;
                    decoded.points.extend(pressed.then(|| one(Value::Flag(true), quality)));
                }
                Counted::Unknown => decoded.points.push(one(Value::Missing, Quality::Bad("counter_jump".into()))),
            },
            _ => {}
        }
    }
}

/// What holds values.
enum Said<'a> {
    Bytes(&'a [u8]),
    Document(&'a Payload),
}

impl Said<'_> {
    fn read(&self, field: &Field) -> Vec<(Raw, Duration)> {
        match (self, field) {
            (Self::Bytes(data), field) => field.read(data).unwrap_or_default(),
            (Self::Document(payload), Field::Path { keys, .. }) => {
                payload.at(keys).map(|raw| (raw, Duration::ZERO)).into_iter().collect()
            }
            (Self::Document(_), _) => Vec::new(),
        }
    }
}

fn point(index: usize, input: &Input, raw: &Raw, age: Duration, retained: bool) -> Option<Point> {
    if retained && input.policy.event {
        return None;
    }
    let (value, quality) = input.meaning.of(&typed(raw, input))?;
    let (value, quality) = match &input.quantity {
        Some(quantity) => judged(quantity, value, quality),
        None => (value, quality),
    };
    let quality = if retained && quality == Quality::Good { Quality::Uncertain("retained".into()) } else { quality };
    Some(Point { input: index, value, quality, age })
}

/// The raw value as its quantity needs it, where no table of values says what it means. In documents a number written as
/// text is a number. A state is on or off, a measure is a number: anything else is not taken for one.
fn typed(raw: &Raw, input: &Input) -> Raw {
    let meaning = &input.meaning;
    if !meaning.values.is_empty() || meaning.missing.iter().chain(&meaning.ignore).any(|literal| raw.is(literal)) {
        return raw.clone();
    }
    let text = matches!(input.field, Field::Path { text: true, .. } | Field::Bytes { kind: Type::Text, .. });
    let kind = input.quantity.as_ref().and_then(Quantity::definition).map(|definition| definition.kind);
    let raw = match (raw, &input.field) {
        (Raw::Word(word), Field::Path { text: false, .. }) => word.parse().map_or_else(|_| raw.clone(), Raw::Float),
        _ => raw.clone(),
    };
    match (kind, &raw) {
        (Some(Kind::Measure | Kind::Counter), Raw::Word(_) | Raw::Flag(_)) if !text => Raw::Unreadable("not_a_number"),
        (Some(Kind::State | Kind::Event), Raw::Integer(0)) => Raw::Flag(false),
        (Some(Kind::State | Kind::Event), Raw::Integer(1)) => Raw::Flag(true),
        (Some(Kind::State | Kind::Event), Raw::Integer(_) | Raw::Float(_) | Raw::Word(_)) if !text => {
            Raw::Unreadable("unknown_value")
        }
        _ => raw,
    }
}

#[cfg(test)]
mod tests;
