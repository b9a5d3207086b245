//! What would have been told, and when, had the detections looked while the data came as it did: late, in other order, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMillisecondType;
use carebed_contract::finding::{Finding, Subject};
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;
use futures::StreamExt as _;

use super::holes::Holes;
use super::rows::{COLUMNS, each_row, read, relevant, within};
use super::{HistoryError, Span};
use crate::engine::{Detection, Engine, EngineError, EvaluateError};
use crate::episodes::{Definitions, Seen};
use crate::home::HomeFacts;
use crate::live::Live;
use crate::sql::Lake;

/// How often it is looked: live it is every second or few, over months that would take as long as the months.
pub const LOOK_EVERY: Duration = Duration::from_secs(600);

/// A finding, and when it was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// As it was seen last.
    pub finding: Finding,
    /// When it was first seen, to [`LOOK_EVERY`] and in the centre's time.
    pub told_at: Timestamp,
    /// When data that came later refuted it.
    pub taken_back_at: Option<Timestamp>,
}

/// Everything told of homes from what the centre received within `span`, in order of telling. How far a home was complete at that time is
/// not kept: it is taken to have been so up to the last event that had come, calls left out of it.
///
/// # Errors
/// When the lake cannot be read; detections that failed are in the second answer.
pub async fn as_received(
    engine: &Arc<Engine>,
    lake: &Lake,
    view: &Arc<View>,
    span: Span,
    homes: &[HomeFacts],
    detections: &[Detection],
    learnt: &RecordBatch,
) -> Result<(Vec<Told>, Vec<EvaluateError>), HistoryError> {
    let definitions = Arc::new(Definitions::builtin().map_err(EngineError::from)?);
    let mut live = Live::new(Arc::clone(engine), detections.to_vec(), Arc::clone(&definitions));
    homes.iter().for_each(|facts| live.set_home(facts.clone()));
    live.set_baselines(learnt);
    let mut replay = Replay {
        live,
        next: Timestamp::MIN,
        fed: false,
        homes,
        holes: BTreeMap::new(),
        last: BTreeMap::new(),
        told: BTreeMap::new(),
        failed: Vec::new(),
    };
    let columns: Vec<&str> = COLUMNS.into_iter().chain(["received_time"]).collect();
    let wanted = within("received_time", span).and(relevant(&definitions));
    let order = ["received_time", "home_id", "event_time"];
    let rows = read(lake, view, engine.limits(), wanted, homes, &columns, &order).await?;
    let mut stream = rows.execute_stream().await?;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let received =
            batch.column_by_name("received_time").map(|column| column.as_primitive::<TimestampMillisecondType>());
        let received = received.ok_or_else(|| HistoryError::Row("no column received_time".to_owned()))?;
        let mut came = Vec::with_capacity(batch.num_rows());
        let mut keep = |row: usize, home: &str, at: Timestamp, seen: Option<Seen>| {
            let home = HomeId::new(home).map_err(|error| error.to_string())?;
            came.push((Timestamp::from_millis(received.value(row)), home, at, seen));
            Ok(())
        };
        each_row(&batch, &definitions, &mut keep).map_err(HistoryError::Row)?;
        for (received_at, home, at, seen) in came {
            replay.look_until(received_at).await;
            replay.take(home, at, seen, &definitions);
        }
    }
    replay.look().await;
    let mut told: Vec<Told> = replay.told.into_values().collect();
    told.sort_by_key(|t| (t.told_at, t.finding.raised_at));
    Ok((told, replay.failed))
}

type Key = (String, Subject, Timestamp);

struct Replay<'a> {
    live: Live,
    homes: &'a [HomeFacts],
    holes: BTreeMap<HomeId, Holes<'a>>,
    /// When it is looked next.
    next: Timestamp,
    /// Whether something came since it was looked last: without that nothing new is known.
    fed: bool,
    /// The last event of each home.
    last: BTreeMap<HomeId, Timestamp>,
    told: BTreeMap<Key, Told>,
    failed: Vec<EvaluateError>,
}

