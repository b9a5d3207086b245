//! Files that nobody needs any more leave the storage.

use std::time::Duration;

use carebed_contract::time::Timestamp;

use crate::store::run::Part;
use crate::store::{Store, StoreError};

/// What vacuum did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Files deleted.
    pub deleted: usize,
    /// Files that the log took away and that stay for now: a view holds them, or their time has not come.
    pub kept: usize,
}

impl Store {
    /// Deletes files that the log took away more than `grace` ago, and files as old that no log ever named (of commits that
    /// died). A file that a view of this process holds stays, and so does what other shards wrote: that is theirs to delete.
    pub async fn vacuum(&self, grace: Duration, now: Timestamp) -> Result<Vacuumed, StoreError> {
        self.vacuum_before(now - grace).await
    }

    /// The same for files that were taken away, or written by a commit that died, before a time. Without a grace, a commit of
    /// which nobody knows that it is not dead yet must be ended first (`Change::Fence`).
    pub(super) async fn vacuum_before(&self, before: Timestamp) -> Result<Vacuumed, StoreError> {
        let _nobody_writes = self.inner.rewriting.write().await;
        let mut writer = self.certain_writer().await?;
        let shard = writer.shard.clone();
        let ours = |path: &str| Part::of(path).is_some_and(|part| part.is_of(&shard));
        let mut done = Vacuumed::default();
        let writer = &mut *writer;
        for table in [&mut writer.observations, &mut writer.gaps.table, &mut writer.dead_letters.table] {
            // What another process of this shard wrote is no remains.
            table.refresh().await?;
            let at = table.files_at();
            for file in table.take_unread(before) {
                if ours(&file.path) {
                    at.delete(&file.path).await?;
                    done.deleted += 1;
                }
            }
            for (path, written, _) in at.list().await? {
                if ours(&path) && written < before && !table.knows(&path) {
                    at.delete(&path).await?;
                    done.deleted += 1;
                }
            }
            done.kept += table.n_removed();
        }
        Ok(done)
    }
}
