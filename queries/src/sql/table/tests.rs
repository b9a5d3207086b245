//! The table over real files: declared order, what is left out, and the same rows whatever is committed or on its way.

use std::sync::Arc;
use std::time::Duration;

use arrow::compute::concat_batches;
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_pipeline::store::{Commit, Config, Part, Store};
use carebed_pipeline::view::{DataFile, TableView, View};
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};

use crate::engine::Limits;
use crate::sql::{Lake, context};

use crate::common::observation;

const START: &str = "2026-05-01T12:00:00Z";

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// Rows of six beds over two days, all mixed.
fn rows() -> Vec<Observation> {
    let mut rows = Vec::new();
    for n in 0..240_u64 {
        let (bed, quantity) = (n * 7 % 6, ["heart_rate", "bed_occupancy"][usize::try_from(n * 5 % 2).unwrap()]);
        let time = at(START) + Duration::from_secs(n * 13 % 240 * 700);
        let (home, bed) = (format!("h{bed}"), format!("b{bed}"));
        rows.push(observation(&home, &bed, "mat", quantity, time, Some(n as f64), "good"));
    }
    rows
}

/// Committed in so many files, merged or not, with the last rows still on their way.
async fn lake(n_commits: usize, merged: bool, n_hot: usize) -> (tempfile::TempDir, Lake, Arc<View>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let rows = rows();
    let (cold, hot) = rows.split_at(rows.len() - n_hot);
    for part in cold.chunks(cold.len().div_ceil(n_commits)) {
        let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
        let commit = Commit { rows: vec![part.to_vec().into()], marks, ..Commit::default() };
        store.commit(&commit, at(START)).await.unwrap();
    }
    while merged && store.compact(at("2026-06-01T00:00:00Z")).await.unwrap().is_some() {}
    let mut view = View::clone(&store.view());
    if n_hot > 0 {
        let (one, other) = hot.split_at(n_hot / 3);
        view.observations =
            TableView { hot: Arc::from([one.to_vec().into(), other.to_vec().into()]), ..view.observations };
    }
    (directory, Lake::of(&store), Arc::new(view))
}

async fn plan_and_rows(lake: &Lake, view: &Arc<View>, partitions: usize, sql: &str) -> (String, Vec<String>) {
    let context = context(lake, view, Limits { partitions, ..Limits::default() }).unwrap();
    let frame = context.sql(sql).await.unwrap();
    let plan = frame.clone().create_physical_plan().await.unwrap();
    let text = arrow::util::pretty::pretty_format_batches(&frame.collect().await.unwrap()).unwrap().to_string();
    let mut rows: Vec<String> = text.lines().skip(3).map(str::to_owned).collect();
    rows.sort();
    (displayable(plan.as_ref()).indent(false).to_string(), rows)
}

const WINDOW: &str = "SELECT bed_id, quantity, event_time, lag(value) OVER (PARTITION BY bed_id, quantity ORDER BY event_time) AS before, value FROM observations";

#[tokio::test]
async fn windows_over_beds_need_no_sorting_and_answer_the_same_however_rows_lie() {
    let mut expected = None;
    for (n_commits, merged, n_hot) in
        [(1, false, 0), (9, false, 0), (9, false, 50), (9, true, 0), (9, true, 120), (1, false, 239)]
    {
        let (_directory, lake, view) = lake(n_commits, merged, n_hot).await;
        for partitions in [1, 3] {
            let (plan, rows) = plan_and_rows(&lake, &view, partitions, WINDOW).await;
            let what = format!("{n_commits} commits, merged {merged}, {n_hot} hot, {partitions} partitions\n{plan}");
            assert!(!plan.contains("SortExec"), "sorted again: {what}");
            assert_eq!(&rows, expected.get_or_insert_with(|| rows.clone()), "{what}");
        }
    }
}

#[tokio::test]
async fn what_cannot_hold_a_row_is_not_opened() {
    let (_directory, lake, view) = lake(9, true, 0).await;
    assert_eq!(view.observations.files.len(), 3, "a file a day");
    for (filter, files, n) in [
        ("true", 3, 240),
        ("bed_id = 'b2'", 3, 40),
        ("bed_id = 'z'", 0, 0),
        ("event_day = DATE '2026-05-02'", 1, 124),
        ("event_time < '2026-05-01T23:00:00Z'", 1, 57),
        ("home_id = 'h1' AND event_time >= '2026-05-03T00:00:00Z'", 1, 9),
        ("quantity = 'no_such'", 3, 0),
    ] {
        let (plan, _) = plan_and_rows(&lake, &view, 1, &format!("SELECT value FROM observations WHERE {filter}")).await;
        assert_eq!(plan.matches("event_day=").count(), files, "{filter}\n{plan}");
        let (_, rows) =
            plan_and_rows(&lake, &view, 1, &format!("SELECT count(*) AS n FROM observations WHERE {filter}")).await;
        assert!(rows.iter().any(|row| row.contains(&format!("| {n} "))), "{filter}: {rows:?}");
    }
}

