//! Keeping the lake in order while it is written: compaction, retention, vacuum, and the erasure of a person.
//!
//! All of it goes through the one writer of this process. Files are read and written beside ingest; only the log entry that
//! puts new files in the place of old ones waits for the writer, and it counts only if the old ones are live still. So
//! whoever loses a race looks again, and no row is doubled or lost.

mod compact;
mod erase;
mod retain;
mod spoiled;
mod vacuum;

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::time::Timestamp;
use deltalake_core::kernel::Add;

use super::table::{Change, FilesAt};
use super::writer::Writer;
use super::{Store, StoreError, TableError};
use crate::view::{DataFile, TableView, View};

pub use compact::Compacted;
pub use erase::Erased;
pub use retain::Retention;
pub(super) use spoiled::Spoiled;
pub use spoiled::Unreadable;
pub use vacuum::Vacuumed;

/// How the lake is kept in order.
#[derive(Debug, Clone)]
pub struct UpkeepConfig {
    /// What is deleted by age.
    pub retention: Retention,
    /// How long files that no view of this process holds stay on the storage, for programs that read the table by themselves.
    pub grace: Duration,
}

impl Default for UpkeepConfig {
    fn default() -> Self {
        Self { retention: Retention::default(), grace: Duration::from_secs(3_600) }
    }
}

/// How often it is looked whether runs should be merged.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often rows are deleted by age, and files that nobody needs.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);

/// Keeps the lake in order until told to stop. What fails is told and tried again at the next round: ingest goes on
/// without it, with more and more small files.
pub async fn keep_up(store: Store, config: UpkeepConfig, clock: Arc<dyn Clock>, shutdown: Shutdown) {
    let mut swept: Option<Timestamp> = None;
    while !shutdown.is_cancelled() {
        let now = clock.now();
        let due = swept.is_none_or(|at| now.since(at) >= SWEEP_EVERY);
        if due {
            store.inner.spoiled.forget();
        }
        // One goes on where the other fails: files that cannot be merged must not keep old rows from being deleted.
        let merged = merge(&store, now, &shutdown).await;
        let done = if due && !shutdown.is_cancelled() { sweep(&store, &config, now).await } else { Ok(()) };
        if due && done.is_ok() {
            swept = Some(now);
        }
        for error in [merged, done].into_iter().filter_map(Result::err) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "failed to keep the lake in order; it is tried again"
            );
        }
        tokio::select! {
            () = clock.sleep(LOOK_EVERY) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn merge(store: &Store, now: Timestamp, shutdown: &Shutdown) -> Result<(), StoreError> {
    while !shutdown.is_cancelled() && store.compact(now).await?.is_some() {}
    Ok(())
}

async fn sweep(store: &Store, config: &UpkeepConfig, now: Timestamp) -> Result<(), StoreError> {
    store.retain(&config.retention, now).await?;
    store.vacuum(config.grace, now).await.map(drop)
}

impl Store {
    /// Takes in what other processes committed, and gives what work on files needs: where they are, and those of now.
    async fn files_now(&self) -> Result<(FilesAt, Arc<View>), StoreError> {
        let mut writer = self.certain_writer().await?;
        writer.observations.refresh().await?;
        self.show_observations(&writer);
        Ok((writer.observations.files_at(), self.view()))
    }

    /// Shows readers the files that the writer knows; rows on their way stay as they are.
    fn show_observations(&self, writer: &Writer) {
        self.inner.publisher.replaced(|view| {
            let hot = Arc::clone(&view.observations.hot);
            view.observations = TableView { hot, ..writer.observations.view() };
        });
    }

    /// Puts files in the place of others and shows that to readers. Fails with [`TableError::Stale`] when the others are gone;
    /// then the new ones are deleted.
    async fn replace(&self, adds: Vec<Add>, change: Change<'_>, now: Timestamp) -> Result<(), StoreError> {
        let mut writer = self.certain_writer().await?;
        let paths: Vec<String> = adds.iter().map(|add| add.path.clone()).collect();
        let done = writer.observations.commit(adds, change, now).await.map_err(StoreError::from);
        // The next commit of rows opens the lake again.
        writer.in_doubt |= done.as_ref().is_err_and(StoreError::leaves_doubt);
        let stale = matches!(done, Err(StoreError::Table(TableError::Stale { .. })));
        if done.is_ok() || stale {
            // After a lost race this process knows more than it shows.
            self.show_observations(&writer);
        }
        if stale {
            let at = writer.observations.files_at();
            drop(writer);
            for path in paths {
                // What cannot be deleted now, vacuum finds.
                drop(at.delete(&path).await);
            }
        }
        done
    }
}

/// Whether files were gone before they could be read or replaced: another process was quicker, and another look is due.
fn is_stale(error: &StoreError) -> bool {
    let StoreError::Table(error) = error else { return false };
    matches!(error, TableError::Stale { .. } | TableError::Data { source: object_store::Error::NotFound { .. }, .. })
}

/// A file's name when it is written again with fewer rows. One of others stays one that nobody takes for sorted.
fn revised_name(file: &DataFile) -> String {
    file.part.as_ref().map_or_else(|| format!("unsorted-{}.parquet", super::token()), |part| part.revised().file_name())
}
