//! Writes sorted Parquet files, and says about them what the table's log shall know.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use carebed_contract::time::Timestamp;
use deltalake_core::kernel::Add;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

use crate::schema::SORT_ORDER;

/// Rows of a row group, and at most of a page: what compaction measures best between small files (long pages, in which
/// zstd finds a poll's time again under its next quantity) and quick answers about one bed (short ones). See decisions/.
pub(crate) const GROUP_ROWS: usize = 131_072;
/// More than the plain values of one page's rows.
const PAGE_BYTES: usize = 8 << 20;

/// Words by which nobody leaves out rows: comparing all of them would cost a quarter of writing them.
const UNASKED: [&str; 8] = ["device_id", "room", "unit", "text", "quality", "clock_quality", "epoch", "lane"];

/// How hard to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Density {
    /// A file that compaction will read again soon.
    Passing,
    /// A file that is to stay.
    Lasting,
}

/// Per column, as measured for such rows: the bytes of times and values apart, so that what repeats stands together; deltas
/// for counters; dictionaries for words.
pub(crate) fn properties(schema: &SchemaRef, density: Density) -> WriterProperties {
    let level = match density {
        Density::Passing => 1,
        Density::Lasting => 9,
    };
    let level = ZstdLevel::try_new(level).expect("a level of zstd");
    let sorted: Option<Vec<SortingColumn>> = SORT_ORDER
        .into_iter()
        .map(|name| {
            let column_idx = i32::try_from(schema.index_of(name).ok()?).ok()?;
            Some(SortingColumn { column_idx, descending: false, nulls_first: true })
        })
        .collect();
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(GROUP_ROWS)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_sorting_columns(sorted)
        .set_dictionary_enabled(true);
    let apart = ["event_time", "gateway_time", "received_time", "noted_at", "value"];
    let deltas = ["seq", "from_seq", "to_seq", "boot"];
    let encodings = apart.map(|column| (column, Encoding::BYTE_STREAM_SPLIT)).into_iter();
    for (column, encoding) in encodings.chain(deltas.map(|column| (column, Encoding::DELTA_BINARY_PACKED))) {
        properties =
            properties.set_column_dictionary_enabled(column.into(), false).set_column_encoding(column.into(), encoding);
    }
    for column in UNASKED {
        properties = properties.set_column_statistics_enabled(column.into(), EnabledStatistics::None);
    }
    properties.set_column_dictionary_enabled("payload".into(), false).build()
}

/// A finished file.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    pub(crate) metadata: ParquetMetaData,
}

/// One file being written, in memory: files are bounded by their rows.
#[derive(Debug)]
pub(crate) struct FileWriter {
    writer: ArrowWriter<Vec<u8>>,
    rows: usize,
}

impl FileWriter {
    pub(crate) fn new(schema: SchemaRef, density: Density) -> Result<Self, ParquetError> {
        let properties = properties(&schema, density);
        Ok(Self { writer: ArrowWriter::try_new(Vec::new(), schema, Some(properties))?, rows: 0 })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        self.rows += batch.num_rows();
        self.writer.write(batch)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn finish(mut self) -> Result<Encoded, ParquetError> {
        let metadata = self.writer.finish()?;
        let bytes = std::mem::take(self.writer.inner_mut()).into();
        Ok(Encoded { bytes, metadata })
    }
}

/// One Parquet file of these rows; words may be keys into dictionaries.
pub(crate) fn encode(schema: &SchemaRef, batch: &RecordBatch) -> Result<Encoded, ParquetError> {
    let mut writer = FileWriter::new(Arc::clone(schema), Density::Passing)?;
    writer.write(batch)?;
    writer.finish()
}

/// The log's entry for a file.
pub(crate) fn add(path: String, partition: Option<(&str, String)>, file: &Encoded, now: Timestamp) -> Add {
    let partition_values = partition.into_iter().map(|(column, value)| (column.to_owned(), Some(value)));
    Add {
        path,
        partition_values: partition_values.collect::<HashMap<_, _>>(),
        size: i64::try_from(file.bytes.len()).unwrap_or(i64::MAX),
        modification_time: now.millis(),
        data_change: true,
        stats: Some(statistics(&file.metadata).to_string()),
        ..Add::default()
    }
}

/// Delta's per-file statistics, for the columns by which readers choose files, from the file's own.
fn statistics(metadata: &ParquetMetaData) -> Value {
    let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
    for (name, bounds) in bounds(metadata) {
        if let Some((low, high)) = bounds.range {
            least.insert(name.to_owned(), low.into());
            most.insert(name.to_owned(), high.into());
        }
        nulls.insert(name.to_owned(), bounds.nulls.into());
    }
    let rows = metadata.file_metadata().num_rows();
    json!({"numRecords": rows, "minValues": least, "maxValues": most, "nullCount": nulls})
}

#[derive(Debug, Default)]
struct Bounds {
    range: Option<(String, String)>,
    nulls: u64,
    /// A row group whose bounds are unknown or cut short makes the file's unknown.
    unknown: bool,
}

fn bounds(metadata: &ParquetMetaData) -> BTreeMap<&'static str, Bounds> {
    const COLUMNS: [&str; 5] = ["event_time", "home_id", "bed_id", "quantity", "key"];
    let mut all: BTreeMap<&'static str, Bounds> = BTreeMap::new();
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let Some(name) = COLUMNS.into_iter().find(|name| *name == column.column_path().string()) else { continue };
        let bounds = all.entry(name).or_default();
        let Some(statistics) = column.statistics() else {
            bounds.unknown = true;
            continue;
        };
        bounds.nulls += statistics.null_count_opt().unwrap_or(0);
        match range(statistics) {
            Some((low, high)) => {
                let range = bounds.range.get_or_insert_with(|| (low.clone(), high.clone()));
                *range = (low.min(std::mem::take(&mut range.0)), high.max(std::mem::take(&mut range.1)));
            }
            // A group of nulls only has no bounds and needs none.
            None => bounds.unknown |= statistics.null_count_opt() != u64::try_from(column.num_values()).ok(),
        }
    }
    for bounds in all.values_mut().filter(|bounds| bounds.unknown) {
        bounds.range = None;
    }
    all
}

/// Texts whose order is that of the values: words, and times of years 0 to 9999.
fn range(statistics: &Statistics) -> Option<(String, String)> {
    if !(statistics.min_is_exact() && statistics.max_is_exact()) {
        return None;
    }
    match statistics {
        Statistics::ByteArray(words) => {
            let text = |word: &parquet::data_type::ByteArray| word.as_utf8().ok().map(str::to_owned);
            words.min_opt().and_then(text).zip(words.max_opt().and_then(text))
        }
        Statistics::Int64(times) => {
            let text = |millis: &i64| Timestamp::from_millis(*millis).to_string();
            times.min_opt().map(text).zip(times.max_opt().map(text))
        }
        _ => None,
    }
}
