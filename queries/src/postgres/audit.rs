//! Who asked what: one JSON object a line, appended. A line that cannot be written is told in the program's log.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use carebed_contract::time::Timestamp;
use serde::Serialize;

use super::Error;

/// Most characters kept of a statement.
const STATEMENT_CHARS_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Audit(Option<Mutex<File>>);

/// A statement that ended.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    pub(super) time: Timestamp,
    pub(super) user: &'a str,
    pub(super) peer: &'a str,
    pub(super) statement: &'a str,
    pub(super) rows: u64,
    pub(super) millis: u64,
    /// `done`, `stopped` (the client went away or asked for no more), or what went wrong.
    pub(super) outcome: &'a str,
}

impl Audit {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self(None)) };
        let failed = |source| Error::Audit { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        Ok(Self(Some(Mutex::new(file))))
    }

    pub(super) fn write(&self, mut entry: Entry<'_>) {
        let Some(file) = &self.0 else { return };
        if let Some((end, _)) = entry.statement.char_indices().nth(STATEMENT_CHARS_MAX) {
            entry.statement = entry.statement.get(..end).unwrap_or_default();
        }
        let written = serde_json::to_vec(&entry).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
        });
        if let Err(error) = written {
            tracing::error!(%error, user = entry.user, "the audit log of SQL could not be written");
        }
    }
}
