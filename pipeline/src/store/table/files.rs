//! The data files of a table: where they lie, and what its log says of them.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use carebed_contract::time::Timestamp;
use chrono::{Days, NaiveDate};
use deltalake_core::kernel::Add;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::TableError;
use crate::store::parquet::{self, Encoded};
use crate::store::run::Part;
use crate::view::DataFile;

/// The date of a day counted from 1970-01-01, as in paths and in the log.
pub(super) fn date(day: i32) -> String {
    let epoch = NaiveDate::default();
    let distance = Days::new(u64::from(day.unsigned_abs()));
    let date = if day < 0 { epoch.checked_sub_days(distance) } else { epoch.checked_add_days(distance) };
    date.unwrap_or(epoch).to_string()
}

fn day(date: &str) -> Option<i32> {
    let days = date.parse::<NaiveDate>().ok()?.signed_duration_since(NaiveDate::default()).num_days();
    i32::try_from(days).ok()
}

/// Where a table's files lie.
#[derive(Debug, Clone)]
pub(crate) struct FilesAt {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) partition: Option<&'static str>,
    pub(super) schema: SchemaRef,
}

impl FilesAt {
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rooted at the table.
    pub(crate) fn store(&self) -> &dyn ObjectStore {
        self.store.as_ref()
    }

    /// Puts a file away, which does not count before it is committed.
    pub(crate) async fn put(
        &self,
        file: &Encoded,
        day: Option<i32>,
        name: &str,
        now: Timestamp,
    ) -> Result<Add, TableError> {
        let partition = self.partition.zip(day.map(date));
        let path = match &partition {
            Some((column, date)) => format!("{column}={date}/{name}"),
            None => name.to_owned(),
        };
        let add = parquet::add(path.clone(), partition, file, now);
        let put = self.store.put(&Path::from(path.as_str()), file.bytes.clone().into()).await;
        put.map_err(|source| TableError::Data { path, source })?;
        Ok(add)
    }

    /// A file's bytes.
    pub(crate) async fn read(&self, path: &str) -> Result<Bytes, TableError> {
        let read = async { self.store.get(&Path::from(path)).await?.bytes().await };
        read.await.map_err(|source| TableError::Data { path: path.to_owned(), source })
    }

    /// A part of a file.
    pub(crate) async fn read_part(&self, path: &str, part: Range<u64>) -> Result<Bytes, object_store::Error> {
        self.store.get_range(&Path::from(path), part).await
    }

    /// Deletes a file; one that is not there is deleted already.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), TableError> {
        match self.store.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(TableError::Data { path: path.to_owned(), source }),
        }
    }

    /// All files below the table but its log, with when they were written.
    pub(crate) async fn list(&self) -> Result<Vec<(String, Timestamp, u64)>, TableError> {
        let data = |source| TableError::Data { path: "data files".to_owned(), source };
        let listed: Vec<_> = self.store.list(None).try_collect().await.map_err(data)?;
        let files = listed.into_iter().map(|meta: object_store::ObjectMeta| {
            let written = Timestamp::from_millis(meta.last_modified.timestamp_millis());
            (meta.location.to_string(), written, meta.size)
        });
        Ok(files.filter(|(path, ..)| !path.starts_with("_delta_log/")).collect())
    }
}

/// What readers choose files by, from an entry's statistics; whatever is not there is not known.
pub(super) fn data_file(
    path: &str,
    size: i64,
    written: Timestamp,
    stats: Option<&str>,
    date: Option<&str>,
) -> DataFile {
    let stats: serde_json::Value = stats.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let bound = |side: &str, column: &str| stats.get(side)?.get(column)?.as_str().map(str::to_owned);
    let range = |column: &str| {
        let low: Arc<str> = bound("minValues", column)?.into();
        Some((low, bound("maxValues", column)?.into()))
    };
    let time = |side: &str| bound(side, "event_time").and_then(|text| Timestamp::parse(&text));
    DataFile {
        path: path.into(),
        size: u64::try_from(size).unwrap_or(0),
        rows: stats.get("numRecords").and_then(serde_json::Value::as_u64),
        day: date.and_then(day),
        event_time: time("minValues").zip(time("maxValues")),
        home: range("home_id"),
        bed: range("bed_id"),
        part: Part::of(path),
        written,
    }
}
