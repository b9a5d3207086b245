//! Which files are read one behind the other, so that their rows come sorted.

use std::collections::BTreeMap;
use std::sync::Arc;

use carebed_pipeline::view::DataFile;

/// Each group is open at the same time where order is wanted; beyond so many runs it is not promised.
const RUNS_MAX: usize = 64;

/// Files in groups, each to be read in its order.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) groups: Vec<Vec<Arc<DataFile>>>,
    /// Whether the rows of each group come sorted.
    pub(super) sorted: bool,
}

/// Puts the files of a run one behind the other, and cuts runs where more groups than runs are wanted. Without order, the
/// files are dealt out by their size.
pub(super) fn group(files: Vec<Arc<DataFile>>, wanted: usize) -> Groups {
    let wanted = wanted.max(1);
    match runs(&files) {
        Some(runs) => {
            let per_run = wanted.div_ceil(runs.len().max(1));
            Groups { groups: runs.into_iter().flat_map(|run| cut(run, per_run)).collect(), sorted: true }
        }
        None => Groups { groups: deal(files, wanted), sorted: false },
    }
}

/// None when there are too many, or files that are in none.
fn runs(files: &[Arc<DataFile>]) -> Option<Vec<Vec<Arc<DataFile>>>> {
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

/// At most so many pieces of about the same size, in order.
fn cut(run: Vec<Arc<DataFile>>, pieces: usize) -> Vec<Vec<Arc<DataFile>>> {
    let total: u64 = run.iter().map(|file| file.size).sum();
    let share = total.div_ceil(pieces as u64).max(1);
    let (mut cut, mut before) = (vec![Vec::new()], 0);
    for file in run {
        let size = file.size;
        // A file belongs to the piece in which its middle falls.
        let piece = (before + size / 2) / share;
        if piece >= cut.len() as u64 && cut.last().is_some_and(|piece| !piece.is_empty()) {
            cut.push(Vec::new());
        }
        if let Some(piece) = cut.last_mut() {
            piece.push(file);
        }
        before += size;
    }
    cut.retain(|piece| !piece.is_empty());
    cut
}

fn deal(mut files: Vec<Arc<DataFile>>, hands: usize) -> Vec<Vec<Arc<DataFile>>> {
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    let mut groups = vec![Vec::new(); hands.min(files.len())];
    let n = groups.len().max(1);
    for (number, file) in files.into_iter().enumerate() {
        // Forth and back, so that no hand gets all the large ones.
        let place = if (number / n).is_multiple_of(2) { number % n } else { n - 1 - number % n };
        if let Some(group) = groups.get_mut(place) {
            group.push(file);
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

    /// The groups in short: `a0 a1 | b0`.
    fn short(files: Vec<Arc<DataFile>>, wanted: usize) -> String {
        let Groups { groups, sorted } = group(files, wanted);
        let groups = groups.iter().map(|g| g.iter().map(|f| &*f.path).collect::<Vec<_>>().join(" "));
        format!("{}{}", groups.collect::<Vec<_>>().join(" | "), if sorted { "" } else { " unsorted" })
    }

    #[test]
    fn runs_stay_together_and_in_order() {
        let a = || (0..4).rev().map(|n| file("a", n, 10)).collect::<Vec<_>>();
        for (files, wanted, expected) in [
            (vec![], 2, ""),
            (vec![file("a", 0, 1)], 4, "a0"),
            (a(), 1, "a0 a1 a2 a3"),
            (a(), 2, "a0 a1 | a2 a3"),
            (a(), 9, "a0 | a1 | a2 | a3"),
            ([a(), vec![file("b", 0, 9)]].concat(), 2, "a0 a1 a2 a3 | b0"),
            (vec![file("a", 0, 9), file("", 1, 5), file("", 2, 4)], 2, "a0 | 1 2 unsorted"),
        ] {
            assert_eq!(short(files, wanted), expected);
        }
        let many: Vec<_> = (0..=RUNS_MAX).map(|n| file(&format!("run{n}-"), 0, 1)).collect();
        assert!(!group(many, 2).sorted);
    }
}
