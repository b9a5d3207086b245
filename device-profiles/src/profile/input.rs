//! What can be observed: `[input.name]`. One table may describe a row of alike inputs: `[input.1-8]`.

use std::collections::BTreeMap;
use std::time::Duration;

use carebed_contract::quantity::{Kind, Quantity};
use carebed_contract::value::Value;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::message::{Availability, Message, Transport};
use super::{Poll, Report};
use crate::document::{Fields, Span, advise};
use crate::field::{Field, Type};
use crate::framing::{Framing, Order};
use crate::meaning::Meaning;
use crate::report::Policy;

/// Most inputs one table may describe.
const ROW_MAX: usize = 64;

/// Something that can be observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its name on the board, e.g. `1`, or what it is, e.g. `heart_rate`. Inputs of one name are one input whose value
    /// comes in several ways; the first of them stands for it.
    pub name: String,
    /// What its value comes with.
    pub source: Source,
    /// Where its value stands there.
    pub field: Field,
    /// How its value is to be read.
    pub meaning: Meaning,
    /// What it observes, where the device itself decides that; else the home file says so.
    pub quantity: Option<Quantity>,
    /// Whether it counts presses, and how.
    pub counter: Option<Counter>,
    /// When its value is told.
    pub policy: Policy,
}

/// What a value comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The answer to a poll: an index into the profile's polls.
    Poll(usize),
    /// A message: an index into the profile's messages.
    Message(usize),
}

/// A counter whose growth is presses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// After how many bits it wraps.
    pub bits: u32,
    /// More presses than this between two readings are not believed.
    pub jump_max: u64,
}

/// A value as a profile writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Literal {
    Flag(bool),
    Integer(i64),
    Float(f64),
    Word(String),
}

impl Literal {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Word(word) => word.clone(),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Flag(flag) => Value::Flag(*flag),
            #[expect(clippy::cast_precision_loss, reason = "nobody writes such numbers into a profile")]
            Self::Integer(value) => Value::Number(*value as f64),
            Self::Float(value) => Value::Number(*value),
            Self::Word(word) => Value::Text(word.clone()),
        }
    }
}

/// What inputs may refer to.
pub(super) struct Context<'a> {
    pub(super) polls: &'a [Spanned<Poll>],
    pub(super) messages: &'a [Spanned<Message>],
    pub(super) framings: &'a [Spanned<Framing>],
    pub(super) report: Option<Report>,
    /// Whether every message read.
    pub(super) whole: bool,
}

pub(super) fn read(name: &Spanned<String>, mut f: Fields<'_>, context: &Context<'_>) -> Option<Vec<Input>> {
    let source = source(&mut f, context);
    let place = Place::take(&mut f);
    let meaning = meaning(&mut f);
    let quantity = f.take::<String>("quantity");
    let counts = f.take::<Counts>("counts").map(Spanned::into_inner);
    let (jump_max, event) = (f.take_or("jump_max", 16_u64), f.take::<bool>("event").map(Spanned::into_inner));
    let (on_change, deadband) = (f.take::<bool>("on_change"), f.take_or("deadband", 0.0_f64));
    let (spacing, heartbeat) = (f.take_duration("spacing"), f.take_duration("heartbeat"));
    let also = f.tables("also").into_iter().map(|f| also(f, context)).collect::<Vec<_>>();
    let names = row(&f, name);
    let source = source?;
    let span = place.span(&f);
    let field = place.field(&f, source, context)?;
    let quantity = match quantity {
        Some(name) => Some(f.quantity(&name)?),
        None => None,
    };
    let counter = match (counts, &field) {
        (None, _) => None,
        (Some(Counts::Presses), Field::Bytes { kind: Type::U8 | Type::U16 | Type::U32, size: Some(size), .. }) => {
            Some(Counter { bits: u32::try_from(*size).ok()? * 8, jump_max })
        }
        (Some(Counts::Presses), _) => {
            f.tell(f.span(), "a counter of presses is a whole number of 1, 2 or 4 bytes", "add type = \"u16\"");
            None
        }
    };
    let is_event = quantity.as_ref().and_then(Quantity::definition).is_some_and(|d| d.kind == Kind::Event);
    let report = context.report;
    let policy = Policy {
        on_change: on_change.map_or(report.is_none_or(|report| report.on_change), Spanned::into_inner),
        deadband,
        spacing: spacing.or(report.map(|report| report.spacing)).unwrap_or(Duration::ZERO),
        heartbeat: heartbeat.or(report.map(|report| report.heartbeat)).unwrap_or(Duration::from_secs(600)),
        event: event.unwrap_or(is_event || counter.is_some()),
    };
    let row: Option<Vec<Input>> = names
        .into_iter()
        .enumerate()
        .map(|(step, name)| {
            let field = advance(&field, step);
            fits(&f, &span, source, &field, context)?;
            let (meaning, quantity) = (meaning.clone(), quantity.clone());
            Some(Input { name, source, field, meaning, quantity, counter, policy })
        })
        .collect();
    let mut inputs = row?;
    if let Some(first) = inputs.first().cloned() {
        let also = also.into_iter().collect::<Option<Vec<_>>>()?;
        inputs.extend(also.into_iter().map(|(source, field)| Input { source, field, ..first.clone() }));
    }
    Some(inputs)
}

