use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray, new_null_array};
use arrow::compute::cast;
use carebed_contract::clock::{Clock as _, SystemClock};
use carebed_contract::interval::{Interval, IntervalKind};
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_pipeline::memory::Rows;
use carebed_pipeline::store::{Commit, Config, Store};
use carebed_pipeline::view::{Complete, TableView, View};

use super::*;
use crate::engine::Engine;
use crate::episodes::Definitions;
use crate::history::{self, Span};
use crate::home::HomeFacts;
use crate::live::Live;

use crate::common::observation;

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// Two homes over three days of May, 10 observations a day and home.
fn rows() -> Vec<Observation> {
    let mut rows = Vec::new();
    for (home, bed) in [("h1", "b1"), ("h2", "b2")] {
        for day in 0..3 {
            for n in 0..10u32 {
                let time = at("2026-05-01T12:00:00Z") + Duration::from_secs(86_400 * day + 3_600 * u64::from(n));
                rows.push(observation(home, bed, "mat", "heart_rate", time, Some(f64::from(60 + n)), "good"));
            }
        }
    }
    rows
}

/// A lake with everything but the last `n_hot` rows committed, and these still on their way.
async fn lake(n_hot: usize) -> (tempfile::TempDir, Lake, Arc<View>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let rows = rows();
    let (cold, hot) = rows.split_at(rows.len() - n_hot);
    for part in cold.chunks(15) {
        let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
        let commit = Commit { rows: vec![part.to_vec().into()], marks, ..Commit::default() };
        store.commit(&commit, at("2026-06-01T00:00:00Z")).await.unwrap();
    }
    let mut view = View::clone(&store.view());
    if n_hot > 0 {
        view.observations = TableView { hot: Arc::from([hot.to_vec().into()]), ..view.observations };
    }
    (directory, Lake::of(&store), Arc::new(view))
}

fn homes() -> Vec<HomeFacts> {
    ["h1", "h2"].map(|h| HomeFacts::unregistered(h.parse().unwrap(), "area-1".parse().unwrap())).to_vec()
}

async fn session(lake: &Lake, view: &Arc<View>, rows_max: usize) -> SqlSession {
    let snapshot = Snapshot::new(lake, Arc::clone(view), &homes());
    SqlSession::open(snapshot, Limits::default(), rows_max).await.unwrap()
}

async fn text(session: &SqlSession, sql: &str) -> String {
    let answer = session.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut written = Vec::new();
    write(&answer, Format::Csv, &mut written).unwrap();
    String::from_utf8(written).unwrap()
}

#[tokio::test]
async fn files_and_rows_on_their_way_are_one_table() {
    for n_hot in [0, 7, 60] {
        let (_directory, lake, view) = lake(n_hot).await;
        let session = session(&lake, &view, 1_000).await;
        for (sql, expected) in [
            ("SELECT count(*) AS n, count(DISTINCT event_time) AS t FROM observations", "n,t\n60,30\n"),
            ("SELECT count(*) AS n FROM observations WHERE home_id = 'h2'", "n\n30\n"),
            ("SELECT count(*) AS n FROM observations WHERE bed_id IS NULL", "n\n0\n"),
            ("SELECT count(*) AS n FROM observations WHERE event_day = DATE '2026-05-02'", "n\n20\n"),
            ("SELECT count(*) AS n FROM observations WHERE event_time >= '2026-05-03T20:00:00Z'", "n\n4\n"),
            ("SELECT home_id, value FROM latest ORDER BY home_id", "home_id,value\nh1,69.0\nh2,69.0\n"),
            // 16:00 UTC begins a day in Shanghai: four before, six after.
            (
                "SELECT local_day, observations FROM daily_counts WHERE home_id = 'h1' ORDER BY 1",
                "local_day,observations\n2026-05-01,4\n2026-05-02,10\n2026-05-03,10\n2026-05-04,6\n",
            ),
            ("SELECT count(*) AS n FROM gaps", "n\n0\n"),
            ("SELECT count(*) AS n FROM episodes", "n\n0\n"),
            ("SELECT home_id FROM homes ORDER BY 1", "home_id\nh1\nh2\n"),
        ] {
            assert_eq!(text(&session, sql).await, expected, "{sql} with {n_hot} rows on their way");
        }
    }
}

