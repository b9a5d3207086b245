use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_pipeline::memory::Rows;
use carebed_pipeline::store::{Commit, Config, Erasure, Store};

use super::*;
use crate::common::observation;
use crate::engine::{Limits, baselines_schema};
use crate::history::{self, Span};
use crate::sql::{Lake, Latest, Snapshot, SqlSession};

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn homes() -> Vec<HomeFacts> {
    ["h1", "h2"].map(|h| HomeFacts::unregistered(h.parse().unwrap(), "area-1".parse().unwrap())).to_vec()
}

#[tokio::test]
async fn what_was_erased_is_in_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let noon = at("2026-05-01T04:00:00Z");
    let mut rows = Vec::new();
    for (home, bed, device) in [("h1", "b1", "mat-before"), ("h1", "b1", "mat-after"), ("h2", "b2", "mat-other")] {
        for hour in 0..8_u64 {
            let from = if device == "mat-before" { noon - Duration::from_secs(86_400) } else { noon };
            let time = from + Duration::from_secs(3_600 * hour);
            rows.push(observation(home, bed, device, "bed_occupancy", time, Some((hour % 2) as f64), "good"));
        }
    }
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![Rows::from(rows.clone())], marks, ..Commit::default() };
    store.commit(&commit, at("2026-06-01T00:00:00Z")).await.unwrap();

    let definitions = Arc::new(Definitions::builtin().unwrap());
    let mut live = Live::new(Arc::new(Engine::new(Limits::default()).unwrap()), Vec::new(), Arc::clone(&definitions));
    homes().into_iter().for_each(|facts| live.set_home(facts));
    live.feed(&rows);
    let [h1, h2]: [HomeId; 2] = ["h1", "h2"].map(|home| home.parse().unwrap());
    let now = rows.last().unwrap().event_time + Duration::from_secs(2 * 86_400);
    [&h1, &h2].iter().for_each(|home| live.advance(home, now));
    let usual = |homes: [&str; 2]| {
        let known = TimestampMillisecondArray::from(vec![noon.millis(); 2]).with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["inactivity"; 2])),
            Arc::new(StringArray::from(homes.to_vec())),
            Arc::new(StringArray::from(vec![None::<&str>; 2])),
            Arc::new(StringArray::from(vec!["room-before", "room-other"])),
            Arc::new(Int64Array::from(vec![1; 2])),
            Arc::new(known),
            Arc::new(Float64Array::from(vec![120.0; 2])),
            Arc::new(Int64Array::from(vec![30; 2])),
        ];
        RecordBatch::try_new(baselines_schema(), columns).unwrap()
    };
    live.set_baselines(&usual(["h1", "h2"]));
    live.tick(now).await;
    let (lake, latest) = (Lake::of(&store), Arc::new(Latest::default()));
    let snapshot = Snapshot::new(&lake, store.view(), &homes()).with_latest(&latest);
    let session = SqlSession::open(snapshot, Limits::default(), 1_000).await.unwrap();
    assert_eq!(session.run("SELECT * FROM latest").await.unwrap().rows(), 3);
    drop(session);
    let remembered = |live: &Live, what: &str| format!("{live:?} {latest:?}").contains(what);
    for what in ["mat-before", "mat-after", "mat-other", "room-before", "room-other"] {
        assert!(remembered(&live, what), "{what} is remembered before");
    }

    // The first day, then everything; each time a late row comes while what is left is read.
    let late = observation("h1", "b1", "mat-late", "bed_occupancy", now, Some(1.0), "good");
    for (until, left) in [(noon, true), (now, false)] {
        let id = format!("until-{}", until.millis());
        let erasure =
            Erasure { id, home: h1.clone(), bed: None, from: None, until, received_before: None, asked_at: now };
        store.erase(&erasure, Duration::ZERO, now).await.unwrap();
        latest.forget().await;
        live.forget_home(&h1);
        let (view, all) = (store.view(), Span { from: Timestamp::MIN, to: Timestamp::MAX });
        let facts: Vec<HomeFacts> = homes().into_iter().filter(|facts| facts.home == h1).collect();
        let definitions = Arc::clone(&definitions);
        let rebuilt = history::episodes(&lake, &view, all, &facts, definitions, Limits::default()).await.unwrap();
        live.feed(std::slice::from_ref(&late));
        live.resume_home(&h1, rebuilt, [std::slice::from_ref(&late)]);
        for (what, stays) in [
            ("mat-before", false),
            ("room-before", false),
            ("mat-after", left),
            ("mat-late", true),
            ("mat-other", true),
            ("room-other", true),
        ] {
            assert_eq!(remembered(&live, what), stays, "{what} until {until}");
        }
    }
    assert!(!live.episodes().of(&h2).is_empty(), "others are remembered as before");
}
