//! What a store promises, against real files; the disk that forgets is in [`power`].

mod power;
mod races;
mod readers;
mod upkeep;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use carebed_contract::labels::{Epoch, Labels, Lane};
use carebed_contract::observation::Observation;
use object_store::ObjectStoreExt;

use super::*;
use crate::accept::{Accept, LaneMark, Verdict};
use crate::rows::{self, Origin, Rooms, observations};

pub(super) const START: Timestamp = Timestamp::from_millis(1_772_403_300_000);

/// A gateway with one lane, and the batches it has made.
#[derive(Debug, Default)]
pub(super) struct Home {
    pub(super) accept: Accept,
}

impl Home {
    pub(super) async fn of(store: &Store) -> Self {
        Self { accept: Accept::resume(store.marks().await.unwrap()) }
    }

    /// Accepts batch after batch of one row each; the row's value is the batch's number.
    pub(super) fn batches(&mut self, n: u64) -> Commit {
        let gateway: GatewayId = "gw-1".parse().unwrap();
        let (epoch, lane) = (Epoch::new(1), Lane::Routine);
        let mut commit = Commit::default();
        for _ in 0..n {
            let mark = self.accept.marks(&gateway).map_or(LaneMark::ORIGIN, |m| m.lane(epoch, lane));
            let seq = mark.next;
            let labels = Labels { complete_to: START, ..Labels::of(epoch, lane, seq, mark.digest) };
            let verdict = self.accept.offer(&gateway, &labels, "json", &seq.to_be_bytes(), START);
            assert_eq!(verdict, Verdict::Next { gaps: vec![], repeats: false });
            let home = "h1".parse().unwrap();
            self.accept.note_home(&gateway, &home);
            commit.rows.push(rows_of(seq).into());
        }
        commit.marks = self.accept.begin();
        commit
    }

    pub(super) fn good(&mut self, commit: Commit) {
        self.accept.finish(commit.marks);
    }
}

/// One row; every fourth falls on the day before.
fn rows_of(seq: u64) -> Vec<Observation> {
    let time = START.millis() / 1000 - if seq % 4 == 3 { 86_400 } else { 0 };
    let json = format!(r#"[{{"n":"h1/b1/mat-1/heart_rate","v":{seq},"t":{time}}}]"#);
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
    observations(json.as_bytes(), &origin, &Rooms::default())
}

/// The numbers of all batches that a view's files and hot rows hold, sorted.
pub(super) async fn numbers(store: &Store, view: &View) -> Vec<u64> {
    let mut found = Vec::new();
    let table = Path::from_url_path(store.lake().join("observations/").unwrap().path()).unwrap();
    for file in view.observations.files.iter() {
        let path = Path::from_iter(table.parts().chain(Path::from(&*file.path).parts()));
        let bytes = store.object_store().get(&path).await.unwrap().bytes().await.unwrap();
        let mut rows = 0;
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
            let read = schema::from_batch(&batch.unwrap()).unwrap();
            assert!(read.iter().all(|row| Some(rows::day(row.event_time)) == file.day));
            rows += read.len() as u64;
            found.extend(read.iter().map(|row| row.seq));
        }
        // Where an erasure had the log forget what it said of a file, the file itself says it.
        assert!(file.rows.is_none_or(|said| said == rows), "{}: {:?} and not {rows}", file.path, file.rows);
    }
    for hot in view.observations.hot.iter() {
        found.extend(schema::from_batch(&hot.columns().unwrap()).unwrap().iter().map(|row| row.seq));
    }
    found.sort_unstable();
    found
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let mut expected = 0;
    for round in 1..=3_u64 {
        let store = Store::open(config.clone()).await.unwrap();
        assert_eq!(numbers(&store, &store.view()).await, (0..expected).collect::<Vec<_>>(), "round {round}");
        let mut home = Home::of(&store).await;
        for _ in 0..2 {
            let commit = home.batches(5);
            let committed = store.commit(&commit, START).await.unwrap();
            assert_eq!((committed.rows, committed.files), (5, 2));
            home.good(commit);
            expected += 5;
        }
        assert_eq!(store.view().complete["h1"].complete_to, START);
    }
    let reader = Store::open_read(config).await.unwrap();
    assert_eq!(numbers(&reader, &reader.view()).await, (0..expected).collect::<Vec<_>>());
    let file = Arc::clone(&reader.view().observations.files[0]);
    assert!(
        file.part.is_some() && file.bed.as_ref().unwrap().0.as_ref() == "b1" && file.event_time.is_some(),
        "{file:?}"
    );
    assert!(matches!(reader.commit(&Commit::default(), START).await, Err(StoreError::ReadOnly)));
}

