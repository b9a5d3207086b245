//! One Delta table: its files as its log tells them, and appending to it.
//!
//! A commit is one log entry, written only if its version is free, and never retried by the library: a lost race is looked
//! at here. The state is kept from entry to entry, so a commit costs the same however many files are live.

mod change;
mod commit;
mod design;
mod error;
mod files;
mod log;
mod open;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use carebed_contract::time::Timestamp;
use deltalake_core::kernel::Add;
use deltalake_core::logstore::LogStoreRef;
use object_store::ObjectStore;
use object_store::path::Path;

use super::parquet;
use super::synced::SyncedStore;
use crate::view::{DataFile, TableView};

pub(crate) use change::Change;
pub(crate) use design::Design;
pub use error::TableError;
pub(crate) use files::FilesAt;
#[cfg(test)]
pub(crate) use log::{CHECKPOINT_EVERY, VERSIONS_KEPT};

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
    /// The last transaction of an application; 0 when it has none.
    pub(crate) fn transaction(&self, app_id: &str) -> u64 {
        self.transactions.get(app_id).and_then(|n| u64::try_from(*n).ok()).unwrap_or(0)
    }

    /// This is `earlier` opened again: what readers remember of its rows may not hold. Views hold files of before, so that
    /// those are known on: as live ones, or as taken away.
    pub(crate) fn follows(&mut self, earlier: Self, now: Timestamp) {
        self.taken_out = earlier.taken_out + 1;
        self.removed = earlier.removed;
        self.removed.retain(|removed| !self.files.contains_key(&removed.file.path));
        for (path, file) in earlier.files {
            match self.files.get_mut(&path) {
                Some(live) => *live = file,
                None => self.removed.push(Removed { file, at: now }),
            }
        }
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
        let schema = Arc::clone(&self.design.schema);
        let encoded = tokio::task::spawn_blocking(move || parquet::encode(&schema, &batch)).await;
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
}
