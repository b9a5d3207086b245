//! `decode`: what bytes say.
//!
//! Without a profile: in every type and every word order side by side, because makers disagree and manuals are wrong. With
//! one: as the gateway would read them.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_device_profiles::capture::show;
use carebed_device_profiles::decoder::{Decoded, Decoder};
use carebed_device_profiles::field::{Raw, Type};
use carebed_device_profiles::framing::Order;
use carebed_device_profiles::hex::Hex;
use carebed_device_profiles::modbus::rtu_pdu;
use carebed_device_profiles::profile::Profile;
use clap::Args;

use super::{Exit, print, profiles};

#[derive(Args)]
pub(super) struct Arguments {
    /// Bytes as hex, registers as groups of four digits, or the payload of a topic or page; with a profile perhaps behind
    /// the name of a block or message, as `raw = true` in the home file keeps them.
    #[arg(required = true, value_name = "HEX or TEXT")]
    what: Vec<String>,
    /// Read it as this device would be read: a name such as micradar/r60abd1, or a folder.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Which message of the profile a payload is; without it, the first that holds values.
    #[arg(long, value_name = "NAME")]
    message: Option<String>,
    /// The device's own address in frames.
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
}

pub(super) fn decode(arguments: &Arguments) -> anyhow::Result<Exit> {
    let what = arguments.what.join(" ");
    match &arguments.profile {
        None => {
            let bytes = Hex::parse(&what).context("this is not hex: write bytes as in \"43 66 33 34\"")?;
            print(&table(&bytes.0))
        }
        Some(name) => by_profile(&what, name, arguments),
    }
}

/// Every type that fits, in every order.
fn table(bytes: &[u8]) -> String {
    let mut table = format!("{:<8}", "");
    for order in Order::ALL {
        let _never = write!(table, "{:>22}", order.word());
    }
    table.push('\n');
    let types = [
        ("u8", Type::U8),
        ("s8", Type::S8),
        ("u16", Type::U16),
        ("s16", Type::S16),
        ("sm16", Type::Sm16),
        ("u32", Type::U32),
        ("s32", Type::S32),
        ("f32", Type::F32),
        ("u64", Type::U64),
        ("f64", Type::F64),
    ];
    for (word, kind) in types.into_iter().filter(|(_, kind)| kind.size() == Some(bytes.len())) {
        row(&mut table, word, kind, bytes);
    }
    if (1..=8).contains(&bytes.len()) {
        row(&mut table, "bcd", Type::Bcd, bytes);
    }
    let bits: Vec<String> = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let _never = writeln!(table, "{:<8}{:>22}", "bits", bits.join(" "));
    if bytes.iter().all(|byte| (0x20..0x7F).contains(byte)) {
        let _never = writeln!(table, "{:<8}{:>22}", "text", String::from_utf8_lossy(bytes));
    }
    table
}

fn row(table: &mut String, word: &str, kind: Type, bytes: &[u8]) {
    let _never = write!(table, "{word:<8}");
    for order in Order::ALL {
        let shown = match kind.read(bytes, order) {
            Raw::Integer(value) => value.to_string(),
            Raw::Float(value) if value != 0.0 && !(1e-4..1e9).contains(&value.abs()) => format!("{value:e}"),
            Raw::Float(value) => value.to_string(),
            _ => "-".to_owned(),
        };
        let _never = write!(table, "{shown:>22}");
    }
    table.push('\n');
}

fn by_profile(what: &str, name: &str, arguments: &Arguments) -> anyhow::Result<Exit> {
    let profile = profiles::find(name)?.profile;
    if let Some(address) = &arguments.address {
        profile.check_address(address)?;
    }
    let mut decoder = Decoder::at(std::sync::Arc::clone(&profile), arguments.address.as_deref());
    let decoded = if !profile.framings.is_empty() {
        let bytes = Hex::parse(what).context("this profile reads frames: write their bytes as hex")?;
        let mut decoded = decoder.push(&bytes.0, Duration::ZERO);
        let cut_off = decoder.push(&[], Duration::from_secs(2));
        decoded.points.extend(cut_off.points);
        decoded.rejects.extend(cut_off.rejects);
        decoded
    } else if !profile.polls.is_empty() {
        registers(&profile, &mut decoder, what)?
    } else {
        let named = |wanted: &str| profile.messages.iter().position(|message| message.name == wanted);
        let (message, payload) = match (&arguments.message, what.split_once(' ')) {
            (Some(wanted), _) => {
                (named(wanted).with_context(|| format!("{} has no message {wanted:?}", profile.name))?, what)
            }
            (None, Some((name, payload))) if named(name).is_some() => (named(name).unwrap_or(0), payload),
            (None, _) => (0, what),
        };
        decoder.payload(message, payload.as_bytes(), false)
    };
    let mut table = String::new();
    for point in &decoded.points {
        let Some(input) = profile.inputs.get(point.input) else { continue };
        let quantity = input.quantity.as_ref().and_then(|quantity| quantity.definition());
        let (unit, title) = quantity
            .map_or(("", String::new()), |known| (&*known.ucum, format!("{} · {}", known.title.zh, known.title.en)));
        let _never = writeln!(
            table,
            "{:<24} {:>16} {unit:<8} {:<24} {title}",
            input.name,
            show(&point.value, &carebed_contract::quality::Quality::Good),
            point.quality.to_string()
        );
    }
    for reject in &decoded.rejects {
        let _never = writeln!(table, "refused: {reject}");
    }
    print(&table)?;
    Ok(if decoded.points.is_empty() && decoded.messages.is_empty() { Exit::Failed } else { Exit::Ok })
}

/// An RTU frame that answers a poll, or the registers of one poll alone.
fn registers(profile: &Profile, decoder: &mut Decoder, what: &str) -> anyhow::Result<Decoded> {
    let named = what
        .split_once(' ')
        .and_then(|(name, rest)| Some((profile.polls.iter().position(|poll| poll.name == name)?, Hex::parse(rest)?.0)));
    if let Some((poll, data)) = named {
        return Ok(decoder.answer(poll, &data));
    }
    let bytes = Hex::parse(what).context("this profile reads registers: write an RTU frame or the registers as hex")?.0;
    let unit = bytes.first().copied().unwrap_or_default();
    let pdu = rtu_pdu(unit, &bytes).ok();
    for (index, poll) in profile.polls.iter().enumerate() {
        match pdu.map(|pdu| poll.request().answer(pdu)) {
            Some(Ok(data)) => return Ok(decoder.answer(index, data)),
            None if bytes.len() == poll.function.answer_length(poll.count) => return Ok(decoder.answer(index, &bytes)),
            _ => {}
        }
    }
    bail!("these bytes answer none of the polls of {}", profile.name)
}
