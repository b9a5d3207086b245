//! Which files are read one behind the other, so that their rows come sorted.

use std::collections::BTreeMap;
use std::sync::Arc;

use carebed_pipeline::view::DataFile;
use parquet::arrow::arrow_reader::RowSelection;

/// Each group is open at the same time where order is wanted; beyond so many runs it is not promised.
const RUNS_MAX: usize = 64;
/// Less than this, in bytes, is not worth a core of its own.
const PIECE_MIN: u64 = 1 << 20;

#[cfg(test)]
thread_local! {
    /// The same on this thread, where a test wants little data to be cut, too.
    pub(super) static PIECE_MIN_HERE: std::cell::Cell<u64> = const { std::cell::Cell::new(PIECE_MIN) };
}

fn piece_min() -> u64 {
    #[cfg(test)]
    let least = PIECE_MIN_HERE.get();
    #[cfg(not(test))]
    let least = PIECE_MIN;
    least
}

/// A file, or a part of it.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) file: Arc<DataFile>,
    pub(super) section: Section,
}

/// What of a file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Section {
    /// All of it.
    Whole,
    /// Those of its row groups that begin in a range of its bytes.
    Bytes(u64, u64),
    /// Some of its rows.
    Rows {
        /// From this row on.
        from: usize,
        /// Up to this one, without it.
        to: usize,
        /// How many there are.
        of: usize,
    },
    /// Rows that are chosen one by one.
    Chosen(Arc<RowSelection>),
}

impl Piece {
    pub(super) fn whole(file: Arc<DataFile>) -> Self {
        Self { file, section: Section::Whole }
    }
}

/// Files in groups, each to be read in its order.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) groups: Vec<Vec<Piece>>,
    /// Whether the rows of each group come sorted.
    pub(super) sorted: bool,
}

/// Puts the files of a run one behind the other, and cuts runs, files too, so that as many groups as are wanted have about the
/// same size. Without order, the files are dealt out by their size.
pub(super) fn group(files: Vec<Arc<DataFile>>, wanted: usize) -> Groups {
    let wanted = wanted.max(1);
    let total: u64 = files.iter().map(|file| file.size).sum();
    match runs(&files) {
        Some(runs) => {
            let share = total.div_ceil(wanted as u64).max(piece_min());
            let groups = runs.into_iter().flat_map(|run| cut(run, share)).collect();
            Groups { groups, sorted: true }
        }
        None => Groups { groups: deal(files, wanted), sorted: false },
    }
}

/// How many groups of beds are worth a core of their own.
pub(super) fn worth(files: &[Arc<DataFile>], wanted: usize) -> usize {
    let total: u64 = files.iter().map(|file| file.size).sum();
    let worth = usize::try_from((total + piece_min() / 2) / piece_min()).unwrap_or(usize::MAX);
    wanted.min(worth).max(1)
}

/// None when there are too many, or files that are in none.
pub(super) fn runs(files: &[Arc<DataFile>]) -> Option<Vec<Vec<Arc<DataFile>>>> {
    let mut runs: BTreeMap<&str, Vec<Arc<DataFile>>> = BTreeMap::new();
    for file in files {
        runs.entry(&file.part.as_ref()?.run).or_default().push(Arc::clone(file));
        if runs.len() > RUNS_MAX {
            return None;
        }
    }
    let mut runs: Vec<_> = runs.into_values().collect();
    for run in &mut runs {
        run.sort_by(|a, b| a.part.cmp(&b.part));
    }
    Some(runs)
}