#[tokio::test]
async fn filters_leave_files_out() {
    let (_directory, lake, view) = lake(0).await;
    let session = session(&lake, &view, 1_000).await;
    let files = view.observations.files.len();
    assert!(files > 5, "{files}");
    for (filter, left) in [
        // The plan names no more than five.
        ("TRUE", 5),
        ("event_day = DATE '2026-05-09'", 0),
        ("event_time < '2026-05-01T00:00:00Z'", 0),
        ("home_id = 'h9'", 0),
        ("bed_id = 'a'", 0),
    ] {
        let plan =
            text(&session, &format!("EXPLAIN FORMAT INDENT SELECT value FROM observations WHERE {filter}")).await;
        assert_eq!(plan.matches(".parquet").count(), left, "{filter}: {plan}");
    }
    let day =
        text(&session, "EXPLAIN FORMAT INDENT SELECT value FROM observations WHERE event_day = DATE '2026-05-01'")
            .await;
    assert!(day.contains("2026-05-01/") && !day.contains("2026-05-02/") && !day.contains("2026-05-03/"), "{day}");
}

#[tokio::test]
async fn only_reading_is_let_through() {
    let (_directory, lake, view) = lake(0).await;
    let session = session(&lake, &view, 1_000).await;
    for sql in [
        "DROP TABLE observations",
        "INSERT INTO observations SELECT * FROM observations",
        "CREATE TABLE x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "COPY observations TO 'x.csv'",
        "EXPLAIN ANALYZE INSERT INTO observations SELECT * FROM observations",
        "SET datafusion.execution.target_partitions = 64",
        "DELETE FROM observations",
        "SELECT 1; SELECT 2",
        "SELECT sum(value) OVER (w ROWS 1 PRECEDING) FROM observations WINDOW w AS (ORDER BY event_time)",
    ] {
        assert!(session.run(sql).await.is_err(), "{sql} was run");
    }
    let error = session.run("DROP TABLE observations").await.unwrap_err();
    assert!(error.to_string().contains("DROP TABLE"), "{error}");
    let error = session.run("SELECT nothing FROM observations").await.unwrap_err();
    assert!(error.to_string().contains("nothing"), "{error}");
    assert!(session.run("SELECT * FROM '/etc/passwd'").await.is_err());
    for sql in ["SHOW TABLES", "DESCRIBE observations", "EXPLAIN SELECT 1", "WITH x AS (SELECT 1 AS a) SELECT * FROM x"]
    {
        assert!(session.run(sql).await.unwrap().rows() > 0, "{sql}");
    }
}

#[tokio::test]
async fn an_answer_has_a_limit_in_rows_memory_and_time() {
    let (_directory, lake, view) = lake(0).await;
    let answer = session(&lake, &view, 25).await.run("SELECT * FROM observations").await.unwrap();
    assert_eq!((answer.rows(), answer.cut), (25, true));
    let answer = session(&lake, &view, 60).await.run("SELECT * FROM observations").await.unwrap();
    assert_eq!((answer.rows(), answer.cut), (60, false));

    let endless = "SELECT count(*) FROM generate_series(1, 100000000000) a";
    let limits = Limits { time: Duration::from_millis(200), ..Limits::default() };
    let quick = SqlSession::open(Snapshot::new(&lake, Arc::clone(&view), &[]), limits, 10).await.unwrap();
    assert!(matches!(quick.run(endless).await, Err(SqlError::Time(_))));
    assert!(quick.run("SELECT 1").await.is_ok(), "the session goes on");

    let limits = Limits { memory_bytes: 1_000_000, ..Limits::default() };
    let small = SqlSession::open(Snapshot::new(&lake, Arc::clone(&view), &[]), limits, 10).await.unwrap();
    let hungry = "SELECT array_agg(a.value) FROM generate_series(1, 1000000) a";
    assert!(matches!(small.run(hungry).await, Err(SqlError::Failed { .. })));
}

