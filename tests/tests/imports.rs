//! Recordings as people bring them: old ones, longer exports of the same home, second thoughts about what sensors mean.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use carebed::cli::Format;
use carebed::config::Config;
use carebed::import::meaning::Meaning;
use carebed::import::{Imported, import};

const HEADER: &str = "ts_utc,sensor_id,kind,value\n";

fn meaning(zone: &str) -> Meaning {
    let text = format!(
        "area = \"a1\"\ntime_zone = \"{zone}\"\n[[sensor]]\nkind = \"motion\"\nquantity = \"motion\"\nroom = \"kitchen\"\n\
         [[sensor]]\nkind = \"heart\"\nquantity = \"heart_rate\"\nbed = true\nroom = \"bedroom\"\n"
    );
    Meaning::parse("m.toml", &text).unwrap()
}

fn file(folder: &Path, name: &str, rows: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("{HEADER}{rows}")).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_doubled_or_lost_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::at(folder.path().join("data"));
    let bring = async |zone: &str, files: &[PathBuf]| import(&config, &meaning(zone), files).await.unwrap();
    let rows = async || {
        let text = "SELECT home_id, CAST(CAST(min(event_time) AS DATE) AS VARCHAR), count(*), count(*) FILTER (WHERE quality <> 'good') FROM observations GROUP BY 1 ORDER BY 1";
        let answer = carebed::sql::answer(&config.data, text, Format::Csv).await.unwrap();
        answer.lines().skip(1).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let old = "2011-11-28T02:27:59Z,k,motion,1\n2011-11-28T10:21:24Z,k,motion,0\n";
    let empty = file(folder.path(), "h0.csv", "");
    let wrong = file(folder.path(), "h1.wrong.csv", "2011-11-28T02:27:59Z,k,sound,1\n");
    let first = file(folder.path(), "h1.csv", old);
    let early = file(folder.path(), "h2.csv", "1970-01-01T00:00:05Z,k,motion,1\n2012-01-01T00:00:05Z,b,heart,900\n");

    // What cannot be used keeps nothing else out and leaves nothing behind.
    let all = bring("UTC", &[empty.clone(), wrong, early, first.clone()]).await;
    assert_eq!(all, Imported { rows: 3, doubtful: 1, added: 2, known: 0, broken: 2, refused: 2 });
    assert_eq!(rows().await, ["h1,2011-11-28,2,0", "h2,2012-01-01,1,1"]);

    let again = bring("UTC", &[first.clone(), empty]).await;
    assert_eq!((again.rows, again.known, again.refused), (0, 1, 1), "an empty file is not one that was there");
    // A longer export of the same home.
    let longer = file(folder.path(), "h1.longer.csv", &format!("{old}2011-11-28T10:25:44Z,k,motion,1\n"));
    assert_eq!((bring("UTC", std::slice::from_ref(&longer)).await.refused, rows().await.len()), (1, 2));
    // Another sensor of it, over the same time.
    let other = file(folder.path(), "h1.other.csv", "2011-11-28T02:27:59Z,l,motion,1\n");
    assert_eq!((bring("UTC", &[other]).await.rows, rows().await.remove(0).as_str()), (1, "h1,2011-11-28,3,0"));
    // Another meaning of a home that is there.
    let elsewhere = bring("Europe/London", &[first]).await;
    assert_eq!((elsewhere.known, elsewhere.refused), (0, 1));
}