#[tokio::test]
async fn counting_all_reads_no_file() {
    let (_directory, lake, view) = lake(4, false, 30).await;
    let (plan, rows) = plan_and_rows(&lake, &view, 2, "SELECT count(*) AS n FROM observations").await;
    assert!(!plan.contains("event_day=") && rows.iter().any(|row| row.contains("240")), "{plan}\n{rows:?}");
}

#[tokio::test]
async fn the_newest_row_of_each_needs_no_sorting() {
    let numbered = |order: &str, first: &str| {
        format!(
            "SELECT bed_id, event_time, value FROM (SELECT bed_id, event_time, value, row_number() OVER \
             (PARTITION BY bed_id ORDER BY event_time {order}) AS n FROM observations WHERE quantity = 'heart_rate') WHERE {first}"
        )
    };
    for (n_commits, merged, n_hot) in [(1, false, 0), (9, false, 50), (9, true, 0)] {
        let (_directory, lake, view) = lake(n_commits, merged, n_hot).await;
        for (order, edge) in [("DESC", "max"), ("", "min")] {
            let expected = format!(
                "SELECT o.bed_id, o.event_time, o.value FROM observations o JOIN (SELECT bed_id, {edge}(event_time) AS t \
                 FROM observations WHERE quantity = 'heart_rate' GROUP BY bed_id) e ON e.bed_id = o.bed_id AND e.t = o.event_time \
                 WHERE o.quantity = 'heart_rate'"
            );
            let (_, expected) = plan_and_rows(&lake, &view, 2, &expected).await;
            assert!(expected.len() > 3, "{expected:?}");
            for first in ["n = 1", "n <= 1", "n < 2"] {
                let (plan, rows) = plan_and_rows(&lake, &view, 2, &numbered(order, first)).await;
                assert_eq!(rows, expected, "{order} {first}\n{plan}");
                assert!(!plan.contains("SortExec") && !plan.contains("Window"), "{plan}");
            }
        }
        let (plan, rows) = plan_and_rows(&lake, &view, 2, &numbered("DESC", "n = 2")).await;
        assert!(plan.contains("Window") && rows.len() > 3, "{plan}");
    }
}

/// A run that is large enough for two cores, whose cut falls into a bed and into a row group.
#[tokio::test]
async fn windows_over_beds_stay_on_their_cores() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let mut chance = 7_u64;
    let mut rows = |from: u64, to: u64| -> Vec<Observation> {
        let row = |n| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (time, bed) = (at(START) + Duration::from_millis(n * 150 + (chance >> 58)), format!("b{}", n % 7));
            observation("h1", &bed, "mat", "heart_rate", time, Some(f64::from_bits(chance >> 2)), "good")
        };
        (from..to).map(row).collect()
    };
    // A second run of the day after, which holds a few rows of each bed, and rows on their way.
    for (from, to) in [(0, 200_000), (400_000, 400_070)] {
        let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
        let commit = Commit { rows: vec![rows(from, to).into()], marks, ..Commit::default() };
        store.commit(&commit, at(START)).await.unwrap();
    }
    let lake = Lake::of(&store);
    let both = View::clone(&store.view());
    let one_run = |file: &Arc<DataFile>| file.rows.is_some_and(|rows| rows > 1_000);
    let first = both.observations.files.iter().filter(|file| one_run(file)).cloned().collect();
    let first = View { observations: TableView { files: first, ..both.observations.clone() }, ..both.clone() };
    let hot = TableView { hot: Arc::from([rows(500_000, 500_021).into()]), ..both.observations.clone() };
    let hot = View { observations: hot, ..both.clone() };
    for (view, n_gaps, is_merged) in [(first, 199_993, false), (both, 200_063, true), (hot, 200_084, true)] {
        let view = Arc::new(view);
        let sql = "SELECT bed_id, count(gap), sum(gap) FROM (SELECT bed_id, CAST(event_time AS bigint) - lag(CAST(event_time AS \
                   bigint)) OVER (PARTITION BY bed_id ORDER BY event_time) AS gap FROM observations WHERE quantity = 'heart_rate') \
                   GROUP BY bed_id";
        let (_, expected) = plan_and_rows(&lake, &view, 1, sql).await;
        assert_eq!(expected.len(), 8, "{expected:?}");
        let (plan, rows) = plan_and_rows(&lake, &view, 2, sql).await;
        assert_eq!(rows, expected, "{plan}");
        assert!(!plan.contains("RepartitionExec") && !plan.contains("SortExec") && plan.contains("Range("), "{plan}");
        assert_eq!(plan.contains("Merged: runs=[1, 1]"), !is_merged, "{plan}");
        let (_, counted) =
            plan_and_rows(&lake, &view, 2, &format!("SELECT sum(\"count(gap)\") AS n FROM ({sql})")).await;
        assert!(counted.iter().any(|row| row.contains(&format!(" {n_gaps} "))), "{counted:?}");
        // Both sides of a join are brought together all the same.
        let join = "SELECT a.bed_id, count(*) FROM (SELECT DISTINCT bed_id, value FROM observations) a JOIN \
                    (SELECT bed_id FROM observations GROUP BY bed_id) b ON a.bed_id = b.bed_id GROUP BY a.bed_id";
        let (_, expected) = plan_and_rows(&lake, &view, 1, join).await;
        let (plan, rows) = plan_and_rows(&lake, &view, 2, join).await;
        assert_eq!(rows, expected, "{plan}");
    }
}

