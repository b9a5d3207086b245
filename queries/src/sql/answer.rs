//! What a statement returned, and how it is written for people and programs.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::pretty::pretty_format_batches_with_schema;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

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

/// Writes an answer. In JSON every column stands in every row, null or not.
///
/// # Errors
/// When the output fails or a column has no form in the format.
pub fn write(answer: &Answer, format: Format, output: &mut (impl Write + Send)) -> Result<(), WriteError> {
    match format {
        Format::Table => {
            let table = pretty_format_batches_with_schema(Arc::clone(&answer.schema), &answer.batches)?;
            writeln!(output, "{table}")?;
        }
        Format::Csv => {
            // The writer names the columns with the first rows; there may be none.
            let mut csv = arrow::csv::WriterBuilder::new().with_header(true).build(&mut *output);
            csv.write(&RecordBatch::new_empty(Arc::clone(&answer.schema)))?;
            for batch in &answer.batches {
                csv.write(batch)?;
            }
        }
        Format::Json => {
            let mut json = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::JsonArray>(&mut *output);
            json.write_batches(&answer.batches.iter().collect::<Vec<_>>())?;
            json.finish()?;
            writeln!(output)?;
        }
        Format::Jsonl => {
            let mut json = arrow::json::WriterBuilder::new()
                .with_explicit_nulls(true)
                .build::<_, arrow::json::writer::LineDelimited>(&mut *output);
            json.write_batches(&answer.batches.iter().collect::<Vec<_>>())?;
            json.finish()?;
        }
        Format::Parquet => {
            let settings = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
            let mut parquet = ArrowWriter::try_new(&mut *output, Arc::clone(&answer.schema), Some(settings))?;
            for batch in &answer.batches {
                parquet.write(batch)?;
            }
            parquet.close()?;
        }
    }
    Ok(())
}
