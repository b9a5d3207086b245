//! Files of the table that cannot be read: somebody removed them, or the disk changed them. They are told, and upkeep goes on with
//! the others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

use crate::store::{Store, StoreError, TableError};
use crate::view::DataFile;

/// Paths of those that are known. At most as many as the table has files; forgotten at each sweep, since a file may have been
/// restored meanwhile.
#[derive(Debug, Default)]
pub(in crate::store) struct Spoiled(Mutex<BTreeSet<Arc<str>>>);

impl Spoiled {
    /// Those of some files that nobody has found to be spoiled, and whose run has none that is.
    pub(super) fn others(&self, files: &[Arc<DataFile>]) -> Vec<Arc<DataFile>> {
        let spoiled = self.lock();
        let run = |file: &DataFile| file.part.as_ref().map(|part| Arc::clone(&part.run));
        let runs: BTreeSet<Option<Arc<str>>> =
            files.iter().filter(|file| spoiled.contains(&file.path)).map(|file| run(file)).collect();
        files.iter().filter(|file| !spoiled.contains(&file.path) && !runs.contains(&run(file))).cloned().collect()
    }

    pub(in crate::store) fn forget(&self) {
        self.lock().clear();
    }

    fn note(&self, path: &Arc<str>, error: &StoreError) {
        if self.lock().insert(Arc::clone(path)) {
            tracing::error!(
                %path,
                error = error as &dyn std::error::Error,
                "a file of the table observations cannot be read: restore it from a backup of the lake, or its rows are lost"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Its path below the lake.
    pub path: String,
    /// Why not.
    pub error: StoreError,
}

impl Store {
    /// Reads every file of the lake to its end, and tells those that cannot be read. Takes as long as reading everything; the
    /// bytes of one file at a time are held.
    pub async fn unreadable(&self) -> Vec<Unreadable> {
        let view = self.view();
        let tables = [("observations", &view.observations), ("gaps", &view.gaps), ("dead_letters", &view.dead_letters)];
        let mut found = Vec::new();
        for (table, part) in tables {
            for file in part.files.iter() {
                let path = format!("{table}/{}", file.path);
                if let Err(error) = read_whole(self.inner.opening.store.as_ref(), &path).await {
                    found.push(Unreadable { path, error });
                }
            }
        }
        found
    }

    /// After work on files failed: looks at each of them that is still in the table, and notes those that cannot be read. Says
    /// whether there are any; if not, others were quicker.
    pub(super) async fn note_spoiled(&self, files: &[Arc<DataFile>]) -> Result<bool, StoreError> {
        let (at, view) = self.files_now().await?;
        let live = |file: &&Arc<DataFile>| view.observations.files.iter().any(|live| live.path == file.path);
        let mut found = false;
        for file in files.iter().filter(live) {
            if let Err(error) = read_whole(at.store(), &file.path).await {
                if !is_of_file(&error) {
                    return Err(error);
                }
                self.inner.spoiled.note(&file.path, &error);
                found = true;
            }
        }
        Ok(found)
    }
}

/// Whether an error is about one file, and not about the disk or the storage as a whole.
pub(super) fn is_of_file(error: &StoreError) -> bool {
    let is_gone =
        matches!(error, StoreError::Table(TableError::Data { source: object_store::Error::NotFound { .. }, .. }));
    is_gone || matches!(error, StoreError::Rewrite(_) | StoreError::Rows(_))
}

async fn read_whole(store: &dyn ObjectStore, path: &str) -> Result<(), StoreError> {
    let read = async { store.get(&Path::from(path)).await?.bytes().await };
    let bytes = read.await.map_err(|source| TableError::Data { path: path.to_owned(), source })?;
    let read = tokio::task::spawn_blocking(move || {
        let mut batches = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
        batches.try_for_each(|batch| batch.map(drop).map_err(StoreError::from))
    });
    read.await.map_err(|_| StoreError::Stopped)?
}
