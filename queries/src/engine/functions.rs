//! What our SQL can say beside DataFusion's own functions.
//!
//! - `plus_minutes(time, minutes)`: a time that many minutes later; minutes may be broken.
//! - `local_time(time, zone)`: what the clock on the wall of a place shows, a timestamp without a zone; `zone` is an IANA
//!   name and may differ from row to row.
//! - `attribute(attributes, name)`: one attribute of an episode as text; null when it is not there.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMillisecondType};
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use crate::episodes::time_type;

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
        function("local_time", vec![time_type(), DataType::Utf8], wall, local_time),
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
