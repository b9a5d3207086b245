//! One writer per shard of a lake: a lock that the operating system releases when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "the lake is being written by another carebed ({holder}; lock {path}): stop that one first, or give this one its \
         own lake or shard"
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the other process wrote into it.
        holder: String,
    },
    /// The lock file could not be used.
    #[error("failed to lock {path}: is the directory writable?")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Held for as long as the store is open for writing.
#[derive(Debug)]
pub(crate) struct WriterLock {
    _file: File,
}

impl WriterLock {
    /// Takes the lock of one shard of the lake in `directory`, or fails at once.
    pub(crate) fn take(directory: &Path, shard: &str) -> Result<Self, LockError> {
        let path = directory.join(format!("writer-{shard}.lock"));
        let failed = |source| LockError::Io { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a help, not a need.
                let _unread = file.take(100).read_to_string(&mut holder);
                let holder = if holder.is_empty() { "process unknown".to_owned() } else { holder.trim().to_owned() };
                return Err(LockError::Held { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "process {}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_holds_the_lock() {
        let lake = tempfile::tempdir().unwrap();
        let first = WriterLock::take(lake.path(), "0").unwrap();
        WriterLock::take(lake.path(), "1").unwrap();
        let message = WriterLock::take(lake.path(), "0").unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(first);
        WriterLock::take(lake.path(), "0").unwrap();
    }
}
