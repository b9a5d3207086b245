//! The one that commits: rows and watermark become good together.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use carebed_contract::crash;
use carebed_contract::digest::Digest;
use carebed_contract::id::GatewayId;
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;

use super::erasure::Erasures;
use super::parquet;
use super::run::Part;
use super::table::{Change, Table, TableError};
use super::{Commit, Committed, StoreError, watermark};
use crate::accept::Marks;
use crate::view::DataFile;
use crate::{rows, schema};

/// How many files of one commit are written at the same time.
const WRITES_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Writer {
    /// Rooted at the lake.
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) shard: String,
    pub(super) app_id: String,
    /// The last watermark that counts, and what it says.
    pub(super) watermark: u64,
    pub(super) marks: BTreeMap<GatewayId, Marks>,
    pub(super) observations: Table,
    pub(super) gaps: Keyed,
    pub(super) dead_letters: Keyed,
}

impl Writer {
    pub(super) async fn commit(
        &mut self,
        commit: &Commit,
        erasures: &Erasures,
        now: Timestamp,
    ) -> Result<Committed, StoreError> {
        let gaps: Vec<_> = commit.gaps.iter().map(|gap| (gap.key(), gap)).collect();
        self.gaps.append(&gaps, schema::gaps_to_batch, &self.shard, now).await?;
        let letters: Vec<_> = commit.dead_letters.iter().map(|letter| (letter.key(), letter)).collect();
        self.dead_letters.append(&letters, schema::dead_letters_to_batch, &self.shard, now).await?;

        if commit.rows.is_empty() && commit.marks.is_empty() {
            return Ok(Committed {
                watermark: self.watermark,
                version: self.observations.version(),
                rows: 0,
                files: 0,
            });
        }

        let mut days: BTreeMap<i32, Vec<&Observation>> = BTreeMap::new();
        for row in commit.rows.iter().flat_map(|rows| rows.iter()).filter(|row| !erasures.cover(row)) {
            days.entry(rows::day(row.event_time)).or_default().push(row);
        }
        let batches: Vec<(i32, RecordBatch)> = days
            .into_iter()
            .map(|(day, mut rows)| {
                // Stable, so rows of one instant keep the order in which they were accepted.
                rows.sort_by(|a, b| (&a.bed, &a.quantity, a.event_time).cmp(&(&b.bed, &b.quantity, b.event_time)));
                schema::to_batch(&rows).map(|batch| (day, batch))
            })
            .collect::<Result<_, _>>()?;
        let rows = batches.iter().map(|(_, batch)| batch.num_rows()).sum();
        let (table, shard) = (&self.observations, &self.shard);
        let writes = batches.into_iter().map(async |(day, batch)| {
            let name = Part::first(shard).file_name();
            table.write(batch, Some(day), &name, now).await
        });
        let adds: Vec<_> = futures::stream::iter(writes).buffered(WRITES_MAX).try_collect().await?;
        let files = adds.len();
        crash::point("centre.after_parquet");

        let n = self.watermark + 1;
        watermark::write(self.store.as_ref(), &self.shard, n, &self.marks, &commit.marks).await?;
        crash::point("centre.after_watermark");

        let transaction = (self.app_id.as_str(), i64::try_from(n).unwrap_or(i64::MAX));
        self.observations.commit(adds, Change::Append(Some(transaction)), now).await?;
        crash::point("centre.after_commit");
        self.watermark = n;
        self.marks.extend(commit.marks.clone());
        Ok(Committed { watermark: n, version: self.observations.version(), rows, files })
    }
}

/// A table whose rows have keys and are written once. The keys are in memory: 32 bytes a row.
#[derive(Debug)]
pub(super) struct Keyed {
    pub(super) table: Table,
    keys: HashSet<Digest>,
}

/// A table with keys is written again as one file when it has so many small ones.
const SMALL_FILES_MAX: usize = 64;
/// A file below this size is small.
const SMALL_BYTES: u64 = 1 << 20;

impl Keyed {
    pub(super) async fn load(table: Table) -> Result<Self, StoreError> {
        let (mut keys, at) = (HashSet::new(), table.files_at());
        for file in table.view().files.iter() {
            let name = table.name();
            let unreadable = |source| TableError::Encode { table: name, source };
            let reader = ParquetRecordBatchReaderBuilder::try_new(at.read(&file.path).await?).map_err(unreadable)?;
            let key_only = ProjectionMask::columns(reader.parquet_schema(), ["key"]);
            for batch in reader.with_projection(key_only).build().map_err(unreadable)? {
                let batch = batch?;
                let column = batch.column_by_name("key").and_then(|c| c.as_string_opt::<i32>().cloned());
                keys.extend(column.iter().flatten().flatten().filter_map(crate::accept::digest_from_hex));
            }
        }
        Ok(Self { table, keys })
    }

    /// Appends those rows whose keys are new.
    async fn append<T: Sync>(
        &mut self,
        rows: &[(Digest, &T)],
        to_batch: fn(&[&T]) -> Result<RecordBatch, ArrowError>,
        shard: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut keys = HashSet::new();
        let fresh = rows.iter().filter(|(key, _)| !self.keys.contains(key) && keys.insert(*key));
        let fresh: Vec<&T> = fresh.map(|(_, row)| *row).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let add = self.table.write(to_batch(&fresh)?, None, &Part::first(shard).file_name(), now).await?;
        self.table.commit(vec![add], Change::Append(None), now).await?;
        self.keys.extend(keys);
        Ok(())
    }

    /// Writes many small files again as one. Says whether it did.
    pub(super) async fn compact(&mut self, shard: &str, now: Timestamp) -> Result<bool, StoreError> {
        let view = self.table.view();
        let small: Vec<Arc<DataFile>> = view.files.iter().filter(|file| file.size < SMALL_BYTES).cloned().collect();
        if small.len() < SMALL_FILES_MAX {
            return Ok(false);
        }
        let at = self.table.files_at();
        let mut batches = Vec::new();
        for file in &small {
            let reader = ParquetRecordBatchReaderBuilder::try_new(at.read(&file.path).await?)?.build()?;
            batches.extend(reader.collect::<Result<Vec<_>, _>>()?);
        }
        let file = parquet::encode(&concat_batches(at.schema(), &batches)?)?;
        let add = at.put(&file, None, &Part::first(shard).file_name(), now).await?;
        self.table.commit(vec![add], Change::Compact(&small), now).await?;
        Ok(true)
    }
}