#[tokio::test]
async fn answers_are_written_for_people_and_programs() {
    let (_directory, lake, view) = lake(0).await;
    let session = session(&lake, &view, 100).await;
    let answer = session.run("SELECT 1 AS a, NULL::text AS b, TIMESTAMP '2026-05-01T00:00:00Z' AS t").await.unwrap();
    let written = |format| {
        let mut bytes = Vec::new();
        write(&answer, format, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert!(written(Format::Table).contains("| a | b |"));
    assert_eq!(written(Format::Csv), "a,b,t\n1,,2026-05-01T00:00:00\n");
    assert_eq!(written(Format::Json), "[{\"a\":1,\"b\":null,\"t\":\"2026-05-01T00:00:00\"}]\n");
    assert_eq!(written(Format::Jsonl), "{\"a\":1,\"b\":null,\"t\":\"2026-05-01T00:00:00\"}\n");
    let nothing = session.run("SELECT 1 AS a WHERE FALSE").await.unwrap();
    let mut bytes = Vec::new();
    write(&nothing, Format::Csv, &mut bytes).unwrap();
    write(&nothing, Format::Json, &mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), "a\n[]\n");
}

#[tokio::test]
async fn a_backtest_finds_what_live_would_have() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let on = |time: &str, value| observation("h1", "b1", "mat", "bed_occupancy", at(time), Some(value), "good");
    let seen = |time: &str| observation("h1", "-", "pir", "motion_event", at(time), Some(1.0), "good");
    let rows = vec![
        on("2026-05-01T14:00:00Z", 1.0),
        on("2026-05-01T17:00:00Z", 0.0),
        seen("2026-05-01T17:01:00Z"),
        observation("h1", "b1", "cord", "call_event", at("2026-05-01T17:20:00Z"), Some(1.0), "good"),
        on("2026-05-01T18:00:00Z", 1.0),
        on("2026-05-01T22:00:00Z", 0.0),
        seen("2026-05-02T12:00:00Z"),
    ];
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![rows.into()], marks, ..Commit::default() };
    store.commit(&commit, at("2026-06-01T00:00:00Z")).await.unwrap();
    let (lake, view) = (Lake::of(&store), store.view());

    let engine = Arc::new(Engine::new(Limits::default()).unwrap());
    let (mut detections, _) = engine.builtin().await;
    let few = ["bed_exit_no_return", "call_for_help", "inactivity_cap"];
    detections.retain(|detection| few.contains(&detection.name.as_str()));
    let span = history::extent(&lake, &view, Limits::default()).await.unwrap().unwrap();
    assert_eq!((span.from, span.to), (at("2026-05-01T14:00:00Z"), at("2026-05-02T12:00:00.001Z")));
    let found = |span| {
        let (engine, lake, view, detections) = (&engine, &lake, &view, &detections);
        async move {
            let round = history::backtest(engine, lake, view, span, &homes(), detections, &[]).await.unwrap().round;
            assert!(round.failed.is_empty(), "{:?}", round.failed);
            let mut lines: Vec<_> =
                round.findings.iter().map(|f| format!("{} {} {}", f.detection, f.subject, f.raised_at)).collect();
            lines.sort();
            lines
        }
    };
    let all = [
        "bed_exit_no_return bed/b1 2026-05-01T17:30:00.000Z",
        "call_for_help bed/b1 2026-05-01T17:20:00.000Z",
        "inactivity_cap home/h1 2026-05-02T10:00:00.000Z",
    ];
    assert_eq!(found(span).await, all);
    // A part of the span sees what began before it.
    let part = Span { from: at("2026-05-01T17:25:00Z"), to: at("2026-05-02T00:00:00Z") };
    assert_eq!(found(part).await, all[..1]);
}

