//! SenML-CBOR (RFC 8428 §6): integer labels.

use std::convert::Infallible;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::{DecodeError, Pack, RECORDS_MAX, Raw, seconds};
use crate::quality::Quality;
use crate::record::{Record, RecordTime};
use crate::time::{ClockQuality, Timestamp};
use crate::value::Value;

const BASE_NAME: i32 = -2;
const BASE_TIME: i32 = -3;
const BASE_UNIT: i32 = -4;
const BASE_VALUE: i32 = -5;
const BASE_VERSION: i32 = -1;
const NAME: i32 = 0;
const UNIT: i32 = 1;
const VALUE: i32 = 2;
const TEXT: i32 = 3;
const FLAG: i32 = 4;
const TIME: i32 = 6;

type Out = Encoder<Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<Infallible>>;

/// Writes a checked pack.
pub(super) fn encode(pack: &Pack) -> Vec<u8> {
    let mut out = Encoder::new(Vec::with_capacity(32 + pack.records.len() * 12));
    write(&mut out, pack).expect("a Vec takes every byte");
    out.into_writer()
}

/// What stands before the fields of a record when its series or kind of time changes.
struct Base {
    name: String,
    time: Option<Timestamp>,
    unit: Option<String>,
}

fn write(out: &mut Out, pack: &Pack) -> Written {
    out.array(pack.records.len() as u64)?;
    let mut base: Option<Base> = None;
    for (index, record) in pack.records.iter().enumerate() {
        let name = record.series.to_string();
        let time = match record.time {
            RecordTime::At(at) => Some(at),
            RecordTime::BeforeReceive(_) => None,
        };
        let fits = base
            .as_ref()
            .is_some_and(|b| b.name == name && b.time.is_some() == time.is_some() && b.unit == record.unit);
        let next =
            Base { name, time: base.as_ref().filter(|_| fits).map_or(time, |b| b.time), unit: record.unit.clone() };
        let unit_was = base.as_ref().and_then(|b| b.unit.clone());
        let boot = (index == 0).then_some(pack.boot).flatten();
        write_record(out, record, (!fits).then_some(&next), unit_was.as_deref(), next.time, boot)?;
        base = Some(next);
    }
    Ok(())
}

fn write_record(
    out: &mut Out,
    record: &Record,
    new_base: Option<&Base>,
    unit_was: Option<&str>,
    base_time: Option<Timestamp>,
    boot: Option<u64>,
) -> Written {
    // The base unit stays until replaced, so a series without a unit has to name an empty one.
    let base_unit = new_base.and_then(|b| match (&b.unit, unit_was) {
        (Some(unit), was) if was != Some(unit.as_str()) => Some(unit.clone()),
        (None, Some(_)) => Some(String::new()),
        _ => None,
    });
    let offset = match (record.time, base_time) {
        (RecordTime::At(at), Some(base)) => at.millis() - base.millis(),
        (RecordTime::BeforeReceive(before), _) => -i64::try_from(before.as_millis()).unwrap_or(i64::MAX),
        (RecordTime::At(_), None) => 0,
    };
    let quality = (record.quality != Quality::Good).then(|| record.quality.to_string());
    let clock = (record.clock != ClockQuality::Synchronised).then(|| record.clock.as_str());
    let gateway_offset = match (record.gateway_time, record.time) {
        (Some(gateway), RecordTime::At(at)) if gateway != at => Some(gateway.millis() - at.millis()),
        _ => None,
    };
    let monotonic = record.monotonic.map(|m| u64::try_from(m.as_millis()).unwrap_or(u64::MAX));
    let fields = new_base.map_or(0, |_| 2)
        + u64::from(base_unit.is_some())
        + 1
        + u64::from(offset != 0)
        + u64::from(quality.is_some())
        + u64::from(clock.is_some())
        + u64::from(gateway_offset.is_some())
        + u64::from(monotonic.is_some())
        + u64::from(boot.is_some());
    out.map(fields)?;
    if let Some(base) = new_base {
        out.i32(BASE_NAME)?.str(&base.name)?;
        out.i32(BASE_TIME)?;
        match base.time {
            Some(time) => write_millis(out, time.millis())?,
            None => {
                out.u8(0)?;
            }
        }
    }
    if let Some(unit) = &base_unit {
        out.i32(BASE_UNIT)?.str(unit)?;
    }
    match &record.value {
        Value::Number(number) => write_number(out.i32(VALUE)?, *number)?,
        Value::Flag(flag) => {
            out.i32(FLAG)?.bool(*flag)?;
        }
        Value::Text(text) => {
            out.i32(TEXT)?.str(text)?;
        }
        Value::Missing => {
            out.i32(TEXT)?.str("")?;
        }
    }
    if offset != 0 {
        out.i32(TIME)?;
        write_millis(out, offset)?;
    }
    if let Some(quality) = quality {
        out.str("q")?.str(&quality)?;
    }
    if let Some(clock) = clock {
        out.str("ck")?.str(clock)?;
    }
    if let Some(offset) = gateway_offset {
        out.str("gt")?.i64(offset)?;
    }
    if let Some(monotonic) = monotonic {
        out.str("mono")?.u64(monotonic)?;
    }
    if let Some(boot) = boot {
        out.str("boot")?.u64(boot)?;
    }
    Ok(())
}

