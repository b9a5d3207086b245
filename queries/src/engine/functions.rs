//! What our SQL can say beside DataFusion's own functions.
//!
//! - `plus_minutes(time, minutes)`: a time that many minutes later; minutes may be broken.
//! - `minutes_between(from, to)`: how many minutes later the second time is, with fractions; negative when it is earlier.
//! - `local_time(time, zone)`: what the clock on the wall of a place shows, a timestamp without a zone; `zone` is an IANA
//!   name and may differ from row to row.
//! - `next_at_hour(time, zone, hour)`: the first instant after a time at which the clock on the wall of a place shows that hour (6.5 is half
//!   past six). In the hour that summer time skips, an hour later; in the one it repeats, the first.
//! - `attribute(attributes, name)`: one attribute of an episode as text; null when it is not there.
//! - `to_char(time, format)` also takes PostgreSQL's formats.

mod date_trunc;
mod instead;
mod to_char;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMillisecondType};
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use crate::episodes::time_type;

pub(super) use date_trunc::date_trunc;
pub(super) use to_char::to_char;

/// All of them.
pub fn all() -> Vec<ScalarUDF> {
    let wall = DataType::Timestamp(TimeUnit::Millisecond, None);
    let function = |name, inputs, output, body: fn(&[ArrayRef]) -> Result<ArrayRef>| {
        create_udf(
            name,
            inputs,
            output,
            Volatility::Immutable,
            Arc::new(move |args: &[ColumnarValue]| {
                let arrays = ColumnarValue::values_to_arrays(args)?;
                body(&arrays).map(ColumnarValue::Array)
            }),
        )
    };
    vec![
        function("plus_minutes", vec![time_type(), DataType::Float64], time_type(), plus_minutes),
        function("minutes_between", vec![time_type(), time_type()], DataType::Float64, minutes_between),
        function("local_time", vec![time_type(), DataType::Utf8], wall, local_time),
        function("next_at_hour", vec![time_type(), DataType::Utf8, DataType::Float64], time_type(), next_at_hour),
        function("attribute", vec![DataType::Utf8, DataType::Utf8], DataType::Utf8, attribute),
    ]
}

fn two(arrays: &[ArrayRef]) -> Result<(&ArrayRef, &ArrayRef)> {
    match arrays {
        [first, second] => Ok((first, second)),
        _ => exec_err!("two arguments are wanted"),
    }
}

fn plus_minutes(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let (times, minutes) = two(arrays)?;
    let (times, minutes) = (times.as_primitive::<TimestampMillisecondType>(), minutes.as_primitive::<Float64Type>());
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float becomes the nearest i64, saturating, which is what is meant"
    )]
    let later = |(time, minutes): (Option<i64>, Option<f64>)| Some(time?.saturating_add((minutes? * 60_000.0) as i64));
    let sum: TimestampMillisecondArray = times.iter().zip(minutes.iter()).map(later).collect();
    Ok(Arc::new(sum.with_timezone("UTC")))
}

fn minutes_between(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let (from, to) = two(arrays)?;
    let (from, to) = (from.as_primitive::<TimestampMillisecondType>(), to.as_primitive::<TimestampMillisecondType>());
    #[expect(clippy::cast_precision_loss, reason = "spans of milliseconds within centuries are below 2^52")]
    let between = |(from, to): (Option<i64>, Option<i64>)| Some(to?.saturating_sub(from?) as f64 / 60_000.0);
    Ok(Arc::new(from.iter().zip(to.iter()).map(between).collect::<arrow::array::Float64Array>()))
}

fn local_time(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let (times, zones) = two(arrays)?;
    let zones = zones.as_string::<i32>();
    let mut last: Option<(&str, Tz)> = None;
    let mut walls = Vec::with_capacity(times.len());
    for (time, name) in times.as_primitive::<TimestampMillisecondType>().iter().zip(zones.iter()) {
        let (Some(time), Some(name)) = (time, name) else {
            walls.push(None);
            continue;
        };
        let zone = match last {
            Some((known, zone)) if known == name => zone,
            _ => name
                .parse::<Tz>()
                .map_err(|_| DataFusionError::Execution(format!("{name:?} is not an IANA time zone")))?,
        };
        last = Some((name, zone));
        let offset = DateTime::from_timestamp_millis(time)
            .map(|utc| zone.offset_from_utc_datetime(&utc.naive_utc()).fix().local_minus_utc());
        walls.push(offset.map(|seconds| time.saturating_add(i64::from(seconds) * 1_000)));
    }
    Ok(Arc::new(TimestampMillisecondArray::from(walls)))
}

fn next_at_hour(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let [times, zones, hours] = arrays else { return exec_err!("three arguments are wanted") };
    let (times, hours) = (times.as_primitive::<TimestampMillisecondType>(), hours.as_primitive::<Float64Type>());
    let mut instants = Vec::with_capacity(times.len());
    for ((time, name), hour) in times.iter().zip(zones.as_string::<i32>().iter()).zip(hours.iter()) {
        let (Some(time), Some(name), Some(hour)) = (time, name, hour) else {
            instants.push(None);
            continue;
        };
        let zone =
            name.parse::<Tz>().map_err(|_| DataFusionError::Execution(format!("{name:?} is not an IANA time zone")))?;
        #[expect(clippy::cast_possible_truncation, reason = "an hour of a day in seconds, saturating")]
        let since_midnight = chrono::Duration::seconds((hour.rem_euclid(24.0) * 3_600.0) as i64);
        let next = DateTime::from_timestamp_millis(time).and_then(|utc| {
            let today = utc.with_timezone(&zone).date_naive();
            let at = |day: chrono::NaiveDate| {
                let wall = day.and_time(chrono::NaiveTime::MIN) + since_midnight;
                let later = wall + chrono::Duration::hours(1);
                zone.from_local_datetime(&wall).earliest().or_else(|| zone.from_local_datetime(&later).earliest())
            };
            [Some(today), today.succ_opt()].into_iter().flatten().filter_map(at).find(|instant| *instant > utc)
        });
        instants.push(next.map(|instant| instant.timestamp_millis()));
    }
    Ok(Arc::new(TimestampMillisecondArray::from(instants).with_timezone("UTC")))
}

fn attribute(arrays: &[ArrayRef]) -> Result<ArrayRef> {
    let (attributes, names) = two(arrays)?;
    let value = |(attributes, name): (Option<&str>, Option<&str>)| {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(attributes?).ok()?;
        match object.get(name?)? {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    };
    let attributes = cast(attributes, &DataType::Utf8)?;
    let found: StringArray =
        attributes.as_string::<i32>().iter().zip(names.as_string::<i32>().iter()).map(value).collect();
    Ok(Arc::new(found))
}
