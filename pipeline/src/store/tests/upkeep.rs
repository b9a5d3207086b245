//! Compaction, retention, vacuum and erasure: no row twice, none missing, nothing left of what was erased.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use super::*;
use crate::store::erasure::Erasure;
use crate::store::table::{CHECKPOINT_EVERY, VERSIONS_KEPT};
use crate::store::upkeep::Retention;

const HOMES: u64 = 4;
const DAY: Duration = Duration::from_secs(86_400);
/// Long enough for any reader of these tests, and never waited for when all goes well.
const PATIENCE: Duration = Duration::from_secs(10);

/// One row a batch: its home and its day follow from its number; every third is a heart rate, and every fifth belongs to no
/// bed.
fn row(seq: u64) -> Observation {
    let quantity = if seq.is_multiple_of(3) { "heart_rate" } else { "bed_occupancy" };
    let bed = if seq.is_multiple_of(5) { "-".to_owned() } else { format!("bed-{}", seq % HOMES) };
    let time = START.millis() / 1000 - 86_400 * i64::try_from(seq % 2).unwrap() + i64::try_from(seq).unwrap();
    let json = format!(r#"[{{"n":"home-{}/{bed}/mat-1/{quantity}","v":1,"t":{time}}}]"#, seq % HOMES);
    let origin = Origin {
        area: "360702".parse().unwrap(),
        gateway: "gw-1".parse().unwrap(),
        epoch: Epoch::new(1),
        lane: Lane::Routine,
        seq,
        sealed: None,
        received: START,
        recorded: false,
    };
    observations(json.as_bytes(), &origin, &Rooms::default()).remove(0)
}

/// The next batches, with the rows of [`row`].
fn batches(home: &mut Home, n: u64) -> Commit {
    let mut commit = home.batches(n);
    for rows in &mut commit.rows {
        let seq = rows.iter().next().unwrap().seq;
        *rows = vec![row(seq)].into();
    }
    for number in 0..HOMES {
        home.accept.note_home(&"gw-1".parse().unwrap(), &format!("home-{number}").parse().unwrap());
    }
    commit.marks = home.accept.begin();
    commit
}

async fn commit(store: &Store, home: &mut Home, n: u64) {
    let commit = batches(home, n);
    store.commit(&commit, START).await.unwrap();
    home.good(commit);
}

async fn compact_all(store: &Store, now: Timestamp) {
    while store.compact(now).await.unwrap().is_some() {}
}

fn erasure(number: u64, bed: bool) -> Erasure {
    Erasure {
        id: format!("e-{number}-{bed}"),
        home: format!("home-{number}").parse().unwrap(),
        bed: bed.then(|| format!("bed-{number}").parse().unwrap()),
        from: None,
        until: START + DAY * 9,
        received_before: None,
        asked_at: START,
    }
}

/// Each run's rows, one behind the other, are sorted.
async fn check_runs(store: &Store, view: &View) {
    let mut runs: BTreeMap<Arc<str>, Vec<_>> = BTreeMap::new();
    for file in view.observations.files.iter() {
        let part = file.part.clone().unwrap();
        runs.entry(Arc::clone(&part.run)).or_default().push((part, Arc::clone(&file.path)));
    }
    let at = store.writer().unwrap().lock().await.observations.files_at();
    for (run, mut files) in runs {
        files.sort();
        let mut rows = Vec::new();
        for (_, path) in files {
            let reader = ParquetRecordBatchReaderBuilder::try_new(at.read(&path).await.unwrap()).unwrap();
            rows.extend(reader.build().unwrap().flat_map(|batch| schema::from_batch(&batch.unwrap()).unwrap()));
        }
        let keys: Vec<_> = rows.iter().map(|row| (&row.bed, &row.quantity, row.event_time)).collect();
        assert!(keys.is_sorted(), "run {run} is not sorted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_never_pile_up_and_the_log_stays_short() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let store = Store::open(config.clone()).await.unwrap();
    let mut home = Home::of(&store).await;
    let n = VERSIONS_KEPT + 2 * CHECKPOINT_EVERY;
    for _ in 0..n {
        commit(&store, &mut home, 1).await;
        compact_all(&store, START).await;
        let files = store.view().observations.files.len();
        assert!(files <= 4 * plan::FAN_IN, "{files} files");
    }
    check_runs(&store, &store.view()).await;
    assert_eq!(numbers(&store, &store.view()).await, (0..n).collect::<Vec<_>>());
    let log = std::fs::read_dir(lake.path().join("observations/_delta_log")).unwrap().count() as u64;
    let summaries = VERSIONS_KEPT / CHECKPOINT_EVERY;
    assert!(log <= VERSIONS_KEPT + summaries + 2 * CHECKPOINT_EVERY + 20, "{log} files in the log");
    let deleted = store.vacuum(Duration::ZERO, START + DAY).await.unwrap();
    assert!(deleted.deleted > 100 && deleted.kept == 0, "{deleted:?}");

    // A quiet day is one file, and the lake opens with all of it.
    compact_all(&store, START + DAY * 3).await;
    assert_eq!(store.view().observations.files.len(), 2);
    store.vacuum(Duration::ZERO, Timestamp::MAX).await.unwrap();
    drop(store);
    let again = Store::open(config).await.unwrap();
    check_runs(&again, &again.view()).await;
    assert_eq!(numbers(&again, &again.view()).await, (0..n).collect::<Vec<_>>());
    let files = again.writer().unwrap().lock().await.observations.files_at().list().await.unwrap();
    assert_eq!(files.len(), 2, "{files:?}");
}

/// Two processes of one lake merge, erase and commit at the same time: whoever comes second looks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_erasure_and_ingest_that_lose_a_race_double_and_lose_nothing() {
    const ROUNDS: u64 = 8;
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let one = Store::open(config.clone()).await.unwrap();
    let two = Store::open(Config { shard: "1".into(), ..config.clone() }).await.unwrap();
    let mut home = Home::of(&one).await;
    let (mut lost, mut rows, mut erased) = (0, 0, 0);
    for round in 0..ROUNDS {
        for _ in 0..2 * plan::FAN_IN {
            commit(&one, &mut home, 1).await;
        }
        if round == ROUNDS / 2 {
            let everything = erasure(1, false);
            let erase = two.erase(&everything, PATIENCE, START);
            let (merged, report, ()) = tokio::join!(one.compact(START), erase, commit(&one, &mut home, 1));
            lost += u64::from(merged.unwrap().is_some_and(|merged| !merged.counts));
            erased = report.unwrap().rows;
            rows += 1;
        } else {
            // Both see the same files, and merge them.
            let (a, b) = tokio::join!(one.compact(START), two.compact(START));
            lost += [a, b].map(|merged| u64::from(merged.unwrap().is_some_and(|m| !m.counts))).iter().sum::<u64>();
        }
        rows += 2 * plan::FAN_IN as u64;
        // What the other process did not know of when it erased goes now.
        if erased > 0 {
            erased += one.erase(&erasure(1, false), PATIENCE, START).await.unwrap().rows;
        }
        compact_all(&one, START).await;
        let expected: Vec<u64> = (0..rows).filter(|seq| erased == 0 || seq % HOMES != 1).collect();
        assert_eq!(numbers(&one, &one.view()).await, expected, "round {round}");
    }
    assert!(lost > 0, "no race was lost, so nothing was shown");
    drop((one, two));
    let reopened = Store::open(config).await.unwrap();
    let expected: Vec<u64> = (0..rows).filter(|seq| seq % HOMES != 1).collect();
    assert_eq!(numbers(&reopened, &reopened.view()).await, expected);
}

/// All bytes below a directory hold no such text.
fn assert_absent(directory: &std::path::Path, text: &str) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_absent(&path, text);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(text.len()).any(|w| w == text.as_bytes()), "{text} is still in {}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_home_that_was_erased() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let store = Store::open(config.clone()).await.unwrap();
    let mut home = Home::of(&store).await;
    for _ in 0..60 {
        commit(&store, &mut home, 2).await;
    }
    compact_all(&store, START).await;
    // Rows on their way, some of them in the commit that runs beside.
    let waiting = batches(&mut home, 8);
    for rows in &waiting.rows {
        store.show(std::slice::from_ref(rows), &[]);
    }
    let letter = DeadLetter {
        gateway: "gw-1".parse().unwrap(),
        area: "a".parse().unwrap(),
        topic: "t".into(),
        labels: None,
        content_type: "x".into(),
        payload: bytes::Bytes::from_static(b"home-2 in clear"),
        reason: "no labels".into(),
        received_time: START,
    };
    store.commit(&Commit { dead_letters: vec![letter], ..Commit::default() }, START).await.unwrap();

    let gone = |seq: &u64| seq % HOMES == 2;
    let report = store.erase(&erasure(2, false), PATIENCE, START).await.unwrap();
    assert_eq!((report.rows, report.left, report.files_held, report.dead_letters), (30, 0, 0, 1), "{report:?}");
    assert_eq!(report.gateways, ["gw-1".parse::<GatewayId>().unwrap()]);
    let seen = numbers(&store, &store.view()).await;
    assert_eq!(seen, (0..128).filter(|seq| !gone(seq)).collect::<Vec<_>>());
    for table in ["observations", "dead_letters"] {
        assert_absent(&lake.path().join(table), "home-2");
    }
    // What is still in a spool comes later and is taken without being kept, also after a restart.
    store.begin();
    store.commit(&waiting, START).await.unwrap();
    home.good(waiting);
    drop(store);
    let store = Store::open(config).await.unwrap();
    commit(&store, &mut home, 8).await;
    assert!(store.erasures().cover(&row(2)) && !store.erasures().cover(&row(3)));
    assert_eq!(numbers(&store, &store.view()).await, (0..136).filter(|seq| !gone(seq)).collect::<Vec<_>>());
    assert_absent(&lake.path().join("observations"), "home-2");
}

#[tokio::test]
async fn a_bed_is_erased_and_the_home_stays() {
    let lake = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(lake.path()).unwrap()).await.unwrap();
    let mut home = Home::of(&store).await;
    for _ in 0..20 {
        commit(&store, &mut home, 2).await;
    }
    // Only up to the day that began at START: rows of even numbers are of it or later.
    let until = START - Duration::from_secs(3_600);
    let report = store.erase(&Erasure { until, ..erasure(1, true) }, PATIENCE, START).await.unwrap();
    let gone = |seq: &u64| seq % HOMES == 1 && !seq.is_multiple_of(5);
    assert_eq!(report.rows, (0..40).filter(gone).count() as u64);
    assert_eq!(numbers(&store, &store.view()).await, (0..40).filter(|seq| !gone(seq)).collect::<Vec<_>>());
}

