//! Whatever is asked, and however rows lie in files: the answer is the one that DataFusion gives by itself over the same rows in
//! memory, on one core and on many.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_pipeline::hot::Hot;
use carebed_pipeline::schema::EVENT_DAY;
use carebed_pipeline::store::{Commit, Config, Part, Store};
use carebed_pipeline::view::{DataFile, TableView, View};
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::SessionContext;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::groups::PIECE_MIN_HERE;
use crate::common::observation;
use crate::engine::Limits;
use crate::sql::{Lake, context};

const START: &str = "2026-05-01T00:00:00Z";
const DAY_MS: u64 = 86_400_000;
/// Lakes, and statements over each; `CAREBED_CASES` makes as many more lakes.
const LAKES: u64 = 4;
const STATEMENTS: usize = 16;

fn one_of<'a>(chance: &mut StdRng, words: &[&'a str]) -> &'a str {
    words[chance.random_range(0..words.len())]
}

fn some_of<'a>(chance: &mut StdRng, words: &[&'a str], share: f64) -> Vec<&'a str> {
    words.iter().copied().filter(|_| chance.random_bool(share)).collect()
}

/// Rows of one day, of beds and of none; each at an instant of its own, with whole numbers, so that sums are exact.
fn rows(chance: &mut StdRng, made: &mut u64, n_rows: usize) -> Vec<Observation> {
    let day = chance.random_range(0..3_u64);
    let row = |_| {
        *made += 1;
        let time = Timestamp::parse(START).unwrap() + Duration::from_millis(day * DAY_MS + *made * 97_003 % DAY_MS);
        let bed = chance.random_range(0..7_u32);
        let bed_id = if bed == 6 { "NULL".to_owned() } else { format!("b{bed}") };
        let quantity = one_of(chance, &["heart_rate", "respiratory_rate", "bed_occupancy"]);
        let value = chance.random_bool(0.9).then(|| f64::from(chance.random_range(0..100_u32)));
        let row = observation(&format!("h{}", bed / 2), &bed_id, "mat", quantity, time, value, "good");
        Observation { area: format!("area-{}", bed % 2).parse().unwrap(), ..row }
    };
    (0..n_rows).map(row).collect()
}

/// Runs of one file or several, cut anywhere, some of no program of ours, and rows on their way; and all rows as one batch.
async fn lake(chance: &mut StdRng) -> (tempfile::TempDir, Lake, Arc<View>, RecordBatch) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let (mut made, mut all, mut files, mut known) = (0, Vec::new(), Vec::new(), HashSet::new());
    let is_foreign = chance.random_bool(0.15);
    for run in 0..chance.random_range(1..5) {
        let n_rows = chance.random_range(1..200);
        let mut rows = rows(chance, &mut made, n_rows);
        all.extend(rows.clone());
        let words = |row: &Observation| (row.bed.as_ref().map(ToString::to_string), row.quantity.to_string());
        rows.sort_by_key(|row| (words(row), row.event_time));
        let part_rows = n_rows.div_ceil(chance.random_range(1..=6));
        for (number, part) in rows.chunks(part_rows).enumerate() {
            let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
            let commit = Commit { rows: vec![part.to_vec().into()], marks, ..Commit::default() };
            store.commit(&commit, Timestamp::parse(START).unwrap()).await.unwrap();
            let view = store.view();
            let file = view.observations.files.iter().find(|file| known.insert(Arc::clone(&file.path))).unwrap();
            let part = Part { run: format!("run{run}").into(), number: u32::try_from(number).unwrap(), revision: 0 };
            files.push(Arc::new(DataFile { part: (!is_foreign).then_some(part), ..DataFile::clone(file) }));
        }
    }
    let mut hot = Vec::new();
    for _ in 0..chance.random_range(0..3) {
        let n_rows = chance.random_range(1..40);
        let rows = rows(chance, &mut made, n_rows);
        all.extend(rows.clone());
        hot.push(Hot::from(rows));
    }
    let view = View::clone(&store.view());
    let table = TableView { files: files.into(), hot: hot.into(), ..view.observations.clone() };
    let view = Arc::new(View { observations: table, ..view });
    (directory, Lake::of(&store), view, with_day(&Hot::from(all).columns().unwrap()))
}

