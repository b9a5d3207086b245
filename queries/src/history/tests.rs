use carebed_contract::observation::Observation;
use carebed_pipeline::store::{Commit, Config, Store};

use std::collections::BTreeSet;

use super::*;
use crate::common::observation;
use crate::live::Live;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// One detection, planned.
async fn detection(engine: &Engine, name: &str) -> Vec<Detection> {
    let (mut sources, _) = crate::detection::Source::builtin();
    sources.retain(|source| source.name == name);
    engine.prepare_all(sources, Vec::new()).await.0
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(&format!("2026-05-{text}:00Z")).unwrap()
}

/// However a span is divided, its episodes are those of reading it at once: holes, presses before it and what lasts over the cut.
#[tokio::test]
async fn episodes_are_the_same_however_much_is_read_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let mut rows = Vec::new();
    for (number, home) in ["h1", "h2", "h3"].into_iter().enumerate() {
        for step in 0..400_u64 {
            let minutes = step * 17 + number as u64 * 5 + if step > 200 { 2_000 } else { 0 };
            let time = at("01T00:00") + Duration::from_secs(minutes * 60);
            let (bed, device, quantity) = [
                ("b1", "mat", "bed_occupancy"),
                ("-", "pir", "motion_event"),
                ("b1", "mat", "heart_rate"),
                ("b1", "cord", "call_button"),
            ][usize::try_from(step * 7 % 4).unwrap()];
            let value = if quantity == "heart_rate" { 60 + step % 9 } else { step / 4 % 2 };
            rows.push(observation(home, bed, device, quantity, time, Some(value as f64), "good"));
        }
    }
    let marks = |home: &str, complete_to| carebed_pipeline::accept::Marks {
        homes: [home.parse().unwrap()].into(),
        complete_to,
        received: complete_to,
        ..Default::default()
    };
    // One is complete beyond its last row, one not as far, and one never said.
    let marks = [("gw-1", marks("h1", at("08T00:00"))), ("gw-2", marks("h2", at("04T00:00")))];
    let marks = marks.into_iter().map(|(gateway, marks)| (gateway.parse().unwrap(), marks)).collect();
    store.commit(&Commit { rows: vec![rows.into()], marks, ..Commit::default() }, at("09T00:00")).await.unwrap();
    let (lake, view) = (Lake::of(&store), store.view());
    let facts = |home: &str| HomeFacts::unregistered(home.parse().unwrap(), "area-1".parse().unwrap());
    let homes = ["h1", "h2", "h3"].map(facts);
    let definitions = Arc::new(Definitions::builtin().unwrap());
    let of = async |cuts: &[&str]| {
        let ends: Vec<_> = ["01T07:00"].iter().chain(cuts).chain(&["07T00:00"]).map(|time| at(time)).collect();
        let windows: Vec<_> = ends.windows(2).map(|ends| Span { from: ends[0], to: ends[1] }).collect();
        let limits = Limits::default();
        let mut all = episodes_of(&lake, &view, &windows, &homes, Arc::clone(&definitions), limits).await.unwrap();
        let complete: Vec<_> = homes.iter().map(|facts| all.complete_to(&facts.home)).collect();
        (all.all(), complete)
    };
    let expected = of(&[]).await;
    assert!(expected.0.len() > 100, "{}", expected.0.len());
    for cuts in
        [&["02T00:00"][..], &["01T07:17", "03T12:00", "05T12:00"], &["01T07:01", "01T08:00", "04T00:00", "06T23:59"]]
    {
        let (found, complete) = of(cuts).await;
        let other: Vec<_> = found.iter().filter(|e| !expected.0.contains(e)).take(3).collect();
        assert!(other.is_empty() && found.len() == expected.0.len(), "{cuts:?}: {} {other:#?}", found.len());
        assert_eq!(complete, expected.1, "{cuts:?}");
    }
}