/// Rows of a clock that runs ahead go with the others that were there; those that come afterwards may be somebody else's.
#[tokio::test]
async fn what_was_received_is_erased_however_late_it_is_dated() {
    let lake = tempfile::tempdir().unwrap();
    let config = || Config::local(lake.path()).unwrap();
    let store = Store::open(config()).await.unwrap();
    let mut home = Home::of(&store).await;
    for _ in 0..10 {
        commit(&store, &mut home, 2).await;
    }
    let on_their_way = batches(&mut home, 20);
    for rows in &on_their_way.rows {
        store.show(std::slice::from_ref(rows), &[]);
    }
    // All of the bed's rows are dated later than this.
    let until = START - DAY * 2;
    for (before, from, n_gone) in [
        (START, None, 0),
        (START + Duration::from_millis(1), Some(START + DAY), 0),
        (START + Duration::from_millis(1), None, 8),
    ] {
        let id = format!("{}-{}", before.millis(), from.is_some());
        let erasure = Erasure { id, until, from, received_before: Some(before), ..erasure(1, true) };
        let report = store.erase(&erasure, PATIENCE, START).await.unwrap();
        assert_eq!(report.left, 0);
        let gone = |seq: &u64| n_gone > 0 && seq % HOMES == 1 && !seq.is_multiple_of(5);
        let left: Vec<u64> = (0..40).filter(|seq| !gone(seq)).collect();
        assert_eq!(numbers(&store, &store.view()).await, left, "{erasure:?}");
        assert_eq!(40 - left.len(), n_gone);
    }
    let later = Observation { received_time: START + DAY, ..row(1) };
    assert!(store.erasures().cover(&row(1)) && !store.erasures().cover(&later));
}

