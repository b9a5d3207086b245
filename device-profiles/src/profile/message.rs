//! What a device says: `[[message]]`, a frame with a key, a topic with a payload, or a page.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::input::{Input, Source};
use super::output::{self, Send, Sends};
use crate::document::{Fields, advise};
use crate::field::Field;
use crate::framing::{Frame, Framing};
use crate::hex::Hex;
use crate::meaning::Meaning;

/// How a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    /// A JSON value.
    Json,
    /// One plain word or number.
    Text,
    /// Lines `KEY=value`, with or without a `<br>` at their end.
    Pairs,
}

/// One kind of thing that the device says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name within the profile.
    pub name: String,
    /// How it comes.
    pub transport: Transport,
    /// How it is written, when it is not bytes.
    pub document: Option<Document>,
    /// What asks for it, where it can be asked for.
    pub query: Option<Send>,
    /// How often it is asked for, besides once after every start; none: only then.
    pub every: Option<Duration>,
    /// Whether hearing it means that the device has started anew and forgotten its settings.
    pub restart: bool,
}

/// How a message comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// In a frame.
    Frame(Matcher),
    /// On a topic of a broker; `{address}` stands for the device's address.
    Topic(String),
    /// As the answer to GET of this path, asked every so often.
    Page(String),
}

/// Which frames are the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    /// Index into the profile's framings.
    pub framing: usize,
    /// One of these keys; empty: frames have no key.
    pub keys: Vec<Vec<u8>>,
    /// The data begins with one of these; empty: with anything.
    pub begins: Vec<Vec<u8>>,
    /// Bytes that the data has at a place: a unit, a kind of meter.
    pub fixed: Vec<(usize, Vec<u8>)>,
    /// Fewest bytes of data.
    pub length_min: usize,
    /// Most bytes of data.
    pub length_max: usize,
}

impl Matcher {
    /// Whether a frame is the message, its length aside.
    #[must_use]
    pub fn names(&self, frame: &Frame) -> bool {
        frame.framing == self.framing
            && (self.keys.is_empty() || self.keys.contains(&frame.key))
            && (self.begins.is_empty() || self.begins.iter().any(|begin| frame.data.starts_with(begin)))
            && self.fixed.iter().all(|(at, bytes)| frame.data.get(*at..).is_some_and(|data| data.starts_with(bytes)))
    }

    /// Whether data of this length can be the message.
    #[must_use]
    pub fn fits(&self, length: usize) -> bool {
        (self.length_min..=self.length_max).contains(&length)
    }
}

/// What says whether the device is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Availability {
    /// Index into the profile's messages.
    pub message: usize,
    /// Where it stands.
    pub field: Field,
    /// What it means: on for there.
    pub meaning: Meaning,
}

pub(super) fn read(mut f: Fields<'_>, sends: &Sends<'_>) -> Option<Spanned<Message>> {
    let framings = sends.framings;
    let name = f.need::<String>("name");
    let (framing, keys) = (f.take::<String>("framing"), f.take::<Vec<Hex>>("keys"));
    let (begins, length) = (f.take::<Vec<Hex>>("begins"), f.take::<usize>("length"));
    let length_min = f.take::<usize>("length_min");
    let fixed = f.tables("fixed").into_iter().filter_map(fixed).collect();
    let (topic, page, document) = (f.take::<String>("topic"), f.take::<String>("page"), f.take("document"));
    let query = f.table("query").map(|f| output::send(f, sends));
    let (every, restart) = (f.take_duration("every"), f.take_or("restart", false));
    let hexes = |list: Option<Spanned<Vec<Hex>>>| -> Vec<Vec<u8>> {
        list.map_or_else(Vec::new, Spanned::into_inner).into_iter().map(|hex| hex.0).collect()
    };
    let transport = match (topic, page) {
        (Some(topic), None) => Transport::Topic(topic.into_inner()),
        (None, Some(page)) => Transport::Page(page.into_inner()),
        (Some(_), Some(page)) => {
            f.tell(page.span(), "a message has a topic or a page, not both", "make two [[message]] of it");
            return None;
        }
        (None, None) => {
            let framing = framing_index(&f, framing, framings)?;
            let keys_span = keys.as_ref().map_or(f.span(), Spanned::span);
            let keys = hexes(keys);
            let size = framings.get(framing)?.get_ref().key.map_or(0, |(_, size)| size);
            if size > 0 && (keys.is_empty() || keys.iter().any(|key| key.len() != size)) {
                let hint = format!("give keys = [\"…\"], each of {size} bytes");
                f.tell(keys_span, "the message does not say by which keys its frames are known", hint);
            } else if size == 0 && !keys.is_empty() {
                f.tell(keys_span, "frames of this framing have no key", "remove keys, or add key to the [[framing]]");
            }
            let exact = length.map(Spanned::into_inner);
            Transport::Frame(Matcher {
                framing,
                keys,
                begins: hexes(begins),
                fixed,
                length_min: exact.or(length_min.map(Spanned::into_inner)).unwrap_or(0),
                length_max: exact.unwrap_or(usize::MAX),
            })
        }
    };
    let document = document.map(Spanned::into_inner);
    if document.is_none() && !matches!(transport, Transport::Frame(_)) {
        f.tell(f.span(), "[[message]] lacks document", "add document = \"json\", \"text\" or \"pairs\"");
    }
    let every = every.or(matches!(transport, Transport::Page(_)).then_some(Duration::from_secs(10)));
    let query = match query {
        Some(query) => Some(query?),
        None => None,
    };
    let message = Message { name: name?.into_inner(), transport, document, query, every, restart };
    Some(Spanned::new(f.span(), message))
}

fn fixed(mut f: Fields<'_>) -> Option<(usize, Vec<u8>)> {
    let (at, bytes) = (f.need::<u8>("at"), f.need::<Hex>("bytes"));
    Some((at?.into_inner().into(), bytes?.into_inner().0))
}

/// Finds the framing that is meant: by name, or the only one.
pub(super) fn framing_index(
    f: &Fields<'_>,
    name: Option<Spanned<String>>,
    framings: &[Spanned<Framing>],
) -> Option<usize> {
    let names = framings.iter().map(|framing| framing.get_ref().name.as_str());
    match (name, framings.len()) {
        (None, 1) => Some(0),
        (None, 0) => {
            f.tell(f.span(), "there is no [[framing]]", "add one, or give a topic or a page");
            None
        }
        (None, _) => {
            f.tell(f.span(), "which framing is not said", format!("add framing = \"…\"; {}", advise("", names)));
            None
        }
        (Some(name), _) => {
            let found = framings.iter().position(|framing| framing.get_ref().name == *name.get_ref());
            if found.is_none() {
                let message = format!("no [[framing]] is named {:?}", name.get_ref());
                f.tell(name.span(), message, advise(name.get_ref(), names));
            }
            found
        }
    }
}

/// A message is at least as long as its values need, whatever the profile says.
pub(super) fn bound(messages: &mut [Message], inputs: &[Input]) {
    for (index, message) in messages.iter_mut().enumerate() {
        let Transport::Frame(matcher) = &mut message.transport else { continue };
        let ends = inputs.iter().filter(|input| input.source == Source::Message(index)).filter_map(|i| i.field.end());
        let least = ends.chain(matcher.begins.iter().map(Vec::len)).max().unwrap_or(0);
        if matcher.length_max == usize::MAX {
            matcher.length_min = matcher.length_min.max(least);
        }
    }
}
