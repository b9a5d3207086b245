//! A person is forgotten: rows, statistics in the log, rows on their way, and whatever is still in a spool.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::error::ArrowError;
use carebed_contract::id::GatewayId;
use carebed_contract::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{is_stale, revised_name};
use crate::accept::Marks;
use crate::hot::Hot;
use crate::store::erasure::{self, COLUMNS, Erasure, Tombstone};
use crate::store::search::{Whom, search};
use crate::store::strip::{Hit, Stripped, strip};
use crate::store::table::{Change, FilesAt};
use crate::store::{Store, StoreError};
use crate::view::DataFile;

/// How often files are looked for again that came or changed while others were written again.
const ROUNDS_MAX: usize = 64;
/// How often it is looked whether the last reader of erased files is gone.
const READERS_EVERY: Duration = Duration::from_millis(50);

/// What an erasure did, and what a scan of everything that is left found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// The erasure's id.
    pub id: String,
    /// Rows of observations that went.
    pub rows: u64,
    /// Files that were written again or dropped.
    pub files: usize,
    /// Bytes of those files before.
    pub bytes: u64,
    /// Rows that had to be written again: what stands in the same row groups.
    pub rows_rewritten: u64,
    /// Unusable messages of the home's gateways that went: their contents are not known.
    pub dead_letters: u64,
    /// Files deleted from the storage.
    pub files_deleted: usize,
    /// Files with such rows that a reader of this process still holds; vacuum deletes them when it is done.
    pub files_held: usize,
    /// Entries of the log that no longer say what was in files, and checkpoints that went.
    pub log_entries: usize,
    /// Files on the storage that were scanned for such rows afterwards, committed or not.
    pub scanned: usize,
    /// Such rows found by that scan. Anything but zero, with no file held, is a mistake.
    pub left: u64,
    /// Files that could not be read: foreign or damaged ones. What is in them nobody has looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// The gateways that served the home: what is still in their spools is consumed and told to nobody when it comes.
    pub gateways: Vec<GatewayId>,
    /// How many of them were ordered by a running centre to empty their spools of it.
    #[serde(default)]
    pub gateways_ordered: usize,
    /// Whether the centre around the lake has forgotten, too, what it remembered; none when none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_forgotten: Option<bool>,
}

/// What rounds over the files have found. Files never change.
#[derive(Debug, Default)]
struct Seen {
    /// Without such rows.
    clean: BTreeSet<Arc<str>>,
    /// Not there though the log names them.
    gone: BTreeSet<Arc<str>>,
}

impl Store {
    /// Forgets what an erasure covers. First the tombstone is put on stable storage: from then on no commit takes such a row.
    /// Then rows on their way go, then files are written again without such rows, and old ones deleted when no reader holds
    /// them, waiting for readers for at most `patience`. Asking again goes on where a crash left off.
    pub async fn erase(&self, erasure: &Erasure, patience: Duration, now: Timestamp) -> Result<Erased, StoreError> {
        let mut report = Erased { id: erasure.id.clone(), ..Erased::default() };
        self.bury(erasure, &mut report, now).await?;
        let mut seen = Seen::default();
        for _ in 0..ROUNDS_MAX {
            if !self.erase_round(erasure, &mut seen, &mut report, now).await? {
                break;
            }
        }
        self.erase_letters(&mut report, now).await?;
        self.sweep(erasure, patience, &mut report, now).await?;
        self.scan(erasure, &mut report).await?;
        Ok(report)
    }

    /// Writes the tombstone, and takes such rows from those on their way.
    async fn bury(&self, erasure: &Erasure, report: &mut Erased, now: Timestamp) -> Result<(), StoreError> {
        // With the writer held, a commit took such rows wholly before, or takes none.
        let mut writer = self.certain_writer().await?;
        let serves =
            |(gateway, marks): (&GatewayId, &Marks)| marks.homes.contains(&erasure.home).then(|| gateway.clone());
        report.gateways = writer.marks.iter().filter_map(serves).collect();
        let tombstone = Tombstone { erasure: erasure.clone(), gateways: report.gateways.clone() };
        erasure::write(writer.store.as_ref(), &tombstone).await?;
        // One that timed out before does not know the tombstone: it counts by now, or never.
        writer.fence(now).await?;
        {
            let mut erasures = self.inner.erasures.write().unwrap_or_else(PoisonError::into_inner);
            Arc::make_mut(&mut erasures).add(tombstone);
        }
        self.inner.publisher.forget(|hot| hot.without(erasure));
        Ok(())
    }

    /// Writes each file again that holds such rows now. Says whether files changed meanwhile, so that another round is due.
    async fn erase_round(
        &self,
        erasure: &Erasure,
        seen: &mut Seen,
        report: &mut Erased,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let _rewriting = self.inner.rewriting.read().await;
        let (at, view) = self.files_now().await?;
        let mut again = false;
        for file in view.observations.files.iter() {
            if seen.clean.contains(&file.path) {
                continue;
            }
            match self.erase_from(file, &at, erasure, now).await {
                Ok(None) => drop(seen.clean.insert(Arc::clone(&file.path))),
                Ok(Some(stripped)) => {
                    report.rows += stripped.gone;
                    report.rows_rewritten += stripped.rewritten;
                    report.files += 1;
                    report.bytes += file.size;
                }
                // One that is gone in the next round, too, is lost, and nothing of it is left.
                Err(error) if is_stale(&error) => again |= seen.gone.insert(Arc::clone(&file.path)),
                // The others go all the same; the scan names it.
                Err(StoreError::Rewrite(error)) => {
                    tracing::error!(%error, path = %file.path, "a file cannot be searched")
                }
                Err(error) => return Err(error),
            }
        }
        Ok(again)
    }

