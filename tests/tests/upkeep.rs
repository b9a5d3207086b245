//! `carebed maintain`, `erase`, `export`, `backup` and `restore`, as an operator runs them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_pipeline::accept::Marks;
use carebed_pipeline::store::{Commit, Config, Store};
use serde_json::Value;
use tokio::process::Command;

const START: &str = "2026-03-01T12:00:00Z";

/// A data folder with two homes, forty small commits.
async fn data(folder: &Path) {
    let store = Store::open(Config::local(&folder.join("lake")).unwrap()).await.unwrap();
    let start = Timestamp::parse(START).unwrap();
    for n in 0..40_u32 {
        let at = start + Duration::from_secs(60 * u64::from(n));
        commit(&store, n, at, at).await;
    }
}

/// A row of one of the two homes.
async fn commit(store: &Store, n: u32, observed: Timestamp, received: Timestamp) {
    let home = n % 2;
    let row = Observation {
        area: format!("36070200{home}").parse().unwrap(),
        home: format!("home-{home}").parse().unwrap(),
        bed: Some(format!("bed-{home}").parse().unwrap()),
        device: "mat-1".parse().unwrap(),
        room: None,
        quantity: carebed_contract::quantity::Quantity::new("heart_rate").unwrap(),
        unit: "/min".into(),
        event_time: observed,
        value: carebed_contract::value::Value::Number(f64::from(60 + n)),
        quality: carebed_contract::quality::Quality::Good,
        clock: carebed_contract::time::ClockQuality::Synchronised,
        gateway: "gw-1".parse().unwrap(),
        boot: None,
        epoch: carebed_contract::labels::Epoch::new(1),
        lane: carebed_contract::labels::Lane::Routine,
        seq: n.into(),
        gateway_time: observed,
        received_time: received,
    };
    let marks = [("gw-1".parse().unwrap(), Marks::default())].into_iter().collect();
    let commit = Commit { rows: vec![vec![row].into()], marks, ..Commit::default() };
    store.commit(&commit, received).await.unwrap();
}

async fn carebed(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_centre-under-test")).args(arguments).output().await.unwrap()
}

async fn done(arguments: &[&str]) -> String {
    let output = carebed(arguments).await;
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

async fn count(data: &str) -> String {
    let answer =
        done(&["sql", "--data", data, "--format", "csv", "-c", "SELECT count(*) AS n FROM observations"]).await;
    answer.lines().nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_keeps_gives_away_restores_and_forgets() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_string_lossy().into_owned();
    let (folder, copy, restored, export) = (path("data"), path("copy"), path("restored"), path("export"));
    data(folder.as_ref()).await;

    let said = done(&["maintain", "--data", &folder]).await;
    assert!(said.contains("observations has 1 files"), "{said}");

    done(&["export", "--data", &folder, "--to", &export, "--tier", "community", "--fhir"]).await;
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(place.path().join("export/manifest.json")).unwrap()).unwrap();
    let files = manifest["files"].as_array().unwrap();
    // Two communities, each with four tables in two forms and its nights.
    assert_eq!(files.len(), 18, "{manifest}");
    for file in files {
        let name = file["path"].as_str().unwrap();
        let bytes = std::fs::read(place.path().join("export").join(name)).unwrap();
        assert_eq!(file["bytes"], bytes.len(), "{name}");
        assert_eq!(file["sha256"], carebed_contract::digest::Digest::of_bytes(&bytes).to_string(), "{name}");
        let rows = match name.split_once('/').unwrap().1.split_once('.').unwrap() {
            (_, "ndjson") => 1,
            ("observations", _) => 20,
            _ => 0,
        };
        assert_eq!(file["rows"], rows, "{name}");
        if !name.ends_with(".parquet") {
            assert_eq!(String::from_utf8(bytes).unwrap().lines().count(), rows, "{name}");
        }
    }

    let mut check = Command::new("sha256sum");
    let checked = check.args(["-c", "--strict", "SHA256SUMS"]).current_dir(&export).output().await.unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && said.lines().filter(|line| line.ends_with(": OK")).count() == 18, "{said}");

    done(&["backup", "--data", &folder, "--to", &copy]).await;
    done(&["restore", "--from", &copy, "--data", &restored]).await;
    assert_eq!((count(&folder).await, count(&restored).await), ("40".to_owned(), "40".to_owned()));

    // Without --yes nothing happens; with it the home is gone, and a scan says so.
    for (arguments, told) in [
        (vec!["--home", "home-1"], "the lake holds 20 of home home-1"),
        (vec!["--home", "hmoe-1", "--yes"], "did you mean \"home-1\"?"),
        (vec!["--home", "home-1", "--yes", "--until", "2999-01-01T00:00:00Z"], "is to come"),
        (
            vec!["--home", "home-1", "--yes", "--from", "2026-03-02T00:00:00Z", "--until", "2026-03-01T00:00:00Z"],
            "nothing lies between",
        ),
    ] {
        let refused = carebed(&[&["erase", "--data", &folder][..], &arguments].concat()).await;
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && why.contains(told), "{arguments:?}: {why}");
    }
    let report: Value =
        serde_json::from_str(&done(&["erase", "--data", &folder, "--home", "home-1", "--yes"]).await).unwrap();
    assert_eq!(
        (&report["rows"], &report["left"], &report["files_held"]),
        (&20.into(), &0.into(), &0.into()),
        "{report}"
    );
    assert_eq!((count(&folder).await, count(&restored).await), ("20".to_owned(), "40".to_owned()));

    // A backup with a changed byte is not restored.
    let victim =
        walk(&place.path().join("copy/lake/observations")).into_iter().find(|p| p.ends_with(".parquet")).unwrap();
    let mut bytes = std::fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    let refused = carebed(&["restore", "--from", &copy, "--data", &path("again")]).await;
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("is damaged"));
    for (what, arguments) in [
        ("holds no lake", ["maintain", "--data", &path("nothing")].as_slice()),
        ("is not empty", &["backup", "--data", &folder, "--to", &copy]),
        ("lies in", &["backup", "--data", &folder, "--to", &format!("{folder}/copy")]),
        ("lies in", &["export", "--data", &folder, "--to", &format!("{folder}/lake/export")]),
        ("no area whose code begins with 99", &["export", "--data", &folder, "--to", &path("none"), "--area", "99"]),
        (
            "nothing lies between",
            &["export", "--data", &folder, "--to", &path("none"), "--from", "2026-03-02", "--to-day", "2026-03-01"],
        ),
        ("is no backup", &["restore", "--from", &folder, "--data", &path("other")]),
    ] {
        let output = carebed(arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(what), "{arguments:?}: {said}");
    }
}

