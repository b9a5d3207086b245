//! A device's folder on disk, for profiles that are not compiled in, or not yet.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::document::Mistakes;
use crate::profile::Profile;

/// Longest profile or capture that is read: a hundred times the longest shipped one. A longer one is refused.
pub const FILE_LENGTH_MAX: u64 = 1024 * 1024;

/// A device's folder, read.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Its profile.
    pub profile: Arc<Profile>,
    /// File name and text of each capture, by name.
    pub captures: Vec<(String, String)>,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file or folder cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The profile has mistakes.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

/// Reads a device's folder; `path` is the folder or its `profile.toml`. The profile is named after the last two parts of the path.
pub fn read(path: &Path) -> Result<Folder, FolderError> {
    let (folder, file) = if path.is_dir() {
        (path, path.join("profile.toml"))
    } else {
        (path.parent().unwrap_or(path), path.to_path_buf())
    };
    let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    let mut parts: Vec<String> =
        whole.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    parts.reverse();
    let profile = Profile::parse_file(&file.display().to_string(), &parts.join("/"), &text(&file)?)?;
    let mut captures = Vec::new();
    let list = folder.join("captures");
    if list.is_dir() {
        for file in sorted(&list)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            captures.push((name, text(&file)?));
        }
    }
    Ok(Folder { profile: Arc::new(profile), captures })
}

/// The device folders below a folder: those that hold a `profile.toml`, at most two levels down, by name.
pub fn find(root: &Path) -> Result<Vec<PathBuf>, FolderError> {
    if root.is_file() || root.join("profile.toml").is_file() {
        return Ok(vec![root.to_path_buf()]);
    }
    let mut found = Vec::new();
    for vendor in sorted(root)?.into_iter().filter(|path| path.is_dir()) {
        if vendor.join("profile.toml").is_file() {
            found.push(vendor);
        } else {
            found.extend(sorted(&vendor)?.into_iter().filter(|path| path.join("profile.toml").is_file()));
        }
    }
    Ok(found)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let failed = |source| FolderError::Read { path: folder.to_path_buf(), source };
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>().map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> Result<String, FolderError> {
    let failed = |source| FolderError::Read { path: path.to_path_buf(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > FILE_LENGTH_MAX {
        return Err(failed(io::Error::other(format!("it is longer than {FILE_LENGTH_MAX} bytes"))));
    }
    fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped;

    /// What is compiled in is what lies in the tree, and a folder that lies elsewhere reads alike.
    #[test]
    fn the_folders_of_the_tree_are_the_shipped_profiles() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let folders = find(&root).unwrap();
        assert_eq!(folders.len(), shipped::all().len());
        for (path, shipped) in folders.iter().zip(shipped::all()) {
            let folder = read(path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(folder.profile.name, shipped.profile.name);
            assert_eq!(folder.captures.len(), shipped.captures.len());
        }
        assert!(matches!(read(&root.join("nobody/nothing")), Err(FolderError::Read { .. })));
    }
}