impl Replay<'_> {
    fn take(&mut self, home: HomeId, at: Timestamp, mut seen: Option<Seen>, definitions: &Definitions) {
        self.holes.entry(home.clone()).or_insert_with(|| Holes::of(self.homes, home.as_str())).mark(at, &mut seen);
        let Some(seen) = seen else { return };
        if !definitions.is_immediate(&seen.quantity) {
            let last = self.last.entry(home.clone()).or_insert(at);
            *last = at.max(*last);
        }
        self.live.feed_seen(&home, seen);
        self.fed = true;
    }

    /// Looks when it is time to, before what came at `now` is taken.
    async fn look_until(&mut self, now: Timestamp) {
        if self.next <= now {
            self.look().await;
            self.next = now + LOOK_EVERY;
        }
    }

    async fn look(&mut self) {
        if !std::mem::take(&mut self.fed) {
            return;
        }
        for (home, last) in &self.last {
            self.live.advance(home, *last);
        }
        let now = self.next;
        let round = self.live.tick(now).await;
        let failed: Vec<&str> = round.failed.iter().map(EvaluateError::detection).collect();
        let key = |f: &Finding| (f.detection.clone(), f.subject.clone(), f.raised_at);
        let found: BTreeMap<Key, Finding> = round.findings.into_iter().map(|f| (key(&f), f)).collect();
        for (key, told) in &mut self.told {
            let holds = told.finding.cleared_at.is_none() && told.taken_back_at.is_none();
            if holds && !found.contains_key(key) && !failed.contains(&key.0.as_str()) {
                told.taken_back_at = Some(now);
            }
        }
        for (key, finding) in found {
            let told =
                self.told.entry(key).or_insert(Told { finding: finding.clone(), told_at: now, taken_back_at: None });
            (told.finding, told.taken_back_at) = (finding, None);
        }
        // A detection that always fails is told once.
        let known: Vec<String> = self.failed.iter().map(|error| error.detection().to_owned()).collect();
        self.failed
            .extend(round.failed.into_iter().filter(|error| !known.iter().any(|name| name == error.detection())));
    }
}

#[cfg(test)]
mod tests {
    use carebed_contract::observation::Observation;
    use carebed_pipeline::store::{Commit, Config, Store};

    use super::*;
    use crate::common::observation;
    use crate::engine::Limits;

    #[tokio::test]
    async fn what_came_late_is_told_late_and_what_it_refutes_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
        let at = |text: &str| Timestamp::parse(&format!("2026-05-{text}Z")).unwrap();
        // In bed at 22:00 in Shanghai, out at 01:00, seen; back at 01:20, but that came two hours late. At 04:00 a call, five minutes late.
        let rows = [
            ("b1", "mat", "bed_occupancy", "01T14:00:00", 1.0, "01T14:00:01"),
            ("b1", "mat", "bed_occupancy", "01T17:00:00", 0.0, "01T17:00:01"),
            ("-", "pir", "motion_event", "01T17:01:00", 1.0, "01T17:01:01"),
            ("-", "lamp", "appliance_on", "01T17:45:00", 1.0, "01T17:45:01"),
            ("b1", "mat", "bed_occupancy", "01T17:20:00", 1.0, "01T19:20:00"),
            ("b1", "cord", "call_event", "01T20:00:00", 1.0, "01T20:05:00"),
        ];
        let row = |(bed, device, quantity, time, value, received): (&str, &str, &str, &str, f64, &str)| Observation {
            received_time: at(received),
            ..observation("h1", bed, device, quantity, at(time), Some(value), "good")
        };
        let rows: Vec<Observation> = rows.into_iter().map(row).collect();
        let marks = [("gw-1".parse().unwrap(), Default::default())].into_iter().collect();
        let commit = Commit { rows: vec![rows.into()], marks, ..Commit::default() };
        store.commit(&commit, at("02T00:00:00")).await.unwrap();
        let engine = Arc::new(Engine::new(Limits::default()).unwrap());
        let (mut detections, _) = engine.builtin().await;
        detections.retain(|d| ["bed_exit_no_return", "call_for_help"].contains(&d.name.as_str()));
        let homes = [HomeFacts::unregistered("h1".parse().unwrap(), "area-1".parse().unwrap())];
        let span = Span { from: at("01T00:00:00"), to: at("02T00:00:00") };
        let none = RecordBatch::new_empty(crate::engine::baselines_schema());
        let (lake, view) = (Lake::of(&store), store.view());
        let (told, failed) = as_received(&engine, &lake, &view, span, &homes, &detections, &none).await.unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        let minutes = |told: &Told| told.told_at.since(told.finding.raised_at).as_secs() / 60;
        let lines: Vec<_> = told
            .iter()
            .map(|t| (t.finding.detection.as_str(), t.finding.raised_at, minutes(t) <= 30, t.taken_back_at.is_some()))
            .collect();
        let exit = ("bed_exit_no_return", at("01T17:30:00"), true, true);
        assert_eq!(lines, [exit, ("call_for_help", at("01T20:00:00"), true, false)]);
        // A press is told when it has come, and not when it was.
        assert!(told.iter().all(|t| t.finding.detection != "call_for_help" || t.told_at >= at("01T20:05:00")));
    }
}
