//! The tables as Arrow and Delta see them. Times are milliseconds, UTC.
//!
//! `observations` is partitioned by [`EVENT_DAY`]: that column is in the table's log and in the paths, not in the files
//! and not in hot rows.

mod columns;
mod observations;

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use carebed_contract::time::Timestamp;

use crate::dead_letter::DeadLetter;
use crate::gap::Gap;

pub(crate) use columns::{Piece, Words, sorted};
pub use observations::{SORT_ORDER, from_batch};

/// The partition column of `observations`: the date of the event time, UTC.
pub const EVENT_DAY: &str = "event_day";

pub(crate) fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    let field = |(name, kind, nullable): &(&str, DataType, bool)| Field::new(*name, kind.clone(), *nullable);
    Arc::new(Schema::new(fields.iter().map(field).collect::<Vec<_>>()))
}

/// The columns of `observations` as they stand in files and hot rows. `gateway_time` is null where it is the event time, as
/// nearly everywhere: a second column of times to the millisecond would cost as much as the first.
#[must_use]
pub fn observations() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        schema(&[
            ("area", DataType::Utf8, false),
            ("home_id", DataType::Utf8, false),
            ("bed_id", DataType::Utf8, true),
            ("device_id", DataType::Utf8, false),
            ("room", DataType::Utf8, true),
            ("quantity", DataType::Utf8, false),
            ("unit", DataType::Utf8, false),
            ("event_time", time(), false),
            ("value", DataType::Float64, true),
            ("text", DataType::Utf8, true),
            ("quality", DataType::Utf8, false),
            ("clock_quality", DataType::Utf8, false),
            ("gateway_id", DataType::Utf8, false),
            ("boot", DataType::Int64, true),
            ("epoch", DataType::Utf8, false),
            ("lane", DataType::Utf8, false),
            ("seq", DataType::Int64, false),
            ("gateway_time", time(), true),
            ("received_time", time(), false),
        ])
    });
    Arc::clone(&SCHEMA)
}

/// The same columns with words as views: thousands of rows share one word of a page's dictionary, and none of them copies it.
#[must_use]
pub fn with_views(schema: &Schema) -> SchemaRef {
    let view = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(view).collect::<Vec<_>>()))
}

/// The columns of `gaps`. `to_seq` is null where nobody knows how much is missing.
#[must_use]
pub fn gaps() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        schema(&[
            ("key", DataType::Utf8, false),
            ("gateway_id", DataType::Utf8, false),
            ("area", DataType::Utf8, false),
            ("epoch", DataType::Utf8, false),
            ("lane", DataType::Utf8, false),
            ("from_seq", DataType::Int64, false),
            ("to_seq", DataType::Int64, true),
            ("reason", DataType::Utf8, false),
            ("noted_at", time(), false),
        ])
    });
    Arc::clone(&SCHEMA)
}

/// The columns of `dead_letters`. Epoch, lane and seq are null where the labels could not be read.
#[must_use]
pub fn dead_letters() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        schema(&[
            ("key", DataType::Utf8, false),
            ("gateway_id", DataType::Utf8, false),
            ("area", DataType::Utf8, false),
            ("topic", DataType::Utf8, false),
            ("epoch", DataType::Utf8, true),
            ("lane", DataType::Utf8, true),
            ("seq", DataType::Int64, true),
            ("content_type", DataType::Utf8, false),
            ("payload", DataType::Binary, false),
            ("reason", DataType::Utf8, false),
            ("received_time", time(), false),
        ])
    });
    Arc::clone(&SCHEMA)
}

/// Numbers of batches are below 2⁶³: `ingest` refuses others.
pub(crate) fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

pub(crate) fn times(values: impl Iterator<Item = Timestamp>) -> ArrayRef {
    let array = TimestampMillisecondArray::from_iter_values(values.map(Timestamp::millis));
    Arc::new(array.with_timezone("UTC"))
}

pub(crate) fn optional_times(values: impl Iterator<Item = Option<Timestamp>>) -> ArrayRef {
    let array: TimestampMillisecondArray = values.map(|at| at.map(Timestamp::millis)).collect();
    Arc::new(array.with_timezone("UTC"))
}

pub(crate) fn words<T: AsRef<str>>(values: impl Iterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Declared losses as rows.
pub fn gaps_to_batch(gaps: &[&Gap]) -> Result<RecordBatch, ArrowError> {
    let missing = || gaps.iter().map(|g| g.missing);
    RecordBatch::try_new(
        self::gaps(),
        vec![
            words(gaps.iter().map(|g| g.key().to_string())),
            words(gaps.iter().map(|g| &g.gateway)),
            words(gaps.iter().map(|g| &g.area)),
            words(missing().map(|m| m.epoch.to_string())),
            words(missing().map(|m| m.lane.as_str())),
            Arc::new(Int64Array::from_iter_values(missing().map(|m| number(m.from_seq)))),
            Arc::new(missing().map(|m| m.to_seq.map(number)).collect::<Int64Array>()),
            words(missing().map(|m| m.reason.as_str())),
            times(gaps.iter().map(|g| g.noted_at)),
        ],
    )
}

/// Unusable messages as rows.
pub fn dead_letters_to_batch(letters: &[&DeadLetter]) -> Result<RecordBatch, ArrowError> {
    let labels = || letters.iter().map(|l| l.labels);
    RecordBatch::try_new(
        self::dead_letters(),
        vec![
            words(letters.iter().map(|l| l.key().to_string())),
            words(letters.iter().map(|l| &l.gateway)),
            words(letters.iter().map(|l| &l.area)),
            words(letters.iter().map(|l| &l.topic)),
            Arc::new(labels().map(|l| l.map(|l| l.epoch.to_string())).collect::<StringArray>()),
            Arc::new(labels().map(|l| l.map(|l| l.lane.as_str())).collect::<StringArray>()),
            Arc::new(labels().map(|l| l.map(|l| number(l.seq))).collect::<Int64Array>()),
            words(letters.iter().map(|l| &l.content_type)),
            Arc::new(BinaryArray::from_iter_values(letters.iter().map(|l| &l.payload))),
            words(letters.iter().map(|l| &l.reason)),
            times(letters.iter().map(|l| l.received_time)),
        ],
    )
}
