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
    /// Makes a folder, or takes one that is empty, outside of the one that it is made from: a backup in the data folder would
    /// go with it.
    ///
    /// # Errors
    /// When there is something in it, it lies inside, or it cannot be made.
    pub(crate) fn begin(folder: &Path, outside: &Path) -> anyhow::Result<Self> {
        if is_inside(folder, outside) {
            bail!("{} lies in {}\nhint: name a folder outside of it", folder.display(), outside.display());
        }
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

/// Whether a folder, which need not be there yet, lies in another or is it.
fn is_inside(folder: &Path, other: &Path) -> bool {
    let (Ok(folder), Ok(other)) = (std::path::absolute(folder), other.canonicalize()) else { return false };
    let nearest = folder.ancestors().find_map(|part| part.canonicalize().ok());
    nearest.is_some_and(|nearest| nearest.starts_with(other))
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
            let (folder, other) = (place.path().join(name), place.path().join("other"));
            if was_there {
                std::fs::create_dir(&folder).unwrap();
            }
            let fresh = Fresh::begin(&folder, &other).unwrap();
            std::fs::create_dir(folder.join("lake")).unwrap();
            std::fs::write(folder.join("lake/file"), "half").unwrap();
            drop(fresh);
            assert_eq!(folder.is_dir(), was_there, "{name}");
            let fresh = Fresh::begin(&folder, &other).unwrap();
            std::fs::write(folder.join("file"), "all").unwrap();
            fresh.whole();
            assert!(Fresh::begin(&folder, &other).unwrap_err().to_string().contains("is not empty"), "{name}");
            assert_eq!(std::fs::read(folder.join("file")).unwrap(), b"all", "what was there stays");
        }
    }

    #[test]
    fn nothing_is_made_in_what_it_is_made_from() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        std::fs::create_dir_all(data.join("empty")).unwrap();
        std::os::unix::fs::symlink(data.join("empty"), place.path().join("link")).unwrap();
        for inside in ["data", "data/empty", "data/new/deeper", "link", "link/new", "data/../data/new"] {
            let refused = Fresh::begin(&place.path().join(inside), &data).unwrap_err().to_string();
            assert!(refused.contains("lies in") && refused.contains("outside of it"), "{inside}: {refused}");
        }
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1, "nothing was made");
        for outside in ["data2", "data/../copy", "new/deeper"] {
            Fresh::begin(&place.path().join(outside), &data).unwrap().whole();
        }
    }
}
