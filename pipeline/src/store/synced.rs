//! A local object store whose writes are on stable storage when they return.
//!
//! Why not object_store's own: version 0.13 never syncs, so a receipt sent after its `put` could promise what a power cut
//! then takes away. A put here writes and syncs a file under a passing name, gives it its real name (by a link that fails
//! when the name is taken, or by a rename), and syncs the directory and every directory above it that this process has not
//! synced yet. So a name that survives always has its whole contents. Reading goes to object_store unchanged.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::disk::Disk;

const NAME: &str = "synced local disk";

/// See the module. Paths are absolute paths of the file system.
#[derive(Debug, Clone)]
pub(crate) struct SyncedStore {
    files: Arc<LocalFileSystem>,
    writer: Arc<Writer>,
}

#[derive(Debug)]
struct Writer {
    disk: Arc<dyn Disk>,
    /// Directories whose own name is known to be on stable storage. Grows by one a day: one per partition.
    durable: Mutex<HashSet<PathBuf>>,
}

impl SyncedStore {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        let writer = Writer { disk, durable: Mutex::default() };
        Self { files: Arc::new(LocalFileSystem::new()), writer: Arc::new(writer) }
    }

    /// Puts a file that is already there, its name and the names above it on stable storage: the process that wrote it may
    /// not have lived to do so. `path` is below `root`.
    pub(crate) async fn persist(&self, root: &Path, path: &Path) -> Result<()> {
        let location = Path::from_iter(root.parts().chain(path.parts()));
        let path = self.files.path_to_filesystem(&location)?;
        let writer = Arc::clone(&self.writer);
        let done = tokio::task::spawn_blocking(move || writer.persist(&path)).await;
        done.map_err(|stopped| failed(stopped.into()))?.map_err(|error| failed(error.into()))
    }

    /// Takes a name away. Not synced: what comes back after a power cut is a file that nobody needs.
    async fn remove(self, location: Path) -> Result<Path> {
        let path = self.files.path_to_filesystem(&location)?;
        let done = tokio::task::spawn_blocking(move || self.writer.disk.remove(&path)).await;
        match done {
            Ok(Ok(())) => Ok(location),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotFound { path: location.to_string(), source: error.into() })
            }
            Ok(Err(error)) => Err(failed(error.into())),
            Err(stopped) => Err(failed(stopped.into())),
        }
    }

    async fn write(&self, location: &Path, contents: Vec<Bytes>, mode: PutMode) -> Result<PutResult> {
        if matches!(mode, PutMode::Update(_)) {
            return Err(not_implemented("conditional update"));
        }
        let path = self.files.path_to_filesystem(location)?;
        let writer = Arc::clone(&self.writer);
        let create = mode == PutMode::Create;
        let done = tokio::task::spawn_blocking(move || writer.put(&path, &contents, create)).await;
        match done {
            Ok(Ok(())) => Ok(PutResult { e_tag: None, version: None }),
            Ok(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: location.to_string(), source: error.into() })
            }
            Ok(Err(error)) => Err(failed(error.into())),
            Err(stopped) => Err(failed(stopped.into())),
        }
    }
}

impl Writer {
    fn put(&self, path: &FsPath, contents: &[Bytes], create: bool) -> io::Result<()> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let fresh = self.directories(parent)?;
        // object_store leaves names that end in # and digits out of its listings. Random, since another process may be
        // writing an entry of the same name at this moment.
        let mut staging = path.as_os_str().to_owned();
        staging.push(format!("#{}", rand::random::<u128>()));
        let staging = PathBuf::from(staging);

        let mut named = self.disk.write(&staging, contents).and_then(|()| self.disk.sync_file(&staging));
        if named.is_ok() {
            named = if create { self.disk.link(&staging, path) } else { self.disk.rename(&staging, path) };
        }
        if create || named.is_err() {
            // A left-over does no harm: nobody lists it.
            let _left_over = self.disk.remove(&staging);
        }
        named?;
        self.sync_names(parent, fresh)
    }

    fn persist(&self, path: &FsPath) -> io::Result<()> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        self.disk.sync_file(path)?;
        let fresh = self.directories(parent)?;
        self.sync_names(parent, fresh)
    }

    fn sync_names(&self, parent: &FsPath, fresh: Vec<PathBuf>) -> io::Result<()> {
        self.disk.sync_dir(parent)?;
        for directory in fresh {
            if let Some(above) = directory.parent() {
                self.disk.sync_dir(above)?;
            }
            self.durable().insert(directory);
        }
        Ok(())
    }

    /// Creates what is missing on the way to a directory. Returns the directories, innermost first, whose names this process
    /// has not synced: one that exists may have been made by a process that died before it synced.
    fn directories(&self, path: &FsPath) -> io::Result<Vec<PathBuf>> {
        let unknown: Vec<PathBuf> = {
            let durable = self.durable();
            let has_parent = path.ancestors().filter(|p| p.parent().is_some());
            has_parent.take_while(|p| !durable.contains(*p)).map(FsPath::to_owned).collect()
        };
        for directory in unknown.iter().rev() {
            if !directory.is_dir() {
                self.disk.create_dir(directory)?;
            }
        }
        Ok(unknown)
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic { store: NAME, source }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: NAME.to_owned() }
}

impl fmt::Display for SyncedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

#[async_trait]
impl ObjectStore for SyncedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.write(location, payload.into_iter().collect(), options.mode).await
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload { store: self.clone(), location: location.clone(), parts: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        locations.and_then(move |location| this.clone().remove(location)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_implemented("copy"))
    }
}

/// Parts are held in memory until complete: only a table's checkpoints come this way, and they are small beside the data
/// (some hundred bytes a live file).
#[derive(Debug)]
struct Upload {
    store: SyncedStore,
    location: Path,
    parts: Vec<Bytes>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.extend(data);
        Box::pin(futures::future::ready(Ok(())))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts = std::mem::take(&mut self.parts);
        self.store.write(&self.location, parts, PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts.clear();
        Ok(())
    }
}