#[tokio::test]
async fn rows_leave_by_the_age_of_their_quantity() {
    let lake = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(lake.path()).unwrap()).await.unwrap();
    let mut home = Home::of(&store).await;
    commit(&store, &mut home, 60).await;
    let heart = carebed_contract::quantity::Quantity::new("heart_rate").unwrap();
    let retention = |heart_days: u32, others: Option<u32>| Retention {
        others: others.map(|days| DAY * days),
        quantities: [(heart.clone(), Some(DAY * heart_days))].into(),
    };
    let left = async |keep: fn(u64) -> bool| {
        let expected: Vec<u64> = (0..60).filter(|seq| keep(*seq)).collect();
        assert_eq!(numbers(&store, &store.view()).await, expected);
    };
    // START is in the afternoon of a day: odd rows are a day older.
    for (keep, days_later, gone) in [
        (retention(5, Some(9)), 1, 0),
        (retention(5, Some(9)), 5, 10),
        (retention(5, Some(9)), 5, 0),
        (retention(5, None), 6, 10),
    ] {
        // Two at the same time, as when an operator asks while the centre does it by itself: one of them finds it done.
        let now = START + DAY * days_later;
        let (one, other) = tokio::join!(store.retain(&keep, now), store.retain(&keep, now));
        assert_eq!(one.unwrap() + other.unwrap(), gone);
        numbers(&store, &store.view()).await;
    }
    left(|seq| seq % 3 != 0).await;
    assert_eq!(store.retain(&retention(1, Some(2)), START + DAY * 2).await.unwrap(), 20);
    left(|seq| seq % 3 != 0 && seq % 2 == 0).await;
    assert_eq!(store.retain(&retention(1, Some(2)), START + DAY * 9).await.unwrap(), 20);
    left(|_| false).await;
}

