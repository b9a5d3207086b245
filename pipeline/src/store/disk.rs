//! The few file operations that a durable write is made of, behind a trait, so that a test can lose what was not synced.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;

/// A local disk. What a call did survives a crash of the process when it returns, and a power cut only after the sync that
/// belongs to it: [`Disk::sync_file`] for contents, [`Disk::sync_dir`] for the names in a directory.
pub(crate) trait Disk: Debug + Send + Sync + 'static {
    /// Creates one directory; it may exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Writes a new file, replacing what stood there.
    fn write(&self, path: &Path, contents: &[Bytes]) -> io::Result<()>;
    /// Puts a file's contents on stable storage.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Puts a directory's names on stable storage.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Gives a file a second name; fails with `AlreadyExists` when that is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames a file over whatever has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The operating system's.
#[derive(Debug)]
pub(crate) struct OsDisk;

impl Disk for OsDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn write(&self, path: &Path, contents: &[Bytes]) -> io::Result<()> {
        let mut file = File::create(path)?;
        contents.iter().try_for_each(|part| file.write_all(part))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}