#[tokio::test]
async fn nothing_is_found_where_a_recording_has_a_hole_or_its_platform_was_down() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    let seen = |time: &str| observation("h1", "-", "pir", "motion_event", at(time), Some(1.0), "good");
    // Thirteen hours of quiet, more than a day of nothing, and thirteen hours once more.
    let times = ["01T08:00", "01T21:00", "03T05:00", "03T06:00", "03T19:00", "03T20:00"];
    let rows: Vec<Observation> = times.into_iter().map(seen).collect();
    let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
    let commit = Commit { rows: vec![rows.into()], marks, ..Commit::default() };
    store.commit(&commit, at("09T00:00")).await.unwrap();
    let engine = Arc::new(Engine::new(Limits::default()).unwrap());
    let detections = detection(&engine, "inactivity_cap").await;
    let (lake, view) = (Lake::of(&store), store.view());
    let span = extent(&lake, &view, Limits::default()).await.unwrap().unwrap();
    let check = async |outages: &[(&str, &str)], raised: &[&str], unobserved: &[(&str, &str)]| {
        let times = |of: &[(&str, &str)]| of.iter().map(|(from, to)| (at(from), at(to))).collect::<Vec<_>>();
        let facts = HomeFacts::unregistered("h1".parse().unwrap(), "area-1".parse().unwrap());
        let homes = [HomeFacts { outages: times(outages), ..facts }];
        let found = backtest(&engine, &lake, &view, span, &homes, &detections, &[]).await.unwrap();
        assert!(found.round.failed.is_empty(), "{:?}", found.round.failed);
        let instants: Vec<_> = found.round.findings.iter().map(|finding| finding.raised_at).collect();
        assert_eq!(instants, raised.iter().map(|time| at(time)).collect::<Vec<_>>(), "{outages:?}");
        let stretches: Vec<_> = found.unobserved.iter().map(|e| (e.started_at, e.ended_at.unwrap())).collect();
        assert_eq!(stretches, times(unobserved), "{outages:?}");
    };
    let hole = ("01T21:00", "03T05:00");
    check(&[], &["01T20:00", "03T18:00"], &[hole]).await;
    // From when the platform was down to the first row after it.
    check(&[("03T10:00", "03T12:00")], &["01T20:00"], &[hole, ("03T10:00", "03T19:00")]).await;
    check(&[("02T01:00", "02T03:00")], &["01T20:00", "03T18:00"], &[hole]).await;
}

#[tokio::test]
async fn what_lasts_is_compared_after_a_restart_with_what_was_usual_when_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
    // Midnight in Shanghai, a Friday. To bed at half past eleven, up at half past six, for three weeks; then nobody gets up any more.
    let midnight = at("01T16:00") - DAY;
    let in_bed =
        |at, value: bool| observation("h1", "b1", "mat", "bed_occupancy", at, Some(f64::from(u8::from(value))), "good");
    let to_bed = |night: u32| midnight + DAY * night + HOUR * 47 / 2;
    let mut rows = Vec::new();
    for night in 0..21 {
        rows.extend([in_bed(to_bed(night), true), in_bed(to_bed(night) + HOUR * 7, false)]);
    }
    let began = to_bed(21);
    let now = began + HOUR * 85;
    rows.extend((0..85).map(|hour| in_bed(began + HOUR * hour, true)));
    let marks = carebed_pipeline::accept::Marks {
        homes: ["h1".parse().unwrap()].into(),
        complete_to: now,
        received: now,
        ..Default::default()
    };
    let marks = [("gw-1".parse().unwrap(), marks)].into_iter().collect();
    store.commit(&Commit { rows: vec![rows.clone().into()], marks, ..Commit::default() }, now).await.unwrap();
    let engine = Arc::new(Engine::new(Limits::default()).unwrap());
    let detections = detection(&engine, "bed_overstay").await;
    let (mut sources, _) = crate::baselines::Source::builtin();
    sources.retain(|source| source.written.name == "bed_times");
    let baselines = [engine.prepare_baseline(sources.remove(0)).await.unwrap()];
    let definitions = Arc::new(Definitions::builtin().unwrap());
    let (lake, view) = (Lake::of(&store), store.view());
    let facts = HomeFacts::unregistered("h1".parse().unwrap(), "area-1".parse().unwrap());
    let begin = || {
        let mut live = Live::new(Arc::clone(&engine), detections.clone(), Arc::clone(&definitions));
        live.set_home(facts.clone());
        live
    };
    let learn = async |now, lasts: &BTreeSet<_>, since| {
        let homes = std::slice::from_ref(&facts);
        learn_for(&engine, &lake, &view, now, homes, (lasts, since), &baselines).await.unwrap().0
    };
    let raised = async |live: &mut Live| {
        let round = live.tick(now).await;
        assert!(round.failed.is_empty(), "{:?}", round.failed);
        round.findings.iter().map(|finding| finding.raised_at).collect::<Vec<_>>()
    };
    // One that was there all the while.
    let mut steady = begin();
    steady.feed(&rows);
    steady.advance(&facts.home, now);
    for days in 0..4 {
        let now = now - DAY * (3 - days);
        steady.set_baselines(&learn(now, &BTreeSet::new(), now).await);
    }
    // Two hours after half past six, and not ten hours after going to bed.
    assert_eq!(raised(&mut steady).await, [began + HOUR * 9]);
    // One that begins now, with the days since shortly before it began.
    let since = began - HOUR;
    let span = Span { from: since, to: now };
    let rebuilt =
        episodes(&lake, &view, span, std::slice::from_ref(&facts), Arc::clone(&definitions), Limits::default());
    let mut anew = begin();
    anew.resume(rebuilt.await.unwrap());
    let lasts = anew.lasting_since(now - DAY);
    assert!(lasts.contains(&facts.home));
    anew.set_baselines(&learn(now, &lasts, since).await);
    assert_eq!(raised(&mut anew).await, [began + HOUR * 9]);
}
