//! Takes rows out of a Parquet file. Row groups without such rows are carried over as the bytes they are, so that erasing a
//! person costs reading three columns of the file and writing few of its rows again.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use ::parquet::arrow::arrow_writer::compute_leaves;
use ::parquet::arrow::{ArrowWriter, ProjectionMask};
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::PageIndexPolicy;
use ::parquet::file::writer::SerializedFileWriter;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, not};
use arrow::error::ArrowError;
use bytes::Bytes;

use super::parquet::{Density, Encoded, properties};

/// A file without the rows that were to go.
#[derive(Debug)]
pub(crate) struct Stripped {
    /// None when no row is left.
    pub(crate) file: Option<Encoded>,
    /// How many rows went.
    pub(crate) gone: u64,
    /// How many were written again.
    pub(crate) rewritten: u64,
}

/// What to take out: which rows, told from these columns.
pub(crate) struct Hit<'a> {
    pub(crate) columns: &'a [&'a str],
    pub(crate) rows: &'a dyn Fn(&RecordBatch) -> Result<BooleanArray, ArrowError>,
}

/// Takes rows out; none when the file holds no such row.
pub(crate) fn strip(bytes: &Bytes, hit: &Hit<'_>) -> Result<Option<Stripped>, ParquetError> {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let metadata = ArrowReaderMetadata::load(bytes, options)?;
    let groups = 0..metadata.metadata().num_row_groups();
    let hits: Vec<Vec<BooleanArray>> =
        groups.map(|group| masks(bytes, &metadata, group, hit)).collect::<Result<_, _>>()?;
    let count = |masks: &[BooleanArray]| masks.iter().map(|mask| mask.true_count() as u64).sum::<u64>();
    let gone: u64 = hits.iter().map(|masks| count(masks)).sum();
    if gone == 0 {
        return Ok(None);
    }

    let schema = Arc::clone(metadata.schema());
    let properties = properties(&schema, Density::Lasting);
    let (mut writer, factory) =
        ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties))?.into_serialized_writer()?;
    let (mut rewritten, mut n_groups) = (0, 0);
    for (group, masks) in hits.iter().enumerate() {
        if count(masks) == 0 {
            carry_over(&mut writer, bytes, &metadata, group)?;
            n_groups += 1;
            continue;
        }
        let reader = builder(bytes, &metadata, group).build()?;
        let kept: Vec<RecordBatch> = reader
            .zip(masks)
            .map(|(batch, mask)| filter_record_batch(&batch?, &not(mask)?))
            .collect::<Result<_, ArrowError>>()?;
        let kept = concat_batches(&schema, &kept)?;
        if kept.num_rows() == 0 {
            continue;
        }
        rewritten += kept.num_rows() as u64;
        let mut columns = factory.create_column_writers(n_groups)?.into_iter();
        let mut out = writer.next_row_group()?;
        for (field, array) in schema.fields().iter().zip(kept.columns()) {
            for leaf in compute_leaves(field, array)? {
                let mut column = columns.next().ok_or_else(|| ParquetError::General("a column too many".to_owned()))?;
                column.write(&leaf)?;
                column.close()?.append_to_row_group(&mut out)?;
            }
        }
        out.close()?;
        n_groups += 1;
    }
    let file = if n_groups > 0 {
        let metadata = writer.finish()?;
        Some(Encoded { bytes: std::mem::take(writer.inner_mut()).into(), metadata })
    } else {
        None
    };
    Ok(Some(Stripped { file, gone, rewritten }))
}

fn builder(bytes: &Bytes, metadata: &ArrowReaderMetadata, group: usize) -> ParquetRecordBatchReaderBuilder<Bytes> {
    ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone()).with_row_groups(vec![group])
}

/// Which rows of a row group are hit, batch by batch as a reader of all columns gives them.
fn masks(
    bytes: &Bytes,
    metadata: &ArrowReaderMetadata,
    group: usize,
    hit: &Hit<'_>,
) -> Result<Vec<BooleanArray>, ParquetError> {
    let mask = ProjectionMask::columns(metadata.parquet_schema(), hit.columns.iter().copied());
    let reader = builder(bytes, metadata, group).with_projection(mask).build()?;
    let masks = reader.map(|batch| (hit.rows)(&batch?)).collect::<Result<Vec<_>, ArrowError>>();
    Ok(masks?)
}

fn carry_over(
    writer: &mut SerializedFileWriter<Vec<u8>>,
    bytes: &Bytes,
    metadata: &ArrowReaderMetadata,
    group: usize,
) -> Result<(), ParquetError> {
    let metadata = metadata.metadata();
    let (column_index, offset_index) = (metadata.column_index(), metadata.offset_index());
    let from = metadata.row_group(group);
    let mut out = writer.next_row_group()?;
    for (number, column) in from.columns().iter().enumerate() {
        let close = ColumnCloseResult {
            bytes_written: u64::try_from(column.compressed_size()).unwrap_or(0),
            rows_written: u64::try_from(from.num_rows()).unwrap_or(0),
            metadata: column.clone(),
            bloom_filter: None,
            column_index: column_index.and_then(|index| index.get(group)?.get(number).cloned()),
            offset_index: offset_index.and_then(|index| index.get(group)?.get(number).cloned()),
        };
        out.append_column(bytes, close)?;
    }
    out.close()?;
    Ok(())
}
