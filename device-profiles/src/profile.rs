//! One `profile.toml`, checked: who the device is, how to reach it, what to poll, and what its bytes mean.

use std::time::Duration;

use carebed_contract::digest::Digest;
use carebed_contract::text::Text;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::document::{self, Fields, Mistakes, advise};
use crate::modbus::{Function, Request};

/// How sure the facts of a profile are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Confidence {
    /// Vendor document and at least two independent programs or captures.
    A,
    /// Vendor document, or two independent programs.
    B,
}

/// Kinds of links a device can be reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// Modbus TCP.
    ModbusTcp,
    /// Modbus RTU on a serial line.
    ModbusRtu,
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
    /// What to read, how often.
    pub polls: Vec<Poll>,
    /// What can be observed: the terminals of the board.
    pub inputs: Vec<Input>,
    /// What can be set.
    pub outputs: Vec<Output>,
    /// When to report.
    pub report: Report,
    /// Coils that nobody may ever write, whatever a home file or command says.
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
    /// Where the facts come from.
    pub source: String,
    /// How sure they are.
    pub confidence: Confidence,
    /// Whether anybody ran this profile against the real thing.
    pub tested_on_hardware: bool,
}

/// How to reach the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSettings {
    /// By what.
    pub kinds: Vec<LinkKind>,
    /// Modbus unit as shipped by the maker.
    pub unit: u8,
    /// TCP port as shipped by the maker.
    pub port: u16,
    /// How long an answer may take.
    pub timeout: Duration,
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
}

impl Poll {
    /// The request that reads it.
    #[must_use]
    pub fn request(&self) -> Request {
        Request::Read { function: self.function, address: self.address, count: self.count }
    }
}

/// Something that can be observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its name on the board, e.g. `1`.
    pub name: String,
    /// Index into [`Profile::polls`].
    pub poll: usize,
    /// How its value stands in the answer.
    pub decode: Decode,
}

/// How a value stands in the answer to a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decode {
    /// The n-th bit, as Modbus packs bits: lowest bit of the first byte first.
    Bit(u16),
}

/// Something that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name on the board, e.g. `1`.
    pub name: String,
    /// The coil to write.
    pub coil: u16,
    /// What it can be told to do.
    pub actions: Vec<String>,
}

/// The action that sets an output to the command's value.
pub const ACTION_SET: &str = "set";

/// When to report a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Whether a change is reported at once.
    pub on_change: bool,
    /// After which time of sameness the value is reported again, so that silence is visible.
    pub heartbeat: Duration,
}

/// A range of coils that must never be written, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deny {
    /// First coil.
    pub first: u16,
    /// Last coil.
    pub last: u16,
    /// What writing them would do.
    pub reason: String,
}

impl Profile {
    /// Reads and checks the text of a `profile.toml`; `name` is the folder, `vendor/model`.
    pub fn parse(name: &str, text: &str) -> Result<Self, Mistakes> {
        let file = format!("profiles/{name}/profile.toml");
        document::read(&file, text, |fields| {
            let identification = fields.need_table("identification").and_then(identification);
            let link = fields.need_table("link").and_then(link);
            let polls: Vec<Spanned<Poll>> = fields.tables("poll").into_iter().filter_map(poll).collect();
            let inputs = fields.named_tables("input").into_iter().map(|(name, f)| input(name, f, &polls)).collect();
            let deny: Vec<Deny> = fields.tables("deny").into_iter().filter_map(deny).collect();
            let outputs = fields.named_tables("output").into_iter().map(|(name, f)| output(name, f, &deny)).collect();
            let report = fields.need_table("report").and_then(report);
            unique(fields, &polls);
            let (inputs, outputs): (Option<Vec<_>>, Option<Vec<_>>) = (inputs, outputs);
            Some(Self {
                name: name.to_owned(),
                digest: Digest::of_bytes(text.as_bytes()),
                identification: identification?,
                link: link?,
                polls: polls.into_iter().map(Spanned::into_inner).collect(),
                inputs: inputs?,
                outputs: outputs?,
                report: report?,
                deny,
            })
        })
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
        denies(&self.deny, coil)
    }
}

fn denies(deny: &[Deny], coil: u16) -> Option<&Deny> {
    deny.iter().find(|rule| (rule.first..=rule.last).contains(&coil))
}

fn identification(mut f: Fields<'_>) -> Option<Identification> {
    let (vendor, model) = (f.need("vendor"), f.need("model"));
    let title = f.need("title");
    let (source, confidence, tested) = (f.need("source"), f.need("confidence"), f.need("tested_on_hardware"));
    Some(Identification {
        vendor: vendor?.into_inner(),
        model: model?.into_inner(),
        title: title?.into_inner(),
        source: source?.into_inner(),
        confidence: confidence?.into_inner(),
        tested_on_hardware: tested?.into_inner(),
    })
}