/// What others before it said is there, what comes after it is not run, and it is named with its line.
/// A box whose clock was far ahead: its rows are a person's as all others are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_dated_later_than_now_are_forgotten_with_the_others() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data").to_string_lossy().into_owned();
    data(folder.as_ref()).await;
    let store = Store::open(Config::local(&Path::new(&folder).join("lake")).unwrap()).await.unwrap();
    let [ahead, received] = ["2999-01-01T00:00:00Z", START].map(|text| Timestamp::parse(text).unwrap());
    commit(&store, 41, ahead, received).await;
    drop(store);
    assert_eq!(count(&folder).await, "41");
    let report = done(&["erase", "--data", &folder, "--home", "home-1", "--yes"]).await;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["rows"], &report["left"]), (&21.into(), &0.into()), "{report}");
    assert_eq!(count(&folder).await, "20");
}

/// Small files and merged ones, with a home erased from both: what other programs read is what carebed answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_programs_read_the_same_rows() {
    let Some(python) = carebed_tests::real::python(&["duckdb", "polars", "deltalake", "pyarrow"]) else { return };
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_string_lossy().into_owned();
    let (folder, answer) = (path("data"), path("answer.parquet"));
    data(folder.as_ref()).await;
    for (step, rows) in [(None, "40"), (Some(["maintain", ""]), "40"), (Some(["erase", "home-1"]), "20")] {
        match step {
            Some(["erase", home]) => drop(done(&["erase", "--data", &folder, "--home", home, "--yes"]).await),
            Some([command, _]) => drop(done(&[command, "--data", &folder]).await),
            None => {}
        }
        let all = "SELECT * FROM observations";
        done(&["sql", "--data", &folder, "--format", "parquet", "--output", &answer, "-c", all]).await;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/rows.py");
        let table = format!("{folder}/lake/observations");
        let read = Command::new(&python).args([script, &table, &answer]).output().await.unwrap();
        assert!(read.status.success(), "{step:?}: {}", String::from_utf8_lossy(&read.stderr));
        assert_eq!(String::from_utf8(read.stdout).unwrap().trim(), rows, "{step:?}");
    }
}

fn walk(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path.to_string_lossy().into_owned());
        }
    }
    files
}
