//! One `profile.toml`, checked: who the device is, how to reach it, what it is asked, and what its answers mean.

pub(crate) mod framings;
mod input;
mod link;
mod message;
mod output;

use std::time::Duration;

use carebed_contract::digest::Digest;
use carebed_contract::text::Text;
pub use input::{Counter, Input, Source};
pub use link::{LinkKind, LinkSettings, Parity, Serial};
pub use message::{Availability, Document, Matcher, Message, Transport};
pub use output::{ACTION_SET, Expect, Output, Send, Step, Transmission};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::document::{self, Fields, Mistakes};
use crate::framing::{BuildError, Framing};
use crate::modbus::{Function, Request};

/// How sure the facts of a profile are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Confidence {
    /// Vendor document and at least two independent programs or captures.
    A,
    /// Vendor document, or two independent programs.
    B,
    /// One source only: try it beside the device before relying on it.
    C,
}

/// A device model as its profile describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// `vendor/model`, the name of its folder.
    pub name: String,
    /// Digest of its file, told in the status.
    pub digest: Digest,
    /// Who the device is.
    pub identification: Identification,
    /// How to reach it.
    pub link: LinkSettings,
    /// Register blocks to read, how often (Modbus).
    pub polls: Vec<Poll>,
    /// How frames look (serial).
    pub framings: Vec<Framing>,
    /// What the device says: frames, topics, pages.
    pub messages: Vec<Message>,
    /// What says whether it is there, when something does.
    pub availability: Option<Availability>,
    /// What it is told after power-up and reset, in order.
    pub startup: Vec<Step>,
    /// What can be observed: the terminals of a board, the values of a sensor.
    pub inputs: Vec<Input>,
    /// What can be set.
    pub outputs: Vec<Output>,
    /// When to report.
    pub report: Report,
    /// Coils and registers that nobody may ever write, whatever a home file or command says.
    pub deny: Vec<Deny>,
}

/// Who the device is, and how far the profile may be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// Maker.
    pub vendor: String,
    /// Model.
    pub model: String,
    /// What installers call it.
    pub title: Text,
    /// What installers must know: mounting, delays, what it cannot do.
    pub advice: Option<Text>,
    /// Where the facts come from.
    pub source: String,
    /// How sure they are.
    pub confidence: Confidence,
    /// Whether anybody ran this profile against the real thing.
    pub tested_on_hardware: bool,
}

/// A block that one request reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// Its name within the profile.
    pub name: String,
    /// What to read.
    pub function: Function,
    /// First item.
    pub address: u16,
    /// How many.
    pub count: u16,
    /// How often, unless the home file says otherwise.
    pub every: Duration,
    /// The device answers this request only as it stands: it must be neither split nor joined with a neighbour.
    pub fixed: bool,
    /// Users move this block in the device's own settings: the home file may say where to.
    pub movable: bool,
}

impl Poll {
    /// The request that reads it.
    #[must_use]
    pub fn request(&self) -> Request {
        Request::Read { function: self.function, address: self.address, count: self.count }
    }
}

/// When to report values that do not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Whether a change is reported at once.
    pub on_change: bool,
    /// After which time of sameness the value is reported again, so that silence is visible.
    pub heartbeat: Duration,
    /// Numbers are reported at most this often.
    pub spacing: Duration,
    /// How long the device may say nothing before it counts as silent, for devices that speak by themselves.
    pub silent_after: Option<Duration>,
}

/// A range of coils or registers that must never be written, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deny {
    /// Whether it is about registers, not coils.
    pub registers: bool,
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// What writing them would do.
    pub reason: String,
}

impl Profile {
    /// Reads and checks the text of a `profile.toml`; `name` is the folder, `vendor/model`.
    pub fn parse(name: &str, text: &str) -> Result<Self, Mistakes> {
        let file = format!("profiles/{name}/profile.toml");
        Self::parse_file(&file, name, text)
    }

    /// As [`Self::parse`], for a file that lies elsewhere.
    pub fn parse_file(file: &str, name: &str, text: &str) -> Result<Self, Mistakes> {
        document::read(file, text, |fields| read(fields, name, text))
    }