fn link(mut f: Fields<'_>) -> Option<LinkSettings> {
    let (kinds, unit): (Option<Spanned<Vec<LinkKind>>>, _) = (f.need("kinds"), f.need("unit"));
    let (port, timeout) = (f.take_or("port", 502), f.take_duration("timeout"));
    if let Some(kinds) = kinds.as_ref().filter(|kinds| kinds.get_ref().is_empty()) {
        f.tell(kinds.span(), "kinds is empty", "name at least one of modbus_tcp, modbus_rtu");
    }
    Some(LinkSettings {
        kinds: kinds?.into_inner(),
        unit: unit?.into_inner(),
        port,
        // Slow serial boards answer within 100–200 ms; half a second leaves room for a serial-to-Ethernet box.
        timeout: timeout.unwrap_or(Duration::from_millis(500)),
    })
}

fn poll(mut f: Fields<'_>) -> Option<Spanned<Poll>> {
    let (name, function): (_, Option<Spanned<Function>>) = (f.need("name"), f.need("function"));
    let (address, count): (Option<Spanned<u16>>, Option<Spanned<u16>>) = (f.need("address"), f.need("count"));
    let every = f.take_duration("every");
    let (function, address, count) = (function?.into_inner(), address?.into_inner(), count?);
    if !(1..=function.count_max()).contains(count.get_ref()) {
        let message = format!("count {} is not between 1 and {}", count.get_ref(), function.count_max());
        f.tell(count.span(), message, "split it into several [[poll]]");
    } else if address.checked_add(*count.get_ref() - 1).is_none() {
        f.tell(count.span(), "the block ends above address 65535", "lower address or count");
    }
    let every = every.unwrap_or(Duration::from_secs(1));
    let poll = Poll { name: name?.into_inner(), function, address, count: count.into_inner(), every };
    Some(Spanned::new(f.span(), poll))
}

fn input(name: Spanned<String>, mut f: Fields<'_>, polls: &[Spanned<Poll>]) -> Option<Input> {
    let (poll, bit): (Option<Spanned<String>>, Option<Spanned<u16>>) = (f.need("poll"), f.need("bit"));
    let (poll, bit) = (poll?, bit?);
    let Some(index) = polls.iter().position(|p| &p.get_ref().name == poll.get_ref()) else {
        let known = polls.iter().map(|p| p.get_ref().name.as_str());
        f.tell(poll.span(), format!("no [[poll]] is named {:?}", poll.get_ref()), advise(poll.get_ref(), known));
        return None;
    };
    let group = polls.get(index)?.get_ref();
    if !group.function.is_bits() {
        f.tell(poll.span(), format!("poll {:?} reads registers, not bits", group.name), "read bits with it");
    } else if *bit.get_ref() >= group.count {
        let message = format!("bit {} lies outside poll {:?}", bit.get_ref(), group.name);
        f.tell(bit.span(), message, format!("use 0 to {}", group.count - 1));
    }
    Some(Input { name: name.into_inner(), poll: index, decode: Decode::Bit(bit.into_inner()) })
}

fn output(name: Spanned<String>, mut f: Fields<'_>, deny: &[Deny]) -> Option<Output> {
    let (coil, actions): (Option<Spanned<u16>>, Option<Spanned<Vec<String>>>) = (f.need("coil"), f.take("actions"));
    let coil = coil?;
    if let Some(rule) = denies(deny, *coil.get_ref()) {
        let message = format!("coil {} is denied: {}", coil.get_ref(), rule.reason);
        f.tell(coil.span(), message, "remove the output");
    }
    for action in actions.iter().flat_map(Spanned::get_ref).filter(|action| *action != ACTION_SET) {
        let span = actions.as_ref().map_or(f.span(), Spanned::span);
        f.tell(span, format!("unknown action {action:?}"), advise(action, [ACTION_SET]));
    }
    let actions = actions.map_or_else(|| vec![ACTION_SET.to_owned()], Spanned::into_inner);
    Some(Output { name: name.into_inner(), coil: coil.into_inner(), actions })
}

fn report(mut f: Fields<'_>) -> Option<Report> {
    let (on_change, heartbeat) = (f.take_or("on_change", true), f.take_duration("heartbeat"));
    Some(Report { on_change, heartbeat: heartbeat.unwrap_or(Duration::from_secs(600)) })
}

fn deny(mut f: Fields<'_>) -> Option<Deny> {
    let (first, last, reason) = (f.need("first_coil"), f.need("last_coil"), f.need("reason"));
    Some(Deny { first: first?.into_inner(), last: last?.into_inner(), reason: reason?.into_inner() })
}

fn unique(fields: &Fields<'_>, polls: &[Spanned<Poll>]) {
    for (index, poll) in polls.iter().enumerate() {
        if polls.iter().take(index).any(|earlier| earlier.get_ref().name == poll.get_ref().name) {
            let message = format!("two [[poll]] are named {:?}", poll.get_ref().name);
            fields.tell(poll.span(), message, "give each its own name");
        }
    }
}

#[cfg(test)]
mod tests;
