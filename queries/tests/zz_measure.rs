mod common;
use carebed_contract::time::Timestamp;
use carebed_pipeline::store::{Commit, Config, Store};
use carebed_queries::{
    engine::{Engine, Limits},
    history,
    home::HomeFacts,
    sql::Lake,
};
use common::observation;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
#[tokio::test]
async fn measure() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(dir.path()).unwrap()).await.unwrap();
    let start = Timestamp::parse("2026-03-01T12:00:00Z").unwrap();
    let mut homes = vec![];
    let t = Instant::now();
    for h in 0..34u64 {
        let home = format!("h{h}");
        homes.push(HomeFacts::unregistered(home.parse().unwrap(), "area-1".parse().unwrap()));
    }
    let mut all = vec![];
    for home in &homes {
        let mut time = start;
        let mut x = 1u64;
        let mut rows = vec![];
        for _ in 0..14_706 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            time = time + Duration::from_secs((x >> 33) % 1000);
            let q = if (x >> 20) % 8 == 0 { "door_event" } else { "motion_event" };
            rows.push(observation(
                home.home.as_str(),
                "-",
                ["a", "b", "c", "d"][((x >> 40) % 4) as usize],
                q,
                time,
                Some(1.0),
                "good",
            ));
        }
        all.push(Arc::from(rows));
    }
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    store.commit(&Commit { rows: all, marks, ..Commit::default() }, start).await.unwrap();
    println!("committed in {:?}", t.elapsed());
    let (lake, view) = (Lake::of(&store), store.view());
    println!("files {}", view.observations.files.len());
    let engine = Engine::new(Limits::default()).unwrap();
    let (detections, _) = engine.builtin().await;
    let span = history::extent(&lake, &view, Limits::default()).await.unwrap().unwrap();
    let t = Instant::now();
    let s = carebed_queries::sql::SqlSession::open(&lake, view.clone(), &homes, Limits::default(), 10).unwrap();
    s.run("select home_id, event_time, device_id, quantity, value from observations order by home_id, event_time limit 5 offset 499000").await.unwrap();
    println!("sorted read in {:?}", t.elapsed());
    let t = Instant::now();
    let mut e = history::episodes(
        &lake,
        &view,
        span,
        &homes,
        Arc::new(carebed_queries::episodes::Definitions::builtin().unwrap()),
        Limits::default(),
    )
    .await
    .unwrap();
    println!("history in {:?}, {} episodes", t.elapsed(), e.all().len());
    let t = Instant::now();
    let r = history::backtest(&engine, &lake, &view, span, &homes, &detections).await.unwrap();
    println!("backtest in {:?}: {} findings {:?}", t.elapsed(), r.findings.len(), r.failed);
}
