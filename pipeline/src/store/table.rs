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
use deltalake_core::kernel::{Action, Add, DataType, StructField, Transaction};
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore, get_actions};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};
use futures::StreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use url::Url;

use super::parquet;
use super::synced::SyncedStore;
use crate::view::{DataFile, TableView};

/// How often a lost race is looked at and tried again before the commit is given up; its rows come again.
const RACES_MAX: usize = 16;
/// Every so many versions the log is summed up, so that opening stays quick.
const CHECKPOINT_EVERY: u64 = 100;

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
    #[error("the disk failed while committing to table {table}: check it, then restart carebed; nothing was receipted")]
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
    /// Application → its last transaction.
    transactions: BTreeMap<String, i64>,
    /// Where a write needs its own sync to last.
    durable: Option<SyncedStore>,
    /// Where the table is, from the root of the storage.
    root: Path,
    /// Nobody knows whether the last entry would survive a power cut. Only opening again helps.
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
            this.note_file(&file.path(), file.size(), file.stats().as_deref(), day.as_deref());
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

    /// The last transaction of an application.
    pub(crate) fn transaction(&self, app_id: &str) -> Option<i64> {
        self.transactions.get(app_id).copied()
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn name(&self) -> &'static str {
        self.design.name
    }

    /// What readers see of it, without hot rows.
    pub(crate) fn view(&self) -> TableView {
        TableView { version: self.version, files: self.files.values().cloned().collect(), ..TableView::default() }
    }

    /// Reads the table's files.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Writes one data file, which does not count before it is appended. The token makes its name unique.
    pub(crate) async fn write(
        &self,
        batch: RecordBatch,
        day: Option<i32>,
        token: &str,
        now: Timestamp,
    ) -> Result<Add, TableError> {
        let table = self.design.name;
        let encode = tokio::task::spawn_blocking(move || (parquet::encode(&batch), batch));
        let Ok((encoded, batch)) = encode.await else {
            let stopped = ::parquet::errors::ParquetError::General("the encoder was stopped".to_owned());
            return Err(TableError::Encode { table, source: stopped });
        };
        let bytes = encoded.map_err(|source| TableError::Encode { table, source })?;
        let partition = self.design.partition.zip(day.map(date));
        let file = format!("{}{token}.parquet", parquet::SORTED);
        let path = match &partition {
            Some((column, date)) => format!("{column}={date}/{file}"),
            None => file,
        };
        let add = parquet::add(path.clone(), partition, bytes.len(), &batch, now);
        let put = self.store.put(&Path::from(path.as_str()), bytes.into()).await;
        put.map_err(|source| TableError::Data { path, source })?;
        Ok(add)
    }

    /// Appends files and, with them, a transaction. When this returns `Ok` the entry is on stable storage; on an error it is
    /// not in the log, except when the error is [`TableError::Doubtful`].
    pub(crate) async fn append(&mut self, adds: Vec<Add>, transaction: Option<(&str, i64)>) -> Result<(), TableError> {
        let table = self.design.name;
        if self.doubtful {
            return Err(TableError::Doubtful { table });
        }
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: self.design.partition.map(|column| vec![column.to_owned()]),
            predicate: None,
        };
        // Makes the entry unlike every other, so that it is known again after a lost race.
        let token = ("carebedCommit".to_owned(), super::token().into());
        let actions = adds.into_iter().map(Action::Add).collect();
        let transactions = transaction.map(|(app_id, n)| Transaction::new(app_id, n)).into_iter().collect();
        let data = CommitData::new(actions, operation, [token].into(), transactions);
        let entry = data.get_bytes().map_err(|source| TableError::Describe { table, source: Box::new(source) })?;

        for _ in 0..RACES_MAX {
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
                    if let Some((app_id, n)) = transaction
                        && self.transaction(app_id).is_some_and(|there| there >= n)
                    {
                        return Err(TableError::Overtaken { table, app_id: app_id.to_owned() });
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
        for action in actions {
            match action {
                Action::Add(add) => {
                    let day = self.design.partition.and_then(|column| add.partition_values.get(column)?.as_deref());
                    self.note_file(&add.path, add.size, add.stats.as_deref(), day);
                }
                Action::Remove(remove) => drop(self.files.remove(remove.path.as_str())),
                Action::Txn(txn) => drop(self.transactions.insert(txn.app_id, txn.version)),
                Action::Metadata(_) | Action::Protocol(_) => {
                    return Err(TableError::Foreign { table, what: format!("version {version} changed its columns") });
                }
                _ => {}
            }
        }
        self.version = version;
        Ok(())
    }

    fn note_file(&mut self, path: &str, size: i64, stats: Option<&str>, day: Option<&str>) {
        let file = data_file(path, size, stats, day);
        self.files.insert(Arc::clone(&file.path), Arc::new(file));
    }

    /// Sums up the log now and then. That it failed only makes the next opening slower.
    async fn sum_up(&self) {
        if !self.version.is_multiple_of(CHECKPOINT_EVERY) {
            return;
        }
        let mut table = DeltaTable::new(Arc::clone(&self.log));
        let summed_up = async {
            table.load_version(self.version).await?;
            create_checkpoint(&table, None).await
        };
        if let Err(error) = summed_up.await {
            tracing::warn!(table = self.design.name, version = self.version, %error, "failed to write a checkpoint");
        }
    }
}

fn entry_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

/// What readers choose files by, from an entry's statistics; whatever is not there is not known.
fn data_file(path: &str, size: i64, stats: Option<&str>, date: Option<&str>) -> DataFile {
    let stats: serde_json::Value = stats.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let bound = |side: &str, column: &str| stats.get(side)?.get(column)?.as_str().map(str::to_owned);
    let range = |column: &str| {
        let low: Arc<str> = bound("minValues", column)?.into();
        Some((low, bound("maxValues", column)?.into()))
    };
    let time = |side: &str| bound(side, "event_time").and_then(|text| Timestamp::parse(&text));
    let file = path.rsplit('/').next().unwrap_or_default();
    DataFile {
        path: path.into(),
        size: u64::try_from(size).unwrap_or(0),
        rows: stats.get("numRecords").and_then(serde_json::Value::as_u64),
        day: date.and_then(day),
        event_time: time("minValues").zip(time("maxValues")),
        home: range("home_id"),
        bed: range("bed_id"),
        sorted: file.starts_with(parquet::SORTED),
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
