//! The lake: three Delta tables and the watermarks, and the one commit that makes rows and watermark good together.
//!
//! A commit writes, each synced before the next: gaps and dead letters under keys that are never written twice; one sorted
//! Parquet file per day of event time; the watermark file `n`; and last the log entry of `observations`, which names the
//! files and carries `txn{ingest/<shard>, n}`. Only that entry makes rows or watermark count, so they count together. What a
//! crash leaves of an unfinished commit is never looked at again.
//!
//! What survives: after `commit` returned, everything in it, whatever happens. Before, all of it or none.

mod disk;
mod lock;
mod parquet;
mod synced;
mod table;
mod watermark;

use std::collections::{BTreeMap, HashSet};
use std::path::Path as FsPath;
use std::sync::Arc;

use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{AsArray, RecordBatch};
use arrow::error::ArrowError;
use carebed_contract::crash;
use carebed_contract::digest::Digest;
use carebed_contract::id::{GatewayId, HomeId};
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::{Mutex, watch};
use url::Url;

use crate::accept::{Changes, Marks};
use crate::dead_letter::DeadLetter;
use crate::gap::Gap;
use crate::memory::Rows;
use crate::view::{Complete, Publisher, View};
use crate::{rows, schema};

use disk::{Disk, OsDisk};
use lock::WriterLock;
use synced::SyncedStore;
use table::{Access, Design, Table};

pub use lock::LockError;
pub use table::TableError;
pub use watermark::WatermarkError;

/// How many files of one commit are written at the same time.
const WRITES_MAX: usize = 4;

/// Where the lake is and which part of it this process writes.
#[derive(Debug, Clone)]
pub struct Config {
    /// The lake's place. A `file:` URL; other stores are for later.
    pub lake: Url,
    /// The ingest shard this process is: its lock, its watermarks and its name in the table's log.
    pub shard: String,
}

impl Config {
    /// A lake in a local directory, written by one process.
    pub fn local(directory: &FsPath) -> Result<Self, StoreError> {
        let wrong = || StoreError::Place { place: directory.display().to_string() };
        let absolute = std::path::absolute(directory).map_err(|_| wrong())?;
        Ok(Self { lake: Url::from_directory_path(absolute).map_err(|()| wrong())?, shard: "0".to_owned() })
    }
}

/// Why the lake could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a place for a lake.
    #[error("{place} cannot hold a lake: give a directory, or a file: URL")]
    Place {
        /// What was given.
        place: String,
    },
    /// Another process writes.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The watermark.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// Rows that cannot stand in Arrow columns.
    #[error("failed to lay out rows")]
    Rows(#[from] ArrowError),
    /// The task that committed is gone.
    #[error("a commit was stopped half way: restart carebed, nothing of it was receipted")]
    Stopped,
    /// Opened by [`Store::open_read`].
    #[error("the lake was opened for reading only")]
    ReadOnly,
}

/// What one commit makes good.
#[derive(Debug, Default, Clone)]
pub struct Commit {
    /// The observations of the accepted batches.
    pub rows: Vec<Rows>,
    /// Declared losses; those written before are passed over.
    pub gaps: Vec<Gap>,
    /// Unusable messages; those written before are passed over.
    pub dead_letters: Vec<DeadLetter>,
    /// How far their gateways are accepted.
    pub marks: Changes,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The watermark's number.
    pub watermark: u64,
    /// The version of the table `observations`.
    pub version: u64,
    /// Rows added to it.
    pub rows: usize,
    /// Files added to it.
    pub files: usize,
}

/// An open lake. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    lake: Url,
    root: Arc<dyn ObjectStore>,
    publisher: Publisher,
    writer: Option<Mutex<Writer>>,
    _lock: Option<WriterLock>,
}

#[derive(Debug)]
struct Writer {
    /// Rooted at the lake.
    store: Arc<dyn ObjectStore>,
    shard: String,
    app_id: String,
    /// The last watermark that counts, and what it says.
    watermark: u64,
    marks: BTreeMap<GatewayId, Marks>,
    observations: Table,
    gaps: Keyed,
    dead_letters: Keyed,
}

/// A table whose rows have keys and are written once. The keys are in memory: 32 bytes a row.
#[derive(Debug)]
struct Keyed {
    table: Table,
    keys: HashSet<Digest>,
}

