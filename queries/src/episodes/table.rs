//! The table `episodes`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use carebed_contract::time::Timestamp;

use super::Episode;

/// Times of our tables: milliseconds, UTC.
pub(crate) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

pub(crate) fn times(values: impl IntoIterator<Item = Option<Timestamp>>) -> ArrayRef {
    let times: TimestampMillisecondArray = values.into_iter().map(|t| t.map(Timestamp::millis)).collect();
    Arc::new(times.with_timezone("UTC"))
}

/// Its columns.
#[must_use]
pub fn schema() -> SchemaRef {
    let text = |name, null| Field::new(name, DataType::Utf8, null);
    let time = |name, null| Field::new(name, time_type(), null);
    Arc::new(Schema::new(vec![
        text("subject", false),
        text("home_id", false),
        text("bed_id", true),
        text("kind", false),
        text("room", true),
        text("device_id", true),
        time("started_at", false),
        time("start_known_at", false),
        time("ended_at", true),
        time("end_known_at", true),
        Field::new("revision", DataType::UInt32, false),
        text("attributes", true),
    ]))
}

pub(super) fn batch(episodes: &[Episode]) -> RecordBatch {
    fn text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
        Arc::new(values.collect::<StringArray>())
    }
    let e = || episodes.iter();
    let columns = vec![
        text(e().map(|e| Some(&*e.subject))),
        text(e().map(|e| Some(e.home.as_str()))),
        text(e().map(|e| e.bed.as_ref().map(|b| b.as_str()))),
        text(e().map(|e| Some(&*e.kind))),
        text(e().map(|e| e.room.as_ref().map(|r| r.as_str()))),
        text(e().map(|e| e.device.as_ref().map(|d| d.as_str()))),
        times(e().map(|e| Some(e.started_at))),
        times(e().map(|e| Some(e.start_known_at))),
        times(e().map(|e| e.ended_at)),
        times(e().map(|e| e.end_known_at)),
        Arc::new(e().map(|e| Some(e.revision)).collect::<UInt32Array>()),
        text(e().map(|e| e.attributes.as_deref())),
    ];
    RecordBatch::try_new(schema(), columns).expect("the columns are made after the schema")
}
