//! Opening a table: what is absent is created, what is torn set aside, what is foreign refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use carebed_contract::time::Timestamp;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::Action;
use deltalake_core::logstore::{StorageConfig, default_logstore, get_actions};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use futures::StreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::log::entry_path;
use super::{Access, Design, Table, TableError};

/// How long a checkpoint remembers files that were taken away. Vacuum does not ask the log, so an hour is for others.
const REMOVED_KEPT: &str = "interval 1 hour";

impl Table {
    /// Opens the table below the lake's URL. `root` has the root of the storage, as delta-rs wants it. A writer (one with
    /// [`Access::Write`]) creates what is absent, sets a torn last entry aside and makes the last entry durable: the process that
    /// wrote it may have died before its sync, and receipts will rest on it. When this process knew the table in a version
    /// already, that version must be there still: then nothing is created, and none of its entries set aside.
    pub(crate) async fn open(
        root: &Arc<dyn ObjectStore>,
        access: Access,
        lake: &Url,
        design: Design,
        app_id: &str,
        known: Option<u64>,
    ) -> Result<Self, TableError> {
        let table = design.name;
        let absent = || TableError::Absent { table, lake: lake.to_string() };
        let url = lake.join(&format!("{table}/")).map_err(|_| absent())?;
        let path = Path::from_url_path(url.path()).map_err(|_| absent())?;
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(root), path.clone()));
        let log = default_logstore(Arc::clone(&store), Arc::clone(root), &url, &StorageConfig::default());
        let reading = |source| TableError::ReadLog { table, source: Box::new(source) };

        let mut opened = DeltaTable::new(Arc::clone(&log));
        let writes = matches!(access, Access::Write(_));
        if writes && let Some(aside) = check_log(store.as_ref(), table, known).await? {
            tracing::warn!(table, entry = %aside, "set aside a torn log entry that was never receipted");
        }
        let is_there = log.is_delta_table_location().await.map_err(reading)?;
        if !is_there && !writes {
            return Err(absent());
        }
        if !is_there && known.is_none() {
            opened = CreateBuilder::new()
                .with_log_store(Arc::clone(&log))
                .with_table_name(table)
                .with_save_mode(SaveMode::Ignore)
                .with_columns(design.columns())
                .with_partition_columns(design.partition)
                .with_configuration([("delta.deletedFileRetentionDuration", Some(REMOVED_KEPT))])
                .await
                .map_err(|source| TableError::Create { table, source: Box::new(source) })?;
        }
        opened.load().await.map_err(reading)?;
        let state = opened.snapshot().map_err(reading)?;
        if known.is_some_and(|known| state.version() < known) {
            return Err(TableError::Gone { table });
        }

        let actions = [Action::Protocol(state.protocol().clone()), Action::Metadata(state.metadata().clone())];
        actions.iter().try_for_each(|action| design.check(action, state.version()))?;

        let mut this = Self {
            version: state.version(),
            files: BTreeMap::new(),
            taken_out: 0,
            removed: Vec::new(),
            transactions: BTreeMap::new(),
            log: Arc::clone(&log),
            store,
            design,
            durable: match access {
                Access::Write(durable) => durable,
                Access::Read => None,
            },
            root: path,
            doubtful: false,
        };
        for file in state.log_data().iter() {
            let day = this.design.partition.and_then(|column| file.partition_values_map().remove(column).flatten());
            let written = Timestamp::from_millis(file.modification_time());
            this.note_file(&file.path(), file.size(), written, file.stats().as_deref(), day.as_deref());
        }
        if let Some(n) = state.snapshot().transaction_version(log.as_ref(), app_id).await.map_err(reading)? {
            this.transactions.insert(app_id.to_owned(), n);
        }
        if let Some(durable) = &this.durable {
            let last = entry_path(this.version);
            let persisted = durable.persist(&this.root, &last).await;
            persisted.map_err(|source| TableError::Data { path: last.to_string(), source })?;
        }
        Ok(this)
    }
}

/// Reads the entries since the last checkpoint: the library would take an empty one for a commit of nothing. A torn last one
/// is set aside. It was never receipted: a receipt waits for the entry's sync. Returns the name it has now. An entry before
/// the last must be whole.
async fn check_log(
    store: &dyn ObjectStore,
    table: &'static str,
    known: Option<u64>,
) -> Result<Option<Path>, TableError> {
    let log = Path::from("_delta_log");
    let data = |source| TableError::Data { path: format!("{table}/{log}"), source };
    let mut entries = BTreeMap::new();
    let mut checkpoint = None;
    let mut listing = store.list(Some(&log));
    while let Some(meta) = listing.next().await {
        let path = meta.map_err(data)?.location;
        let Some((version, kind)) = path.filename().and_then(|name| name.split_once('.')) else { continue };
        let Ok(version) = version.parse::<u64>() else { continue };
        if kind == "json" {
            entries.insert(version, path);
        } else if kind == "checkpoint.parquet" {
            checkpoint = checkpoint.max(Some(version));
        }
    }
    let last = entries.keys().next_back().copied();
    for (version, path) in entries.into_iter().filter(|(version, _)| Some(*version) > checkpoint) {
        let bytes = store.get(&path).await.map_err(data)?.bytes().await.map_err(data)?;
        if get_actions(version, &bytes).is_ok_and(|actions| !actions.is_empty()) {
            continue;
        }
        if Some(version) != last || Some(version) <= known {
            return Err(TableError::Damaged { table, version });
        }
        let aside = Path::from(format!("{path}.torn"));
        store.put(&aside, bytes.into()).await.map_err(data)?;
        store.delete(&path).await.map_err(data)?;
        return Ok(Some(aside));
    }
    Ok(None)
}