impl Store {
    /// Opens the lake for writing; creates it where there is none. Fails when another process writes the same shard.
    pub async fn open(config: Config) -> Result<Self, StoreError> {
        Self::open_on(config, Arc::new(OsDisk)).await
    }

    async fn open_on(config: Config, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let directory = directory(&config)?;
        let lock = WriterLock::take(&directory, &config.shard)?;
        let synced = SyncedStore::new(disk);
        let root: Arc<dyn ObjectStore> = Arc::new(synced.clone());
        Self::open_with(config, root, Access::Write(Some(synced)), Some(lock)).await
    }

    /// Opens the lake as it is now, without a lock and without changing anything. Its view stays as it is.
    pub async fn open_read(config: Config) -> Result<Self, StoreError> {
        directory(&config)?;
        let root: Arc<dyn ObjectStore> = Arc::new(SyncedStore::new(Arc::new(OsDisk)));
        Self::open_with(config, root, Access::Read, None).await
    }

    async fn open_with(
        config: Config,
        root: Arc<dyn ObjectStore>,
        access: Access,
        lock: Option<WriterLock>,
    ) -> Result<Self, StoreError> {
        let Config { lake, shard } = config;
        let app_id = format!("ingest/{shard}");
        let writes = matches!(access, Access::Write(_));
        let place = |_| StoreError::Place { place: lake.to_string() };
        let prefix = Path::from_url_path(lake.path()).map_err(place)?;
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&root), prefix));
        let table = async |name, schema, partition| {
            Table::open(&root, access.clone(), &lake, Design { name, schema, partition }, &app_id).await
        };
        let observations = table("observations", schema::observations(), Some(schema::EVENT_DAY)).await?;
        let gaps = table("gaps", schema::gaps(), None).await?;
        let dead_letters = table("dead_letters", schema::dead_letters(), None).await?;

        let watermark = observations.transaction(&app_id).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let marks = watermark::load(store.as_ref(), &shard, watermark).await?;
        let view = View {
            version: 0,
            observations: observations.view(),
            gaps: gaps.view(),
            dead_letters: dead_letters.view(),
            complete: Arc::new(marks.values().flat_map(Marks::complete).collect()),
        };
        let writer = if writes {
            let (gaps, dead_letters) = (Keyed::load(gaps).await?, Keyed::load(dead_letters).await?);
            Some(Mutex::new(Writer { store, shard, app_id, watermark, marks, observations, gaps, dead_letters }))
        } else {
            None
        };
        let inner = Inner { lake, root, publisher: Publisher::new(view), writer, _lock: lock };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What a reader sees now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.inner.publisher.view()
    }

    /// Tells of each new view. A slow receiver misses views in between, never the last.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<Arc<View>> {
        self.inner.publisher.subscribe()
    }

    /// Where the lake is. Each table is a directory below it; [`crate::view::DataFile::path`] is below the table's.
    #[must_use]
    pub fn lake(&self) -> &Url {
        &self.inner.lake
    }

    /// Reads the lake's files; its root is the root of the storage, as the paths of URLs count.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner.root)
    }

    /// How far every gateway is committed: what [`crate::accept::Accept::resume`] continues from.
    pub async fn marks(&self) -> Result<BTreeMap<GatewayId, Marks>, StoreError> {
        Ok(self.writer()?.lock().await.marks.clone())
    }

    /// Shows accepted rows to readers, and how far their homes are known now, before they are committed.
    pub(crate) fn show(&self, rows: &[&Observation], complete: &[(HomeId, Complete)]) -> Result<(), ArrowError> {
        let batch = if rows.is_empty() { None } else { Some(schema::to_batch(rows)?) };
        self.inner.publisher.accepted(batch, complete);
        Ok(())
    }

    /// What is shown now is what the next [`Store::commit`] commits.
    pub(crate) fn begin(&self) {
        self.inner.publisher.leaving();
    }

    /// Takes back everything that is shown and not committed.
    pub(crate) fn take_back(&self) {
        self.inner.publisher.dropped();
    }

    /// Makes a commit good, on stable storage, and shows its files in place of the rows shown before.
    pub async fn commit(&self, commit: &Commit, now: Timestamp) -> Result<Committed, StoreError> {
        let mut writer = self.writer()?.lock().await;
        let committed = writer.commit(commit, now).await?;
        let complete: Vec<_> = commit.marks.values().flat_map(Marks::complete).collect();
        self.inner.publisher.committed(&complete, |view| {
            let hot = Arc::clone(&view.observations.hot);
            view.observations = writer.observations.view();
            view.observations.hot = hot;
            if !commit.gaps.is_empty() {
                view.gaps = writer.gaps.table.view();
            }
            if !commit.dead_letters.is_empty() {
                view.dead_letters = writer.dead_letters.table.view();
            }
        });
        watermark::clean(writer.store.as_ref(), &writer.shard, writer.watermark).await;
        Ok(committed)
    }

    fn writer(&self) -> Result<&Mutex<Writer>, StoreError> {
        self.inner.writer.as_ref().ok_or(StoreError::ReadOnly)
    }
}