#[tokio::test]
async fn a_restart_remembers_who_was_in_bed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let on = |time: &str, value| observation("h1", "b1", "mat", "bed_occupancy", at(time), Some(value), "good");
    let rows = Rows::from(vec![
        on("2026-05-01T14:00:00Z", 1.0),
        observation("h1", "b1", "cord", "call_event", at("2026-05-01T14:30:00Z"), Some(1.0), "good"),
        on("2026-05-01T15:00:00Z", 1.0),
    ]);
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![rows.clone()], marks, ..Commit::default() };
    store.commit(&commit, at("2026-06-01T00:00:00Z")).await.unwrap();

    let engine = Arc::new(Engine::new(Limits::default()).unwrap());
    let (detections, _) = engine.builtin().await;
    let definitions = Arc::new(Definitions::builtin().unwrap());
    let mut live = Live::new(engine, detections, Arc::clone(&definitions));
    homes().into_iter().for_each(|facts| live.set_home(facts));
    let all = Span { from: Timestamp::MIN, to: Timestamp::MAX };
    let view = store.view();
    let before =
        history::episodes(&Lake::of(&store), &view, all, &homes(), definitions, Limits::default()).await.unwrap();
    live.resume(before);

    // The same rows once more, then the exit.
    live.feed(&rows.iter().collect::<Vec<_>>());
    live.feed(&[on("2026-05-01T17:00:00Z", 0.0)]);
    let now = at("2026-05-01T17:50:00Z");
    live.advance(&"h1".parse().unwrap(), now);
    let found: Vec<_> =
        live.tick(now).await.findings.iter().map(|f| format!("{} {}", f.detection, f.raised_at)).collect();
    assert_eq!(found, ["bed_exit_no_return 2026-05-01T17:45:00.000Z", "call_for_help 2026-05-01T14:30:00.000Z"]);
}

#[tokio::test]
async fn every_view_and_report_runs() {
    let (_directory, lake, view) = lake(7).await;
    let session = session(&lake, &view, 1_000).await;
    for view in views() {
        session.run(&format!("SELECT * FROM {}", view.name)).await.unwrap_or_else(|e| panic!("{}: {e}", view.name));
    }
    let values = [("from", "2026-05-01"), ("to", "2026-06-01"), ("days", "31"), ("bed", "b1"), ("digits", "6")];
    for report in reports() {
        let value = |name: &str| values.iter().find(|(known, _)| *known == name).unwrap().1.to_owned();
        let values: Vec<_> = report.parameters.iter().map(|(name, _)| (name.clone(), value(name))).collect();
        session.run_with(&report.sql, &values).await.unwrap_or_else(|e| panic!("{}: {e}", report.name));
    }
    let without = session.run("SELECT $bed").await;
    assert!(matches!(without, Err(SqlError::Failed { .. })), "{without:?}");
    assert_eq!(
        text(&session, "SELECT home_id, n_minutes FROM nightly_vitals ORDER BY 1, night LIMIT 1").await,
        "home_id,n_minutes\nh1,10\n"
    );
}

