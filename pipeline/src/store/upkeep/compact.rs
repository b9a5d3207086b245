//! Many small files become few large ones.

use std::sync::Arc;

use carebed_contract::time::Timestamp;
use deltalake_core::kernel::Add;
use tokio::runtime::Handle;

use crate::store::merge::merge;
use crate::store::parquet::Density;
use crate::store::plan::{Plan, plan};
use crate::store::run::Part;
use crate::store::table::{Change, FilesAt};
use crate::store::upkeep::is_stale;
use crate::store::upkeep::spoiled::is_of_file;
use crate::store::{Store, StoreError};
use crate::view::DataFile;

/// What one merge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Files that went.
    pub files_before: usize,
    /// Files that came.
    pub files_after: usize,
    /// Rows in them.
    pub rows: u64,
    /// Whether it counts. It does not when files went while they were merged, or cannot be read; then another look is due.
    pub counts: bool,
}

impl Store {
    /// Merges the runs of one day, where some should be. None when all is well.
    pub async fn compact(&self, now: Timestamp) -> Result<Option<Compacted>, StoreError> {
        let _rewriting = self.inner.rewriting.read().await;
        let shard = {
            let mut writer = self.certain_writer().await?;
            let shard = writer.shard.clone();
            let _keyed = writer.gaps.compact(&shard, now).await? | writer.dead_letters.compact(&shard, now).await?;
            let (gaps, letters) = (writer.gaps.table.view(), writer.dead_letters.table.view());
            self.inner.publisher.replaced(|view| (view.gaps, view.dead_letters) = (gaps, letters));
            shard
        };
        let (at, view) = self.files_now().await?;
        let plan = plan(&self.inner.spoiled.others(&view.observations.files), now);
        drop(view);
        let Some(plan) = plan else { return Ok(None) };
        let files: Vec<Arc<DataFile>> = plan.runs.iter().flat_map(|run| &run.files).cloned().collect();
        let rows = files.iter().filter_map(|file| file.rows).sum();
        let (mut files_after, merged) = (0, merge_runs(plan, at, shard, now).await);
        let replaced = match merged {
            Ok(adds) => {
                files_after = adds.len();
                self.replace(adds, Change::Compact(&files), now).await
            }
            Err(error) => Err(error),
        };
        let counts = match replaced {
            Ok(()) => true,
            // What cannot be read is left out of the next plan.
            Err(error) if is_of_file(&error) && self.note_spoiled(&files).await? => false,
            Err(error) if is_stale(&error) => false,
            Err(error) => return Err(error),
        };
        Ok(Some(Compacted { files_before: files.len(), files_after, rows, counts }))
    }
}

/// Writes the files of one run in the place of many, on a thread of its own.
async fn merge_runs(plan: Plan, at: FilesAt, shard: String, now: Timestamp) -> Result<Vec<Add>, StoreError> {
    let runtime = Handle::current();
    let merged = tokio::task::spawn_blocking(move || {
        let density = if plan.last { Density::Lasting } else { Density::Passing };
        let (mut part, mut adds) = (Part::first(&shard), Vec::new());
        merge(
            &plan.runs,
            at.schema(),
            density,
            |file| runtime.block_on(at.read(&file.path)).map_err(StoreError::from),
            |file| {
                adds.push(runtime.block_on(at.put(&file, Some(plan.day), &part.file_name(), now))?);
                part = part.next();
                Ok(())
            },
        )?;
        Ok(adds)
    });
    merged.await.map_err(|_| StoreError::Stopped)?
}
