//! `carebed sql` with statements: files of them, answers of any size, outputs that are whole or not there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Output, Stdio};

use carebed_pipeline::store::{Config, Store};
use carebed_tests::lake;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// A data folder with `n` rows.
async fn data(folder: &Path, n: u32) -> String {
    let store = Store::open(Config::local(&folder.join("lake")).unwrap()).await.unwrap();
    lake::commit(&store, lake::hourly("home-1", "360702", n)).await;
    folder.to_string_lossy().into_owned()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centre-under-test"));
    command.args(arguments).stdin(Stdio::null());
    command
}

async fn carebed(arguments: &[&str]) -> Output {
    command(arguments).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_statements_stops_at_the_one_that_fails_and_names_its_line() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("monday.sql");
    let (data, name) = (data(place.path(), 40).await, file.to_string_lossy().into_owned());
    let begin = "-- What is there?\nSELECT count(*) AS n FROM observations;\n\n;/* a long\nword */\n";
    for (statement, told) in [
        (
            "SELECT no_such\nFROM observations",
            vec![":6: statement 2 of 3: SELECT no_such FROM observations", "no_such"],
        ),
        ("SELECT 1 AS a; SELECT * FROM observation", vec![":6: statement 3 of 4", "did you mean observations?"]),
        ("DELETE FROM observations", vec![":6: statement 2 of 3", "only SELECT"]),
        ("SELECT CAST('x' AS int)", vec![":6: statement 2 of 3", "'x'"]),
    ] {
        std::fs::write(&file, format!("{begin}{statement};\nSELECT 'never' AS never;\n")).unwrap();
        let output = carebed(&["sql", "--data", &data, "--format", "csv", "-f", &name]).await;
        let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{statement}: {why}");
        assert!(said.starts_with("n\n40\n") && !said.contains("never"), "{statement}: {said}");
        assert!(told.iter().all(|told| why.contains(told)) && why.contains(&name), "{statement}: {why}");
    }
    // What cannot be understood is told before anything is run.
    std::fs::write(&file, format!("{begin}SELEKT 1;")).unwrap();
    let output = carebed(&["sql", "--data", &data, "-f", &name]).await;
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.stdout.is_empty() && output.status.code() == Some(1), "{why}");
    assert!(why.contains(&name) && why.contains("Line: 6"), "{why}");
}

#[tokio::test]
async fn several_statements_of_a_line_are_answered_in_turn() {
    let place = tempfile::tempdir().unwrap();
    let data = data(place.path(), 40).await;
    for (asked, said, why) in [
        ("SELECT 1 AS a; SELECT count(*) AS n FROM observations;", "a\n1\nn\n40\n", ""),
        ("SELECT 1 AS a; SELECT nothing", "a\n1\n", "--command:1: statement 2 of 2"),
        ("-- one\nSELECT 1 AS a", "a\n1\n", ""),
        ("-- nothing", "", "--command: no statement"),
    ] {
        let output = carebed(&["sql", "--data", &data, "--format", "csv", "-c", asked]).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), why.is_empty(), "{told}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{told}");
        assert!(told.contains(why), "{told}");
    }
}

/// A table for people ends after a million rows; what programs read has all.
#[tokio::test]
async fn an_answer_for_programs_has_every_row() {
    let place = tempfile::tempdir().unwrap();
    let data = data(place.path(), 1_100).await;
    let all = "SELECT a.value FROM observations a, observations b";
    let output = carebed(&["sql", "--data", &data, "--format", "csv", "-c", all]).await;
    let lines = output.stdout.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!((output.status.success(), lines), (true, 1 + 1_100 * 1_100));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));

    // Whoever reads no further ends it, and that is no failure.
    let mut child =
        command(&["sql", "--data", &data, "--format", "jsonl", "-c", all]).stdout(Stdio::piped()).spawn().unwrap();
    let first = BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap();
    assert!(first.is_some_and(|row| row.starts_with("{\"value\":")));
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn a_file_that_is_written_is_whole_or_not_there() {
    let place = tempfile::tempdir().unwrap();
    let (data, file) = (data(&place.path().join("data"), 40).await, place.path().join("answer.csv"));
    let name = file.to_string_lossy().into_owned();
    let to_file = async |asked| carebed(&["sql", "--data", &data, "--format", "csv", "-o", &name, "-c", asked]).await;
    let fails = "SELECT 2 AS two; SELECT CAST('x' AS int)";
    assert!(!to_file(fails).await.status.success() && !file.exists());
    assert!(to_file("SELECT 1 AS one").await.status.success());
    assert!(!to_file(fails).await.status.success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\n1\n");
    assert!(to_file("SELECT 3 AS three").await.status.success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "three\n3\n");
    let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");

    // A link is followed, and keeps its place; a folder is none; a device stays one.
    let link = place.path().join("link.csv");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let to = async |path: &str| {
        carebed(&["sql", "--data", &data, "--format", "csv", "-o", path, "-c", "SELECT 4 AS four"]).await
    };
    assert!(to(&link.to_string_lossy()).await.status.success());
    assert!(link.is_symlink() && std::fs::read_to_string(&file).unwrap() == "four\n4\n");
    let refused = to(&place.path().to_string_lossy()).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is a folder"));
    let streamed = to("/dev/stdout").await;
    assert_eq!(String::from_utf8_lossy(&streamed.stdout), "four\n4\n");
}
