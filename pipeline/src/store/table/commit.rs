//! Appending to the log, and taking in what others appended.

use std::sync::Arc;

use bytes::Bytes;
use carebed_contract::time::Timestamp;
use deltalake_core::kernel::{Action, Add};
use deltalake_core::logstore::get_actions;
use object_store::{ObjectStoreExt, PutMode};

use super::change::Change;
use super::files::data_file;
use super::log::entry_path;
use super::{Removed, Table, TableError};

/// How often a lost race is looked at and tried again before the commit is given up; its rows come again.
pub(super) const RACES_MAX: usize = 16;

impl Table {
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

    pub(super) async fn entry(&self, version: u64) -> Result<Option<Bytes>, TableError> {
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
        // Before anything of it is taken in: who mends the log finds this table as it was.
        actions.iter().try_for_each(|action| self.design.check(action, version))?;
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
                _ => {}
            }
        }
        self.version = version;
        // Merging keeps every row.
        self.taken_out += u64::from(went > came);
        Ok(())
    }

    /// Notes a file; says its rows.
    pub(super) fn note_file(
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
}
