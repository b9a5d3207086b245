//! What one log entry does, and the entry itself.

use std::sync::Arc;

use bytes::Bytes;
use carebed_contract::time::Timestamp;
use deltalake_core::kernel::transaction::CommitData;
use deltalake_core::kernel::{Action, Add, Remove, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};

use super::files::date;
use super::{Table, TableError};
use crate::store::token;
use crate::view::DataFile;

/// What one log entry does.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    /// Adds files and, with them, an application's transaction `n`; fails when its last one is not `last`.
    Append { app_id: &'a str, last: u64, n: u64 },
    /// Adds files whose rows are in none that this version of the table has: fails when somebody else was quicker, whose
    /// rows may be the same.
    AppendAfter(u64),
    /// Replaces files by others with the same rows.
    Compact(&'a [Arc<DataFile>]),
    /// Replaces files by others with fewer rows, or by none.
    Erase(&'a [Arc<DataFile>]),
    /// Takes the next version and does nothing: an entry that was sent before, and whose answer never came, can count no more.
    Fence,
}

impl Change<'_> {
    pub(super) fn replaced(&self) -> &[Arc<DataFile>] {
        match self {
            Self::Append { .. } | Self::AppendAfter(_) | Self::Fence => &[],
            Self::Compact(files) | Self::Erase(files) => files,
        }
    }

    fn operation(&self, partition: Option<&str>) -> DeltaOperation {
        match self {
            Self::Append { .. } | Self::AppendAfter(_) => DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: partition.map(|column| vec![column.to_owned()]),
                predicate: None,
            },
            Self::Compact(_) => DeltaOperation::Optimize { predicate: None, target_size: 0 },
            Self::Erase(_) | Self::Fence => DeltaOperation::Delete { predicate: None },
        }
    }
}

impl Table {
    pub(super) fn entry_of(&self, adds: Vec<Add>, change: &Change<'_>, now: Timestamp) -> Result<Bytes, TableError> {
        let moved = matches!(change, Change::Compact(_));
        let adds = adds.into_iter().map(|add| Action::Add(Add { data_change: !moved, ..add }));
        let removes = change.replaced().iter().map(|file| {
            let values = self.design.partition.zip(file.day.map(date));
            Action::Remove(Remove {
                path: file.path.to_string(),
                data_change: !moved,
                deletion_timestamp: Some(now.millis()),
                extended_file_metadata: Some(true),
                partition_values: Some(values.into_iter().map(|(name, date)| (name.to_owned(), Some(date))).collect()),
                size: i64::try_from(file.size).ok(),
                ..Remove::default()
            })
        });
        let transactions = match change {
            Change::Append { app_id, n, .. } => vec![Transaction::new(*app_id, i64::try_from(*n).unwrap_or(i64::MAX))],
            _ => Vec::new(),
        };
        // Makes the entry unlike every other, so that it is known again after a lost race.
        let token = ("carebedCommit".to_owned(), token().into());
        let actions = adds.chain(removes).collect();
        let data = CommitData::new(actions, change.operation(self.design.partition), [token].into(), transactions);
        let table = self.design.name;
        data.get_bytes().map_err(|source| TableError::Describe { table, source: Box::new(source) })
    }
}
