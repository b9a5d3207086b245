//! One Delta table: its files as its log tells them, and appending to it.
//!
//! A commit is one log entry, written only if its version is free, and never retried by the library: a lost race is looked
//! at here. The state is kept from entry to entry, so a commit costs the same however many files are live.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType as ArrowType, SchemaRef, TimeUnit};
use bytes::Bytes;
use carebed_contract::time::Timestamp;
use chrono::{Days, NaiveDate};
use deltalake_core::checkpoints::create_checkpoint;
use deltalake_core::kernel::transaction::{CommitData, TransactionError};
use deltalake_core::kernel::{Action, Add, DataType, Remove, StructField, Transaction};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore, get_actions};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use url::Url;

use super::parquet::{self, Encoded};
use super::run::Part;
use super::synced::SyncedStore;
use crate::view::{DataFile, TableView};

/// How often a lost race is looked at and tried again before the commit is given up; its rows come again.
const RACES_MAX: usize = 16;
/// Every so many versions the log is summed up, so that opening stays quick. The library reads all entries since the last
/// summary at once and takes 3.5 MiB for each, however small (measured: 278 MiB of a centre's heap for 78 entries), so they
/// are few.
pub(crate) const CHECKPOINT_EVERY: u64 = 10;
/// So many versions before the last stay readable, for programs that read the table while it is written. Entries and
/// checkpoints that only older versions need are deleted.
pub(crate) const VERSIONS_KEPT: u64 = 500;
/// How long a checkpoint remembers files that were taken away. Vacuum does not ask the log, so an hour is for others.
const REMOVED_KEPT: &str = "interval 1 hour";

