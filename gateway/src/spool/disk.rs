//! Where a spool lies: a directory, or memory when no directory can be trusted.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What a spool needs of a disk. Names are flat. The seam at which tests put a disk that tears, loses and refuses.
pub trait Disk: Debug + Send {
    /// Names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// A whole file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Exactly `length` bytes from `offset` on.
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Makes a file with this content, in place of another if there is one. When it returns, content and name are on
    /// stable storage; when the power goes before, the file is whole as it was or whole as it shall be.
    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Adds to the end of a file. Nothing is promised before [`Disk::sync`] has returned.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Brings what was appended to stable storage.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Cuts a file; durable when it returns.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Removes a file; durable when it returns.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// Why a directory cannot hold a spool.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be made or opened.
    #[error("failed to open the spool directory {path}; check that it is on a writable disk and owned by this user")]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the spool {path} is in use by {owner}; one spool serves one gateway: stop the other, or name another \
             directory in [spool] of the configuration"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as it says.
        owner: String,
    },
}

const LOCK: &str = "lock";
const TEMPORARY: &str = "new";

/// A directory that this process alone uses, for as long as the value lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    folder: File,
    open: HashMap<String, File>,
    _lock: File,
}

impl Directory {
    /// Makes the directory when it is missing, and locks it. The lock ends with the process, however that ends.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let failed = |source| DirectoryError::Open { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = path.join(LOCK);
        let mut lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(lock).map_err(failed)?;
        if let Err(error) = lock.try_lock() {
            if let fs::TryLockError::Error(source) = error {
                return Err(failed(source));
            }
            let mut owner = String::new();
            let owner = match lock.read_to_string(&mut owner) {
                Ok(_) if !owner.is_empty() => format!("process {}", owner.trim()),
                _ => "another process".to_owned(),
            };
            return Err(DirectoryError::InUse { path: path.to_owned(), owner });
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(failed)?;
        let folder = File::open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), folder, open: HashMap::new(), _lock: lock })
    }

    fn handle(&mut self, name: &str) -> io::Result<&mut File> {
        // One handle per file from write to sync: an error of writing back is told to the handle that wrote.
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().append(true).open(self.path.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        self.open.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What is no file is not ours, such as the lost+found of a disk mounted here.
            if entry.file_type()?.is_file() && name != LOCK && name != TEMPORARY {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path.join(name))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.open.remove(name);
        let temporary = self.path.join(TEMPORARY);
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path.join(name))?;
        self.folder.sync_all()
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.handle(name)?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        // sync_data also brings the new length, without which the data could not be read.
        self.handle(name)?.sync_data()
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let file = self.handle(name)?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        fs::remove_file(self.path.join(name))?;
        self.folder.sync_all()
    }
}

/// Memory in place of a disk: what it holds dies with the process.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The files.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    fn file(&mut self, name: &str) -> io::Result<&mut Vec<u8>> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for Memory {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.files.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = from.checked_add(length).and_then(|end| file.get(from..end));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.files.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.file(name)?.truncate(length);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name);
        Ok(())
    }
}
