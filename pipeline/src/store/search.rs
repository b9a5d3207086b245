//! Looks into a Parquet file for rows of whom is to be forgotten.
//!
//! Its statistics are not asked: who proves that nothing is left rests on nothing that a writer said. One column is read as a
//! whole, others only where it names somebody.

use std::ops::Range;
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderOptions, RowFilter};
use ::parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::TimestampMillisecondType;
use arrow::error::ArrowError;
use bytes::Bytes;
use carebed_contract::id::GatewayId;
use carebed_contract::time::Timestamp;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _, TryStreamExt as _};
use tokio::runtime::Handle;

use super::erasure::{COLUMNS, Erasure};
use super::table::FilesAt;
use super::{StoreError, TableError};

/// Whose rows.
#[derive(Debug, Clone)]
pub(crate) enum Whom {
    /// Observations that an erasure covers.
    Observed(Erasure),
    /// Unusable messages of gateways, up to a time.
    Wrote(Vec<GatewayId>, Timestamp),
}

impl Whom {
    /// The first is read as a whole.
    fn columns(&self) -> &'static [&'static str] {
        match self {
            Self::Observed(_) => &COLUMNS,
            Self::Wrote(..) => &["gateway_id", "received_time"],
        }
    }

    fn is_named(&self, word: &str) -> bool {
        match self {
            Self::Observed(erasure) => erasure.home.as_str() == word,
            Self::Wrote(gateways, _) => gateways.iter().any(|gateway| gateway.as_str() == word),
        }
    }

    fn count(&self, batch: &RecordBatch) -> Result<usize, ArrowError> {
        match self {
            Self::Observed(erasure) => Ok(erasure.rows(batch)?.true_count()),
            Self::Wrote(_, until) => {
                let times = batch.column_by_name("received_time");
                let times = times.and_then(|column| column.as_primitive_opt::<TimestampMillisecondType>());
                let times = times.ok_or_else(|| ArrowError::SchemaError("no received_time".to_owned()))?;
                Ok(times.iter().flatten().filter(|time| *time <= until.millis()).count())
            }
        }
    }
}

/// How many such rows a file holds. Decoding is no work for threads on which ingest waits.
pub(crate) async fn search(at: &FilesAt, path: &str, size: u64, whom: Whom) -> Result<u64, StoreError> {
    let (at, path, here) = (at.clone(), path.to_owned(), Handle::current());
    let found = tokio::task::spawn_blocking(move || here.block_on(rows(&at, &path, size, whom)));
    found.await.map_err(|_| StoreError::Stopped)?
}

/// A file of which parts are read.
struct InParts {
    at: FilesAt,
    path: String,
    size: u64,
}

impl AsyncFileReader for InParts {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.at.read_part(&self.path, range).map_err(|error| ParquetError::External(Box::new(error))).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let size = self.size;
        async move { Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?)) }.boxed()
    }
}

#[expect(clippy::future_not_send, reason = "it ends on the thread on which it began")]
async fn rows(at: &FilesAt, path: &str, size: u64, whom: Whom) -> Result<u64, StoreError> {
    // A file that is gone is told as that, and one that is no Parquet as that.
    let failed = |error: ParquetError| match gone(&error) {
        true => StoreError::Table(TableError::Data {
            path: path.to_owned(),
            source: object_store::Error::NotFound { path: path.to_owned(), source: Box::new(error) },
        }),
        false => StoreError::Rewrite(error),
    };
    let file = InParts { at: at.clone(), path: path.to_owned(), size };
    let builder = ParquetRecordBatchStreamBuilder::new(file).await.map_err(failed)?;
    let columns = whom.columns();
    let mask = |names: &[&str]| ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let (first, all) = (mask(columns.get(..1).unwrap_or_default()), mask(columns));
    let names = whom.clone();
    let named = ArrowPredicateFn::new(first, move |batch| {
        let words = batch.columns().first().and_then(|column| column.as_string_opt::<i32>());
        let words = words.ok_or_else(|| ArrowError::SchemaError("rows that name nobody".to_owned()))?;
        Ok((0..words.len())
            .map(|row| Some(words.is_valid(row) && names.is_named(words.value(row))))
            .collect::<BooleanArray>())
    });
    let filter = RowFilter::new(vec![Box::new(named)]);
    let mut batches = builder.with_projection(all).with_row_filter(filter).build().map_err(failed)?;
    let mut found = 0;
    while let Some(batch) = batches.try_next().await.map_err(failed)? {
        found += whom.count(&batch).map_err(ParquetError::from)? as u64;
    }
    Ok(found)
}

fn gone(error: &ParquetError) -> bool {
    let mut causes = std::iter::successors(Some(error as &dyn std::error::Error), |cause| cause.source());
    causes.any(|cause| matches!(cause.downcast_ref(), Some(object_store::Error::NotFound { .. })))
}
