//! The console's file: one SQLite database that one process holds.
//!
//! What survives: after a write returns, it outlives a power cut (write-ahead log, `synchronous=FULL`).

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

/// The format written; a file with a higher one is refused.
const FORMAT: i64 = 1;

/// How often, and how long apart, a held lock is tried again: a process that is just ending still has it for a moment.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// Another process has it.
    #[error("another carebed process is using {path}: stop it, or give this one its own data directory")]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The file or its folder cannot be opened or made.
    #[error("cannot open {path}: check that its folder exists and may be written")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// SQLite refused.
    #[error(
        "cannot open the database {path}: make room if its disk is full; if it is damaged, restore it from a backup"
    )]
    Open {
        /// The database file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// Written by a newer carebed.
    #[error("{path} has format {found}, this carebed knows {FORMAT}: update carebed")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
    /// A statement failed.
    #[error("cannot {doing} in the console's database")]
    Query {
        /// What we were doing.
        doing: &'static str,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// A row that we did not write.
    #[error("cannot read {what} in the console's database: restore it from a backup")]
    Row {
        /// Which row.
        what: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The open database; clones share it.
#[derive(Debug, Clone)]
pub struct Database {
    pub(crate) pool: SqlitePool,
    /// Held as long as any clone lives; none when opened for reading.
    _lock: Option<Arc<File>>,
}

const TABLES: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS transitions (
        number INTEGER PRIMARY KEY, at INTEGER NOT NULL, alert TEXT NOT NULL, transition TEXT NOT NULL) STRICT",
    "CREATE INDEX IF NOT EXISTS transitions_by_alert ON transitions (alert, number)",
    "CREATE TABLE IF NOT EXISTS told (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT",
    "INSERT OR IGNORE INTO told VALUES (1, 0)",
    "CREATE TABLE IF NOT EXISTS areas (id TEXT PRIMARY KEY, name_zh TEXT NOT NULL, name_en TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS homes (
        id TEXT PRIMARY KEY, area TEXT NOT NULL REFERENCES areas, name TEXT NOT NULL, time_zone TEXT NOT NULL,
        residents INTEGER NOT NULL, lamp TEXT) STRICT",
    "CREATE TABLE IF NOT EXISTS gateways (id TEXT PRIMARY KEY, home TEXT NOT NULL UNIQUE REFERENCES homes) STRICT",
    "CREATE TABLE IF NOT EXISTS beds (
        id TEXT PRIMARY KEY, home TEXT NOT NULL REFERENCES homes, name TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS persons (
        bed TEXT PRIMARY KEY REFERENCES beds, name TEXT NOT NULL, phone TEXT NOT NULL, address TEXT NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS unlisted_beds (
        home TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, person TEXT NOT NULL, phone TEXT NOT NULL,
        address TEXT NOT NULL, PRIMARY KEY (home, id)) STRICT",
    "CREATE TABLE IF NOT EXISTS registrations (
        kind TEXT NOT NULL, id TEXT NOT NULL, home TEXT NOT NULL, bed TEXT, area TEXT NOT NULL,
        valid_from INTEGER NOT NULL, valid_to INTEGER) STRICT",
    "CREATE INDEX IF NOT EXISTS registrations_by_home ON registrations (home)",
    "CREATE TABLE IF NOT EXISTS pseudonyms (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB NOT NULL) STRICT",
    "INSERT OR IGNORE INTO pseudonyms VALUES (1, randomblob(32))",
    "CREATE TABLE IF NOT EXISTS intervals (
        id INTEGER PRIMARY KEY AUTOINCREMENT, home TEXT NOT NULL, bed TEXT, kind TEXT NOT NULL,
        started_at INTEGER NOT NULL, ended_at INTEGER NOT NULL, entered_at INTEGER NOT NULL, entered_by TEXT NOT NULL,
        source TEXT NOT NULL, note TEXT, closed_at INTEGER, closed_by TEXT) STRICT",
    "CREATE INDEX IF NOT EXISTS intervals_by_end ON intervals (ended_at)",
];

/// One connection: writes are in one order anyway, and reads here are short. It never grows old, since a file does not go away. With
/// an age sqlx 0.9 starts a task that walks over the idle connections, as many as a counter says that two threads may
/// bring below zero: the task then spins for ever, and the program neither ends nor has that thread.
fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None)
}

impl Database {
    /// Opens the file at `path`, or makes it.
    pub async fn open(path: &Path) -> Result<Self, DatabaseError> {
        let lock = lock(path).await?;
        let open = |source| DatabaseError::Open { path: path.to_owned(), source };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        let pool = pool().connect_with(options).await.map_err(open)?;
        let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&pool).await.map_err(open)?;
        if found > FORMAT {
            return Err(DatabaseError::Newer { path: path.to_owned(), found });
        }
        for table in TABLES {
            sqlx::query(*table).execute(&pool).await.map_err(open)?;
        }
        sqlx::query("PRAGMA user_version = 1").execute(&pool).await.map_err(open)?;
        Ok(Self { pool, _lock: Some(Arc::new(lock)) })
    }

    /// Opens the file at `path` for reading only, also while another process holds it.
    pub async fn open_read(path: &Path) -> Result<Self, DatabaseError> {
        let open = |source| DatabaseError::Open { path: path.to_owned(), source };
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let pool = pool().connect_with(options).await.map_err(open)?;
        Ok(Self { pool, _lock: None })
    }

    /// Copies the database as it is now to a file that is not there yet, also while another process writes it.
    pub async fn copy_to(&self, path: &Path) -> Result<(), DatabaseError> {
        let copied = sqlx::query("VACUUM INTO ?1").bind(path.to_string_lossy().into_owned()).execute(&self.pool).await;
        copied.map(drop).map_err(|source| DatabaseError::Open { path: path.to_owned(), source })
    }
}

async fn lock(path: &Path) -> Result<File, DatabaseError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&beside)
        .map_err(|source| DatabaseError::Lock { path: beside.clone(), source })?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            Err(TryLockError::Error(source)) => return Err(DatabaseError::Lock { path: beside, source }),
        }
    }
    Err(DatabaseError::InUse { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_process_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.sqlite");
        let first = Database::open(&path).await.unwrap();
        assert!(matches!(Database::open(&path).await, Err(DatabaseError::InUse { .. })));
        first.pool.close().await;
        drop(first);
        Database::open(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.sqlite");
        let first = Database::open(&path).await.unwrap();
        sqlx::query("PRAGMA user_version = 7").execute(&first.pool).await.unwrap();
        first.pool.close().await;
        drop(first);
        assert!(matches!(Database::open(&path).await, Err(DatabaseError::Newer { found: 7, .. })));
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.sqlite");
        std::fs::write(&path, "this is not a database, it is a text that is long enough".repeat(100)).unwrap();
        assert!(matches!(Database::open(&path).await, Err(DatabaseError::Open { .. })));
    }
}