/// Files that are divided within a bed still make one run: what reads them in order need not sort.
#[tokio::test]
async fn a_run_of_several_files_comes_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let mut chance = 7_u64;
    for file in 0..5_u64 {
        let row = |n: u64| {
            // Digits by chance, so that files are large enough for two cores.
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let value = f64::from_bits(chance >> 2);
            let time = at(START) + Duration::from_millis(n * 100);
            observation("h1", &format!("b{}", n / 60_000), "mat", "heart_rate", time, Some(value), "good")
        };
        let rows: Vec<Observation> = (file * 50_000..(file + 1) * 50_000).map(row).collect();
        let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
        store.commit(&Commit { rows: vec![rows.into()], marks, ..Commit::default() }, at(START)).await.unwrap();
    }
    let view = View::clone(&store.view());
    let mut files: Vec<DataFile> = view.observations.files.iter().map(|file| DataFile::clone(file)).collect();
    files.sort_by_key(|file| file.event_time);
    assert_eq!(files.len(), 5, "{files:?}");
    // As one run, as merging would have made it.
    let run = files[0].part.clone().unwrap().run;
    for (number, file) in files.iter_mut().enumerate() {
        file.part = Some(Part { run: Arc::clone(&run), number: number.try_into().unwrap(), revision: 0 });
    }
    let files = files.into_iter().map(Arc::new).collect();
    let view = Arc::new(View { observations: TableView { files, ..view.observations.clone() }, ..view });
    let lake = Lake::of(&store);
    for sql in [
        "SELECT bed_id, count(gap), sum(gap) FROM (SELECT bed_id, CAST(event_time AS bigint) - lag(CAST(event_time AS bigint)) OVER \
         (PARTITION BY bed_id ORDER BY event_time) AS gap FROM observations WHERE quantity = 'heart_rate') GROUP BY bed_id",
        "SELECT bed_id, quantity, date_trunc('hour', event_time) AS h, count(*), max(value) FROM observations GROUP BY 1, 2, 3",
    ] {
        let (_, expected) = plan_and_rows(&lake, &view, 1, sql).await;
        let (plan, rows) = plan_and_rows(&lake, &view, 2, sql).await;
        assert_eq!(rows, expected, "{plan}");
        assert!(!plan.contains("RepartitionExec") && !plan.contains("SortExec") && plan.contains("InOrder"), "{plan}");
    }
}