#[tokio::test]
async fn every_table_and_column_is_explained_in_both_languages() {
    let (_directory, lake, view) = lake(0).await;
    let session = session(&lake, &view, 10_000).await;
    let missing = "SELECT table_name, column_name FROM dictionary WHERE zh = '' OR en = '' ORDER BY 1, 2";
    assert_eq!(text(&session, missing).await, "table_name,column_name\n");
    let unnamed = "SELECT c.table_name, c.column_name FROM information_schema.columns c
        LEFT JOIN dictionary d ON d.table_name = c.table_name AND d.column_name = c.column_name
        WHERE c.table_schema = 'public' AND d.en IS NULL";
    assert_eq!(text(&session, unnamed).await, "table_name,column_name\n");

    // The page for people is the same.
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/DICTIONARY.md");
    let rows = session
        .run("SELECT table_name, column_name, zh, en FROM dictionary ORDER BY table_name, column_name NULLS FIRST")
        .await
        .unwrap();
    let mut written = String::from(
        "# Data dictionary\n\nWritten by `CAREBED_BLESS=1 cargo test -p carebed-queries dictionary`; a test holds that it is current. 数据字典，由程序生成。\n",
    );
    for batch in &rows.batches {
        let column = |n: usize| batch.column(n).as_any().downcast_ref::<arrow::array::StringArray>().unwrap().clone();
        let [table, name, zh, en] = [0, 1, 2, 3].map(column);
        for row in 0..batch.num_rows() {
            use std::fmt::Write as _;

            use arrow::array::Array as _;
            let (zh, en) = (zh.value(row), en.value(row));
            if name.is_null(row) {
                writeln!(
                    written,
                    "\n## {}\n\n{zh}\n{en}\n\n| column | 含义 | meaning |\n|---|---|---|",
                    table.value(row)
                )
                .unwrap();
            } else {
                writeln!(written, "| `{}` | {zh} | {en} |", name.value(row)).unwrap();
            }
        }
    }
    if std::env::var_os("CAREBED_BLESS").is_some() {
        std::fs::write(page, &written).unwrap();
    }
    assert_eq!(std::fs::read_to_string(page).unwrap_or_default(), written, "bless it: CAREBED_BLESS=1");
}

#[tokio::test]
async fn a_button_that_hangs_is_no_new_call_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let button = |time: &str, value| observation("h1", "b1", "button", "call_button", at(time), Some(value), "good");
    let rows = Rows::from(vec![
        button("2026-05-01T10:00:00Z", 1.0),
        button("2026-05-01T10:01:00Z", 0.0),
        button("2026-05-02T14:00:00Z", 1.0),
        button("2026-05-02T15:00:00Z", 1.0),
        button("2026-05-09T14:00:00Z", 1.0),
        button("2026-05-10T14:00:00Z", 1.0),
    ]);
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![rows], marks, ..Commit::default() };
    store.commit(&commit, at("2026-06-01T00:00:00Z")).await.unwrap();
    let span = Span { from: at("2026-05-07T00:00:00Z"), to: Timestamp::MAX };
    let definitions = Arc::new(Definitions::builtin().unwrap());
    let (lake, view) = (Lake::of(&store), store.view());
    let mut episodes = history::episodes(&lake, &view, span, &homes(), definitions, Limits::default()).await.unwrap();
    let calls: Vec<_> = episodes.all().into_iter().filter(|e| &*e.kind == "call").collect();
    let told: Vec<_> = calls.iter().map(|call| (call.started_at, call.ended_at)).collect();
    assert_eq!(told, [(at("2026-05-02T14:00:00Z"), None)]);
}

/// What `latest` must say, from all rows.
const LAST: &str = "SELECT home_id, bed_id, device_id, quantity, event_time, value FROM \
    (SELECT *, row_number() OVER (PARTITION BY home_id, bed_id, device_id, quantity ORDER BY event_time DESC, received_time DESC) AS n \
    FROM observations) WHERE n = 1 ORDER BY 1, 2, 3, 4";
const LATEST_SAYS: &str =
    "SELECT home_id, bed_id, device_id, quantity, event_time, value FROM latest ORDER BY 1, 2, 3, 4";

