//! What others put into the lake's folder, change there or take away: rows of other programs are read once, what is no lake of
//! ours is refused with what to do, and everything else goes on.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use carebed_pipeline::store::{Config, Store};
use carebed_simulator::home::Hold;
use carebed_tests::lake::{commit, hourly};
use carebed_tests::process::until;
use carebed_tests::real;
use carebed_tests::world::{BrokerKind, PATIENCE, Programs, World};
use tokio::process::Command;

const FOREIGN: &str = "SELECT count(*) FROM observations WHERE device_id = 'foreign'";
const PRESSES: &str = "SELECT count(*) FROM observations WHERE quantity = 'call_button' AND value = 1 AND lane = 'urgent' AND device_id <> 'foreign'";
const REPEATED: &str = "SELECT count(*) - count(DISTINCT gateway_id || coalesce(CAST(boot AS VARCHAR), '') || device_id || quantity || CAST(event_time AS VARCHAR)) FROM observations WHERE device_id <> 'foreign'";

/// Says whether it went well, and all that it said.
async fn carebed(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_centre-under-test")).args(arguments).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// What another program does to the table; says the version it has then.
async fn other_program(python: &Path, table: &Path, what: &str) -> u64 {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/foreign.py");
    let output = Command::new(python).arg(script).arg(table).arg(what).output().await.unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// A press that reaches the table; so far there were `n`.
async fn press(world: &World, n: i64) {
    let home = world.homes.first().unwrap();
    home.devices.press(Hold::UntilPolled);
    let told = until(PATIENCE, || async { (world.numbers(PRESSES).await.ok()? == [n + 1]).then_some(()) });
    assert!(told.await.is_some(), "press {n}: {:?}\n{}", world.numbers(PRESSES).await, world.said());
    assert_eq!(world.numbers(REPEATED).await.unwrap(), [0], "{}", world.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_append_is_read_once_and_what_they_change_is_refused() {
    let Some(python) = real::python(&["deltalake", "pyarrow"]) else { return };
    let programs = Programs {
        centre: env!("CARGO_BIN_EXE_centre-under-test").into(),
        gateway: env!("CARGO_BIN_EXE_gateway-under-test").into(),
    };
    let mut world = World::start(&programs, BrokerKind::Embedded, 1).await.unwrap();
    let table = world.data().join("lake/observations");
    // What no log names is nobody's, whatever it is called.
    let strangers = ["notes.txt", "event_day=2026-01-01/part-0.parquet", "copy/_delta_log/00000000000000000000.json"];
    for stranger in strangers {
        std::fs::create_dir_all(table.join(stranger).parent().unwrap()).unwrap();
        std::fs::write(table.join(stranger), "no row").unwrap();
    }

    other_program(&python, &table, "append").await;
    press(&world, 0).await;
    other_program(&python, &table, "column").await;
    press(&world, 1).await;
    assert_eq!(world.numbers(FOREIGN).await.unwrap(), [6]);
    world.centre.kill().await;
    other_program(&python, &table, "append").await;
    world.centre.start(None).unwrap();
    press(&world, 2).await;
    assert_eq!(world.numbers(FOREIGN).await.unwrap(), [9]);

    let version = other_program(&python, &table, "type").await;
    let refused = |said: &str| {
        [
            &format!("version {version} of its log"),
            "its column value is string",
            "table observations",
            "restore the lake",
        ]
        .iter()
        .all(|part| said.contains(*part))
    };
    // Calls ring all the same.
    world.homes.first().unwrap().devices.press(Hold::UntilPolled);
    let told = until(PATIENCE, || async { refused(&world.centre.said()).then_some(()) });
    assert!(told.await.is_some(), "{}", world.said());
    assert_eq!(world.alerts("call_for_help").await.unwrap().len(), 1);
    let data = world.data().to_string_lossy().into_owned();
    let (went_well, said) = carebed(&["sql", "--data", &data, "-c", FOREIGN]).await;
    assert!(!went_well && refused(&said) && said.contains(&*table.parent().unwrap().to_string_lossy()), "{said}");
    world.centre.kill().await;
    world.centre.start(None).unwrap();
    let ended = world.centre.ended(PATIENCE).await;
    assert!(ended.is_some_and(|status| !status.success()), "it started\n{}", world.centre.said());
    assert!(refused(world.centre.said().lines().last().unwrap()), "{}", world.centre.said());

    // Once the entry is gone, so is all of it; the press is there, which nobody had receipted.
    for file in files(&table.join("_delta_log")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let is_of_it = name.starts_with(&format!("{version:020}"));
        if is_of_it
            || (name == "_last_checkpoint" && std::fs::read_to_string(&file).unwrap().contains(&version.to_string()))
        {
            std::fs::remove_file(file).unwrap();
        }
    }
    world.centre.start(None).unwrap();
    assert_eq!(world.number(PRESSES, |n| n == 4).await.unwrap(), 4, "{}", world.said());
    assert_eq!(world.numbers(FOREIGN).await.unwrap(), [9]);
    assert_eq!(world.numbers(REPEATED).await.unwrap(), [0], "{}", world.said());
    for stranger in strangers {
        assert_eq!(std::fs::read_to_string(table.join(stranger)).unwrap(), "no row", "{stranger}");
    }
}

/// Sixty hours of one bed, a file a day.
async fn data(folder: &Path) {
    let store = Store::open(Config::local(&folder.join("lake")).unwrap()).await.unwrap();
    commit(&store, hourly("h1", "310104", 60)).await;
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_lost_or_damaged_is_named_and_the_others_are_read() {
    let place = tempfile::tempdir().unwrap();
    data(place.path()).await;
    let data = place.path().to_string_lossy().into_owned();
    let [file] = files(&place.path().join("lake/observations/event_day=2026-05-02")).try_into().unwrap();
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let whole = std::fs::read(&file).unwrap();
    let check = ["maintain", "--data", &data, "--check"];
    let (went_well, said) = carebed(&check).await;
    assert!(went_well && said.contains("all 3 files can be read"), "{said}");

    let changed = |change: fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        Some(bytes)
    };
    for (what, bytes) in [
        ("lost", None),
        ("empty", changed(Vec::clear)),
        ("cut", changed(|bytes| bytes.truncate(bytes.len() / 2))),
        ("without its end", changed(|bytes| bytes.iter_mut().rev().take(64).for_each(|byte| *byte = 0))),
        ("overwritten", changed(|bytes| bytes.iter_mut().skip(4).take(2_000).for_each(|byte| *byte = 0xff))),
    ] {
        match bytes {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let all = "SELECT sum(value), max(device_id), max(quantity), max(event_time), max(unit) FROM observations";
        let (went_well, said) = carebed(&["sql", "--data", &data, "-c", all]).await;
        assert!(!went_well && said.contains("carebed maintain --check"), "{what}: {said}");
        // Of what is wrong within a page nobody knows in which file it is; the check does.
        assert!(said.contains(&name) || what == "overwritten", "{what}: {said}");
        let (went_well, said) = carebed(&check).await;
        assert!(!went_well && said.contains(&name) && said.contains("1 of 3 files"), "{what}: {said}");
        assert!(said.contains("from a backup"), "{what}: {said}");
        let others = "SELECT sum(value) AS n FROM observations WHERE event_day <> DATE '2026-05-02'";
        let (went_well, said) = carebed(&["sql", "--data", &data, "--format", "csv", "-c", others]).await;
        assert!(went_well && said == "n\n1242.0\n", "{what}: {said}");
    }
    std::fs::write(&file, whole).unwrap();
    assert!(carebed(&check).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_lake_is_refused_with_what_to_do() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_string_lossy().into_owned();
    let sql = async |data: &str| carebed(&["sql", "--data", data, "-c", "SELECT count(*) FROM observations"]).await;
    let serve = async |data: &str| {
        let config = path("carebed.toml");
        let text =
            format!("data = {data:?}\n[broker]\nlisten = \"127.0.0.1:1\"\n[console]\nlisten = \"127.0.0.1:1\"\n");
        std::fs::write(&config, text).unwrap();
        carebed(&["serve", "--config", &config]).await
    };
    // A folder of something else.
    let other = path("other");
    std::fs::create_dir_all(format!("{other}/lake/photos")).unwrap();
    let (went_well, said) = sql(&other).await;
    assert!(!went_well && said.contains("there is no table observations in") && said.contains("mounted"), "{said}");
    assert!(said.contains(&format!("{other}/lake")), "{said}");
    // A file in its place.
    let file = path("file");
    std::fs::create_dir(&file).unwrap();
    std::fs::write(format!("{file}/lake"), "no lake").unwrap();
    for (went_well, said) in [sql(&file).await, serve(&file).await] {
        assert!(!went_well && said.contains("lake"), "{said}");
    }
    // A lake without its largest part: it is not begun anew, which would look like a centre that never had a row.
    let torn = path("torn");
    data(torn.as_ref()).await;
    std::fs::rename(format!("{torn}/lake/observations"), path("elsewhere")).unwrap();
    let (went_well, said) = serve(&torn).await;
    assert!(!went_well && said.contains("has lost its table observations") && said.contains("from a backup"), "{said}");
    assert!(!Path::new(&format!("{torn}/lake/observations")).exists());
    assert!(!sql(&torn).await.0);
    std::fs::rename(path("elsewhere"), format!("{torn}/lake/observations")).unwrap();
    assert!(sql(&torn).await.0);
}