/// Where the same value stands in another message.
fn also(mut f: Fields<'_>, context: &Context<'_>) -> Option<(Source, Field)> {
    let source = source(&mut f, context);
    let place = Place::take(&mut f);
    let (source, span) = (source?, place.span(&f));
    let field = place.field(&f, source, context)?;
    fits(&f, &span, source, &field, context)?;
    Some((source, field))
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Counts {
    Presses,
}

pub(super) fn availability(mut f: Fields<'_>, context: &Context<'_>) -> Option<Availability> {
    let source = source(&mut f, context);
    let place = Place::take(&mut f);
    let meaning = meaning(&mut f);
    let source = source?;
    let field = place.field(&f, source, context)?;
    let Source::Message(message) = source else {
        f.tell(f.span(), "availability comes with a message, not with a poll", "name a [[message]]");
        return None;
    };
    Some(Availability { message, field, meaning })
}

fn source(f: &mut Fields<'_>, context: &Context<'_>) -> Option<Source> {
    let (poll, message) = (f.take::<String>("poll"), f.take::<String>("message"));
    let find = |kind: &str, name: Spanned<String>, known: Vec<&str>, whole: bool| {
        let found = known.iter().position(|known| *known == name.get_ref());
        if found.is_none() && whole {
            let message = format!("no [[{kind}]] is named {:?}", name.get_ref());
            f.tell(name.span(), message, advise(name.get_ref(), known));
        }
        found
    };
    match (poll, message) {
        (Some(poll), None) => {
            let known = context.polls.iter().map(|p| p.get_ref().name.as_str()).collect();
            find("poll", poll, known, true).map(Source::Poll)
        }
        (None, Some(message)) => {
            let known = context.messages.iter().map(|m| m.get_ref().name.as_str()).collect();
            find("message", message, known, context.whole).map(Source::Message)
        }
        _ => {
            f.tell(f.span(), "what the value comes with is not said", "give poll = \"…\" or message = \"…\"");
            None
        }
    }
}

/// The keys that say where a value stands, before it is known which of them are needed.
struct Place {
    bit: Option<Spanned<u16>>,
    register: Option<Spanned<u16>>,
    at: Option<Spanned<usize>>,
    kind: Option<Type>,
    size: Option<Spanned<usize>>,
    order: Option<Order>,
    mask: Option<u64>,
    path: Option<Spanned<String>>,
    samples: Option<Spanned<usize>>,
    over: Option<Duration>,
}

impl Place {
    fn take(f: &mut Fields<'_>) -> Self {
        Self {
            bit: f.take("bit"),
            register: f.take("register"),
            at: f.take("at"),
            kind: f.take("type").map(Spanned::into_inner),
            size: f.take("size"),
            order: f.take("order").map(Spanned::into_inner),
            mask: f.take("mask").map(Spanned::into_inner),
            path: f.take("path"),
            samples: f.take("samples"),
            over: f.take_duration("over"),
        }
    }

    /// Where in the file it is said where the value stands.
    fn span(&self, f: &Fields<'_>) -> Span {
        let spans = [
            self.bit.as_ref().map(Spanned::span),
            self.register.as_ref().map(Spanned::span),
            self.at.as_ref().map(Spanned::span),
        ];
        spans.into_iter().flatten().next().unwrap_or(f.span())
    }

    fn field(self, f: &Fields<'_>, source: Source, context: &Context<'_>) -> Option<Field> {
        match source {
            Source::Poll(index) => {
                let poll = context.polls.get(index)?.get_ref();
                if poll.function.is_bits() { self.bit_of(f, poll) } else { self.register_of(f, poll) }
            }
            Source::Message(index) => {
                let message = context.messages.get(index)?.get_ref();
                match (message.document, &message.transport) {
                    (Some(_), _) => Some(self.path_of()),
                    (None, Transport::Frame(matcher)) => {
                        let order = context.framings.get(matcher.framing)?.get_ref().order;
                        let Some(at) = self.at.as_ref().map(|at| *at.get_ref()) else {
                            f.tell(f.span(), "where the value stands in the data is not said", "add at = 0");
                            return None;
                        };
                        self.bytes(f, at, Type::U8, order)
                    }
                    (None, _) => None,
                }
            }
        }
    }

    fn bit_of(self, f: &Fields<'_>, poll: &Poll) -> Option<Field> {
        match self.bit {
            Some(bit) => Some(Field::Bit(usize::from(*bit.get_ref()))),
            None => {
                f.tell(f.span(), format!("poll {:?} reads bits; which one is not said", poll.name), "add bit = 0");
                None
            }
        }
    }

    fn register_of(self, f: &Fields<'_>, poll: &Poll) -> Option<Field> {
        let Some(register) = self.register.as_ref() else {
            let message = format!("poll {:?} reads registers; which one is not said", poll.name);
            f.tell(f.span(), message, format!("add register = {}", poll.address));
            return None;
        };
        let Some(offset) = register.get_ref().checked_sub(poll.address) else {
            let message = format!("register {} lies before poll {:?}", register.get_ref(), poll.name);
            f.tell(register.span(), message, format!("use {} or more", poll.address));
            return None;
        };
        self.bytes(f, usize::from(offset) * 2, Type::U16, Order::Abcd)
    }

    fn bytes(self, f: &Fields<'_>, at: usize, default: Type, order: Order) -> Option<Field> {
        let kind = self.kind.unwrap_or(default);
        let size = kind.size().or(self.size.as_ref().map(|size| *size.get_ref()));
        if kind == Type::Bcd && size.is_none_or(|size| !(1..=8).contains(&size)) {
            f.tell(f.span(), "how many bytes the digits take is not said", "add size, from 1 to 8");
            return None;
        }
        if let Some(bit) =
            self.bit.as_ref().filter(|bit| size.is_none_or(|size| usize::from(*bit.get_ref()) >= size * 8))
        {
            f.tell(bit.span(), format!("the value has no bit {}", bit.get_ref()), "count from 0, the lowest");
            return None;
        }
        let samples = match (&self.samples, self.over) {
            (None, _) => None,
            (Some(count), Some(over)) if (1..=64).contains(count.get_ref()) => Some((*count.get_ref(), over)),
            (Some(count), _) => {
                f.tell(count.span(), "samples need a count from 1 to 64 and the time they cover", "add over = \"1s\"");
                return None;
            }
        };
        let bit = self.bit.map(|bit| u32::from(*bit.get_ref()));
        let order = self.order.unwrap_or(order);
        Some(Field::Bytes { at, kind, size, order, bit, mask: self.mask, samples })
    }

    fn path_of(self) -> Field {
        let path = self.path.map_or_else(String::new, Spanned::into_inner);
        let keys = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
        Field::Path { keys, text: self.kind == Some(Type::Text) }
    }
}

/// The `step`-th neighbour of a value: the next bit where the value is a bit, else the next value.
fn advance(field: &Field, step: usize) -> Field {
    match field.clone() {
        Field::Bit(bit) => Field::Bit(bit + step),
        Field::Bytes { at, kind, size, order, bit: Some(bit), mask, samples } => {
            let bit = Some(bit + u32::try_from(step).unwrap_or(u32::MAX));
            Field::Bytes { at, kind, size, order, bit, mask, samples }
        }
        Field::Bytes { at, kind, size, order, bit: None, mask, samples } => {
            let at = at + step * size.unwrap_or(0);
            Field::Bytes { at, kind, size, order, bit: None, mask, samples }
        }
        path @ Field::Path { .. } => path,
    }
}

/// Tells of a value that lies outside of what it comes with.
fn fits(f: &Fields<'_>, span: &Span, source: Source, field: &Field, context: &Context<'_>) -> Option<()> {
    let span = span.clone();
    match (source, field) {
        (Source::Poll(index), Field::Bit(bit)) => {
            let poll = context.polls.get(index)?.get_ref();
            if *bit >= usize::from(poll.count) {
                let message = format!("bit {bit} lies outside poll {:?}", poll.name);
                f.tell(span, message, format!("use 0 to {}", poll.count - 1));
                return None;
            }
        }
        (Source::Poll(index), field) => {
            let poll = context.polls.get(index)?.get_ref();
            if field.end().is_none_or(|end| end > poll.function.answer_length(poll.count)) {
                let last = u32::from(poll.address) + u32::from(poll.count) - 1;
                let message = format!("the value reaches beyond poll {:?}", poll.name);
                f.tell(span, message, format!("its last register is {last}"));
                return None;
            }
        }
        (Source::Message(index), field) => {
            let Transport::Frame(matcher) = &context.messages.get(index)?.get_ref().transport else { return Some(()) };
            if field.end().is_some_and(|end| end > matcher.length_max) {
                let message = format!("the value reaches beyond the message's {} bytes", matcher.length_max);
                f.tell(span, message, "correct at, type or the message's length");
                return None;
            }
        }
    }
    if matches!(field, Field::Bytes { bit: Some(bit), size: Some(size), .. } if *bit as usize >= size * 8) {
        f.tell(span, "the row of inputs has more bits than the value", "make two rows of it");
        return None;
    }
    Some(())
}

fn meaning(f: &mut Fields<'_>) -> Meaning {
    let mut literals = |key| -> Vec<String> {
        let list: Option<Spanned<Vec<Literal>>> = f.take(key);
        list.map_or_else(Vec::new, Spanned::into_inner).iter().map(Literal::text).collect()
    };
    let (ignore, missing, inferred) = (literals("ignore"), literals("missing"), literals("inferred"));
    let values: Option<Spanned<BTreeMap<String, Literal>>> = f.take("values");
    let values = values.map_or_else(BTreeMap::new, Spanned::into_inner);
    let scale: Option<Spanned<f64>> = f.take("scale");
    if let Some(scale) = scale.as_ref().filter(|scale| *scale.get_ref() == 0.0 || !scale.get_ref().is_finite()) {
        f.tell(scale.span(), "scale is zero or no number", "give the factor from the raw value to the unit");
    }
    Meaning {
        ignore,
        missing,
        values: values.into_iter().map(|(literal, value)| (literal, value.value())).collect(),
        inferred,
        invert: f.take_or("invert", false),
        scale: scale.map_or(1.0, Spanned::into_inner),
        offset: f.take_or("offset", 0.0),
        low: f.take("low").map(Spanned::into_inner),
        high: f.take("high").map(Spanned::into_inner),
        uncertain: f.take("uncertain").map(Spanned::into_inner),
    }
}

/// The names that a table stands for: its own, or `1`, `2`, … for `1-8`, with what stands before them.
pub(super) fn row(f: &Fields<'_>, name: &Spanned<String>) -> Vec<String> {
    let text = name.get_ref();
    let range = text.rsplit_once('-').and_then(|(left, last)| {
        let prefix = left.trim_end_matches(|c: char| c.is_ascii_digit());
        let first: usize = left.strip_prefix(prefix)?.parse().ok()?;
        let last: usize = last.parse().ok()?;
        (last > first).then(|| (prefix.to_owned(), first, last))
    });
    match range {
        Some((_, first, last)) if last - first >= ROW_MAX => {
            f.tell(name.span(), format!("{text:?} is more than {ROW_MAX} inputs"), "make several tables of it");
            Vec::new()
        }
        Some((prefix, first, last)) => (first..=last).map(|number| format!("{prefix}{number}")).collect(),
        None => vec![text.clone()],
    }
}
