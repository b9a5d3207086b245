use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, StringArray, new_null_array};
use carebed_pipeline::store::{Commit, Config, Store};
use carebed_pipeline::view::Complete;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

use crate::common::observation;
use crate::sql::{Snapshot, facts};

/// Two homes of two areas, one night of May: a heart rate of 60 and 64 by night, 90 by day.
async fn lake() -> (tempfile::TempDir, Lake, Arc<View>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let at = |text| Timestamp::parse(text).unwrap();
    let mut rows = Vec::new();
    for (home, bed, area) in [("h1", "b1", "360702001"), ("h2", "b2", "360703009")] {
        for (time, value, quality) in [
            ("2026-05-01T19:59:59+08:00", 90.0, "good"),
            ("2026-05-01T20:00:00+08:00", 60.0, "good"),
            ("2026-05-02T03:00:00+08:00", 300.0, "bad:range"),
            ("2026-05-02T07:59:59+08:00", 64.0, "good"),
            ("2026-05-02T08:00:00+08:00", 90.0, "good"),
        ] {
            let mut row = observation(home, bed, "mat", "heart_rate", at(time), Some(value), quality);
            row.area = area.parse().unwrap();
            rows.push(row);
        }
    }
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![rows.into()], marks, ..Commit::default() };
    store.commit(&commit, at("2026-06-01T00:00:00Z")).await.unwrap();
    (directory, Lake::of(&store), store.view())
}

fn all(area: &str) -> Selection {
    Selection { areas: Areas::Beginning(area.to_owned()), span: Span { from: Timestamp::MIN, to: Timestamp::MAX } }
}

/// An alert of each area, with two transitions.
fn alerts() -> RecordBatch {
    let schema = facts::alerts();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "area" => Arc::new(StringArray::from(["360702001", "360702001", "360703009", "360703009"].to_vec())),
            "raised_at" => {
                let raised = Timestamp::parse("2026-05-02T03:00:00+08:00").unwrap().millis();
                cast(&Int64Array::from(vec![raised; 4]), field.data_type()).unwrap()
            }
            _ => new_null_array(field.data_type(), 4),
        }
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

async fn session() -> (tempfile::TempDir, SqlSession) {
    let (directory, lake, view) = lake().await;
    let snapshot = Snapshot::new(&lake, view, &[]).with_tables([("alerts", alerts())]);
    (directory, SqlSession::open(snapshot, Limits::default(), 1).await.unwrap())
}

#[tokio::test]
async fn each_tier_gets_its_rows_in_both_forms() {
    let (_directory, session) = session().await;
    let of = |name| TABLES.into_iter().find(|table| table.name == name).unwrap();
    for (area, observations, alerts) in
        [("", 10, 4), ("3607", 10, 4), ("360702", 5, 2), ("360702001", 5, 2), ("99", 0, 0)]
    {
        for (table, expected) in [("observations", observations), ("alerts", alerts), ("visits", 0), ("gaps", 0)] {
            let (mut parquet, mut lines) = (Vec::new(), Vec::new());
            let n = rows(&session, of(table), &all(area), &mut parquet, &mut lines).await.unwrap();
            assert_eq!(n, expected, "{table} {area}");
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(parquet)).unwrap();
            let read = reader.build().unwrap().map(|batch| batch.unwrap().num_rows() as u64);
            assert_eq!(read.sum::<u64>(), expected, "{table} {area}");
            let lines = String::from_utf8(lines).unwrap();
            assert_eq!(lines.lines().count() as u64, expected, "{table} {area}");
            assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["area"].is_string()));
        }
    }
    let found = areas(&session, &all("")).await.unwrap();
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), ["360702001", "360703009"]);
    for (these, expected) in [(vec!["360702001"], 5), (vec!["360702001", "360703009"], 10), (vec!["360702"], 0)] {
        let areas = Areas::These(these.iter().map(|&area| area.to_owned()).collect());
        let selection = Selection { areas, ..all("") };
        let n = rows(&session, OBSERVATIONS, &selection, Vec::new(), Vec::new()).await.unwrap();
        assert_eq!(n, expected, "{these:?}");
    }
    let span = Span { from: Timestamp::parse("2026-05-02T00:00:00Z").unwrap(), to: Timestamp::MAX };
    let late = Selection { span, ..all("360702") };
    for (table, expected) in [("observations", 1), ("alerts", 0)] {
        let n = rows(&session, of(table), &late, Vec::new(), Vec::new()).await.unwrap();
        assert_eq!(n, expected, "{table}");
    }
}

#[tokio::test]
async fn a_night_is_one_observation_for_fhir() {
    let (_directory, lake, view) = lake().await;
    let limits = Limits { time: Duration::from_secs(30), ..Limits::default() };
    let mut out = Vec::new();
    let n = nightly_vitals(&lake, &view, &all("360702"), chrono_tz::Asia::Shanghai, limits, &mut out).await.unwrap();
    assert_eq!(n, 1);
    let night: Value = serde_json::from_slice(&out).unwrap();
    for (pointer, expected) in [
        ("/resourceType", json!("Observation")),
        ("/status", json!("preliminary")),
        ("/category/0/coding/0/code", json!("vital-signs")),
        ("/code/coding/0/system", json!("http://loinc.org")),
        ("/code/coding/0/code", json!("8867-4")),
        ("/subject/identifier/value", json!("h1/b1")),
        ("/subject/type", json!("Location")),
        ("/device/identifier/value", json!("h1/mat")),
        ("/effectivePeriod/start", json!("2026-05-01T12:00:00.000Z")),
        ("/effectivePeriod/end", json!("2026-05-01T23:59:59.000Z")),
        ("/valueQuantity/value", json!(62.0)),
        ("/valueQuantity/code", json!("/min")),
        ("/component/0/valueQuantity/value", json!(60.0)),
        ("/component/1/valueQuantity/value", json!(64.0)),
        ("/method/text", json!("mean of 2 observations of the night of 2026-05-01")),
    ] {
        assert_eq!(night.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert!(night["id"].as_str().unwrap().len() <= 64);
}

#[tokio::test]
async fn a_night_of_which_something_may_be_missing_is_preliminary() {
    let (_directory, lake, view) = lake().await;
    let at = |text| Timestamp::parse(text).unwrap();
    let (evening, morning) = (at("2026-05-01T20:00:00+08:00"), at("2026-05-02T08:00:00+08:00"));
    let second = Duration::from_secs(1);
    for (known, from, to, status) in [
        (Some(morning), evening, morning, "final"),
        (Some(morning), Timestamp::MIN, Timestamp::MAX, "final"),
        (Some(morning - second), evening, morning, "preliminary"),
        (None, evening, morning, "preliminary"),
        (Some(morning), evening + second, morning, "preliminary"),
        (Some(morning), evening, morning - second, "preliminary"),
    ] {
        let complete =
            known.map(|complete_to| ("h1".parse().unwrap(), Complete { complete_to, received: complete_to }));
        let view = Arc::new(View { complete: Arc::new(complete.into_iter().collect()), ..View::clone(&view) });
        let selection = Selection { span: Span { from, to }, ..all("360702") };
        let (zone, mut out) = (chrono_tz::Asia::Shanghai, Vec::new());
        nightly_vitals(&lake, &view, &selection, zone, Limits::default(), &mut out).await.unwrap();
        let night: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(night["status"], status, "{known:?} {from} {to}");
    }
}