/// Whole seconds as an integer, else a double: both exact for milliseconds of this era.
fn write_millis(out: &mut Out, millis: i64) -> Written {
    if millis % 1000 == 0 {
        out.i64(millis / 1000)?;
    } else {
        out.f64(seconds(Timestamp::from_millis(millis)))?;
    }
    Ok(())
}

/// The shortest form that gives the same number back.
fn write_number(out: &mut Out, number: f64) -> Written {
    #[expect(clippy::cast_possible_truncation, reason = "both casts are checked by converting back")]
    let (whole, short) = (number as i32, number as f32);
    if f64::from(whole).to_bits() == number.to_bits() {
        out.i32(whole)?;
    } else if f64::from(short).to_bits() == number.to_bits() {
        out.f32(short)?;
    } else {
        out.f64(number)?;
    }
    Ok(())
}

/// Reads the records of a pack, base values not yet applied.
pub(super) fn decode<'a>(
    bytes: &'a [u8],
    mut each: impl FnMut(Raw<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut d = Decoder::new(bytes);
    let mut n_records = 0;
    let mut left = d.array()?;
    while more(&mut d, &mut left)? {
        if n_records == RECORDS_MAX {
            return Err(DecodeError::TooLarge { what: "records", limit: RECORDS_MAX });
        }
        n_records += 1;
        each(read_record(&mut d)?)?;
    }
    Ok(())
}

/// Whether another item follows in an array or map of known or open length.
fn more(d: &mut Decoder<'_>, left: &mut Option<u64>) -> Result<bool, DecodeError> {
    match left {
        Some(0) => Ok(false),
        Some(n) => {
            *n -= 1;
            Ok(true)
        }
        None if d.datatype()? == Type::Break => {
            d.skip()?;
            Ok(false)
        }
        None => Ok(true),
    }
}

fn read_record<'a>(d: &mut Decoder<'a>) -> Result<Raw<'a>, DecodeError> {
    let mut raw = Raw::default();
    let mut left = d.map()?;
    while more(d, &mut left)? {
        if d.datatype()? == Type::String {
            match d.str()? {
                "q" => raw.quality = Some(d.str()?),
                "ck" => raw.clock = Some(d.str()?),
                "gt" => raw.gateway_offset = Some(d.i64()?),
                "mono" => raw.monotonic = Some(d.u64()?),
                "boot" => raw.boot = Some(d.u64()?),
                other => {
                    raw.must_understand |= other.ends_with('_');
                    d.skip()?;
                }
            }
            continue;
        }
        match d.i32()? {
            BASE_NAME => raw.base_name = Some(d.str()?),
            BASE_TIME => raw.base_time = Some(read_number(d)?),
            BASE_UNIT => raw.base_unit = Some(d.str()?),
            BASE_VALUE => raw.base_value = Some(read_number(d)?),
            NAME => raw.name = Some(d.str()?),
            UNIT => raw.unit = Some(d.str()?),
            VALUE => raw.value = Some(read_number(d)?),
            TEXT => raw.text = Some(d.str()?),
            FLAG => raw.flag = Some(d.bool()?),
            TIME => raw.time = Some(read_number(d)?),
            // RFC 8428 §4.4: a later version may mean something else by everything that follows.
            BASE_VERSION => raw.must_understand |= read_number(d)? > 10.0,
            _ => d.skip()?,
        }
    }
    Ok(raw)
}

/// Any CBOR number.
fn read_number(d: &mut Decoder<'_>) -> Result<f64, DecodeError> {
    Ok(match d.datatype()? {
        Type::F16 => f64::from(d.f16()?),
        Type::F32 => f64::from(d.f32()?),
        Type::F64 => d.f64()?,
        #[expect(clippy::cast_precision_loss, reason = "SenML numbers are doubles")]
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => d.u64()? as f64,
        #[expect(clippy::cast_precision_loss, reason = "SenML numbers are doubles")]
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => d.i64()? as f64,
        #[expect(clippy::cast_precision_loss, reason = "SenML numbers are doubles")]
        _ => i128::from(d.int()?) as f64,
    })
}