#[tokio::test]
async fn the_last_values_are_remembered_through_commits_merges_and_erasures() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let (lake, latest) = (Lake::of(&store), Arc::<Latest>::default());
    let check = async |view: Arc<View>, n: usize, what: &str| {
        let snapshot = Snapshot::new(&lake, view, &homes()).with_latest(&latest);
        let session = SqlSession::open(snapshot, Limits::default(), 1_000).await.unwrap();
        let told = text(&session, LATEST_SAYS).await;
        assert_eq!(told, text(&session, LAST).await, "{what}");
        assert_eq!(told.lines().count(), n + 1, "{what}");
    };
    let row = |home: &str, bed: &str, quantity: &str, minute: u64, value: f64| {
        let time = at("2026-05-01T23:50:00Z") + Duration::from_secs(60 * minute);
        observation(home, bed, "mat", quantity, time, Some(value), "good")
    };
    let commit = async |rows: Vec<Observation>| {
        let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
        let commit = Commit { rows: vec![rows.into()], marks, ..Commit::default() };
        store.commit(&commit, at("2026-06-01T00:00:00Z")).await.unwrap();
    };
    let hot = |rows: Vec<Observation>| {
        let mut view = View::clone(&store.view());
        // Every view of a store has a number of its own.
        view.version += 1_000 + rows.len() as u64;
        view.observations = TableView { hot: Arc::from([rows.into()]), ..view.observations };
        Arc::new(view)
    };
    check(store.view(), 0, "nothing there").await;
    for minute in 0..20 {
        let of = |home: &str, bed: &str| row(home, bed, "heart_rate", minute, 60.0 + minute as f64);
        commit(vec![of("h1", "b1"), of("h2", "b2"), of("h2", "b3")]).await;
        check(store.view(), 3, &format!("commit {minute}")).await;
    }
    commit(vec![row("h1", "b1", "heart_rate", 3, 1.0), row("h1", "b1", "battery", 2, 90.0)]).await;
    check(store.view(), 4, "a late row, and a new series in the past").await;
    check(hot(vec![row("h1", "b1", "heart_rate", 30, 99.0), row("h3", "b9", "heart_rate", 1, 5.0)]), 5, "on its way")
        .await;
    check(hot(vec![row("h1", "b1", "heart_rate", 1, 99.0)]), 4, "late and on its way").await;
    check(store.view(), 4, "what was on its way is taken back").await;
    while store.compact(at("2026-06-05T00:00:00Z")).await.unwrap().is_some() {}
    check(store.view(), 4, "merged").await;
    let now = at("2026-06-05T00:00:00Z");
    let erasure = carebed_pipeline::store::Erasure {
        id: "e1".to_owned(),
        home: "h2".parse().unwrap(),
        bed: None,
        from: Some(at("2026-05-02T00:00:00Z")),
        until: now,
        received_before: None,
        asked_at: now,
    };
    store.erase(&erasure, Duration::ZERO, now).await.unwrap();
    check(store.view(), 4, "the newest of a home erased, the older are left").await;
    store
        .erase(&carebed_pipeline::store::Erasure { id: "e2".to_owned(), from: None, ..erasure }, Duration::ZERO, now)
        .await
        .unwrap();
    check(store.view(), 2, "a home erased").await;
    let ahead = at("2030-01-01T00:00:00Z");
    commit(vec![observation("h7", "b7", "mat", "heart_rate", ahead, Some(61.0), "good")]).await;
    check(store.view(), 3, "one whose clock is years ahead makes no other old").await;
}

/// Ten days of one bed with stretches of all lengths: a statement that asks from a day on reads less, and is told the same.
#[tokio::test]
async fn episodes_from_a_day_on_are_those_that_all_of_the_lake_tells() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let begin = at("2026-05-01T12:00:00Z");
    let mut rows = Vec::new();
    for minute in (0..10 * 24 * 60_u64).step_by(20) {
        let time = begin + Duration::from_secs(60 * minute);
        // Away from bed for ever longer, and once silent for two days.
        let lies = (minute / 20).is_multiple_of(1 + minute / 1_440);
        if !(6_000..9_000).contains(&minute) {
            let value = Some(f64::from(u8::from(lies)));
            rows.push(observation("h1", "b1", "mat", "bed_occupancy", time, value, "good"));
        }
    }
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![Rows::from(rows)], marks, ..Commit::default() };
    store.commit(&commit, at("2026-06-01T00:00:00Z")).await.unwrap();
    let session = session(&Lake::of(&store), &store.view(), 10_000).await;
    for day in 2..11 {
        let bound = format!("'2026-05-{day:02}T00:00:00Z'");
        let told = async |condition: String| {
            let columns = "kind, bed_id, started_at, start_known_at, ended_at, end_known_at";
            text(&session, &format!("SELECT {columns} FROM episodes WHERE {condition} ORDER BY 1, 2, 3")).await
        };
        // A condition that is no bound: all is read.
        let all = told(format!("plus_minutes(started_at, 0.0) >= {bound}")).await;
        assert_eq!(told(format!("started_at >= {bound}")).await, all, "{bound}");
        assert!(all.lines().count() > 3, "{bound}: {all}");
    }
}

