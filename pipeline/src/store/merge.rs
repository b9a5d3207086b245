//! Merges sorted runs into one, row by row, with bounded memory: of each run one file's bytes and one batch are held, and of
//! the outcome one file.
//!
//! Blocking: its caller gives it a thread, and ways to read and to put away files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use ::parquet::errors::ParquetError;
use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use bytes::Bytes;

use super::parquet::{Density, Encoded, FileWriter};
use super::plan::Run;
use crate::schema::{SORT_ORDER, with_views};
use crate::view::DataFile;

/// Rows of one file at most, so that one erased person costs at most one such file a day.
pub(crate) const FILE_ROWS: usize = 8 << 20;
/// Rows that are gathered before they are written.
const CHUNK_ROWS: usize = 8_192;

/// Merges runs. `read` gives a file's bytes, `put` takes the next file of the outcome. Rows of the same key keep the order of
/// the runs.
pub(crate) fn merge<E: From<ParquetError> + From<ArrowError>>(
    runs: &[Run],
    schema: &SchemaRef,
    density: Density,
    mut read: impl FnMut(&DataFile) -> Result<Bytes, E>,
    mut put: impl FnMut(Encoded) -> Result<(), E>,
) -> Result<(), E> {
    // Words are read as views into the dictionaries of pages, and moved as such.
    let views = with_views(schema);
    let fields =
        SORT_ORDER.into_iter().map(|name| Ok(SortField::new(views.field_with_name(name)?.data_type().clone())));
    let converter = RowConverter::new(fields.collect::<Result<_, ArrowError>>()?)?;
    let mut inputs = Vec::with_capacity(runs.len());
    let mut batches = Vec::new();
    let mut heap = BinaryHeap::new();
    for run in runs {
        let schema = Arc::clone(&views);
        let mut input = Input { files: run.files.iter().cloned(), schema, reader: None, left: 0, at: None };
        if input.next(&converter, &mut batches, &mut read)? {
            heap.extend(input.at.as_ref().map(|at| Reverse((at.key(), inputs.len()))));
        }
        inputs.push(input);
    }

    let mut out = Out { schema, density, writer: None, gathered: Vec::with_capacity(CHUNK_ROWS), put: &mut put };
    while let Some(Reverse((_, number))) = heap.pop() {
        let Some(input) = inputs.get_mut(number) else { continue };
        // The rows of one run often follow each other: only where another run's row comes between is the heap asked.
        while let Some(at) = &mut input.at {
            out.gathered.push((at.batch, at.row));
            at.row += 1;
            if at.row == at.rows.num_rows() && !input.next(&converter, &mut batches, &mut read)? {
                break;
            }
            let Some(at) = &input.at else { break };
            let comes_later =
                heap.peek().is_some_and(|Reverse((key, other))| (at.rows.row(at.row), number) > (key.row(), *other));
            if comes_later || out.gathered.len() >= CHUNK_ROWS {
                heap.push(Reverse((at.key(), number)));
                break;
            }
        }
        if out.gathered.len() >= CHUNK_ROWS {
            out.flush(&batches)?;
            forget(&mut batches, &mut inputs);
        }
    }
    out.flush(&batches)?;
    out.finish()
}

/// Drops the batches that no input stands in any more.
fn forget<F>(batches: &mut Vec<RecordBatch>, inputs: &mut [Input<F>]) {
    let mut kept = Vec::new();
    for at in inputs.iter_mut().filter_map(|input| input.at.as_mut()) {
        if let Some(batch) = batches.get(at.batch) {
            kept.push(batch.clone());
            at.batch = kept.len() - 1;
        }
    }
    *batches = kept;
}

/// One run, read from its first file to its last.
struct Input<F> {
    files: F,
    /// The columns that are read.
    schema: SchemaRef,
    reader: Option<ParquetRecordBatchReader>,
    /// Rows that the reader still has. It goes with the last of them: it holds a decompressor for every column.
    left: usize,
    /// Where it stands; none when it is read to its end.
    at: Option<At>,
}

struct At {
    batch: usize,
    rows: Rows,
    row: usize,
}

impl<F: Iterator<Item = Arc<DataFile>>> Input<F> {
    /// Goes on to the next batch that has rows. Says whether there is one.
    fn next<E: From<ParquetError> + From<ArrowError>>(
        &mut self,
        converter: &RowConverter,
        batches: &mut Vec<RecordBatch>,
        read: &mut impl FnMut(&DataFile) -> Result<Bytes, E>,
    ) -> Result<bool, E> {
        self.at = None;
        loop {
            if let Some(batch) = self.reader.as_mut().and_then(Iterator::next).transpose()? {
                self.left = self.left.saturating_sub(batch.num_rows());
                if self.left == 0 {
                    self.reader = None;
                }
                if batch.num_rows() > 0 {
                    let keys =
                        SORT_ORDER.into_iter().map(|name| Ok(Arc::clone(batch.column(batch.schema().index_of(name)?))));
                    let rows = converter.convert_columns(&keys.collect::<Result<Vec<_>, ArrowError>>()?)?;
                    batches.push(batch);
                    self.at = Some(At { batch: batches.len() - 1, rows, row: 0 });
                    return Ok(true);
                }
                continue;
            }
            let Some(file) = self.files.next() else { return Ok(false) };
            let options = ArrowReaderOptions::new().with_schema(Arc::clone(&self.schema));
            let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(read(&file)?, options)?;
            let rows =
                reader.metadata().row_groups().iter().map(|group| usize::try_from(group.num_rows()).unwrap_or(0));
            self.left = rows.sum();
            self.reader = Some(reader.with_batch_size(CHUNK_ROWS).build()?);
        }
    }
}

impl At {
    fn key(&self) -> OwnedRow {
        self.rows.row(self.row).owned()
    }
}

/// The files that come out.
struct Out<'a, E> {
    schema: &'a SchemaRef,
    density: Density,
    writer: Option<FileWriter>,
    /// Batch and row.
    gathered: Vec<(usize, usize)>,
    put: &'a mut dyn FnMut(Encoded) -> Result<(), E>,
}

impl<E: From<ParquetError> + From<ArrowError>> Out<'_, E> {
    fn flush(&mut self, batches: &[RecordBatch]) -> Result<(), E> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let rows = interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &self.gathered)?;
        self.gathered.clear();
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(FileWriter::new(Arc::clone(self.schema), self.density)?),
        };
        writer.write(&rows)?;
        if writer.rows() >= FILE_ROWS { self.finish() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), E> {
        match self.writer.take() {
            Some(writer) => (self.put)(writer.finish()?),
            None => Ok(()),
        }
    }
}
