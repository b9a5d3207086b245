//! Another committer on the same table.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex as SyncMutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ::bytes::Bytes;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Remove};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableBuilder};

use super::*;

async fn other(config: &Config) -> DeltaTable {
    let url = config.lake.join("observations/").unwrap();
    DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap()
}

async fn commit_other(table: &DeltaTable, actions: Vec<Action>, properties: CommitProperties) {
    let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
    let builder: CommitBuilder = properties.into();
    builder.with_actions(actions).build(Some(table.snapshot().unwrap()), table.log_store(), operation).await.unwrap();
}

#[tokio::test]
async fn a_lost_race_is_looked_at_and_committed_again() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let store = Store::open(config.clone()).await.unwrap();
    let mut home = Home::of(&store).await;
    let commit = home.batches(4);
    store.commit(&commit, START).await.unwrap();
    home.good(commit);

    // Somebody else takes a file away (retention, say) and so the next version.
    let gone = Arc::clone(&store.view().observations.files[0]);
    let gone_rows = gone.rows.unwrap();
    let remove = Remove {
        path: gone.path.to_string(),
        data_change: true,
        deletion_timestamp: Some(START.millis()),
        ..Remove::default()
    };
    commit_other(&other(&config).await, vec![Action::Remove(remove)], CommitProperties::default()).await;

    let commit = home.batches(4);
    let committed = store.commit(&commit, START).await.unwrap();
    home.good(commit);
    assert_eq!(committed.version, 3);
    let left = numbers(&store, &store.view()).await;
    assert_eq!(left.len() as u64, 8 - gone_rows);
    assert!(left.ends_with(&[4, 5, 6, 7]), "{left:?}");
    drop(store);
    let again = Store::open(config).await.unwrap();
    assert_eq!(numbers(&again, &again.view()).await, left);
}

#[tokio::test]
async fn another_process_committing_under_our_name_stops_us() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let store = Store::open(config.clone()).await.unwrap();
    let mut home = Home::of(&store).await;
    let theirs = deltalake_core::kernel::Transaction::new("ingest/0", 1);
    let properties = CommitProperties::default().with_application_transaction(theirs);
    commit_other(&other(&config).await, Vec::new(), properties).await;
    let commit = home.batches(2);
    let error = store.commit(&commit, START).await.unwrap_err();
    assert!(matches!(error, StoreError::Table(TableError::Overtaken { .. })), "{error}");
    let view = store.view();
    assert!(numbers(&store, &view).await.is_empty(), "rows of a commit that did not count are seen");
}

/// A store that once answers too late: the entry is refused, and has its name all the same when the next one comes. Or one
/// whose log cannot be synced.
#[derive(Debug, Default)]
struct Late(SyncMutex<Option<(PathBuf, Vec<u8>)>>, AtomicBool, AtomicBool);

impl Disk for Late {
    fn create_dir(&self, path: &FsPath) -> io::Result<()> {
        OsDisk.create_dir(path)
    }
    fn write(&self, path: &FsPath, contents: &[Bytes]) -> io::Result<()> {
        OsDisk.write(path, contents)
    }
    fn sync_file(&self, path: &FsPath) -> io::Result<()> {
        OsDisk.sync_file(path)
    }
    fn sync_dir(&self, path: &FsPath) -> io::Result<()> {
        if path.ends_with("_delta_log") && self.2.load(Ordering::SeqCst) {
            return Err(io::Error::other("no medium"));
        }
        OsDisk.sync_dir(path)
    }
    fn link(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        if to.extension().is_some() && self.1.swap(false, Ordering::SeqCst) {
            *self.0.lock().unwrap() = Some((to.to_owned(), std::fs::read(from)?));
            return Err(io::ErrorKind::TimedOut.into());
        }
        let late = self.0.lock().unwrap().take_if(|(late, _)| late == to);
        late.map_or(Ok(()), |(late, entry)| std::fs::write(late, entry))?;
        OsDisk.link(from, to)
    }
    fn rename(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &FsPath) -> io::Result<()> {
        OsDisk.remove(path)
    }
}

#[tokio::test]
async fn a_commit_that_lands_after_an_erasure_misses_no_file() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let disk = Arc::new(Late::default());
    let store = Store::open_on(config.clone(), Arc::clone(&disk) as Arc<dyn Disk>).await.unwrap();
    let mut home = Home::of(&store).await;
    let commit = home.batches(3);
    store.commit(&commit, START).await.unwrap();
    home.good(commit);

    let commit = home.batches(3);
    disk.1.store(true, Ordering::SeqCst);
    store.commit(&commit, START).await.unwrap_err();
    let (place, entry) = disk.0.lock().unwrap().take().unwrap();

    // Somebody else is forgotten: nothing of these homes changes, and files that no log names are deleted at once.
    let erasure = Erasure {
        id: "e1".to_owned(),
        home: "h9".parse().unwrap(),
        bed: None,
        from: None,
        until: Timestamp::MAX,
        received_before: None,
        asked_at: START,
    };
    store.erase(&erasure, std::time::Duration::ZERO, START).await.unwrap();
    // The storage takes the entry now, if its place is free still.
    if !place.exists() {
        std::fs::write(place, entry).unwrap();
    }
    drop(store);
    let again = Store::open(config).await.unwrap();
    assert_eq!(numbers(&again, &again.view()).await, [0, 1, 2]);
}