    /// The JSON Schema of `profile.toml`, derived from the code that reads it.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        document::schema("carebed device profile", |fields| drop(read(fields, "", "")))
    }

    /// The input of a name.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// The output of a name.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&Output> {
        self.outputs.iter().find(|output| output.name == name)
    }

    /// The rule that forbids writing a coil, if there is one.
    #[must_use]
    pub fn denies(&self, coil: u16) -> Option<&Deny> {
        denies(&self.deny, false, coil)
    }

    /// The rule that forbids writing a register, if there is one.
    #[must_use]
    pub fn denies_register(&self, register: u16) -> Option<&Deny> {
        denies(&self.deny, true, register)
    }

    /// Whether an address fits the device: decimal digits where its frames carry one, else any name without `/`, `+`, `#`
    /// at its ends.
    pub fn check_address(&self, address: &str) -> Result<(), BuildError> {
        for framing in &self.framings {
            framing.address_bytes(address)?;
        }
        let topic_characters = address.contains(['+', '#', '\0']) || address.starts_with('/') || address.ends_with('/');
        if address.is_empty() || topic_characters { Err(BuildError::Address(address.to_owned())) } else { Ok(()) }
    }

    /// The profile with a block moved to where the user of the device has put it; none when there is no such block, when
    /// it cannot be moved, or when it would end above the last address.
    #[must_use]
    pub fn with_poll_at(&self, poll: &str, address: u16) -> Option<Self> {
        let mut moved = self.clone();
        let block = moved.polls.iter_mut().find(|p| p.name == poll && p.movable)?;
        address.checked_add(block.count - 1)?;
        block.address = address;
        Some(moved)
    }

    /// Whether a frame is the answer that a step of the start-up waits for.
    #[must_use]
    pub fn answers(&self, expect: &Expect, frame: &crate::framing::Frame) -> bool {
        frame.framing == expect.framing && frame.key == expect.key && frame.data.starts_with(&expect.begins)
    }
}

fn denies(deny: &[Deny], registers: bool, address: u16) -> Option<&Deny> {
    deny.iter().find(|rule| rule.registers == registers && (rule.first..=rule.last).contains(&address))
}

