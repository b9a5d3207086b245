//! Where a lake is, from its URL: a local directory, whose writes we sync ourselves, or an object store, whose put is
//! durable when it returns.

use std::sync::Arc;

use object_store::ObjectStore;
use url::{Position, Url};

use super::disk::Disk;
use super::lock::WriterLock;
use super::synced::SyncedStore;
use super::table::Access;
use super::{Config, StoreError};

/// The storage of a lake, from its root.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) root: Arc<dyn ObjectStore>,
    pub(super) access: Access,
    pub(super) lock: Option<WriterLock>,
}

impl Place {
    /// For writing. On a local disk one process per shard holds a lock; on an object store the log tells the second one that
    /// it is not alone, at its first commit.
    pub(super) fn write(config: &Config, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        match directory(config)? {
            Some(directory) => {
                let lock = WriterLock::take(&directory, &config.shard)?;
                let synced = SyncedStore::new(disk);
                let root: Arc<dyn ObjectStore> = Arc::new(synced.clone());
                Ok(Self { root, access: Access::Write(Some(synced)), lock: Some(lock) })
            }
            None => Ok(Self { root: object_store(config)?, access: Access::Write(None), lock: None }),
        }
    }

    /// For reading, without a lock.
    pub(super) fn read(config: &Config, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let root: Arc<dyn ObjectStore> = match directory(config)? {
            Some(_) => Arc::new(SyncedStore::new(disk)),
            None => object_store(config)?,
        };
        Ok(Self { root, access: Access::Read, lock: None })
    }
}

/// The local directory of a `file:` URL; none for another store.
fn directory(config: &Config) -> Result<Option<std::path::PathBuf>, StoreError> {
    let place = || StoreError::Place { place: config.lake.to_string() };
    if !config.lake.path().ends_with('/') {
        return Err(place());
    }
    match config.lake.scheme() {
        "file" => config.lake.to_file_path().map(Some).map_err(|()| place()),
        _ => Ok(None),
    }
}

/// The store of a URL such as `s3://bucket/`, with credentials, region and endpoint from the `AWS_…` variables that all
/// programs for that store read; the configuration's own options go before them.
fn object_store(config: &Config) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let lake = &config.lake;
    let failed = |source| StoreError::ObjectStore { place: lake.to_string(), source };
    let root = Url::parse(&lake[..Position::BeforePath]).map_err(|_| StoreError::Place { place: lake.to_string() })?;
    let variables = std::env::vars().filter(|(name, _)| name.starts_with("AWS_"));
    let variables = variables.map(|(name, value)| (name.to_ascii_lowercase(), value));
    let options = variables.chain(config.options.clone());
    let (store, _) = object_store::parse_url_opts(&root, options).map_err(failed)?;
    Ok(store.into())
}
