//! What a statement returned, and how it is written for people and programs.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::util::pretty::pretty_format_batches_with_schema;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

/// As zstd's own program has it.
const ZSTD_LEVEL: i32 = 3;

/// Rows that a statement returned.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Their columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// There were more rows than the session gives.
    pub cut: bool,
}

impl Answer {
    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Keeps the first rows only.
    pub fn keep(&mut self, mut n_rows: usize) {
        for batch in &mut self.batches {
            let n = batch.num_rows().min(n_rows);
            *batch = batch.slice(0, n);
            n_rows -= n;
        }
    }
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    Table,
    /// Comma separated with a header line.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// A Parquet file, zstd.
    Parquet,
}

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A value does not go into the format, or the output failed.
    #[error("failed to write the rows")]
    Format(#[from] ArrowError),
    /// A column has no form in Parquet, or the output failed.
    #[error("failed to write the rows as Parquet")]
    Parquet(#[from] ParquetError),
    /// The output failed.
    #[error("failed to write the rows")]
    Output(#[from] std::io::Error),
}

/// Writes rows as they come. In JSON every column stands in every row, null or not.
pub struct Writer<W: Write + Send>(Form<W>);

enum Form<W: Write + Send> {
    /// Columns are as wide as their widest value: rows wait until all are there.
    Table(W, SchemaRef, Vec<RecordBatch>),
    Csv(Box<arrow::csv::Writer<W>>),
    Json(arrow::json::Writer<W, JsonArray>),
    Jsonl(arrow::json::Writer<W, LineDelimited>),
    Parquet(Box<ArrowWriter<W>>),
}

impl<W: Write + Send> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl<W: Write + Send> Writer<W> {
    /// Begins with what stands before the rows.
    ///
    /// # Errors
    /// When the output fails or a column has no form in the format.
    pub fn new(schema: &SchemaRef, format: Format, output: W) -> Result<Self, WriteError> {
        let json = || arrow::json::WriterBuilder::new().with_explicit_nulls(true);
        Ok(Self(match format {
            Format::Table => Form::Table(output, Arc::clone(schema), Vec::new()),
            Format::Csv => {
                // The writer names the columns with the first rows; there may be none.
                let mut csv = arrow::csv::WriterBuilder::new().with_header(true).build(output);
                csv.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
                Form::Csv(Box::new(csv))
            }
            Format::Json => Form::Json(json().build(output)),
            Format::Jsonl => Form::Jsonl(json().build(output)),
            Format::Parquet => {
                let compression = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?);
                let properties = WriterProperties::builder().set_compression(compression).build();
                Form::Parquet(Box::new(ArrowWriter::try_new(output, Arc::clone(schema), Some(properties))?))
            }
        }))
    }

    /// Writes rows.
    ///
    /// # Errors
    /// When the output fails or a value has no form in the format.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), WriteError> {
        match &mut self.0 {
            Form::Table(.., waiting) => waiting.push(rows.clone()),
            Form::Csv(csv) => csv.write(rows)?,
            Form::Json(json) => json.write(rows)?,
            Form::Jsonl(json) => json.write(rows)?,
            Form::Parquet(parquet) => parquet.write(rows)?,
        }
        Ok(())
    }

    /// Ends with what stands behind the rows.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(self) -> Result<(), WriteError> {
        match self.0 {
            Form::Table(mut output, schema, rows) => {
                writeln!(output, "{}", pretty_format_batches_with_schema(schema, &rows)?)?;
            }
            Form::Csv(csv) => csv.into_inner().flush()?,
            Form::Json(mut json) => {
                json.finish()?;
                writeln!(json.into_inner())?;
            }
            Form::Jsonl(mut json) => json.finish()?,
            Form::Parquet(parquet) => drop(parquet.close()?),
        }
        Ok(())
    }
}

/// Writes an answer.
///
/// # Errors
/// When the output fails or a column has no form in the format.
pub fn write(answer: &Answer, format: Format, output: &mut (impl Write + Send)) -> Result<(), WriteError> {
    let mut writer = Writer::new(&answer.schema, format, output)?;
    for batch in &answer.batches {
        writer.write(batch)?;
    }
    writer.finish()
}
