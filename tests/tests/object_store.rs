//! The lake on an object store: conditional puts for its log, everything else as on a disk.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_pipeline::accept::Marks;
use carebed_pipeline::store::{Commit, Config, Erasure, Store, StoreError, TableError};
use carebed_queries::engine::Limits;
use carebed_queries::sql::{self, Lake, Snapshot, SqlSession};
use carebed_tests::real;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Serves S3 with one bucket on a free port, and says where, until its standard input ends.
const SERVER: &str = "
import sys, boto3, logging
logging.disable(logging.CRITICAL)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
url = 'http://%s:%d' % server.get_host_and_port()
boto3.client('s3', endpoint_url=url, aws_access_key_id='k', aws_secret_access_key='s', region_name='us-east-1').create_bucket(Bucket='care')
print(url, flush=True)
sys.stdin.read()
";
const NOW: Timestamp = Timestamp::from_millis(1_772_403_300_000);

async fn server() -> Option<(Child, Config)> {
    let python = real::python(&["moto", "boto3", "flask"])?;
    let mut child = Command::new(python)
        .args(["-c", SERVER])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let url = lines.next_line().await.unwrap().expect("the server says where it is");
    let options = [
        ("aws_endpoint", url.as_str()),
        ("aws_allow_http", "true"),
        ("aws_access_key_id", "k"),
        ("aws_secret_access_key", "s"),
        ("aws_region", "us-east-1"),
    ];
    let options: BTreeMap<_, _> =
        options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Some((child, Config { options, ..Config::at("s3://care/centre/lake/".parse().unwrap()) }))
}

fn row(number: u32) -> Observation {
    let at = NOW + Duration::from_secs(number.into());
    Observation {
        area: "360702".parse().unwrap(),
        home: format!("home-{}", number % 3).parse().unwrap(),
        bed: Some(format!("bed-{}", number % 3).parse().unwrap()),
        device: "mat-1".parse().unwrap(),
        room: None,
        quantity: carebed_contract::quantity::Quantity::new("heart_rate").unwrap(),
        unit: "/min".into(),
        event_time: at,
        value: carebed_contract::value::Value::Number(f64::from(number)),
        quality: carebed_contract::quality::Quality::Good,
        clock: carebed_contract::time::ClockQuality::Synchronised,
        gateway: "gw-1".parse().unwrap(),
        boot: None,
        epoch: carebed_contract::labels::Epoch::new(1),
        lane: carebed_contract::labels::Lane::Routine,
        seq: number.into(),
        gateway_time: at,
        received_time: at,
    }
}

async fn commit(store: &Store, numbers: std::ops::Range<u32>) -> Result<(), StoreError> {
    let marks = [("gw-1".parse().unwrap(), Marks::default())].into_iter().collect();
    let rows: Vec<Observation> = numbers.map(row).collect();
    store.commit(&Commit { rows: vec![rows.into()], marks, ..Commit::default() }, NOW).await.map(drop)
}

async fn count(store: &Store) -> String {
    let snapshot = Snapshot::new(&Lake::of(store), store.view(), &[]);
    let session = SqlSession::open(snapshot, Limits::default(), 10).await.unwrap();
    let answer = session.run("SELECT count(*) AS n, sum(value) AS s FROM observations WHERE value >= 0").await.unwrap();
    let mut text = Vec::new();
    sql::write(&answer, sql::Format::Csv, &mut text).unwrap();
    String::from_utf8(text).unwrap().lines().nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lake_lives_on_an_object_store() {
    let Some((_server, config)) = server().await else { return };
    let store = Store::open(config.clone()).await.unwrap();
    for n in 0..20 {
        commit(&store, n * 3..n * 3 + 3).await.unwrap();
    }
    assert_eq!(count(&store).await, "60,1770.0");

    // A second process of the same name: its next commit tells it that it is not alone, and nothing is doubled.
    let second = Store::open(config.clone()).await.unwrap();
    commit(&store, 60..63).await.unwrap();
    let error = commit(&second, 60..63).await.unwrap_err();
    assert!(matches!(error, StoreError::Table(TableError::Overtaken { .. })), "{error}");
    drop(second);
    assert_eq!(count(&store).await, "63,1953.0");

    let day = Duration::from_secs(86_400);
    while store.compact(NOW + day * 9).await.unwrap().is_some() {}
    assert_eq!(store.view().observations.files.len(), 1);
    let erasure = Erasure {
        id: "e1".into(),
        home: "home-1".parse().unwrap(),
        bed: None,
        from: None,
        until: NOW + day * 9,
        received_before: None,
        asked_at: NOW,
    };
    let report = store.erase(&erasure, Duration::from_secs(10), NOW).await.unwrap();
    assert_eq!((report.rows, report.left, report.files_held), (21, 0, 0), "{report:?}");
    assert!(report.files_deleted >= 21, "{report:?}");
    drop(store);

    let again = Store::open_read(config).await.unwrap();
    let left: u32 = (0..63).filter(|n| n % 3 != 1).sum();
    assert_eq!(count(&again).await, format!("42,{left}.0"));
    assert!(again.erasures().cover(&row(1)));
}

#[tokio::test]
async fn a_place_that_is_no_lake_is_told() {
    for url in ["s3://care/lake", "ftp://somewhere/lake/"] {
        let error = Store::open(Config::at(url.parse().unwrap())).await.unwrap_err();
        assert!(matches!(error, StoreError::Place { .. } | StoreError::ObjectStore { .. }), "{url}: {error}");
    }
}
