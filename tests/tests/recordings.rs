//! Recordings of real homes go the same way as live data, and other programs agree on what is in the table.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use carebed::cli::Format;
use carebed::config::Config;
use carebed::import::meaning::Meaning;
use carebed::import::{SHIPPED, import};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".csv.gz"))
        .collect();
    files.sort();
    files
}

/// Home, day → rows, counted from the files themselves.
fn expected(files: &[PathBuf]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy();
        let home = name.split('.').next().unwrap().to_owned();
        let reader = BufReader::new(flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()));
        for line in reader.lines().skip(1) {
            *counts.entry(format!("{home},{}", &line.unwrap()[..10])).or_default() += 1;
        }
    }
    counts
}

fn counts(csv: &str) -> BTreeMap<String, usize> {
    csv.lines()
        .filter_map(|line| line.rsplit_once(','))
        .filter_map(|(key, count)| Some((key.to_owned(), count.parse().ok()?)))
        .collect()
}

const PER_HOME_AND_DAY: &str =
    "SELECT home_id, CAST(event_time AS DATE) AS day, count(*) FROM observations GROUP BY 1, 2 ORDER BY 1, 2";

#[tokio::test(flavor = "multi_thread")]
async fn all_tihm_homes_import_once_and_every_program_counts_the_same() {
    let Some(folder) = carebed_tests::real::recordings() else { return };
    let files = files(&folder.join("tihm/normalized"));
    assert_eq!(files.len(), 34);
    let expected = expected(&files);
    let meaning = Meaning::parse(SHIPPED[0].0, SHIPPED[0].1).unwrap();
    let data = tempfile::tempdir().unwrap();
    let config = Config::at(data.path().to_owned());

    let first = import(&config, &meaning, &files).await.unwrap();
    assert_eq!((first.rows, first.added, first.broken, first.refused), (expected.values().sum(), 34, 0, 0));
    let again = import(&config, &meaning, &files).await.unwrap();
    assert_eq!((again.rows, again.added, again.known), (0, 0, 34), "a second import adds nothing");

    let ours = carebed::sql::answer(data.path(), PER_HOME_AND_DAY, Format::Csv).await.unwrap();
    assert_eq!(counts(&ours), expected);

    let Some(python) = carebed_tests::real::python(&["duckdb", "polars", "deltalake"]) else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/counts.py");
    let theirs = Command::new(python).arg(script).arg(data.path().join("lake/observations")).output().unwrap();
    assert!(theirs.status.success(), "{}", String::from_utf8_lossy(&theirs.stderr));
    assert_eq!(counts(&String::from_utf8(theirs.stdout).unwrap()), expected);
}
