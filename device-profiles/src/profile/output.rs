//! What can be set or asked: `[output.name]`, the steps of `[[startup]]`, and the query of a message.

use std::time::Duration;

use carebed_contract::quantity::Quantity;
use toml::Spanned;

use super::input::{Literal, row};
use super::message::framing_index;
use super::{Deny, Input, Profile, denies};
use crate::deny::denied;
use crate::document::{Fields, advise};
use crate::framing::{BuildError, Framing};
use crate::hex::Hex;
use crate::modbus::Request;

/// The action that sets an output to the command's value.
pub const ACTION_SET: &str = "set";

/// How often a step of the start-up is tried before the device is taken as it is.
const TRIES_DEFAULT: u8 = 3;

/// Something that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name on the board, e.g. `1`.
    pub name: String,
    /// What switches it on.
    pub on: Send,
    /// What switches it off; none for what goes out by itself.
    pub off: Option<Send>,
    /// What it can be told to do.
    pub actions: Vec<String>,
    /// What a confirmed change is recorded as, where the device decides that.
    pub quantity: Option<Quantity>,
    /// The input that then shows the same, for outputs set by a message: only that says that it was done. An index into
    /// [`Profile::inputs`].
    pub confirmed_by: Option<usize>,
}

impl Output {
    /// What sets it.
    #[must_use]
    pub fn send(&self, value: bool) -> Option<&Send> {
        if value { Some(&self.on) } else { self.off.as_ref() }
    }

    /// The coil it is, when it is one.
    #[must_use]
    pub fn coil(&self) -> Option<u16> {
        match self.on {
            Send::Modbus(Request::WriteCoil { address, .. }) => Some(address),
            _ => None,
        }
    }
}

/// Something to send, as the profile says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Send {
    /// A Modbus write.
    Modbus(Request),
    /// A frame.
    Frame {
        /// Index into the profile's framings.
        framing: usize,
        /// What it is about.
        key: Vec<u8>,
        /// What it says.
        data: Vec<u8>,
        /// The frame that confirms it, where the device sends one.
        expect: Option<Expect>,
    },
    /// A message to a topic; `{address}` stands for the device's address.
    Publish {
        /// Where.
        topic: String,
        /// What.
        payload: String,
    },
}

/// A frame that is awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// Index into the profile's framings.
    pub framing: usize,
    /// Its key.
    pub key: Vec<u8>,
    /// What its data begins with.
    pub begins: Vec<u8>,
}

/// One step after power-up: send, wait for the answer, pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to send; none when only something is awaited.
    pub send: Option<Send>,
    /// What is awaited; none: nothing.
    pub expect: Option<Expect>,
    /// How long to wait for it; none: as long as for any answer.
    pub timeout: Option<Duration>,
    /// How often it is tried before going on without it.
    pub tries: u8,
    /// How long to wait afterwards.
    pub pause: Duration,
}

/// Something to send, as it goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transmission {
    /// A Modbus request.
    Modbus(Request),
    /// Bytes, preamble included.
    Bytes(Vec<u8>),
    /// A message for a broker.
    Publish {
        /// Where.
        topic: String,
        /// What.
        payload: String,
    },
}

impl Send {
    /// What goes out to the device at `address` (its own in frames and topics; none: as the profile says).
    pub fn encode(&self, profile: &Profile, address: Option<&str>) -> Result<Transmission, BuildError> {
        let address = address.or(profile.link.address.as_deref());
        Ok(match self {
            Self::Modbus(request) => Transmission::Modbus(*request),
            Self::Frame { framing, key, data, .. } => {
                let framing = profile.framings.get(*framing).ok_or(BuildError::Length(0))?;
                let wake = profile.link.wake.as_ref().map_or(&[][..], |(wake, _)| wake);
                Transmission::Bytes(finish(framing, address, key, data, wake, &profile.deny)?)
            }
            Self::Publish { topic, payload } => {
                let topic = topic.replace("{address}", address.unwrap_or_default());
                Transmission::Publish { topic, payload: payload.clone() }
            }
        })
    }

    /// The frame that confirms it, where there is one.
    #[must_use]
    pub fn expect(&self) -> Option<&Expect> {
        match self {
            Self::Frame { expect, .. } => expect.as_ref(),
            _ => None,
        }
    }
}

/// A frame with its preamble, when it may be sent: by itself, and behind the bytes that wake the device.
fn finish(
    framing: &Framing,
    address: Option<&str>,
    key: &[u8],
    data: &[u8],
    wake: &[u8],
    deny: &[Deny],
) -> Result<Vec<u8>, BuildError> {
    let mut bytes = framing.preamble.clone();
    bytes.extend(framing.build(address, key, data)?);
    match denied(&bytes, deny).or_else(|| denied(&[wake, &bytes].concat(), deny)) {
        Some(reason) => Err(BuildError::Denied(reason)),
        None => Ok(bytes),
    }
}

