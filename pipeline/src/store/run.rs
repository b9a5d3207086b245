//! The names of data files: which sorted run a file belongs to, and where in it.
//!
//! A run is a sequence of files that together are sorted as [`crate::schema::SORT_ORDER`] says, one behind the other. A
//! commit writes a run of one file; compaction merges runs into one of several files, so that no file grows without bound.

use std::sync::Arc;

/// File names that begin so hold sorted rows.
const SORTED: &str = "sorted-";

/// A file's place in its run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The run, unlike every other.
    pub run: Arc<str>,
    /// Which file of it; all rows of a lower one come first.
    pub number: u32,
    /// 0 as it was first written; then of each writing without rows that were erased another number by chance. Two that write
    /// the same file again at the same time must not take the same name: the one that comes second deletes its own.
    pub revision: u64,
}

impl Part {
    /// The first file of a new run. The shard tells whose file it is while no log names it.
    pub(crate) fn first(shard: &str) -> Self {
        Self { run: format!("{shard}-{}", super::token()).into(), number: 0, revision: 0 }
    }

    /// The file behind this one.
    pub(crate) fn next(&self) -> Self {
        Self { number: self.number + 1, ..self.clone() }
    }

    /// What takes this file's place.
    pub(crate) fn revised(&self) -> Self {
        Self { revision: rand::random(), ..self.clone() }
    }

    pub(crate) fn file_name(&self) -> String {
        format!("{SORTED}{}.{}.{}.parquet", self.run, self.number, self.revision)
    }

    /// Reads the name of a file, given with or without its directory. None for a file that others wrote.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?.strip_prefix(SORTED)?.strip_suffix(".parquet")?;
        let mut fields = name.rsplitn(3, '.');
        let (revision, number) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { run: fields.next()?.into(), number, revision })
    }

    /// Whether a process of this shard wrote it.
    pub(crate) fn is_of(&self, shard: &str) -> bool {
        self.run.rsplit_once('-').is_some_and(|(writer, _)| writer == shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for shard in ["0", "north-1.a"] {
            let part = Part::first(shard).next().revised();
            let path = format!("event_day=2026-03-01/{}", part.file_name());
            assert_eq!(Part::of(&path), Some(part.clone()));
            assert!(part.is_of(shard) && !part.is_of("1"));
        }
        for foreign in ["part-00000-1.snappy.parquet", "sorted-x.parquet", "sorted-0-ab.0.x.parquet", ""] {
            assert_eq!(Part::of(foreign), None, "{foreign}");
        }
    }
}