#[tokio::test]
async fn a_lost_file_and_a_damaged_one_hold_nothing_up() {
    let lake = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(lake.path()).unwrap()).await.unwrap();
    let mut home = Home::of(&store).await;
    commit(&store, &mut home, 2).await;
    commit(&store, &mut home, 2).await;
    let spoiled: Vec<Arc<str>> =
        store.view().observations.files.iter().take(2).map(|file| Arc::clone(&file.path)).collect();
    let on_disk = |path: &str| lake.path().join("observations").join(path);
    let whole = spoiled.iter().map(|path| std::fs::read(on_disk(path)).unwrap()).collect::<Vec<_>>();
    std::fs::remove_file(on_disk(&spoiled[0])).unwrap();
    let mut damaged = whole[1].clone();
    damaged[4..200].fill(0xff);
    std::fs::write(on_disk(&spoiled[1]), damaged).unwrap();
    for _ in 0..3 * plan::FAN_IN {
        commit(&store, &mut home, 2).await;
    }
    // It comes to an end, and with all else merged.
    let later = START + DAY * 3;
    compact_all(&store, later).await;
    assert_eq!(store.view().observations.files.len(), 2 + spoiled.len());
    let heart = carebed_contract::quantity::Quantity::new("heart_rate").unwrap();
    let retention = Retention { others: None, quantities: [(heart, Some(DAY))].into() };
    assert!(store.retain(&retention, later).await.unwrap() > 20);
    let report = store.erase(&erasure(3, false), PATIENCE, later).await.unwrap();
    assert!(report.rows > 10 && report.left == 0, "{report:?}");
    assert_eq!(report.unreadable, [spoiled[1].to_string()]);

    // Restored, they are as any others, and what is erased goes out of them, too.
    for (path, bytes) in spoiled.iter().zip(whole) {
        std::fs::write(on_disk(path), bytes).unwrap();
    }
    store.inner.spoiled.forget();
    let report = store.erase(&erasure(3, false), PATIENCE, later).await.unwrap();
    assert_eq!((report.left, report.unreadable.len()), (0, 0), "{report:?}");
    compact_all(&store, later + DAY * 3).await;
    assert_eq!(store.view().observations.files.len(), 2);
    let seen = numbers(&store, &store.view()).await;
    assert!(seen.iter().all(|seq| seq % HOMES != 3) && seen.contains(&1), "{seen:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Show(u64),
    Commit,
    Compact { days_later: u32 },
    Erase { home: u64, bed: bool },
    Vacuum,
    Hold,
    LetGo,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..4_u64).prop_map(Step::Show),
        6 => Just(Step::Commit),
        4 => (0..3_u32).prop_map(|days_later| Step::Compact { days_later }),
        1 => (0..HOMES, any::<bool>()).prop_map(|(home, bed)| Step::Erase { home, bed }),
        2 => Just(Step::Vacuum),
        3 => Just(Step::Hold),
        2 => Just(Step::LetGo),
    ];
    proptest::collection::vec(step, 1..60)
}

