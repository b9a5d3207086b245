//! Who signed in and who asked what: one JSON object a line, appended. A line that cannot be written is told in the program's log.
//!
//! A file that is full gets a number, `sql.jsonl.1` being the newest of those, and the oldest goes: ten files are the most. Whoever
//! must keep more takes them away before.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use carebed_contract::time::Timestamp;
use serde::Serialize;

use super::Error;

/// Most characters kept of a statement, or of a name that somebody signs in as.
const CHARS_MAX: usize = 4_096;
/// A file is full when the next line would make it larger.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Full files that are kept.
const FULL_FILES_MAX: usize = 9;

#[derive(Debug)]
pub(super) struct Audit(Option<Mutex<Log>>);

#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

/// A statement that ended.
#[derive(Debug, Serialize)]
pub(super) struct Entry<'a> {
    pub(super) time: Timestamp,
    pub(super) user: &'a str,
    pub(super) peer: &'a str,
    pub(super) statement: &'a str,
    /// The values of its `$1`, `$2` and so on.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) parameters: &'a [Option<String>],
    pub(super) rows: u64,
    pub(super) millis: u64,
    /// `done`, `stopped` (the client went away or asked for no more), or what went wrong.
    pub(super) outcome: &'a str,
}

/// Somebody who signed in, or tried to.
#[derive(Debug, Serialize)]
pub(super) struct SignIn<'a> {
    pub(super) time: Timestamp,
    pub(super) user: &'a str,
    pub(super) peer: &'a str,
    /// `done`, or why it was refused.
    pub(super) sign_in: &'a str,
}

impl Audit {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self(None)) };
        let log = Log::open(path, FILE_BYTES_MAX);
        let log = log.map_err(|source| Error::Audit { path: path.to_owned(), source })?;
        Ok(Self(Some(Mutex::new(log))))
    }

    pub(super) fn write(&self, mut entry: Entry<'_>) {
        entry.statement = cut(entry.statement);
        self.append(&entry);
    }

    pub(super) fn write_sign_in(&self, sign_in: &SignIn<'_>) {
        self.append(sign_in);
    }

    fn append(&self, line: &impl Serialize) {
        let Some(log) = &self.0 else { return };
        let written = serde_json::to_vec(line)
            .map_err(io::Error::from)
            .and_then(|line| log.lock().unwrap_or_else(PoisonError::into_inner).append(line));
        if let Err(error) = written {
            tracing::error!(%error, "the audit log of SQL could not be written");
        }
    }
}

/// As much of a text as is kept.
pub(super) fn cut(text: &str) -> &str {
    let end = text.char_indices().nth(CHARS_MAX).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}

impl Log {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, bytes_max })
    }

    fn append(&mut self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        let n = line.len() as u64;
        if self.bytes > 0 && self.bytes + n > self.bytes_max {
            // A line is worth more than the bound: it goes into the old file where no new one can be had.
            self.begin_anew().unwrap_or_else(|error| {
                tracing::error!(%error, "no new audit log of SQL could be begun, the full one goes on");
            });
        }
        self.file.write_all(&line)?;
        self.bytes += n;
        Ok(())
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        let numbered = |n: usize| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..FULL_FILES_MAX).rev() {
            match std::fs::rename(numbered(n), numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::rename(&self.path, numbered(1))?;
        *self = Self::open(&self.path, self.bytes_max)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_numbered_and_the_oldest_goes() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("audit/sql.jsonl");
        // Four lines a file; it is opened anew now and then, as after a restart.
        let mut log = Log::open(&path, 20).unwrap();
        for n in 0..50_u32 {
            if n % 7 == 0 {
                log = Log::open(&path, 20).unwrap();
            }
            log.append(format!("{n:04}").into_bytes()).unwrap();
        }
        let text = |name: String| std::fs::read_to_string(place.path().join("audit").join(name)).unwrap();
        assert_eq!(text("sql.jsonl".to_owned()), "0048\n0049\n");
        for n in 1..=9_u32 {
            let first = 48 - 4 * n;
            let lines: String = (first..first + 4).map(|line| format!("{line:04}\n")).collect();
            assert_eq!(text(format!("sql.jsonl.{n}")), lines);
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 10);
        // A line that is larger than a file has one of its own.
        log.append(vec![b'x'; 100]).unwrap();
        assert_eq!((text("sql.jsonl".to_owned()).len(), text("sql.jsonl.1".to_owned()).len()), (101, 10));
    }
}
