//! Writes one sorted Parquet file, and says about it what the table's log shall know.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::TimestampMillisecondType;
use bytes::Bytes;
use carebed_contract::time::Timestamp;
use deltalake_core::kernel::Add;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use serde_json::{Map, Value, json};

/// File names that begin so hold rows sorted as [`crate::schema::SORT_ORDER`] says.
pub(crate) const SORTED: &str = "sorted-";

/// Per column, as measured for such rows: deltas for times and numbers, dictionaries for words and values, zstd 3 over all.
fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(3).expect("3 is a level of zstd");
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_enabled(true);
    for column in ["event_time", "gateway_time", "received_time", "noted_at", "seq", "from_seq", "to_seq", "boot"] {
        properties = properties
            .set_column_dictionary_enabled(column.into(), false)
            .set_column_encoding(column.into(), Encoding::DELTA_BINARY_PACKED);
    }
    properties.set_column_dictionary_enabled("payload".into(), false).build()
}

/// The bytes of one Parquet file.
pub(crate) fn encode(batch: &RecordBatch) -> Result<Bytes, ParquetError> {
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties()))?;
    writer.write(batch)?;
    Ok(writer.into_inner()?.into())
}

/// The log's entry for a file of these rows.
pub(crate) fn add(
    path: String,
    partition: Option<(&str, String)>,
    bytes: usize,
    batch: &RecordBatch,
    now: Timestamp,
) -> Add {
    let partition_values = partition.into_iter().map(|(column, value)| (column.to_owned(), Some(value)));
    Add {
        path,
        partition_values: partition_values.collect::<HashMap<_, _>>(),
        size: i64::try_from(bytes).unwrap_or(i64::MAX),
        modification_time: now.millis(),
        data_change: true,
        stats: Some(statistics(batch).to_string()),
        ..Add::default()
    }
}

/// Delta's per-file statistics, for the columns by which readers choose files.
fn statistics(batch: &RecordBatch) -> Value {
    let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
    for column in ["event_time", "home_id", "bed_id", "key"] {
        let Some(array) = batch.column_by_name(column) else { continue };
        let (low, high) = if let Some(words) = array.as_string_opt::<i32>() {
            (min_string(words).map(Value::from), max_string(words).map(Value::from))
        } else if let Some(times) = array.as_primitive_opt::<TimestampMillisecondType>() {
            let text = |millis| Value::from(Timestamp::from_millis(millis).to_string());
            (min(times).map(text), max(times).map(text))
        } else {
            continue;
        };
        if let (Some(low), Some(high)) = (low, high) {
            least.insert(column.to_owned(), low);
            most.insert(column.to_owned(), high);
        }
        nulls.insert(column.to_owned(), array.null_count().into());
    }
    json!({"numRecords": batch.num_rows(), "minValues": least, "maxValues": most, "nullCount": nulls})
}