fn with_day(rows: &RecordBatch) -> RecordBatch {
    let day = cast(rows.column_by_name("event_time").unwrap(), &DataType::Date32).unwrap();
    let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(EVENT_DAY, DataType::Date32, true)));
    let columns = rows.columns().iter().cloned().chain([day]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn condition(chance: &mut StdRng) -> String {
    let some = some_of(
        chance,
        &[
            "quantity = 'heart_rate'",
            "quantity IN ('heart_rate', 'bed_occupancy')",
            "bed_id = 'b3'",
            "bed_id >= 'b2'",
            "bed_id IN ('b1', 'b4', 'b5')",
            "bed_id IS NOT NULL",
            "home_id = 'h1'",
            "event_time >= '2026-05-01T18:00:00Z'",
            "event_time < '2026-05-02T18:30:00Z'",
            "event_day = DATE '2026-05-02'",
            "value > 40",
            "value % 3 = 0",
        ],
        0.1,
    );
    if some.is_empty() { "true".to_owned() } else { some.join(" AND ") }
}

fn groups(chance: &mut StdRng) -> (String, bool) {
    let hour = one_of(chance, &["date_trunc('hour', event_time)", "date_trunc('day', event_time)"]);
    let mut keys = some_of(chance, &["bed_id", "quantity", hour, "area", "home_id"], 0.4);
    if chance.random_bool(0.3) {
        keys.reverse();
    }
    let mut columns = some_of(
        chance,
        &[
            "avg(value)",
            "min(value)",
            "max(value)",
            "count(value)",
            "max(event_time)",
            "count(DISTINCT value)",
            "first_value(value ORDER BY event_time)",
            "last_value(value ORDER BY event_time)",
            "first_value(device_id ORDER BY event_time DESC)",
            "sum(value) FILTER (WHERE value > 50)",
            "median(value)",
        ],
        0.3,
    );
    columns.push("count(*)");
    let columns = keys.iter().chain(&columns).enumerate().map(|(n, column)| format!("{column} AS c{n}"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let mut sql = format!("SELECT {columns} FROM observations WHERE {}", condition(chance));
    if keys.is_empty() {
        return (sql, false);
    }
    let places = (1..=keys.len()).map(|place| place.to_string()).collect::<Vec<_>>();
    sql.extend([" GROUP BY ", &places.join(", ")]);
    if chance.random_bool(0.2) {
        sql += " HAVING count(*) > 2";
    }
    let is_ordered = chance.random_bool(0.4);
    if is_ordered {
        let order = places.iter().map(|place| format!("{place}{}", one_of(chance, &["", " DESC", " NULLS FIRST"])));
        sql.extend([" ORDER BY ", &order.collect::<Vec<_>>().join(", ")]);
        sql += one_of(chance, &["", " LIMIT 3", " LIMIT 5 OFFSET 2"]);
    }
    (sql, is_ordered)
}

fn windows(chance: &mut StdRng) -> (String, bool) {
    let by = one_of(chance, &["bed_id", "bed_id, quantity", "quantity, bed_id", "home_id", "area, bed_id"]);
    let order = one_of(chance, &["", " DESC"]);
    let sum = format!(
        "sum(value) OVER (PARTITION BY {by} ORDER BY event_time{order} ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING)"
    );
    let columns = [
        "lag(value) OVER w",
        "lead(value, 2, -1.0) OVER w",
        "row_number() OVER w",
        "rank() OVER w",
        "first_value(value) OVER w",
        &sum,
    ];
    let mut columns = some_of(chance, &columns, 0.4);
    columns.push("CAST(event_time AS bigint) - lag(CAST(event_time AS bigint)) OVER w");
    let columns = columns.iter().enumerate().map(|(n, column)| format!("{column} AS c{n}")).collect::<Vec<_>>();
    let sql = format!(
        "SELECT bed_id, quantity, event_time, {} FROM observations WHERE {} WINDOW w AS (PARTITION BY {by} ORDER BY event_time{order})",
        columns.join(", "),
        condition(chance)
    );
    match chance.random_range(0..3) {
        0 => (format!("SELECT bed_id, count(c0), max(c0) FROM ({sql}) GROUP BY bed_id"), false),
        1 => (format!("{sql} ORDER BY event_time DESC LIMIT 9"), true),
        _ => (sql, false),
    }
}

fn newest(chance: &mut StdRng) -> String {
    let by = one_of(chance, &["bed_id", "bed_id, quantity", "home_id", "quantity"]);
    let order = one_of(chance, &[" DESC", " DESC", ""]);
    let first = one_of(chance, &["n = 1", "n <= 1", "n < 2", "n = 2", "n <= 2"]);
    format!(
        "SELECT {} FROM (SELECT *, row_number() OVER (PARTITION BY {by} ORDER BY event_time\
         {order}) AS n FROM observations WHERE {}) WHERE {first}",
        one_of(chance, &["bed_id, home_id, quantity, event_time, value", "bed_id, value"]),
        condition(chance)
    )
}

/// What only the newest rows tell, of beds and quantities.
fn only_newest(chance: &mut StdRng) -> String {
    let keys = some_of(chance, &["bed_id", "quantity"], 0.6);
    let mut columns = some_of(
        chance,
        &[
            "last_value(value ORDER BY event_time)",
            "first_value(device_id ORDER BY event_time DESC)",
            "last_value(value + 1 ORDER BY event_time)",
            "first_value(value ORDER BY event_time DESC) IGNORE NULLS",
            "last_value(value ORDER BY event_time) FILTER (WHERE value > 50)",
            "first_value(home_id ORDER BY quantity, event_time DESC)",
            "last_value(home_id ORDER BY event_time, bed_id)",
        ],
        0.25,
    );
    columns.push("max(event_time)");
    let columns = keys.iter().chain(&columns).enumerate().map(|(n, column)| format!("{column} AS c{n}"));
    let mut sql = format!(
        "SELECT {} FROM (SELECT *, upper(bed_id) AS bed FROM observations) WHERE {}",
        columns.collect::<Vec<_>>().join(", "),
        condition(chance)
    );
    if !keys.is_empty() {
        sql.extend([" GROUP BY ", &keys.join(", ")]);
    }
    sql
}

/// A statement, and whether the order of its answer is given.
fn statement(chance: &mut StdRng) -> (String, bool) {
    match chance.random_range(0..10) {
        0..3 => groups(chance),
        3..5 => windows(chance),
        5 => (newest(chance), false),
        6 => {
            let kind = one_of(chance, &["JOIN", "LEFT JOIN", "FULL JOIN"]);
            let left =
                format!("SELECT bed_id, max(value) AS x FROM observations WHERE {} GROUP BY 1", condition(chance));
            let sql = format!(
                "SELECT a.bed_id, a.x, b.* FROM ({left}) a {kind} ({}) b ON a.bed_id = b.bed_id",
                newest(chance)
            );
            (sql, false)
        }
        7 => (only_newest(chance), false),
        8 => (format!("SELECT DISTINCT bed_id, quantity FROM observations WHERE {}", condition(chance)), false),
        _ => {
            let order = one_of(chance, &["event_time DESC", "bed_id, quantity, event_time", "bed_id DESC, event_time"]);
            let condition = condition(chance);
            let sql = format!("SELECT bed_id, quantity, event_time, value FROM observations WHERE {condition}");
            (format!("{sql} ORDER BY {order}{}", one_of(chance, &["", " LIMIT 4", " LIMIT 10 OFFSET 3"])), true)
        }
    }
}

/// The plan, and the rows as text.
async fn answer(context: &SessionContext, sql: &str, is_ordered: bool) -> (String, Vec<String>) {
    let frame = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    let plan = frame.clone().create_physical_plan().await.unwrap_or_else(|error| panic!("{sql}\n{error}"));
    let shown = displayable(plan.as_ref()).indent(false).to_string();
    let rows =
        collect(plan, Arc::new(frame.task_ctx())).await.unwrap_or_else(|error| panic!("{sql}\n{error}\n{shown}"));
    let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>().join("|");
    let mut rows: Vec<_> = text.lines().skip(3).filter(|row| row.starts_with('|')).map(cells).collect();
    if !is_ordered {
        rows.sort();
    }
    (shown, rows)
}

#[tokio::test]
async fn any_statement_says_what_it_says_over_rows_in_memory() {
    // Small files are cut between their beds, too.
    PIECE_MIN_HERE.set(512);
    let more = std::env::var("CAREBED_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (mut n_cut, mut n_merged, mut n_ends) = (0, 0, 0);
    for seed in 0..LAKES + more {
        let mut chance = StdRng::seed_from_u64(seed);
        let (_directory, lake, view, rows) = lake(&mut chance).await;
        let plain = SessionContext::new();
        plain.register_batch("observations", rows).unwrap();
        let mut contexts = Vec::new();
        for partitions in [1, 2, 3, 8] {
            let context = context(&lake, &view, Limits { partitions, ..Limits::default() }).unwrap();
            let batch_rows = one_of(&mut chance, &["3", "50", "8192"]);
            context.sql(&format!("SET datafusion.execution.batch_size = {batch_rows}")).await.unwrap();
            contexts.push((partitions, context));
        }
        for _ in 0..STATEMENTS {
            let (sql, is_ordered) = statement(&mut chance);
            let (_, expected) = answer(&plain, &sql, is_ordered).await;
            for (partitions, context) in &contexts {
                let (plan, found) = answer(context, &sql, is_ordered).await;
                assert_eq!(found, expected, "seed {seed}, {partitions} partitions: {sql}\n{plan}");
                n_cut += usize::from(plan.contains("Range("));
                n_merged += usize::from(plan.contains("Merged"));
            }
        }
        n_ends += lake.ends.files();
    }
    assert!(n_cut > 20 && n_merged > n_cut, "{n_cut} cut between beds, {n_merged} merged");
    assert!(n_ends > 5, "of {n_ends} files the ends were asked for");
}
