//! What is usual in homes, learnt from what a view of the lake holds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;
use chrono::{DateTime, NaiveDate, TimeZone, Timelike};
use datafusion::common::DataFusionError;
use datafusion::common::runtime::SpawnedTask;
use futures::StreamExt;

use super::{HistoryError, Span, episodes};
use crate::engine::{AT_ONCE, Asked, Baseline, Engine, EngineError, EvaluateError, Inputs, baselines_schema};
use crate::episodes::{Definitions, Episode};
use crate::home::HomeFacts;
use crate::sql::Lake;

/// How many homes are learnt of in one query: it bounds memory, and nothing else depends on it.
const HOMES_LEARNT_AT_ONCE: usize = 4;

/// The shortest quiet for which a limit is asked: none is shorter.
const QUIET_MIN: Duration = Duration::from_secs(120 * 60);

/// For which half hours of the day baselines are learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfHours {
    /// All: what is to come is not known.
    All,
    /// Those in which a long quiet began: over history no other is looked up, and it is a twentieth of the work.
    OfLongQuiets,
}

/// What `baselines` say for each local midnight of `span`, its beginning's day included: rows of the table `baselines`. As much history
/// before the span is read as they look back. A midnight up to which a home's data is not complete yet is left for later.
///
/// # Errors
/// When the lake cannot be read; a baseline that fails is in the second answer, and the others go on.
pub async fn learn(
    engine: &Arc<Engine>,
    lake: &Lake,
    view: &Arc<View>,
    span: Span,
    homes: &[HomeFacts],
    baselines: &[Baseline],
    half_hours: HalfHours,
) -> Result<(RecordBatch, Vec<EvaluateError>), HistoryError> {
    let groups = homes.chunks(HOMES_LEARNT_AT_ONCE).filter(|_| !baselines.is_empty());
    let lessons = groups.map(|homes| Lesson {
        engine: Arc::clone(engine),
        lake: lake.clone(),
        view: Arc::clone(view),
        span,
        homes: homes.to_vec(),
        baselines: baselines.to_vec(),
        half_hours,
    });
    let lessons: Vec<Lesson> = lessons.collect();
    let lessons = lessons.into_iter().map(|lesson| async move { SpawnedTask::spawn(lesson.learn()).join().await });
    // Live, where it learns by day, the other cores are for those who wait.
    let at_once = if half_hours == HalfHours::All { 1 } else { AT_ONCE };
    let mut lessons = futures::stream::iter(lessons).buffered(at_once);
    let (mut learnt, mut failed) = (Vec::new(), Vec::new());
    while let Some(lesson) = lessons.next().await {
        let (rows, errors) = lesson.map_err(|panicked| DataFusionError::ExecutionJoin(Box::new(panicked)))??;
        learnt.extend(rows);
        failed.extend(errors);
    }
    let rows = concat_batches(&baselines_schema(), &learnt).map_err(DataFusionError::from)?;
    Ok((rows, failed))
}

/// What is usual as detections need it at `now`: as known at the homes' last two midnights (the one before is for what began before the last).
/// Of homes in which something `lasts` for longer also as known when that began, if that was after `since`: for whoever begins to look now and
/// cannot remember.
///
/// # Errors
/// As [`learn`].
pub async fn learn_for(
    engine: &Arc<Engine>,
    lake: &Lake,
    view: &Arc<View>,
    now: Timestamp,
    homes: &[HomeFacts],
    (lasts, since): (&BTreeSet<HomeId>, Timestamp),
    baselines: &[Baseline],
) -> Result<(RecordBatch, Vec<EvaluateError>), HistoryError> {
    let last = Span { from: now - DAY, to: now };
    // The last span begins at the midnight before it.
    let begun = Span { from: since, to: last.from - DAY };
    let long: Vec<HomeFacts> = homes.iter().filter(|facts| lasts.contains(&facts.home)).cloned().collect();
    let (rows, mut failed) = learn(engine, lake, view, last, homes, baselines, HalfHours::All).await?;
    let (earlier, also) = learn(engine, lake, view, begun, &long, baselines, HalfHours::All).await?;
    failed.extend(also);
    let rows = concat_batches(&rows.schema(), [&earlier, &rows]).map_err(DataFusionError::from)?;
    Ok((rows, failed))
}