async fn check_steps(steps: Vec<Step>) {
    let lake = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(lake.path()).unwrap()).await.unwrap();
    let mut home = Home::of(&store).await;
    let (mut accepted, mut erased) = (0_u64, BTreeSet::new());
    let mut shown: Option<Commit> = None;
    let mut held: Vec<(Arc<View>, Vec<u64>)> = Vec::new();
    for step in steps {
        match step {
            Step::Show(n) if shown.is_none() => {
                let commit = batches(&mut home, n);
                for rows in &commit.rows {
                    store.show(std::slice::from_ref(rows), &[]);
                }
                accepted += n;
                shown = Some(commit);
            }
            Step::Show(_) | Step::Commit => {
                let before = match shown.take() {
                    Some(commit) => commit,
                    None => {
                        accepted += 1;
                        batches(&mut home, 1)
                    }
                };
                store.begin();
                store.commit(&before, START).await.unwrap();
                home.good(before);
            }
            Step::Compact { days_later } => compact_all(&store, START + DAY * days_later).await,
            Step::Erase { home, bed } => {
                let erasure = erasure(home, bed);
                // A view that is held keeps its files: the report says so.
                let report = store.erase(&erasure, Duration::ZERO, START).await.unwrap();
                assert!(report.left == 0 || report.files_held > 0, "{report:?}");
                erased.insert((home, bed));
            }
            Step::Vacuum => drop(store.vacuum(Duration::ZERO, Timestamp::MAX).await.unwrap()),
            Step::Hold => held.push((store.view(), numbers(&store, &store.view()).await)),
            Step::LetGo => drop(held.pop()),
        }
        let covered = |seq: u64| {
            erased.contains(&(seq % HOMES, false)) || (!seq.is_multiple_of(5) && erased.contains(&(seq % HOMES, true)))
        };
        let expected: Vec<u64> = (0..accepted).filter(|seq| !covered(*seq)).collect();
        assert_eq!(numbers(&store, &store.view()).await, expected);
        for (view, seen) in &held {
            assert_eq!(numbers(&store, view).await, *seen, "a view changed while it was held");
        }
    }
    check_runs(&store, &store.view()).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    /// Whatever is committed, merged, erased and deleted, the view has each row once, and a view that is held keeps what it had.
    #[test]
    fn a_view_never_has_a_row_twice_or_misses_one(steps in steps()) {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(check_steps(steps));
    }
}

/// The same with everything at once: readers beside a writer, a compactor, an eraser and a vacuum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_beside_everything_see_each_row_once() {
    const ROUNDS: u64 = 60;
    let lake = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(lake.path()).unwrap()).await.unwrap();
    let done = carebed_contract::Shutdown::new();
    let upkeep = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move {
            let mut merges = 0;
            while !done.is_cancelled() {
                merges += u64::from(store.compact(START).await.unwrap().is_some());
                store.vacuum(Duration::ZERO, START).await.unwrap();
                tokio::task::yield_now().await;
            }
            merges
        }
    });
    let reader = tokio::spawn({
        let (store, done) = (store.clone(), done.clone());
        async move {
            let mut reads = 0;
            while !done.is_cancelled() {
                let seen = numbers(&store, &store.view()).await;
                assert!(seen.is_sorted_by(|a, b| a < b), "a row twice: {seen:?}");
                // Of the homes that stay, none is missing up to the last one seen.
                let last = seen.iter().copied().filter(|seq| seq % HOMES != 1).max();
                let staying = |seq: &u64| seq % HOMES != 1;
                let expected: Vec<u64> = (0..last.map_or(0, |last| last + 1)).filter(staying).collect();
                assert_eq!(seen.iter().copied().filter(staying).collect::<Vec<_>>(), expected);
                reads += 1;
            }
            reads
        }
    });
    let mut home = Home::of(&store).await;
    for round in 0..ROUNDS {
        let commit = batches(&mut home, 3);
        for rows in &commit.rows {
            store.show(std::slice::from_ref(rows), &[]);
        }
        store.begin();
        store.commit(&commit, START).await.unwrap();
        home.good(commit);
        if round == ROUNDS / 2 {
            let report = store.erase(&erasure(1, false), PATIENCE, START).await.unwrap();
            assert_eq!((report.left, report.files_held), (0, 0), "{report:?}");
        }
    }
    done.cancel();
    assert!(upkeep.await.unwrap() > 3 && reader.await.unwrap() > 3, "nothing happened beside the commits");
    let left: Vec<u64> = (0..3 * ROUNDS).filter(|seq| seq % HOMES != 1).collect();
    assert_eq!(numbers(&store, &store.view()).await, left);
}