    /// Writes one file again, if it holds such rows.
    async fn erase_from(
        &self,
        file: &Arc<DataFile>,
        at: &FilesAt,
        erasure: &Erasure,
        now: Timestamp,
    ) -> Result<Option<Stripped>, StoreError> {
        if search(at, &file.path, file.size, Whom::Observed(erasure.clone())).await? == 0 {
            return Ok(None);
        }
        let (bytes, erasure) = (at.read(&file.path).await?, erasure.clone());
        let stripped = tokio::task::spawn_blocking(move || {
            strip(&bytes, &Hit { columns: &COLUMNS, rows: &|batch| erasure.rows(batch) })
        });
        let Some(stripped) = stripped.await.map_err(|_| StoreError::Stopped)?? else { return Ok(None) };
        let mut adds = Vec::new();
        if let Some(left) = &stripped.file {
            adds.push(at.put(left, file.day, &revised_name(file), now).await?);
        }
        self.replace(adds, Change::Erase(std::slice::from_ref(file)), now).await?;
        Ok(Some(stripped))
    }

    /// Nobody knows what an unusable message held: all of the home's gateways go.
    async fn erase_letters(&self, report: &mut Erased, now: Timestamp) -> Result<(), StoreError> {
        let mut writer = self.certain_writer().await?;
        let table = &mut writer.dead_letters.table;
        let at = table.files_at();
        for file in table.view().files.iter() {
            let gateways = report.gateways.clone();
            let of_home = move |batch: &RecordBatch| -> Result<BooleanArray, ArrowError> {
                let ids = batch.column_by_name("gateway_id").and_then(|c| c.as_string_opt::<i32>());
                let ids = ids.ok_or_else(|| ArrowError::SchemaError("no gateway_id".to_owned()))?;
                Ok(ids.iter().map(|id| id.map(|id| gateways.iter().any(|gateway| gateway.as_str() == id))).collect())
            };
            let bytes = at.read(&file.path).await?;
            let Some(stripped) = strip(&bytes, &Hit { columns: &["gateway_id"], rows: &of_home })? else { continue };
            let mut adds = Vec::new();
            if let Some(left) = &stripped.file {
                adds.push(at.put(left, None, &revised_name(file), now).await?);
            }
            table.commit(adds, Change::Erase(std::slice::from_ref(file)), now).await?;
            report.dead_letters += stripped.gone;
        }
        let letters = table.view();
        self.inner.publisher.replaced(|view| view.dead_letters = letters);
        Ok(())
    }

    /// Deletes the old files and what the log said of them.
    async fn sweep(
        &self,
        erasure: &Erasure,
        patience: Duration,
        report: &mut Erased,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let patience = tokio::time::sleep(patience);
        tokio::pin!(patience);
        loop {
            let held = {
                let mut writer = self.certain_writer().await?;
                let writer = &mut *writer;
                for table in [&mut writer.observations, &mut writer.dead_letters.table] {
                    let at = table.files_at();
                    for file in table.take_unread(Timestamp::MAX) {
                        at.delete(&file.path).await?;
                        report.files_deleted += 1;
                    }
                }
                writer.observations.removed_where(|file| erasure.may_be_in(file))
            };
            report.files_held = held;
            if held == 0 {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(READERS_EVERY) => {}
                () = &mut patience => break,
            }
        }
        // A commit that timed out meanwhile may count still, and its files must be there then.
        self.certain_writer().await?.fence(now).await?;
        // Files of commits and merges that died are in no list.
        report.files_deleted += self.vacuum_before(Timestamp::MAX).await?.deleted;
        let writer = self.certain_writer().await?;
        for table in [&writer.observations, &writer.dead_letters.table] {
            report.log_entries += table.forget_statistics().await?;
        }
        Ok(())
    }

    /// Reads what is on the storage, whether the log names it or not and whatever it says of it.
    async fn scan(&self, erasure: &Erasure, report: &mut Erased) -> Result<(), StoreError> {
        // Nothing is deleted meanwhile.
        let _rewriting = self.inner.rewriting.read().await;
        let (at, view) = self.files_now().await?;
        let letters = self.certain_writer().await?.dead_letters.table.files_at();
        let places = [
            (at, Whom::Observed(erasure.clone())),
            // What a gateway sent after this began is not of before.
            (letters, Whom::Wrote(report.gateways.clone(), erasure.asked_at)),
        ];
        for (at, whom) in places {
            for (path, _, size) in at.list().await? {
                if !path.ends_with(".parquet") {
                    continue;
                }
                match search(&at, &path, size, whom.clone()).await {
                    Ok(found) => report.left += found,
                    Err(error) if is_stale(&error) => {}
                    Err(StoreError::Rewrite(_)) => report.unreadable.push(path),
                    Err(error) => return Err(error),
                }
                report.scanned += 1;
            }
        }
        let hot = view.observations.hot.iter().flat_map(Hot::rows);
        report.left += hot.filter(|row| erasure.covers(row)).count() as u64;
        Ok(())
    }
}
