//! A folder that a command fills: whole, or not at all.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// A folder that is being filled. When it is dropped before it is [whole](Self::whole), what is in it goes again: a command that
/// failed leaves nothing that could be taken for what it was to make.
#[derive(Debug)]
pub(crate) struct Fresh {
    folder: PathBuf,
    was_there: bool,
    is_whole: bool,
}

impl Fresh {
    /// Makes a folder, or takes one that is empty.
    ///
    /// # Errors
    /// When there is something in it, or it cannot be made.
    pub(crate) fn begin(folder: &Path) -> anyhow::Result<Self> {
        let was_there = folder.is_dir();
        if was_there && std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} is not empty\nhint: name a folder that is not there yet", folder.display());
        }
        std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned(), was_there, is_whole: false })
    }

    /// All that belongs into it is there.
    pub(crate) fn whole(mut self) {
        self.is_whole = true;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if self.is_whole {
            return;
        }
        // What cannot be removed has no manifest, and is nothing without one.
        drop(std::fs::remove_dir_all(&self.folder));
        if self.was_there {
            drop(std::fs::create_dir(&self.folder));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        for (name, was_there) in [("new/deeper", false), ("empty", true)] {
            let folder = place.path().join(name);
            if was_there {
                std::fs::create_dir(&folder).unwrap();
            }
            let fresh = Fresh::begin(&folder).unwrap();
            std::fs::create_dir(folder.join("lake")).unwrap();
            std::fs::write(folder.join("lake/file"), "half").unwrap();
            drop(fresh);
            assert_eq!(folder.is_dir(), was_there, "{name}");
            let fresh = Fresh::begin(&folder).unwrap();
            std::fs::write(folder.join("file"), "all").unwrap();
            fresh.whole();
            assert!(Fresh::begin(&folder).unwrap_err().to_string().contains("is not empty"), "{name}");
            assert_eq!(std::fs::read(folder.join("file")).unwrap(), b"all", "what was there stays");
        }
    }
}