impl Writer {
    async fn commit(&mut self, commit: &Commit, now: Timestamp) -> Result<Committed, StoreError> {
        let gaps: Vec<_> = commit.gaps.iter().map(|gap| (gap.key(), gap)).collect();
        self.gaps.append(&gaps, schema::gaps_to_batch, now).await?;
        let letters: Vec<_> = commit.dead_letters.iter().map(|letter| (letter.key(), letter)).collect();
        self.dead_letters.append(&letters, schema::dead_letters_to_batch, now).await?;

        if commit.rows.is_empty() && commit.marks.is_empty() {
            return Ok(Committed {
                watermark: self.watermark,
                version: self.observations.version(),
                rows: 0,
                files: 0,
            });
        }

        let mut days: BTreeMap<i32, Vec<&Observation>> = BTreeMap::new();
        for row in commit.rows.iter().flat_map(|rows| rows.iter()) {
            days.entry(rows::day(row.event_time)).or_default().push(row);
        }
        let token = token();
        let batches: Vec<(i32, RecordBatch)> = days
            .into_iter()
            .map(|(day, mut rows)| {
                // Stable, so rows of one instant keep the order in which they were accepted.
                rows.sort_by(|a, b| (&a.bed, &a.quantity, a.event_time).cmp(&(&b.bed, &b.quantity, b.event_time)));
                schema::to_batch(&rows).map(|batch| (day, batch))
            })
            .collect::<Result<_, _>>()?;
        let rows = batches.iter().map(|(_, batch)| batch.num_rows()).sum();
        let table = &self.observations;
        let writes = batches.into_iter().map(|(day, batch)| table.write(batch, Some(day), &token, now));
        let adds: Vec<_> = futures::stream::iter(writes).buffered(WRITES_MAX).try_collect().await?;
        let files = adds.len();
        crash::point("centre.after_parquet");

        let n = self.watermark + 1;
        watermark::write(self.store.as_ref(), &self.shard, n, &self.marks, &commit.marks).await?;
        crash::point("centre.after_watermark");

        let transaction = (self.app_id.as_str(), i64::try_from(n).unwrap_or(i64::MAX));
        self.observations.append(adds, Some(transaction)).await?;
        crash::point("centre.after_commit");
        self.watermark = n;
        self.marks.extend(commit.marks.clone());
        Ok(Committed { watermark: n, version: self.observations.version(), rows, files })
    }
}

impl Keyed {
    async fn load(table: Table) -> Result<Self, StoreError> {
        let mut keys = HashSet::new();
        for file in table.view().files.iter() {
            let data = |source| TableError::Data { path: file.path.to_string(), source };
            let path = Path::from(&*file.path);
            let bytes = async { table.store().get(&path).await?.bytes().await }.await.map_err(data)?;
            let name = table.name();
            let unreadable = |source| TableError::Encode { table: name, source };
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(unreadable)?;
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
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut keys = HashSet::new();
        let fresh = rows.iter().filter(|(key, _)| !self.keys.contains(key) && keys.insert(*key));
        let fresh: Vec<&T> = fresh.map(|(_, row)| *row).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let add = self.table.write(to_batch(&fresh)?, None, &token(), now).await?;
        self.table.append(vec![add], None).await?;
        self.keys.extend(keys);
        Ok(())
    }
}

fn directory(config: &Config) -> Result<std::path::PathBuf, StoreError> {
    let place = || StoreError::Place { place: config.lake.to_string() };
    if config.lake.scheme() != "file" || !config.lake.path().ends_with('/') {
        return Err(place());
    }
    config.lake.to_file_path().map_err(|()| place())
}

/// Makes a file or an entry unlike every other.
fn token() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests;