/// Why a table could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The log could not be read.
    #[error("failed to read the log of table {table}")]
    ReadLog {
        /// Which table.
        table: &'static str,
        /// What delta-rs said.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// The table could not be created.
    #[error("failed to create table {table}")]
    Create {
        /// Which table.
        table: &'static str,
        /// What delta-rs said.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// The table's columns or protocol are not ours.
    #[error("table {table} is not one that carebed wrote ({what}): move it away, or give carebed another lake")]
    Foreign {
        /// Which table.
        table: &'static str,
        /// What differs.
        what: String,
    },
    /// A log entry in the middle cannot be read.
    #[error("entry {version} in the log of table {table} is damaged: restore it from a backup of the lake")]
    Damaged {
        /// Which table.
        table: &'static str,
        /// Which entry.
        version: u64,
    },
    /// The rows could not be encoded.
    #[error("failed to encode rows of table {table}")]
    Encode {
        /// Which table.
        table: &'static str,
        /// What Parquet said.
        #[source]
        source: ::parquet::errors::ParquetError,
    },
    /// A data file could not be read or written.
    #[error("failed to access {path}")]
    Data {
        /// Which file.
        path: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The log entry could not be made.
    #[error("failed to describe a commit to table {table}")]
    Describe {
        /// Which table.
        table: &'static str,
        /// What delta-rs said.
        #[source]
        source: Box<TransactionError>,
    },
    /// A log entry has its name, but could not be put on stable storage.
    #[error("the disk failed while committing to table {table}: check it; nothing was receipted")]
    Doubtful {
        /// Which table.
        table: &'static str,
    },
    /// Others always came first.
    #[error("gave up committing to table {table} after losing {RACES_MAX} races: is another writer running?")]
    Races {
        /// Which table.
        table: &'static str,
    },
    /// Files that were to be replaced are gone already, or others came that may hold the same rows.
    #[error("files of table {table} changed while they were being written again; nothing was committed")]
    Stale {
        /// Which table.
        table: &'static str,
    },
    /// Others committed so much that the log no longer tells what this process missed.
    #[error("the log of table {table} went on without this process; nothing was receipted")]
    Behind {
        /// Which table.
        table: &'static str,
    },
    /// Another writer committed under our name.
    #[error("another process commits to table {table} as {app_id}: stop one of the two")]
    Overtaken {
        /// Which table.
        table: &'static str,
        /// The name.
        app_id: String,
    },
}

/// What a table is called and looks like.
#[derive(Debug, Clone)]
pub(crate) struct Design {
    pub(crate) name: &'static str,
    /// Columns of its files.
    pub(crate) schema: SchemaRef,
    /// A further column, the day, that is in the paths only.
    pub(crate) partition: Option<&'static str>,
}

impl Design {
    fn columns(&self) -> Vec<StructField> {
        let field =
            |f: &Arc<arrow::datatypes::Field>| StructField::new(f.name(), delta_type(f.data_type()), f.is_nullable());
        let mut columns: Vec<StructField> = self.schema.fields().iter().map(field).collect();
        columns.extend(self.partition.map(|name| StructField::new(name, DataType::DATE, true)));
        columns
    }
}

fn delta_type(kind: &ArrowType) -> DataType {
    match kind {
        ArrowType::Float64 => DataType::DOUBLE,
        ArrowType::Int64 => DataType::LONG,
        ArrowType::Binary => DataType::BINARY,
        ArrowType::Timestamp(TimeUnit::Millisecond, _) => DataType::TIMESTAMP,
        _ => DataType::STRING,
    }
}

/// The date of a day counted from 1970-01-01, as in paths and in the log.
pub(crate) fn date(day: i32) -> String {
    let epoch = NaiveDate::default();
    let distance = Days::new(u64::from(day.unsigned_abs()));
    let date = if day < 0 { epoch.checked_sub_days(distance) } else { epoch.checked_add_days(distance) };
    date.unwrap_or(epoch).to_string()
}

fn day(date: &str) -> Option<i32> {
    let days = date.parse::<NaiveDate>().ok()?.signed_duration_since(NaiveDate::default()).num_days();
    i32::try_from(days).ok()
}

/// What one log entry does.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    /// Adds files and, with them, an application's transaction `n`; fails when its last one is not `last`.
    Append { app_id: &'a str, last: u64, n: u64 },
    /// Adds files whose rows are in none that this version of the table has: fails when somebody else was quicker, whose
    /// rows may be the same.
    AppendAfter(u64),
    /// Replaces files by others with the same rows.
    Compact(&'a [Arc<DataFile>]),
    /// Replaces files by others with fewer rows, or by none.
    Erase(&'a [Arc<DataFile>]),
}

impl Change<'_> {
    fn replaced(&self) -> &[Arc<DataFile>] {
        match self {
            Self::Append { .. } | Self::AppendAfter(_) => &[],
            Self::Compact(files) | Self::Erase(files) => files,
        }
    }

    fn operation(&self, partition: Option<&str>) -> DeltaOperation {
        match self {
            Self::Append { .. } | Self::AppendAfter(_) => DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: partition.map(|column| vec![column.to_owned()]),
                predicate: None,
            },
            Self::Compact(_) => DeltaOperation::Optimize { predicate: None, target_size: 0 },
            Self::Erase(_) => DeltaOperation::Delete { predicate: None },
        }
    }
}

/// A file that the log took away, until nobody reads it.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) file: Arc<DataFile>,
    /// When; what the log says.
    pub(crate) at: Timestamp,
}

/// What a table is opened for.
#[derive(Debug, Clone)]
pub(crate) enum Access {
    /// For reading only; nothing on the storage changes.
    Read,
    /// For writing, with what makes writes last where a put alone does not.
    Write(Option<SyncedStore>),
}

/// An open table.
#[derive(Debug)]
pub(crate) struct Table {
    design: Design,
    log: LogStoreRef,
    /// Rooted at the table.
    store: Arc<dyn ObjectStore>,
    version: u64,
    files: BTreeMap<Arc<str>, Arc<DataFile>>,
    /// How many entries took rows out since this process opened the table.
    taken_out: u64,
    /// Taken away since this process opened the table, and not deleted yet.
    removed: Vec<Removed>,
    /// Application → its last transaction.
    transactions: BTreeMap<String, i64>,
    /// Where a write needs its own sync to last.
    durable: Option<SyncedStore>,
    /// Where the table is, from the root of the storage.
    root: Path,
    /// Nobody knows whether the last entry would survive a power cut. Only opening anew helps.
    doubtful: bool,
}

impl Table {
    /// Opens the table below the lake's URL. `root` has the root of the storage, as delta-rs wants it. A writer (one with
    /// [`Access::Write`]) creates what is absent, sets a torn last entry aside and makes the last entry durable: the process that
    /// wrote it may have died before its sync, and receipts will rest on it.
    pub(crate) async fn open(
        root: &Arc<dyn ObjectStore>,
        access: Access,
        lake: &Url,
        design: Design,
        app_id: &str,
    ) -> Result<Self, TableError> {
        let table = design.name;
        let foreign = |what: String| TableError::Foreign { table, what };
        let url = lake.join(&format!("{table}/")).map_err(|e| foreign(e.to_string()))?;
        let path = Path::from_url_path(url.path()).map_err(|e| foreign(e.to_string()))?;
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(root), path.clone()));
        let log = default_logstore(Arc::clone(&store), Arc::clone(root), &url, &StorageConfig::default());
        let reading = |source| TableError::ReadLog { table, source: Box::new(source) };

        let mut opened = DeltaTable::new(Arc::clone(&log));
        let writes = matches!(access, Access::Write(_));
        if writes && let Some(aside) = check_log(store.as_ref(), table).await? {
            tracing::warn!(table, entry = %aside, "set aside a torn log entry that was never receipted");
        }
        if writes && !log.is_delta_table_location().await.map_err(reading)? {
            opened = CreateBuilder::new()
                .with_log_store(Arc::clone(&log))
                .with_table_name(table)
                .with_save_mode(SaveMode::Ignore)
                .with_columns(design.columns())
                .with_partition_columns(design.partition)
                .with_configuration([("delta.deletedFileRetentionDuration", Some(REMOVED_KEPT))])
                .await
                .map_err(|source| TableError::Create { table, source: Box::new(source) })?;
        }
        opened.load().await.map_err(reading)?;
        let state = opened.snapshot().map_err(reading)?;

        let found = state.schema();
        for wanted in design.columns() {
            let name = wanted.name();
            let there = found.field(name).ok_or_else(|| foreign(format!("it has no column {name}")))?;
            if there.data_type() != wanted.data_type() {
                return Err(foreign(format!("its column {name} is {}", there.data_type())));
            }
        }

        let mut this = Self {
            version: state.version(),
            files: BTreeMap::new(),
            taken_out: 0,
            removed: Vec::new(),
            transactions: BTreeMap::new(),
            log: Arc::clone(&log),
            store,
            design,
            durable: match access {
                Access::Write(durable) => durable,
                Access::Read => None,
            },
            root: path,
            doubtful: false,
        };
        for file in state.log_data().iter() {
            let day = this.design.partition.and_then(|column| file.partition_values_map().remove(column).flatten());
            let written = Timestamp::from_millis(file.modification_time());
            this.note_file(&file.path(), file.size(), written, file.stats().as_deref(), day.as_deref());
        }
        if let Some(n) = state.snapshot().transaction_version(log.as_ref(), app_id).await.map_err(reading)? {
            this.transactions.insert(app_id.to_owned(), n);
        }
        if let Some(durable) = &this.durable {
            let last = entry_path(this.version);
            let persisted = durable.persist(&this.root, &last).await;
            persisted.map_err(|source| TableError::Data { path: last.to_string(), source })?;
        }
        Ok(this)
    }

    /// The last transaction of an application; 0 when it has none.
    pub(crate) fn transaction(&self, app_id: &str) -> u64 {
        self.transactions.get(app_id).and_then(|n| u64::try_from(*n).ok()).unwrap_or(0)
    }

    /// This is `earlier` opened again: what readers remember of its rows may not hold.
    pub(crate) fn follows(&mut self, earlier: &Self) {
        self.taken_out = earlier.taken_out + 1;
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn name(&self) -> &'static str {
        self.design.name
    }

    /// What readers see of it, without hot rows.
    pub(crate) fn view(&self) -> TableView {
        let files = self.files.values().cloned().collect();
        TableView { version: self.version, files, taken_out: self.taken_out, ..TableView::default() }
    }

    /// Encodes and writes one data file, which does not count before it is appended.
    pub(crate) async fn write(
        &self,
        batch: RecordBatch,
        day: Option<i32>,
        name: &str,
        now: Timestamp,
    ) -> Result<Add, TableError> {
        let table = self.design.name;
        let encoded = tokio::task::spawn_blocking(move || parquet::encode(&batch)).await;
        let stopped = || ::parquet::errors::ParquetError::General("the encoder was stopped".to_owned());
        let encoded = encoded.unwrap_or_else(|_| Err(stopped()));
        let file = encoded.map_err(|source| TableError::Encode { table, source })?;
        self.files_at().put(&file, day, name, now).await
    }

    /// Where its files lie; may be used while the table is changed.
    pub(crate) fn files_at(&self) -> FilesAt {
        FilesAt {
            store: Arc::clone(&self.store),
            partition: self.design.partition,
            schema: Arc::clone(&self.design.schema),
        }
    }

    /// Commits one change. When this returns `Ok` the entry is on stable storage; on an error it is not in the log, except when
    /// the error is [`TableError::Doubtful`]. After a lost race everything is looked at again: files that are to be replaced must
    /// be live still, a transaction must not be there yet, rows that must be new are the caller's to compare again.
    pub(crate) async fn commit(
        &mut self,
        adds: Vec<Add>,
        change: Change<'_>,
        now: Timestamp,
    ) -> Result<(), TableError> {
        let table = self.design.name;
        if self.doubtful {
            return Err(TableError::Doubtful { table });
        }
        let entry = self.entry_of(adds, &change, now)?;
        self.check_not_behind().await?;
        for _ in 0..RACES_MAX {
            if change.replaced().iter().any(|file| !self.files.contains_key(&file.path)) {
                return Err(TableError::Stale { table });
            }
            if matches!(change, Change::AppendAfter(seen) if seen != self.version) {
                return Err(TableError::Stale { table });
            }
            if let Change::Append { app_id, last, .. } = change
                && self.transaction(app_id) != last
            {
                return Err(TableError::Overtaken { table, app_id: app_id.to_owned() });
            }
            let version = self.version + 1;
            match self.store.put_opts(&entry_path(version), entry.clone().into(), PutMode::Create.into()).await {
                Ok(_) => {
                    self.apply(version, &entry)?;
                    self.sum_up().await;
                    return Ok(());
                }
                Err(object_store::Error::AlreadyExists { .. }) => {
                    if self.catch_up(&entry).await? {
                        return Ok(());
                    }
                }
                Err(source) => {
                    // A sync may have failed after the entry got its name. Then nobody knows what a power cut would leave.
                    self.doubtful = !matches!(self.entry(version).await, Ok(None));
                    return Err(if self.doubtful {
                        TableError::Doubtful { table }
                    } else {
                        TableError::Data { path: entry_path(version).to_string(), source }
                    });
                }
            }
        }
        Err(TableError::Races { table })
    }

    fn entry_of(&self, adds: Vec<Add>, change: &Change<'_>, now: Timestamp) -> Result<Bytes, TableError> {
        let moved = matches!(change, Change::Compact(_));
        let adds = adds.into_iter().map(|add| Action::Add(Add { data_change: !moved, ..add }));
        let removes = change.replaced().iter().map(|file| {
            let values = self.design.partition.zip(file.day.map(date));
            Action::Remove(Remove {
                path: file.path.to_string(),
                data_change: !moved,
                deletion_timestamp: Some(now.millis()),
                extended_file_metadata: Some(true),
                partition_values: Some(values.into_iter().map(|(name, date)| (name.to_owned(), Some(date))).collect()),
                size: i64::try_from(file.size).ok(),
                ..Remove::default()
            })
        });
        let transactions = match change {
            Change::Append { app_id, n, .. } => vec![Transaction::new(*app_id, i64::try_from(*n).unwrap_or(i64::MAX))],
            _ => Vec::new(),
        };
        // Makes the entry unlike every other, so that it is known again after a lost race.
        let token = ("carebedCommit".to_owned(), super::token().into());
        let actions = adds.chain(removes).collect();
        let data = CommitData::new(actions, change.operation(self.design.partition), [token].into(), transactions);
        let table = self.design.name;
        data.get_bytes().map_err(|source| TableError::Describe { table, source: Box::new(source) })
    }

    /// Files that were taken away before `before` and that no view holds any more. They are the caller's to delete.
    pub(crate) fn take_unread(&mut self, before: Timestamp) -> Vec<Arc<DataFile>> {
        // The list's own reference is the last one exactly when no view has the file.
        let unread = |removed: &mut Removed| removed.at < before && Arc::strong_count(&removed.file) == 1;
        self.removed.extract_if(.., unread).map(|removed| removed.file).collect()
    }

    /// Whether a file is live, or was taken away and may still be read.
    pub(crate) fn knows(&self, path: &str) -> bool {
        self.files.contains_key(path) || self.removed.iter().any(|removed| *removed.file.path == *path)
    }

    /// How many such files were taken away and not deleted yet.
    pub(crate) fn removed_where(&self, which: impl Fn(&DataFile) -> bool) -> usize {
        self.removed.iter().filter(|removed| which(&removed.file)).count()
    }

    /// How many files were taken away and not deleted yet.
    pub(crate) fn n_removed(&self) -> usize {
        self.removed.len()
    }

    /// Takes in what others committed since.
    pub(crate) async fn refresh(&mut self) -> Result<(), TableError> {
        self.catch_up(&Bytes::new()).await.map(drop)
    }

    /// Takes in the entries that others wrote. Says whether `ours` is among them.
    async fn catch_up(&mut self, ours: &Bytes) -> Result<bool, TableError> {
        let mut found = false;
        let version_read = self.version;
        while let Some(entry) = self.entry(self.version + 1).await? {
            self.apply(self.version + 1, &entry)?;
            found |= entry == *ours;
        }
        if let Some(durable) = &self.durable {
            // An entry of ours must not survive one before it.
            for version in version_read + 1..=self.version {
                durable
                    .persist(&self.root, &entry_path(version))
                    .await
                    .map_err(|source| TableError::Data { path: entry_path(version).to_string(), source })?;
            }
        }
        Ok(found)
    }

    async fn entry(&self, version: u64) -> Result<Option<Bytes>, TableError> {
        let path = entry_path(version);
        let read = async { self.store.get(&path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(TableError::Data { path: path.to_string(), source }),
        }
    }

    fn apply(&mut self, version: u64, entry: &Bytes) -> Result<(), TableError> {
        let table = self.design.name;
        let actions = get_actions(version, entry).map_err(|_| TableError::Damaged { table, version })?;
        let (mut came, mut went) = (0, 0_u64);
        for action in actions {
            match action {
                Action::Add(add) => {
                    let day = self.design.partition.and_then(|column| add.partition_values.get(column)?.as_deref());
                    let written = Timestamp::from_millis(add.modification_time);
                    came += self.note_file(&add.path, add.size, written, add.stats.as_deref(), day).unwrap_or(0);
                }
                Action::Remove(remove) => {
                    let at = Timestamp::from_millis(remove.deletion_timestamp.unwrap_or(0));
                    let Some(file) = self.files.remove(remove.path.as_str()) else { continue };
                    went = went.saturating_add(file.rows.unwrap_or(u64::MAX));
                    self.removed.push(Removed { file, at });
                }
                Action::Txn(txn) => drop(self.transactions.insert(txn.app_id, txn.version)),
                Action::Metadata(_) | Action::Protocol(_) => {
                    return Err(TableError::Foreign { table, what: format!("version {version} changed its columns") });
                }
                _ => {}
            }
        }
        self.version = version;
        // Merging keeps every row.
        self.taken_out += u64::from(went > came);
        Ok(())
    }

    /// Notes a file; says its rows.
    fn note_file(
        &mut self,
        path: &str,
        size: i64,
        written: Timestamp,
        stats: Option<&str>,
        day: Option<&str>,
    ) -> Option<u64> {
        let file = data_file(path, size, written, stats, day);
        let rows = file.rows;
        self.files.insert(Arc::clone(&file.path), Arc::new(file));
        rows
    }

    /// Sums up the log now and then, and deletes what nobody needs any more. That it failed only makes the next opening
    /// slower.
    async fn sum_up(&self) {
        if self.version.is_multiple_of(CHECKPOINT_EVERY)
            && let Err(error) = self.checkpoint().await
        {
            tracing::warn!(table = self.design.name, version = self.version, %error, "failed to sum up the log");
        }
    }

    /// Writes a checkpoint of the newest version, and deletes what only versions before [`VERSIONS_KEPT`] need. Returns the
    /// version.
    pub(crate) async fn checkpoint(&self) -> Result<u64, TableError> {
        let table = self.design.name;
        let mut newest = DeltaTable::new(Arc::clone(&self.log));
        let written = async {
            newest.load().await?;
            create_checkpoint(&newest, None).await?;
            Ok(newest.version().unwrap_or(0))
        };
        let version = written.await.map_err(|source| TableError::ReadLog { table, source: Box::new(source) })?;
        drop(newest);
        let log = self.log_files().await?;
        // The newest checkpoint from which all kept versions can be read: all before it can go.
        let kept = version.saturating_sub(VERSIONS_KEPT);
        let checkpoints = log.iter().filter(|file| file.is_checkpoint && file.version <= kept);
        let base = checkpoints.map(|file| file.version).max().unwrap_or(0);
        for file in log.iter().filter(|file| file.version < base) {
            self.delete_log_file(&file.path).await?;
        }
        Ok(version)
    }

    /// Takes what the log says of the rows in files out of every entry, and deletes all checkpoints but a new one. The entries
    /// stay: whoever still writes an old version must find its place taken. Returns how many files changed or went.
    pub(crate) async fn forget_statistics(&self) -> Result<usize, TableError> {
        let version = self.checkpoint().await?;
        let mut changed = 0;
        for file in self.log_files().await?.iter().filter(|file| file.version < version) {
            if file.is_checkpoint {
                self.delete_log_file(&file.path).await?;
                changed += 1;
                continue;
            }
            let data = |source| TableError::Data { path: file.path.to_string(), source };
            let Some(entry) = self.entry(file.version).await? else { continue };
            if let Some(without) = without_statistics(&entry) {
                self.store.put(&file.path, without.into()).await.map_err(data)?;
                changed += 1;
            }
        }
        Ok(changed)
    }

    /// Fails when the log was cleaned beyond what this process knows: the place of its next entry would be free again.
    async fn check_not_behind(&mut self) -> Result<(), TableError> {
        let path = Path::from("_delta_log/_last_checkpoint");
        let read = async { self.store.get(&path).await?.bytes().await };
        let last = match read.await {
            Ok(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).ok(),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(source) => return Err(TableError::Data { path: path.to_string(), source }),
        };
        let last = last.and_then(|hint| hint.get("version")?.as_u64()).unwrap_or(0);
        if last > self.version {
            self.refresh().await?;
        }
        if last > self.version + VERSIONS_KEPT / 2 {
            return Err(TableError::Behind { table: self.design.name });
        }
        Ok(())
    }

    async fn log_files(&self) -> Result<Vec<LogFile>, TableError> {
        let log = Path::from("_delta_log");
        let data = |source| TableError::Data { path: log.to_string(), source };
        let listed: Vec<_> = self.store.list(Some(&log)).try_collect().await.map_err(data)?;
        Ok(listed.into_iter().filter_map(|meta: object_store::ObjectMeta| LogFile::of(meta.location)).collect())
    }

    async fn delete_log_file(&self, path: &Path) -> Result<(), TableError> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(TableError::Data { path: path.to_string(), source }),
        }
    }
}

