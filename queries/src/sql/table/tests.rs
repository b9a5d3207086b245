//! The table over real files: declared order, what is left out, and the same rows whatever is committed or on its way.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_pipeline::store::{Commit, Config, Store};
use carebed_pipeline::view::{TableView, View};
use datafusion::physical_plan::displayable;

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
        view.observations = TableView { hot: Arc::from([one.to_vec().into(), other.to_vec().into()]), ..view.observations };
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
async fn windows_over_the_beds_of_one_run_stay_on_their_cores() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let mut chance = 7_u64;
    let rows = (0..200_000_u64).map(|n| {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (time, bed) = (at(START) + Duration::from_millis(n * 150 + (chance >> 58)), format!("b{}", n % 7));
        observation("h1", &bed, "mat", "heart_rate", time, Some(f64::from_bits(chance >> 2)), "good")
    });
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![rows.collect::<Vec<_>>().into()], marks, ..Commit::default() };
    store.commit(&commit, at(START)).await.unwrap();
    let (lake, view) = (Lake::of(&store), store.view());
    let sql = "SELECT bed_id, count(*), sum(gap) FROM (SELECT bed_id, CAST(event_time AS bigint) - lag(CAST(event_time AS bigint)) \
               OVER (PARTITION BY bed_id ORDER BY event_time) AS gap FROM observations WHERE quantity = 'heart_rate') GROUP BY bed_id";
    let (_, expected) = plan_and_rows(&lake, &view, 1, sql).await;
    assert_eq!(expected.len(), 8, "{expected:?}");
    let (plan, rows) = plan_and_rows(&lake, &view, 2, sql).await;
    assert_eq!(rows, expected, "{plan}");
    assert!(!plan.contains("RepartitionExec") && !plan.contains("SortExec") && plan.contains("Range("), "{plan}");
    // Both sides of a join are brought together all the same.
    let join = "SELECT a.bed_id, count(*) FROM (SELECT DISTINCT bed_id, value FROM observations) a JOIN \
                (SELECT bed_id FROM observations GROUP BY bed_id) b ON a.bed_id = b.bed_id GROUP BY a.bed_id";
    let (_, expected) = plan_and_rows(&lake, &view, 1, join).await;
    let (plan, rows) = plan_and_rows(&lake, &view, 2, join).await;
    assert_eq!(rows, expected, "{plan}");
}