/// The memory of live detection, for a test: it knows what began since a time, and counts who asks.
#[derive(Debug)]
struct Memory(Timestamp, std::sync::Mutex<(Live, usize)>);

#[async_trait::async_trait]
impl Recent for Memory {
    async fn of(&self, homes: Vec<carebed_contract::id::HomeId>) -> Option<(Timestamp, Vec<crate::episodes::Episode>)> {
        let mut inner = self.1.lock().unwrap();
        inner.1 += 1;
        let episodes = homes.iter().flat_map(|home| inner.0.episodes().of(home)).collect();
        Some((self.0, episodes))
    }
}

#[tokio::test]
async fn recent_episodes_come_from_memory_and_older_ones_from_the_lake() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let mut rows = Vec::new();
    for (home, bed) in [("h1", "b1"), ("h2", "b2")] {
        for hour in 0..48_u64 {
            let time = at("2026-05-01T12:00:00Z") + Duration::from_secs(3_600 * hour);
            rows.push(observation(home, bed, "mat", "bed_occupancy", time, Some((hour % 2) as f64), "good"));
        }
    }
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![Rows::from(rows.clone())], marks, ..Commit::default() };
    store.commit(&commit, at("2026-06-01T00:00:00Z")).await.unwrap();
    let engine = Arc::new(Engine::new(Limits::default()).unwrap());
    let mut live = Live::new(engine, Vec::new(), Arc::new(Definitions::builtin().unwrap()));
    live.feed(&rows);
    let last = rows.last().unwrap().event_time;
    ["h1", "h2"].iter().for_each(|home| live.advance(&home.parse().unwrap(), last));
    let since = at("2026-05-02T12:00:00Z");
    let memory = Arc::new(Memory(since, std::sync::Mutex::new((live, 0))));
    let recent: Arc<dyn Recent> = Arc::<Memory>::clone(&memory);
    let lake = Lake::of(&store);
    let with = Snapshot::new(&lake, store.view(), &homes()).with_recent(&recent);
    let with = SqlSession::open(with, Limits::default(), 1_000).await.unwrap();
    let without = session(&lake, &store.view(), 1_000).await;
    for (filter, asked) in [
        ("started_at >= '2026-05-02T12:00:00Z'", 1),
        ("started_at > TIMESTAMP '2026-05-02T20:00:00Z' AND home_id = 'h1' AND kind = 'in_bed'", 1),
        ("'2026-05-02T20:00:00Z' <= started_at AND ended_at IS NOT NULL", 1),
        ("started_at >= CAST('2026-05-02T20:00:00.5Z' AS TIMESTAMP)", 1),
        // Older than what is in memory, or without a beginning: from the lake.
        ("started_at >= '2026-05-02T11:00:00Z'", 1),
        ("started_at < '2026-05-02T20:00:00Z'", 0),
        ("started_at >= '2026-05-02T20:00:00Z' OR home_id = 'h1'", 0),
        ("TRUE", 0),
    ] {
        let sql =
            format!("SELECT home_id, kind, started_at, ended_at FROM episodes WHERE {filter} ORDER BY 1, 2, 3, 4");
        memory.1.lock().unwrap().1 = 0;
        let (told, expected) = (text(&with, &sql).await, text(&without, &sql).await);
        // How far the homes are known differs: the one counts to the last row, the other to what was said.
        let ended =
            |text: &str| text.lines().filter(|line| !line.ends_with(',')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(ended(&told), ended(&expected), "{filter}");
        assert!(ended(&told).len() > 2, "{filter}: {told}");
        assert_eq!(memory.1.lock().unwrap().1, asked, "{filter}: how often memory was asked");
    }
}