/// What everything that is to be sent is read with.
pub(super) struct Sends<'a> {
    pub(super) framings: &'a [Spanned<Framing>],
    pub(super) deny: &'a [Deny],
    pub(super) wake: &'a [u8],
}

/// Reads what is to be sent once: `coil` or `register` with `value`, `key` with `data`, or `topic` with `payload`.
pub(super) fn send(mut f: Fields<'_>, sends: &Sends<'_>) -> Option<Send> {
    let parts = Parts::take(&mut f);
    let (value, data, payload) = (f.take::<Literal>("value"), f.take::<Hex>("data"), f.take::<String>("payload"));
    let value = match &parts {
        Parts { topic: Some(_), .. } => payload.map(|payload| Literal::Word(payload.into_inner())),
        Parts { key: Some(_), .. } => {
            Some(Literal::Word(data.map_or_else(String::new, |d| d.into_inner().to_string())))
        }
        _ => value.map(Spanned::into_inner),
    };
    let Some(value) = value else {
        f.tell(f.span(), "what to send is not said", "add value, data or payload");
        return None;
    };
    parts.send(&f, sends, &value, false)
}

pub(super) fn step(mut f: Fields<'_>, sends: &Sends<'_>) -> Option<Step> {
    let sent = f.table("send").map(|f| send(f, sends));
    let expect = f.table("expect").map(|f| expect(f, sends.framings));
    let (timeout, pause) = (f.take_duration("timeout"), f.take_duration("pause"));
    let tries = f.take_or("tries", TRIES_DEFAULT);
    if sent.is_none() && expect.is_none() {
        f.tell(f.span(), "[[startup]] neither sends nor awaits anything", "add send = { … } or expect = { … }");
    }
    let send = match sent {
        Some(send) => Some(send?),
        None => None,
    };
    let expect = match expect {
        Some(expect) => Some(expect?),
        None => None,
    };
    Some(Step { send, expect, timeout, tries: tries.max(1), pause: pause.unwrap_or(Duration::ZERO) })
}

fn expect(mut f: Fields<'_>, framings: &[Spanned<Framing>]) -> Option<Expect> {
    let (framing, key) = (f.take::<String>("framing"), f.need::<Hex>("key"));
    let begins = f.take::<Hex>("begins");
    let framing = framing_index(&f, framing, framings)?;
    Some(Expect { framing, key: key?.into_inner().0, begins: begins.map_or_else(Vec::new, |hex| hex.into_inner().0) })
}

/// Reads an output; `inputs` are the names of those that can confirm it, none when some of them did not read.
pub(super) fn read(
    name: &Spanned<String>,
    mut f: Fields<'_>,
    sends: &Sends<'_>,
    inputs: Option<&[Input]>,
) -> Option<Vec<Output>> {
    let parts = Parts::take(&mut f);
    let (on, off) = (f.take::<Literal>("on"), f.take::<Literal>("off"));
    let actions: Option<Spanned<Vec<String>>> = f.take("actions");
    let (echo, quantity) = (f.take_or("echo", true), f.take::<String>("quantity"));
    let confirmed_by = f.take::<String>("confirmed_by").and_then(|named| confirmed_by(&f, &parts, &named, inputs?));
    for action in actions.iter().flat_map(Spanned::get_ref).filter(|action| *action != ACTION_SET) {
        let span = actions.as_ref().map_or(f.span(), Spanned::span);
        f.tell(span, format!("unknown action {action:?}"), advise(action, [ACTION_SET]));
    }
    let actions = actions.map_or_else(|| vec![ACTION_SET.to_owned()], Spanned::into_inner);
    let quantity = match quantity {
        Some(name) => Some(f.quantity(&name)?),
        None => None,
    };
    let coil = parts.coil.is_some();
    let on = match on {
        None if coil => Some(Literal::Flag(true)),
        None => {
            f.tell(f.span(), "what switches the output on is not said", "add on = …, and off = … where it exists");
            None
        }
        Some(on) => Some(on.into_inner()),
    }?;
    let off = off.map(Spanned::into_inner).or(coil.then_some(Literal::Flag(false)));
    row(&f, name)
        .into_iter()
        .enumerate()
        .map(|(step, name)| {
            let parts = parts.advance(step)?;
            let on = parts.send(&f, sends, &on, echo)?;
            let off = match &off {
                Some(off) => Some(parts.send(&f, sends, off, echo)?),
                None => None,
            };
            Some(Output { name, on, off, actions: actions.clone(), quantity: quantity.clone(), confirmed_by })
        })
        .collect()
}

