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
use carebed_contract::time::Timestamp;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;

use super::erasure::Erasures;
use super::parquet;
use super::run::Part;
use super::table::{Change, Table, TableError};
use super::watermark::{self, WatermarkError};
use super::{Commit, Committed, StoreError};
use crate::accept::Marks;
use crate::schema::{self, Piece, Words};
use crate::view::{DataFile, View};

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
    /// The highest number that any attempt took.
    pub(super) tried: u64,
    /// The log may hold what is not known here: nothing is committed before it was opened again.
    pub(super) in_doubt: bool,
    pub(super) marks: BTreeMap<GatewayId, Marks>,
    pub(super) observations: Table,
    pub(super) gaps: Keyed,
    pub(super) dead_letters: Keyed,
}

impl Writer {
    /// What readers see, without hot rows.
    pub(super) fn view(&self) -> View {
        super::view_of(&self.marks, [&self.observations, &self.gaps.table, &self.dead_letters.table])
    }

    /// Of the three tables.
    pub(super) fn versions(&self) -> [u64; 3] {
        [&self.observations, &self.gaps.table, &self.dead_letters.table].map(Table::version)
    }

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

        let rows: Vec<_> = commit.rows.iter().map(|rows| erasures.left_of(rows.streaks())).collect();
        let mut days: BTreeMap<i32, Vec<Piece<'_>>> = BTreeMap::new();
        for streak in rows.iter().flat_map(|streaks| streaks.iter()) {
            for (day, points) in streak.days() {
                days.entry(day).or_default().push(Piece { about: &streak.about, points });
            }
        }
        let batches: Vec<(i32, RecordBatch)> = days
            .into_iter()
            .map(|(day, pieces)| schema::sorted(&pieces, Words::Keys).map(|batch| (day, batch)))
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

        let (last, n) = (self.watermark, self.tried + 1);
        self.tried = n;
        let written = watermark::write(self.store.as_ref(), &self.shard, (last, n), &self.marks, &commit.marks).await;
        written.map_err(|error| match error {
            // Our own numbers are all new.
            WatermarkError::Write { source: object_store::Error::AlreadyExists { .. }, .. } => self.overtaken().into(),
            error => StoreError::from(error),
        })?;
        crash::point("centre.after_watermark");

        let transaction = Change::Append { app_id: &self.app_id, last, n };
        let added = self.observations.commit(adds, transaction, now).await;
        added.map_err(|error| match error {
            // An attempt that had failed, as far as one could see, has landed after all.
            TableError::Overtaken { table, .. } if self.observations.transaction(&self.app_id) < n => {
                TableError::Doubtful { table }
            }
            error => error,
        })?;
        crash::point("centre.after_commit");
        self.watermark = n;
        watermark::clean(self.store.as_ref(), &self.shard, (last, n)).await;
        self.marks.extend(commit.marks.clone());
        Ok(Committed { watermark: n, version: self.observations.version(), rows, files })
    }

    /// An object store may take the entry of a commit long after that was given up. From now on it does not.
    pub(super) async fn fence(&mut self, now: Timestamp) -> Result<(), TableError> {
        for table in [&mut self.observations, &mut self.gaps.table, &mut self.dead_letters.table] {
            table.commit(Vec::new(), Change::Fence, now).await?;
        }
        Ok(())
    }

    fn overtaken(&self) -> TableError {
        TableError::Overtaken { table: self.observations.name(), app_id: self.app_id.clone() }
    }
}

/// A table whose rows have keys and are written once, whichever process of a shard writes them: one that takes over from
/// another, or works beside it for a moment, compares with what the other wrote. The keys are in memory: 32 bytes a row.
#[derive(Debug)]
pub(super) struct Keyed {
    pub(super) table: Table,
    keys: HashSet<Digest>,
    /// The files whose rows' keys are among them.
    known: HashSet<Arc<str>>,
}

/// A table with keys is written again as one file when it has so many small ones.
const SMALL_FILES_MAX: usize = 64;
/// A file below this size is small.
const SMALL_BYTES: u64 = 1 << 20;

impl Keyed {
    pub(super) async fn load(table: Table) -> Result<Self, StoreError> {
        let mut this = Self { table, keys: HashSet::new(), known: HashSet::new() };
        this.learn().await?;
        Ok(this)
    }

    /// Reads the keys in files that came since the last look.
    async fn learn(&mut self) -> Result<(), StoreError> {
        let (at, view) = (self.table.files_at(), self.table.view());
        self.known.retain(|path| self.table.knows(path));
        for file in view.files.iter().filter(|file| !self.known.contains(&file.path)).cloned().collect::<Vec<_>>() {
            let name = self.table.name();
            let unreadable = |source| TableError::Encode { table: name, source };
            let reader = ParquetRecordBatchReaderBuilder::try_new(at.read(&file.path).await?).map_err(unreadable)?;
            let key_only = ProjectionMask::columns(reader.parquet_schema(), ["key"]);
            for batch in reader.with_projection(key_only).build().map_err(unreadable)? {
                let batch = batch?;
                let column = batch.column_by_name("key").and_then(|c| c.as_string_opt::<i32>().cloned());
                self.keys.extend(column.iter().flatten().flatten().filter_map(crate::accept::digest_from_hex));
            }
            self.known.insert(Arc::clone(&file.path));
        }
        Ok(())
    }

    /// Appends those rows whose keys are new.
    async fn append<T: Sync>(
        &mut self,
        rows: &[(Digest, &T)],
        to_batch: fn(&[&T]) -> Result<RecordBatch, ArrowError>,
        shard: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.table.refresh().await?;
        loop {
            self.learn().await?;
            let mut keys = HashSet::new();
            let fresh = rows.iter().filter(|(key, _)| !self.keys.contains(key) && keys.insert(*key));
            let fresh: Vec<&T> = fresh.map(|(_, row)| *row).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            let add = self.table.write(to_batch(&fresh)?, None, &Part::first(shard).file_name(), now).await?;
            let path: Arc<str> = add.path.as_str().into();
            match self.table.commit(vec![add], Change::AppendAfter(self.table.version()), now).await {
                // Somebody else wrote meanwhile; each time round the table has grown by what they wrote.
                Err(TableError::Stale { .. }) => drop(self.table.files_at().delete(&path).await),
                committed => {
                    committed?;
                    self.keys.extend(keys);
                    self.known.insert(path);
                    return Ok(());
                }
            }
        }
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
        let file = parquet::encode(at.schema(), &concat_batches(at.schema(), &batches)?)?;
        let add = at.put(&file, None, &Part::first(shard).file_name(), now).await?;
        self.table.commit(vec![add], Change::Compact(&small), now).await?;
        Ok(true)
    }
}