/// A home that moved: each visit belongs to the area in which the home was then, before anything is known to the one it is in now.
#[tokio::test]
async fn a_visit_belongs_to_where_the_home_was() {
    let (_directory, lake, view) = lake(0).await;
    let visit = |day: u32| Interval {
        bed: None,
        kind: IntervalKind::Visit,
        started_at: at(&format!("2026-05-{day:02}T10:00:00Z")),
        ended_at: at(&format!("2026-05-{day:02}T11:00:00Z")),
        entered_at: at(&format!("2026-05-{day:02}T12:00:00Z")),
    };
    let home = HomeFacts {
        intervals: [1, 3, 10, 20].map(visit).to_vec(),
        ..HomeFacts::unregistered("h1".parse().unwrap(), "new".parse().unwrap())
    };
    let schema = facts::registrations();
    let day = |day: u32| at(&format!("2026-05-{day:02}T10:00:00Z")).millis();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "kind" => Arc::new(StringArray::from(vec!["home"; 2])),
            "id" | "home_id" => Arc::new(StringArray::from(vec!["h1"; 2])),
            "area" => Arc::new(StringArray::from(vec!["old", "new"])),
            "valid_from" => cast(&Int64Array::from(vec![day(2), day(10)]), field.data_type()).unwrap(),
            "valid_to" => cast(&Int64Array::from(vec![Some(day(10)), None]), field.data_type()).unwrap(),
            _ => new_null_array(field.data_type(), 2),
        }
    });
    let registrations = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
    let snapshot = Snapshot::new(&lake, view, &[home]).with_tables([("registrations", registrations)]);
    let session = SqlSession::open(snapshot, Limits::default(), 100).await.unwrap();
    assert_eq!(
        text(&session, "SELECT date_part('day', started_at) AS d, area FROM visits ORDER BY 1").await,
        "d,area\n1,new\n3,old\n10,new\n20,new\n"
    );
}

/// A gateway that is switched off says of none of its devices that it does not answer: fifty minutes of data, then nothing.
#[tokio::test]
async fn a_home_that_is_not_heard_is_no_uptime() {
    let (_directory, lake, view) = lake(0).await;
    let minutes = |n: u32| Duration::from_secs(60) * n;
    for (unheard, said) in [(2, "false,0,100"), (50, "true,50,50")] {
        let last = SystemClock::new().now() - minutes(unheard);
        let of = |n| observation("h9", "b9", "mat", "heart_rate", last - minutes(n), Some(60.0), "good");
        let hot: Vec<_> = (0..=50).rev().map(of).collect();
        let complete = [("h9".parse().unwrap(), Complete { complete_to: last, received: last })];
        let view = View {
            observations: TableView { hot: Arc::from([hot.into()]), ..view.observations.clone() },
            complete: Arc::new(complete.into_iter().collect()),
            ..View::clone(&view)
        };
        let home = HomeFacts::unregistered("h9".parse().unwrap(), "area-1".parse().unwrap());
        let snapshot = Snapshot::new(&lake, Arc::new(view), &[home]);
        let session = SqlSession::open(snapshot, Limits::default(), 10).await.unwrap();
        let asked = "SELECT silent_now, CAST(round(minutes_unheard) AS int) AS unheard,
            CAST(round(100 * uptime_share) AS int) AS uptime FROM device_health WHERE home_id = 'h9'";
        assert_eq!(text(&session, asked).await, format!("silent_now,unheard,uptime\n{said}\n"));
    }
}