#[tokio::test]
async fn a_commit_that_failed_and_lands_all_the_same_doubles_nothing() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let disk = Arc::new(Late::default());
    let store = Store::open_on(config.clone(), Arc::clone(&disk) as Arc<dyn Disk>).await.unwrap();
    let mut home = Home::of(&store).await;
    let commit = home.batches(3);
    store.commit(&commit, START).await.unwrap();
    home.good(commit);

    let commit = home.batches(3);
    disk.1.store(true, Ordering::SeqCst);
    let error = store.commit(&commit, START).await.unwrap_err();
    assert!(!error.leaves_doubt(), "as far as one can see it is not there: {error}");

    // The gateways send it again, and a little more; meanwhile the entry is there.
    home.accept.roll_back();
    let commit = home.batches(4);
    let error = store.commit(&commit, START).await.unwrap_err();
    assert!(error.leaves_doubt(), "{error}");
    let mut home = Home::of(&store).await;
    let commit = home.batches(1);
    store.commit(&commit, START).await.unwrap();
    assert_eq!(numbers(&store, &store.view()).await, (0..7).collect::<Vec<_>>());
    drop(store);
    let again = Store::open(config).await.unwrap();
    assert_eq!(numbers(&again, &again.view()).await, (0..7).collect::<Vec<_>>());
    assert_eq!(Home::of(&again).await.batches(1).rows[0].iter().next().unwrap().seq, 7);
}

/// A disk that is gone reads as an empty folder. Nothing is begun there in the place of the lake.
#[tokio::test]
async fn a_lake_in_doubt_that_is_gone_is_not_begun_anew() {
    let lake = tempfile::tempdir().unwrap();
    let folder = lake.path().join("lake");
    let disk = Arc::new(Late::default());
    let store = Store::open_on(Config::local(&folder).unwrap(), Arc::clone(&disk) as Arc<dyn Disk>).await.unwrap();
    let mut home = Home::of(&store).await;
    let commit = home.batches(3);
    store.commit(&commit, START).await.unwrap();
    home.good(commit);
    disk.2.store(true, Ordering::SeqCst);
    let error = store.commit(&home.batches(1), START).await.unwrap_err();
    assert!(error.leaves_doubt(), "{error}");

    let away = lake.path().join("away");
    std::fs::rename(&folder, &away).unwrap();
    std::fs::create_dir(&folder).unwrap();
    disk.2.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        let error = store.commit(&home.batches(1), START).await.unwrap_err();
        assert!(error.leaves_doubt(), "{error}");
        assert!(matches!(store.compact(START).await, Err(StoreError::InDoubt)), "files are worked on in doubt");
    }
    assert!(!folder.join("observations/_delta_log").exists(), "another lake was begun");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    store.commit(&home.batches(1), START).await.unwrap_err();
    // The one that left the doubt was there.
    assert_eq!(numbers(&store, &store.view()).await, [0, 1, 2, 3]);
    let mut home = Home::of(&store).await;
    store.commit(&home.batches(1), START).await.unwrap();
    assert_eq!(numbers(&store, &store.view()).await, [0, 1, 2, 3, 4]);
}

/// Two processes that take turns in noticing the same losses and letters, as when one takes over a shard from the other.
#[tokio::test]
async fn what_another_process_declared_is_not_declared_again() {
    let lake = tempfile::tempdir().unwrap();
    let of_shard = |shard: &str| Config { shard: shard.to_owned(), ..Config::local(lake.path()).unwrap() };
    // Both are open before anything is written.
    let (one, other) = (Store::open(of_shard("0")).await.unwrap(), Store::open(of_shard("1")).await.unwrap());
    for round in 0..3 {
        for store in [&one, &other, &one] {
            let gaps = (0..=round).map(gap_from).collect();
            let dead_letters = vec![letter(b"?"), letter(if round == 0 { b"a" } else { b"b" })];
            store.commit(&Commit { gaps, dead_letters, ..Commit::default() }, START).await.unwrap();
        }
    }
    drop((one, other));
    let view = Store::open(of_shard("2")).await.unwrap().view();
    assert_eq!((rows_in(&view.gaps), rows_in(&view.dead_letters)), (3, 3));
}

/// Many processes declare the same at the same moment, so that all but one lose each race.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_race_does_not_declare_twice() {
    let lake = tempfile::tempdir().unwrap();
    let of_shard = |shard: usize| Config { shard: shard.to_string(), ..Config::local(lake.path()).unwrap() };
    let mut stores = Vec::new();
    for shard in 0..6 {
        stores.push(Store::open(of_shard(shard)).await.unwrap());
    }
    let commits = stores.iter().map(|store| async move {
        for round in 0..8 {
            let commit = Commit { gaps: (0..=round).map(gap_from).collect(), ..Commit::default() };
            store.commit(&commit, START).await.unwrap();
        }
    });
    futures::future::join_all(commits).await;
    let view = Store::open(of_shard(6)).await.unwrap().view();
    assert_eq!(rows_in(&view.gaps), 8);
    let files = std::fs::read_dir(lake.path().join("gaps")).unwrap().count();
    assert_eq!(files - 1, view.gaps.files.len(), "files of lost races are left beside the log");
}
