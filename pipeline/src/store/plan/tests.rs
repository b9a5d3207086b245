use super::*;
use crate::store::run::Part;

const DAY: i64 = 86_400_000;

fn file(run: &str, day: i32, rows: u64, written: i64) -> Arc<DataFile> {
    let part = Part { run: run.into(), number: 0, revision: 0 };
    Arc::new(DataFile {
        path: format!("event_day={day}/{}", part.file_name()).into(),
        size: rows,
        rows: Some(rows),
        day: Some(day),
        event_time: None,
        home: None,
        bed: None,
        part: Some(part),
        written: Timestamp::from_millis(written),
    })
}

/// The plan in short: day, runs, whether it is the day's last.
fn short(files: &[Arc<DataFile>], now: i64) -> Option<(i32, usize, bool)> {
    plan(files, Timestamp::from_millis(now)).map(|plan| (plan.day, plan.runs.len(), plan.last))
}

#[test]
fn what_is_merged_and_when() {
    let many = |n: usize, rows| (0..n).map(|i| file(&format!("{rows}-{i}"), 0, rows, i as i64)).collect::<Vec<_>>();
    let hour = 3_600_000;
    for (what, files, now, expected) in [
        ("nothing", vec![], 0, None),
        ("too few", many(15, 10), 1_000, None),
        ("enough of the smallest", many(16, 10), 1_000, Some((0, 16, false))),
        ("enough of the second size", many(16, 5_000), 1_000, Some((0, 16, false))),
        ("sizes apart", [many(15, 10), many(15, 5_000)].concat(), 1_000, None),
        ("the day is over, not yet quiet", many(3, 10), DAY + hour - 1, None),
        ("the day is quiet", many(3, 10), DAY + hour, Some((0, 3, true))),
        ("one run is done", many(1, 10), 9 * DAY, None),
        ("a little beside much can wait", [many(1, 10), many(1, 100_000)].concat(), DAY + hour, None),
        ("but not for ever", [many(1, 10), many(1, 100_000)].concat(), 2 * DAY, Some((0, 2, true))),
    ] {
        assert_eq!(short(&files, now), expected, "{what}");
    }
}

#[test]
fn a_file_of_others_is_left_alone() {
    let foreign = |i: u32| Arc::new(DataFile { part: None, ..DataFile::clone(&file(&i.to_string(), 0, 1, 0)) });
    assert_eq!(short(&(0..40).map(foreign).collect::<Vec<_>>(), 9 * DAY), None);
}

/// A day of commits every two seconds, merged whenever a plan says so: few files at any moment, each row written again
/// a few times.
#[test]
fn a_day_of_commits_stays_a_few_files() {
    let (mut files, mut most, mut rewritten, mut rows) = (Vec::new(), 0, 0, 0);
    for n in 0..43_200_u64 {
        let commit = 100 + n % 1_000;
        rows += commit;
        files.push(file(&format!("commit-{n}"), 0, commit, 2_000 * n as i64));
        while let Some(plan) = plan(&files, Timestamp::from_millis(2_000 * n as i64)) {
            let merged: u64 = plan.runs.iter().map(|run| run.rows).sum();
            let gone: Vec<_> = plan.runs.iter().flat_map(|run| &run.files).map(|file| Arc::clone(&file.path)).collect();
            files.retain(|file| !gone.contains(&file.path));
            files.push(file(&format!("merged-{n}-{merged}"), 0, merged, 2_000 * n as i64));
            rewritten += merged;
        }
        most = most.max(files.len());
    }
    assert!(most <= 5 * FAN_IN, "{most} files at once");
    assert!(rewritten <= 5 * rows, "each row was written {} times again", rewritten / rows);
}