/// An entry or a checkpoint.
struct LogFile {
    version: u64,
    is_checkpoint: bool,
    path: Path,
}

impl LogFile {
    /// None for hints and what was set aside.
    fn of(path: Path) -> Option<Self> {
        let (version, kind) = path.filename()?.split_once('.')?;
        let is_checkpoint = kind.starts_with("checkpoint");
        let version = version.parse().ok()?;
        (is_checkpoint || kind == "json").then_some(Self { version, is_checkpoint, path })
    }
}

/// An entry of the log without its files' statistics; none when it has none.
fn without_statistics(entry: &Bytes) -> Option<Vec<u8>> {
    let mut changed = false;
    let lines = entry.split(|byte| *byte == b'\n').map(|line| {
        let Ok(mut action) = serde_json::from_slice::<serde_json::Value>(line) else { return line.to_vec() };
        let add = action.get_mut("add").and_then(serde_json::Value::as_object_mut);
        if add.and_then(|add| add.remove("stats")).is_none() {
            return line.to_vec();
        }
        changed = true;
        action.to_string().into_bytes()
    });
    let without = lines.collect::<Vec<_>>().join(&b'\n');
    changed.then_some(without)
}

/// Where a table's files lie.
#[derive(Debug, Clone)]
pub(crate) struct FilesAt {
    store: Arc<dyn ObjectStore>,
    partition: Option<&'static str>,
    schema: SchemaRef,
}

