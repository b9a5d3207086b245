//! Which runs to merge, and when. Pure: files and a time in, a plan out.
//!
//! Runs of one day are merged like the trees of a log-structured store: as soon as [`FAN_IN`] of about the same size lie
//! there, they become one of the next size. So a row is written again once per size, and a day never has more than
//! `FAN_IN - 1` runs of each. When a day has become quiet its runs are merged into one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::time::Timestamp;

use crate::view::DataFile;

/// So many runs of about the same size become one.
pub(crate) const FAN_IN: usize = 16;
/// Runs of up to so many rows are of the smallest size; the next size is [`FAN_IN`] times as large.
const SMALLEST: u64 = 4_096;
/// A day to which nothing was written for so long is quiet.
const QUIET: Duration = Duration::from_secs(3_600);
/// A day at rest for so long is merged into one run however little was added to a large one; before, what was added must
/// be worth writing the large one again.
const AT_REST: Duration = Duration::from_secs(24 * 3_600);
/// Added rows are worth it when they are one in so many.
const WORTH: u64 = 16;

/// A sorted run: its files in order, with its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) files: Vec<Arc<DataFile>>,
    rows: u64,
}

/// Runs of one day to merge into one, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) day: i32,
    pub(crate) runs: Vec<Run>,
    /// Nothing is left to merge with afterwards.
    pub(crate) last: bool,
}

/// The next merge, most pressing first; none when all is well. Files of others are not sorted and stay as they are.
pub(crate) fn plan(files: &[Arc<DataFile>], now: Timestamp) -> Option<Plan> {
    let mut days: BTreeMap<i32, Vec<&Arc<DataFile>>> = BTreeMap::new();
    for file in files {
        if let (Some(day), Some(_)) = (file.day, &file.part) {
            days.entry(day).or_default().push(file);
        }
    }
    let days: Vec<(i32, Vec<Run>)> = days.into_iter().map(|(day, files)| (day, runs(&files))).collect();
    // The day with most runs first.
    let crowded = days.iter().filter_map(|(day, runs)| Some((*day, crowded(runs)?)));
    let crowded = crowded.max_by_key(|(_, runs)| runs.len());
    crowded.map(|(day, runs)| Plan { day, runs, last: false }).or_else(|| {
        days.into_iter().find_map(|(day, runs)| is_settled(day, &runs, now).then_some(Plan { day, runs, last: true }))
    })
}

/// The runs of a day, by the time when they were written.
fn runs(files: &[&Arc<DataFile>]) -> Vec<Run> {
    let mut runs: BTreeMap<&str, Vec<Arc<DataFile>>> = BTreeMap::new();
    for file in files {
        if let Some(part) = &file.part {
            runs.entry(&part.run).or_default().push(Arc::clone(file));
        }
    }
    let mut runs: Vec<Run> = runs
        .into_values()
        .map(|mut files| {
            files.sort_by(|a, b| a.part.cmp(&b.part));
            let rows = files.iter().filter_map(|file| file.rows).sum();
            Run { files, rows }
        })
        .collect();
    runs.sort_by_key(|run| run.files.iter().map(|file| file.written).min());
    runs
}

fn size(run: &Run) -> u32 {
    let fan_in = FAN_IN as u64;
    std::iter::successors(Some(SMALLEST), |rows| rows.checked_mul(fan_in))
        .zip(0..)
        .find_map(|(rows, size)| (run.rows <= rows).then_some(size))
        .unwrap_or(u32::MAX)
}

fn crowded(runs: &[Run]) -> Option<Vec<Run>> {
    let mut sizes: BTreeMap<u32, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        sizes.entry(size(run)).or_default().push(run);
    }
    let (size, runs) = sizes.into_iter().find(|(_, runs)| runs.len() >= FAN_IN)?;
    // A run that does not fit into one batch is read bit by bit, and each costs some 3 MiB (a decompressor for every column).
    let most = if size == 0 { FAN_IN * 4 } else { FAN_IN };
    Some(runs.into_iter().take(most).cloned().collect())
}

fn is_settled(day: i32, runs: &[Run], now: Timestamp) -> bool {
    let written = runs.iter().flat_map(|run| &run.files).map(|file| file.written).max();
    let end = Timestamp::from_millis((i64::from(day) + 1) * 86_400_000);
    let (Some(written), true) = (written, runs.len() > 1) else { return false };
    let quiet = now.since(written.max(end));
    let largest = runs.iter().map(|run| run.rows).max().unwrap_or(0);
    let rest: u64 = runs.iter().map(|run| run.rows).sum::<u64>() - largest;
    quiet >= AT_REST || (quiet >= QUIET && rest.saturating_mul(WORTH) >= largest)
}

#[cfg(test)]
mod tests;