/// The input whose state says that a message was obeyed.
fn confirmed_by(f: &Fields<'_>, parts: &Parts, named: &Spanned<String>, inputs: &[Input]) -> Option<usize> {
    if parts.topic.is_none() {
        let hint = "leave it out: what is not set by a message is confirmed where it was written";
        f.tell(named.span(), "confirmed_by is for outputs with a topic", hint);
    }
    let found = inputs.iter().position(|input| input.name == *named.get_ref());
    if found.is_none() {
        let names = inputs.iter().map(|input| input.name.as_str());
        f.tell(named.span(), format!("there is no input {:?}", named.get_ref()), advise(named.get_ref(), names));
    }
    found
}

/// The keys that say where something is sent to.
struct Parts {
    coil: Option<Spanned<u16>>,
    register: Option<Spanned<u16>>,
    framing: Option<Spanned<String>>,
    key: Option<Spanned<Hex>>,
    topic: Option<Spanned<String>>,
}

impl Parts {
    fn take(f: &mut Fields<'_>) -> Self {
        Self {
            coil: f.take("coil"),
            register: f.take("register"),
            framing: f.take("framing"),
            key: f.take("key"),
            topic: f.take("topic"),
        }
    }

    fn advance(&self, step: usize) -> Option<Self> {
        let next = |place: &Option<Spanned<u16>>| match place {
            Some(place) => {
                let address = place.get_ref().checked_add(u16::try_from(step).ok()?)?;
                Some(Some(Spanned::new(place.span(), address)))
            }
            None => Some(None),
        };
        let (coil, register) = (next(&self.coil)?, next(&self.register)?);
        Some(Self { coil, register, framing: self.framing.clone(), key: self.key.clone(), topic: self.topic.clone() })
    }

    fn span(&self, f: &Fields<'_>) -> crate::document::Span {
        let spans = [self.coil.as_ref().map(Spanned::span), self.register.as_ref().map(Spanned::span)];
        spans.into_iter().flatten().next().unwrap_or(f.span())
    }

    fn send(&self, f: &Fields<'_>, sends: &Sends<'_>, value: &Literal, echo: bool) -> Option<Send> {
        let Sends { framings, deny, wake } = *sends;
        let wrong = |what: &str| {
            f.tell(f.span(), format!("{value:?} cannot be sent"), what.to_owned());
            None
        };
        match (&self.coil, &self.register, &self.key, &self.topic) {
            (Some(coil), None, None, None) => match value {
                Literal::Flag(value) => {
                    self.allowed(f, Request::WriteCoil { address: *coil.get_ref(), value: *value }, deny)
                }
                _ => wrong("a coil is set to true or false"),
            },
            (None, Some(register), None, None) => match value {
                Literal::Integer(value) if u16::try_from(*value).is_ok() => {
                    let value = u16::try_from(*value).ok()?;
                    self.allowed(f, Request::WriteRegister { address: *register.get_ref(), value }, deny)
                }
                _ => wrong("a register is set to 0 … 65535"),
            },
            (None, None, Some(key), None) => {
                let Some(data) = Hex::parse(&value.text()) else { return wrong("write the data as hex, \"01\"") };
                let framing = framing_index(f, self.framing.clone(), framings)?;
                let (key, data) = (key.get_ref().0.clone(), data.0);
                // Built once here, so that what can never be sent is told to whoever wrote it.
                let built = finish(framings.get(framing)?.get_ref(), Some("0"), &key, &data, wake, deny);
                if let Err(error) = built {
                    f.tell(f.span(), format!("the frame cannot be sent: {error}"), "correct or remove it");
                    return None;
                }
                let expect = echo.then(|| Expect { framing, key: key.clone(), begins: data.clone() });
                Some(Send::Frame { framing, key, data, expect })
            }
            (None, None, None, Some(topic)) => {
                Some(Send::Publish { topic: topic.get_ref().clone(), payload: value.text() })
            }
            _ => {
                let hint = "give one of coil, register, key, topic";
                f.tell(f.span(), "where to send to is not said in exactly one way", hint);
                None
            }
        }
    }

    /// A write that no rule of the profile forbids.
    fn allowed(&self, f: &Fields<'_>, request: Request, deny: &[Deny]) -> Option<Send> {
        let (kind, address, rule) = match request {
            Request::WriteCoil { address, .. } => ("coil", address, denies(deny, false, address)),
            Request::WriteRegister { address, .. } => ("register", address, denies(deny, true, address)),
            Request::Read { .. } => return Some(Send::Modbus(request)),
        };
        if let Some(rule) = rule {
            f.tell(self.span(f), format!("{kind} {address} is denied: {}", rule.reason), "remove the output");
            return None;
        }
        Some(Send::Modbus(request))
    }
}