fn read(fields: &mut Fields<'_>, name: &str, text: &str) -> Option<Profile> {
    let identification = fields.need_table("identification").and_then(identification);
    let deny: Vec<Deny> = fields.tables("deny").into_iter().filter_map(deny).collect();
    let link = fields.need_table("link").and_then(|f| link::read(f, &deny));
    let report = fields.need_table("report").and_then(report);
    let polls: Vec<Spanned<Poll>> = fields.tables("poll").into_iter().filter_map(poll).collect();
    let framings: Vec<Spanned<Framing>> = fields.tables("framing").into_iter().filter_map(framings::read).collect();
    let wake = link.as_ref().and_then(|link| link.wake.as_ref()).map_or(&[][..], |(wake, _)| wake);
    let sends = output::Sends { framings: &framings, deny: &deny, wake };
    let messages: Vec<Option<Spanned<Message>>> =
        fields.tables("message").into_iter().map(|f| message::read(f, &sends)).collect();
    // A message that did not read would make every input of it a mistake that nobody made.
    let whole = messages.iter().all(Option::is_some);
    let messages: Vec<Spanned<Message>> = messages.into_iter().flatten().collect();
    // Each is read to its end before any is given up: a table that nobody read would tell all its keys as unknown.
    let startup: Vec<Option<Step>> = fields.tables("startup").into_iter().map(|f| output::step(f, &sends)).collect();
    let context = input::Context { polls: &polls, messages: &messages, framings: &framings, report, whole };
    let inputs: Vec<Option<Vec<Input>>> =
        fields.named_tables("input").into_iter().map(|(name, f)| input::read(&name, f, &context)).collect();
    let availability = fields.table("availability").map(|f| input::availability(f, &context));
    let inputs = inputs.into_iter().collect::<Option<Vec<_>>>().map(|inputs| inputs.concat());
    let read_output = |(name, f): (Spanned<String>, Fields<'_>)| output::read(&name, f, &sends, inputs.as_deref());
    let outputs: Vec<Option<Vec<Output>>> = fields.named_tables("output").into_iter().map(read_output).collect();
    unique(fields, "poll", &polls, |poll| &poll.name);
    unique(fields, "framing", &framings, |framing| &framing.name);
    unique(fields, "message", &messages, |message| &message.name);
    let mut messages: Vec<Message> = messages.into_iter().map(Spanned::into_inner).collect();
    let inputs = inputs?;
    message::bound(&mut messages, &inputs);
    Some(Profile {
        name: name.to_owned(),
        digest: Digest::of_bytes(text.as_bytes()),
        identification: identification?,
        link: link?,
        polls: polls.into_iter().map(Spanned::into_inner).collect(),
        framings: framings.into_iter().map(Spanned::into_inner).collect(),
        messages,
        availability: match availability {
            Some(availability) => Some(availability?),
            None => None,
        },
        startup: startup.into_iter().collect::<Option<_>>()?,
        inputs,
        outputs: outputs.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect(),
        report: report?,
        deny,
    })
}

fn identification(mut f: Fields<'_>) -> Option<Identification> {
    let (vendor, model) = (f.need("vendor"), f.need("model"));
    let (title, advice) = (f.need("title"), f.take("advice"));
    let (source, confidence, tested) = (f.need("source"), f.need("confidence"), f.need("tested_on_hardware"));
    Some(Identification {
        vendor: vendor?.into_inner(),
        model: model?.into_inner(),
        title: title?.into_inner(),
        advice: advice.map(Spanned::into_inner),
        source: source?.into_inner(),
        confidence: confidence?.into_inner(),
        tested_on_hardware: tested?.into_inner(),
    })
}

fn poll(mut f: Fields<'_>) -> Option<Spanned<Poll>> {
    let (name, function): (_, Option<Spanned<Function>>) = (f.need("name"), f.need("function"));
    let (address, count): (Option<Spanned<u16>>, Option<Spanned<u16>>) = (f.need("address"), f.need("count"));
    let every = f.take_duration("every");
    let (fixed, movable) = (f.take_or("fixed", false), f.take_or("movable", false));
    let (function, address, count) = (function?.into_inner(), address?.into_inner(), count?);
    if !(1..=function.count_max()).contains(count.get_ref()) {
        let message = format!("count {} is not between 1 and {}", count.get_ref(), function.count_max());
        f.tell(count.span(), message, "split it into several [[poll]]");
    } else if address.checked_add(*count.get_ref() - 1).is_none() {
        f.tell(count.span(), "the block ends above address 65535", "lower address or count");
    }
    let every = every.unwrap_or(Duration::from_secs(1));
    let poll = Poll { name: name?.into_inner(), function, address, count: count.into_inner(), every, fixed, movable };
    Some(Spanned::new(f.span(), poll))
}

fn report(mut f: Fields<'_>) -> Option<Report> {
    let (on_change, heartbeat) = (f.take_or("on_change", true), f.take_duration("heartbeat"));
    let (spacing, silent_after) = (f.take_duration("spacing"), f.take_duration("silent_after"));
    Some(Report {
        on_change,
        heartbeat: heartbeat.unwrap_or(Duration::from_secs(600)),
        spacing: spacing.unwrap_or(Duration::ZERO),
        silent_after,
    })
}

fn deny(mut f: Fields<'_>) -> Option<Deny> {
    let (first_coil, last_coil) = (f.take::<u16>("first_coil"), f.take::<u16>("last_coil"));
    let (first_register, last_register) = (f.take::<u16>("first_register"), f.take::<u16>("last_register"));
    let reason = f.need("reason");
    let (registers, first, last) = match (first_coil, last_coil, first_register, last_register) {
        (Some(first), Some(last), None, None) => (false, first, last),
        (None, None, Some(first), Some(last)) => (true, first, last),
        _ => {
            let hint = "give first_coil and last_coil, or first_register and last_register";
            f.tell(f.span(), "[[deny]] does not say what is denied", hint);
            return None;
        }
    };
    Some(Deny { registers, first: first.into_inner(), last: last.into_inner(), reason: reason?.into_inner() })
}

fn unique<T>(fields: &Fields<'_>, kind: &str, all: &[Spanned<T>], name: impl Fn(&T) -> &String) {
    for (index, one) in all.iter().enumerate() {
        if all.iter().take(index).any(|earlier| name(earlier.get_ref()) == name(one.get_ref())) {
            let message = format!("two [[{kind}]] are named {:?}", name(one.get_ref()));
            fields.tell(one.span(), message, "give each its own name");
        }
    }
}

#[cfg(test)]
mod tests;