/// Grouping and windows that use the order say what those that sort for themselves say.
#[tokio::test]
async fn rows_in_order_are_grouped_and_looked_at_as_any_others() {
    let statements = [
        "SELECT bed_id, quantity, date_trunc('hour', event_time) AS h, avg(value), min(value), count(*) FROM {} GROUP BY 1, 2, 3",
        "SELECT bed_id, count(DISTINCT value), max(device_id), sum(value) FILTER (WHERE value > 100) FROM {} GROUP BY bed_id",
        "SELECT bed_id, quantity, first_value(value ORDER BY event_time DESC), median(value), bool_or(value > 230) FROM {} GROUP BY 1, 2",
        "SELECT bed_id, quantity, first_value(device_id ORDER BY event_time), last_value(value ORDER BY event_time), count(*) FROM {} \
         GROUP BY 1, 2",
        "SELECT bed_id, quantity, first_value(value ORDER BY event_time) FROM {} GROUP BY 1, 2",
        "SELECT bed_id, quantity, array_agg(value ORDER BY event_time) FILTER (WHERE value < 90) FROM {} GROUP BY 1, 2",
        "SELECT bed_id, quantity, event_time FROM {} GROUP BY 1, 2, 3",
        "SELECT bed_id, event_time, value, lag(value, 2, -1.0) OVER w, lead(value) OVER w, row_number() OVER w, rank() OVER w, \
         sum(value) OVER (PARTITION BY bed_id, quantity ORDER BY event_time ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING), \
         first_value(value) OVER w FROM {} WINDOW w AS (PARTITION BY bed_id, quantity ORDER BY event_time)",
        "SELECT bed_id, event_time, lag(value) OVER (PARTITION BY bed_id ORDER BY event_time) FROM {} WHERE quantity = 'heart_rate'",
    ];
    for (n_commits, merged, n_hot) in [(1, false, 0), (9, true, 0), (9, false, 90)] {
        let (_directory, lake, view) = lake(n_commits, merged, n_hot).await;
        for (batch_rows, partitions) in [(3, 2), (3, 1), (8_192, 2), (8_192, 1)] {
            let context = context(&lake, &view, Limits { partitions, ..Limits::default() }).unwrap();
            let unsorted = context.sql("SELECT * FROM observations ORDER BY value % 17, value").await.unwrap();
            let unsorted = unsorted.collect().await.unwrap();
            context.register_batch("unsorted", concat_batches(&unsorted[0].schema(), &unsorted).unwrap()).unwrap();
            context.sql(&format!("SET datafusion.execution.batch_size = {batch_rows}")).await.unwrap();
            for statement in statements {
                let answer = async |table: &str| {
                    let frame = context.sql(&statement.replace("{}", table)).await.unwrap();
                    let plan = displayable(frame.clone().create_physical_plan().await.unwrap().as_ref())
                        .indent(false)
                        .to_string();
                    let text = arrow::util::pretty::pretty_format_batches(&frame.collect().await.unwrap())
                        .unwrap()
                        .to_string();
                    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
                    // The first three lines name the columns, and the table with them.
                    let mut rows: Vec<_> = text.lines().skip(3).filter(|row| row.starts_with('|')).map(cells).collect();
                    rows.sort();
                    (plan, rows)
                };
                let ((plan, rows), (_, expected)) = (answer("observations").await, answer("unsorted").await);
                assert!(plan.contains("InOrder") && rows.len() >= 3, "{plan}");
                assert_eq!(
                    rows, expected,
                    "{n_commits} {merged} {n_hot} {batch_rows} {partitions}: {statement}\n{plan}"
                );
            }
        }
    }
}

/// What the files gave.
fn rows_read(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let of_children: usize = plan.children().into_iter().map(rows_read).sum();
    let is_of_files = displayable(plan.as_ref()).one_line().to_string().contains("file_type=parquet");
    of_children + plan.metrics().filter(|_| is_of_files).and_then(|metrics| metrics.output_rows()).unwrap_or(0)
}

#[tokio::test]
async fn who_asks_for_the_newest_rows_reads_no_others() {
    let (_directory, lake, view) = lake(9, true, 0).await;
    let per_bed = |what: &str| format!("SELECT bed_id, {what} FROM observations GROUP BY bed_id");
    for (sql, n_read) in [
        // Six beds with a quantity each, three days.
        (per_bed("max(event_time)"), 6),
        (per_bed("last_value(value ORDER BY event_time)"), 6),
        ("SELECT DISTINCT ON (bed_id) bed_id, value FROM observations ORDER BY bed_id, event_time DESC".to_owned(), 6),
        ("SELECT bed_id, value FROM (SELECT *, row_number() OVER (PARTITION BY bed_id, quantity ORDER BY event_time DESC) AS n
            FROM observations WHERE event_time >= '2026-05-02T12:00:00Z') WHERE n = 1".to_owned(), 6),
        // An earlier row may be the newest of those that count.
        (per_bed("min(event_time)"), 240),
        (per_bed("max(event_time) FILTER (WHERE value <> 7)"), 240),
        (per_bed("last_value(value ORDER BY event_time, quantity)"), 240),
        ("SELECT bed_id, max(event_time) FROM observations WHERE event_time < '2026-06-01T00:00:00Z' GROUP BY bed_id".to_owned(), 240),
        ("SELECT home_id, max(event_time) FROM observations GROUP BY home_id".to_owned(), 240),
    ] {
        for partitions in [1, 3] {
            let context = context(&lake, &view, Limits { partitions, ..Limits::default() }).unwrap();
            let frame = context.sql(&sql).await.unwrap();
            let plan = frame.clone().create_physical_plan().await.unwrap();
            collect(Arc::clone(&plan), Arc::new(frame.task_ctx())).await.unwrap();
            let shown = displayable(plan.as_ref()).indent(false).to_string();
            assert_eq!(rows_read(&plan), n_read, "{sql}\n{shown}");
        }
    }
    assert_eq!(lake.ends.files(), view.observations.files.len());
}