pub(super) fn gap_from(from_seq: u64) -> Gap {
    let reason = crate::gap::Reason::EpochLeft;
    let missing = crate::gap::Missing { epoch: Epoch::new(1), lane: Lane::Urgent, from_seq, to_seq: None, reason };
    Gap { gateway: "gw-1".parse().unwrap(), area: "a".parse().unwrap(), missing, noted_at: START }
}

pub(super) fn letter(payload: &'static [u8]) -> DeadLetter {
    DeadLetter {
        gateway: "gw-1".parse().unwrap(),
        area: "a".parse().unwrap(),
        topic: "t".into(),
        labels: None,
        content_type: "x".into(),
        payload: bytes::Bytes::from_static(payload),
        reason: "no labels".into(),
        received_time: START,
    }
}

pub(super) fn rows_in(table: &crate::view::TableView) -> u64 {
    table.files.iter().filter_map(|file| file.rows).sum()
}

#[tokio::test]
async fn a_loss_and_a_letter_are_written_once_however_often_they_are_noticed() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let (gap, letter) = (gap_from(3), letter(b"?"));
    for _ in 0..2 {
        let store = Store::open(config.clone()).await.unwrap();
        for _ in 0..2 {
            let later = Gap { noted_at: START + std::time::Duration::from_secs(1), ..gap.clone() };
            let commit = Commit {
                gaps: vec![gap.clone(), later],
                dead_letters: vec![letter.clone(), letter.clone()],
                ..Commit::default()
            };
            store.commit(&commit, START).await.unwrap();
            let view = store.view();
            assert_eq!((rows_in(&view.gaps), rows_in(&view.dead_letters)), (1, 1));
        }
    }
}

#[tokio::test]
async fn a_torn_last_entry_is_set_aside_and_a_torn_one_before_it_is_told() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    let entry = |version: u64| lake.path().join(format!("observations/_delta_log/{version:020}.json"));
    {
        let store = Store::open(config.clone()).await.unwrap();
        let mut home = Home::of(&store).await;
        for _ in 0..2 {
            let commit = home.batches(1);
            store.commit(&commit, START).await.unwrap();
            home.good(commit);
        }
    }
    for torn in ["", "{\"commitInfo\":{\"ti", "\0\0\0\0"] {
        std::fs::write(entry(3), torn).unwrap();
        let store = Store::open(config.clone()).await.unwrap();
        assert_eq!(numbers(&store, &store.view()).await, [0, 1], "{torn:?}");
        assert!(
            !entry(3).exists()
                && lake.path().join("observations/_delta_log").join(format!("{:020}.json.torn", 3)).exists()
        );
    }
    let whole = std::fs::read(entry(1)).unwrap();
    std::fs::write(entry(1), "").unwrap();
    let told = Store::open(config.clone()).await;
    assert!(told.is_err(), "a hole in the middle of the log went unnoticed");
    std::fs::write(entry(1), whole).unwrap();
    // A lost watermark must not be guessed from the rows.
    std::fs::remove_file(lake.path().join(format!("watermarks/0/{:020}", 2))).unwrap();
    let error = Store::open(config).await.unwrap_err();
    assert!(matches!(error, StoreError::Watermark(WatermarkError::Read { .. })), "{error}");
}

#[tokio::test]
async fn opening_stays_quick_and_right_over_many_commits() {
    let lake = tempfile::tempdir().unwrap();
    let config = Config::local(lake.path()).unwrap();
    {
        let store = Store::open(config.clone()).await.unwrap();
        let mut home = Home::of(&store).await;
        for _ in 0..130 {
            let commit = home.batches(1);
            store.commit(&commit, START).await.unwrap();
            home.good(commit);
        }
    }
    let checkpoint = lake.path().join(format!("observations/_delta_log/{:020}.checkpoint.parquet", 100));
    assert!(checkpoint.exists(), "no checkpoint was written");
    let store = Store::open(config).await.unwrap();
    assert_eq!(numbers(&store, &store.view()).await, (0..130).collect::<Vec<_>>());
    assert_eq!(Home::of(&store).await.batches(1).rows[0].iter().next().unwrap().seq, 130);
}
