//! Why a table could not be opened, read or written.

use deltalake_core::DeltaTableError;
use deltalake_core::kernel::transaction::TransactionError;

use super::commit::RACES_MAX;

/// Why a table could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The log could not be read.
    #[error("failed to read the log of table {table}")]
    ReadLog {
        /// Which table.
        table: &'static str,
        /// What delta-rs said.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// The table could not be created.
    #[error("failed to create table {table}")]
    Create {
        /// Which table.
        table: &'static str,
        /// What delta-rs said.
        #[source]
        source: Box<DeltaTableError>,
    },
    /// There is no such table.
    #[error("there is no table {table} in {lake}: is it the lake, and is its disk mounted?")]
    Absent {
        /// Which table.
        table: &'static str,
        /// Where it was looked for.
        lake: String,
    },
    /// The table's columns or protocol are not ours.
    #[error(
        "table {table} is not as carebed made it ({what}; version {version} of its log): stop the program that changed it and restore the lake from a backup, or move it away to begin anew"
    )]
    Foreign {
        /// Which table.
        table: &'static str,
        /// Since when, or as of when.
        version: u64,
        /// What differs.
        what: String,
    },
    /// A log entry in the middle cannot be read.
    #[error("entry {version} in the log of table {table} is damaged: restore it from a backup of the lake")]
    Damaged {
        /// Which table.
        table: &'static str,
        /// Which entry.
        version: u64,
    },
    /// The rows could not be encoded.
    #[error("failed to encode rows of table {table}")]
    Encode {
        /// Which table.
        table: &'static str,
        /// What Parquet said.
        #[source]
        source: ::parquet::errors::ParquetError,
    },
    /// A data file could not be read or written.
    #[error("failed to access {path}")]
    Data {
        /// Which file.
        path: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// The log entry could not be made.
    #[error("failed to describe a commit to table {table}")]
    Describe {
        /// Which table.
        table: &'static str,
        /// What delta-rs said.
        #[source]
        source: Box<TransactionError>,
    },
    /// A log entry has its name, but could not be put on stable storage.
    #[error("the disk failed while committing to table {table}: check it; nothing was receipted")]
    Doubtful {
        /// Which table.
        table: &'static str,
    },
    /// Others always came first.
    #[error("gave up committing to table {table} after losing {RACES_MAX} races: is another writer running?")]
    Races {
        /// Which table.
        table: &'static str,
    },
    /// Files that were to be replaced are gone already, or others came that may hold the same rows.
    #[error("files of table {table} changed while they were being written again; nothing was committed")]
    Stale {
        /// Which table.
        table: &'static str,
    },
    /// The log is shorter than this process knew it.
    #[error("the log of table {table} lacks what was there before: is its disk mounted, is it the same lake?")]
    Gone {
        /// Which table.
        table: &'static str,
    },
    /// Others committed so much that the log no longer tells what this process missed.
    #[error("the log of table {table} went on without this process; nothing was receipted")]
    Behind {
        /// Which table.
        table: &'static str,
    },
    /// Another writer committed under our name.
    #[error("another process commits to table {table} as {app_id}: stop one of the two")]
    Overtaken {
        /// Which table.
        table: &'static str,
        /// The name.
        app_id: String,
    },
}