impl FilesAt {
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
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

fn entry_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

/// What readers choose files by, from an entry's statistics; whatever is not there is not known.
fn data_file(path: &str, size: i64, written: Timestamp, stats: Option<&str>, date: Option<&str>) -> DataFile {
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

/// Reads the entries since the last checkpoint: the library would take an empty one for a commit of nothing. A torn last one
/// is set aside. It was never receipted: a receipt waits for the entry's sync. Returns the name it has now. An entry before
/// the last must be whole.
async fn check_log(store: &dyn ObjectStore, table: &'static str) -> Result<Option<Path>, TableError> {
    let log = Path::from("_delta_log");
    let data = |source| TableError::Data { path: format!("{table}/{log}"), source };
    let mut entries = BTreeMap::new();
    let mut checkpoint = None;
    let mut listing = store.list(Some(&log));
    while let Some(meta) = listing.next().await {
        let path = meta.map_err(data)?.location;
        let Some((version, kind)) = path.filename().and_then(|name| name.split_once('.')) else { continue };
        let Ok(version) = version.parse::<u64>() else { continue };
        if kind == "json" {
            entries.insert(version, path);
        } else if kind == "checkpoint.parquet" {
            checkpoint = checkpoint.max(Some(version));
        }
    }
    let last = entries.keys().next_back().copied();
    for (version, path) in entries.into_iter().filter(|(version, _)| Some(*version) > checkpoint) {
        let bytes = store.get(&path).await.map_err(data)?.bytes().await.map_err(data)?;
        if get_actions(version, &bytes).is_ok_and(|actions| !actions.is_empty()) {
            continue;
        }
        if Some(version) != last {
            return Err(TableError::Damaged { table, version });
        }
        let aside = Path::from(format!("{path}.torn"));
        store.put(&aside, bytes.into()).await.map_err(data)?;
        store.delete(&path).await.map_err(data)?;
        return Ok(Some(aside));
    }
    Ok(None)
}
