//! The files of the log: entries, and the checkpoints that sum them up.

use std::sync::Arc;

use bytes::Bytes;
use deltalake_core::DeltaTable;
use deltalake_core::checkpoints::create_checkpoint;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::{Table, TableError};

/// Every so many versions the log is summed up, so that opening stays quick. The library reads all entries since the last
/// summary at once and takes 3.5 MiB for each, however small (measured: 278 MiB of a centre's heap for 78 entries), so they
/// are few.
pub(crate) const CHECKPOINT_EVERY: u64 = 10;
/// So many versions before the last stay readable, for programs that read the table while it is written. Entries and
/// checkpoints that only older versions need are deleted.
pub(crate) const VERSIONS_KEPT: u64 = 500;

impl Table {
    /// Sums up the log now and then, and deletes what nobody needs any more. That it failed only makes the next opening
    /// slower.
    pub(super) async fn sum_up(&self) {
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
    pub(super) async fn check_not_behind(&mut self) -> Result<(), TableError> {
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

pub(super) fn entry_path(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}