/// What is to be learnt of a few homes.
struct Lesson {
    engine: Arc<Engine>,
    lake: Lake,
    view: Arc<View>,
    span: Span,
    homes: Vec<HomeFacts>,
    baselines: Vec<Baseline>,
    half_hours: HalfHours,
}

impl Lesson {
    async fn learn(self) -> Result<(Vec<RecordBatch>, Vec<EvaluateError>), HistoryError> {
        let Self { engine, lake, view, span, homes, baselines, half_hours } = self;
        let lead = baselines.iter().map(|b| b.about.looks_back).max().unwrap_or(Duration::ZERO) + DAY;
        let read = Span { from: span.from - lead, to: span.to };
        let definitions = Arc::new(Definitions::learning().map_err(EngineError::from)?);
        let mut episodes = episodes(&lake, &view, read, &homes, definitions, engine.limits()).await?;
        let complete: Vec<_> = homes.iter().map(|facts| (facts, episodes.complete_to(&facts.home))).collect();
        let all = episodes.all();
        let mut asked = BTreeSet::new();
        for facts in &homes {
            let known_to = episodes.complete_to(&facts.home).unwrap_or(Timestamp::MIN);
            let nights: Vec<Timestamp> = midnights(span, facts).filter(|night| *night <= known_to).collect();
            let of = |known_at: &Timestamp, slot| Asked { home: facts.home.clone(), known_at: *known_at, slot };
            asked.extend(nights.iter().map(|night| of(night, None)));
            if half_hours == HalfHours::All {
                asked.extend(nights.iter().flat_map(|night| (0..48).map(move |slot| of(night, Some(slot)))));
                continue;
            }
            let is_long = |e: &&Episode| {
                let lasts = |ended_at: Timestamp| ended_at.since(e.started_at) >= QUIET_MIN;
                e.home == facts.home && &*e.kind == "quiet" && e.ended_at.is_none_or(lasts)
            };
            asked.extend(all.iter().filter(is_long).filter_map(|e| half_hour(facts, &nights, e.started_at)));
        }
        let asked: Vec<Asked> = asked.into_iter().collect();
        let inputs = Inputs::new(&all, complete).with_asked(&asked);
        let (mut learnt, mut failed) = (Vec::new(), Vec::new());
        for baseline in &baselines {
            match engine.learn(baseline, &inputs, span.to).await {
                Ok(rows) => learnt.push(rows),
                Err(error) => failed.push(error),
            }
        }
        Ok((learnt, failed))
    }
}

/// The half hour of the local day in which an instant lies, as known at the last of these midnights before it.
#[must_use]
pub fn half_hour(facts: &HomeFacts, nights: &[Timestamp], at: Timestamp) -> Option<Asked> {
    let known_at = *nights.get(nights.partition_point(|night| *night <= at).checked_sub(1)?)?;
    let wall = DateTime::from_timestamp_millis(at.millis())?.with_timezone(&facts.time_zone);
    let slot = i64::from((wall.hour() * 60 + wall.minute()) / 30);
    Some(Asked { home: facts.home.clone(), known_at, slot: Some(slot) })
}

const DAY: Duration = Duration::from_secs(86_400);

/// The local midnights of a home from the day in which the span begins; bounded by what a calendar can hold.
pub fn midnights(span: Span, facts: &HomeFacts) -> impl Iterator<Item = Timestamp> + use<> {
    let zone = facts.time_zone;
    let first = DateTime::from_timestamp_millis(span.from.millis()).map(|utc| utc.with_timezone(&zone).date_naive());
    let days = std::iter::successors(first, |day| day.succ_opt());
    // Where summer time skips midnight, the first instant after it.
    let midnight = move |day: NaiveDate| {
        let hours = (0..3).filter_map(|hour| day.and_hms_opt(hour, 0, 0));
        let mut instants = hours.filter_map(|wall| zone.from_local_datetime(&wall).earliest());
        instants.next().map(|t| Timestamp::from_millis(t.timestamp_millis()))
    };
    days.map_while(midnight).take_while(move |night| *night < span.to)
}