/// Pieces of about a share, in order.
fn cut(run: Vec<Arc<DataFile>>, share: u64) -> Vec<Vec<Piece>> {
    let total: u64 = run.iter().map(|file| file.size).sum();
    // Of a run that is a share and a half, or less, nothing is cut off.
    let pieces = ((total + share / 2) / share).max(1);
    let share = total.div_ceil(pieces).max(1);
    let (mut cut, mut before) = (vec![Vec::new()], 0);
    for file in run {
        let mut from = 0;
        // At least once: a file whose size a log does not say is read as a whole.
        loop {
            let room = share - (before + from) % share;
            let to = file.size.min(from + room);
            let section = if from > 0 || to < file.size { Section::Bytes(from, to) } else { Section::Whole };
            if let Some(piece) = cut.last_mut() {
                piece.push(Piece { file: Arc::clone(&file), section });
            }
            if (before + to) % share == 0 {
                cut.push(Vec::new());
            }
            if to == file.size {
                break;
            }
            from = to;
        }
        before += file.size;
    }
    cut.retain(|piece| !piece.is_empty());
    cut
}

fn deal(mut files: Vec<Arc<DataFile>>, hands: usize) -> Vec<Vec<Piece>> {
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    let mut groups = vec![Vec::new(); hands.min(files.len())];
    let n = groups.len().max(1);
    for (number, file) in files.into_iter().enumerate() {
        // Forth and back, so that no hand gets all the large ones.
        let place = if (number / n).is_multiple_of(2) { number % n } else { n - 1 - number % n };
        if let Some(group) = groups.get_mut(place) {
            group.push(Piece::whole(file));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use carebed_contract::time::Timestamp;
    use carebed_pipeline::store::Part;

    use super::*;

    fn file(run: &str, number: u32, size: u64) -> Arc<DataFile> {
        Arc::new(DataFile {
            path: format!("{run}{number}").into(),
            size,
            rows: None,
            day: None,
            event_time: None,
            home: None,
            bed: None,
            part: (!run.is_empty()).then(|| Part { run: run.into(), number, revision: 0 }),
            written: Timestamp::MIN,
        })
    }

    /// The groups in short, ranges in MiB: `a0 a1[0,2) | b0`.
    fn short(files: Vec<Arc<DataFile>>, wanted: usize) -> String {
        let Groups { groups, sorted, .. } = group(files, wanted);
        let piece = |piece: &Piece| {
            let section = match &piece.section {
                Section::Whole => String::new(),
                Section::Bytes(from, to) => format!("[{},{})", from >> 20, to >> 20),
                Section::Rows { from, to, .. } => format!("[{from},{to}) rows"),
                Section::Chosen(rows) => format!("{} rows", rows.row_count()),
            };
            format!("{}{section}", piece.file.path)
        };
        let groups = groups.iter().map(|g| g.iter().map(piece).collect::<Vec<_>>().join(" "));
        format!("{}{}", groups.collect::<Vec<_>>().join(" | "), if sorted { "" } else { " unsorted" })
    }

    #[test]
    fn runs_stay_together_and_in_order() {
        let mib = |run: &str, number: u32, size: u64| file(run, number, size << 20);
        let a = || (0..4).rev().map(|n| mib("a", n, 10)).collect::<Vec<_>>();
        for (files, wanted, expected) in [
            (vec![], 2, ""),
            (vec![file("a", 0, 1)], 4, "a0"),
            (a(), 1, "a0 a1 a2 a3"),
            (a(), 2, "a0 a1 | a2 a3"),
            (a(), 4, "a0 | a1 | a2 | a3"),
            (vec![mib("a", 0, 10), mib("a", 1, 30)], 2, "a0 a1[0,10) | a1[10,30)"),
            (vec![mib("a", 0, 90), mib("b", 0, 2)], 2, "a0[0,45) | a0[45,90) | b0"),
            ([a(), vec![mib("b", 0, 9)]].concat(), 2, "a0 a1 | a2 a3 | b0"),
            (vec![file("a", 0, 9), file("", 1, 5), file("", 2, 4)], 2, "a0 | 1 2 unsorted"),
        ] {
            assert_eq!(short(files, wanted), expected);
        }
        let many: Vec<_> = (0..=RUNS_MAX).map(|n| file(&format!("run{n}-"), 0, 1)).collect();
        assert!(!group(many, 2).sorted);
    }
}
