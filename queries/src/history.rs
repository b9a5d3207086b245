//! Episodes and detections over what a view of the lake holds: the same code and the same SQL as live.

mod received;
mod recording;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Float64Type, TimestampMillisecondType, UInt64Type};
use carebed_contract::id::{DeviceId, HomeId};
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;
use chrono::{DateTime, NaiveDate, TimeZone, Timelike};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, col, lit};
use futures::StreamExt;

use crate::coverage::Coverage;
use crate::engine::{
    AT_ONCE, Asked, Baseline, Detection, Engine, EngineError, EvaluateError, Inputs, Limits, baselines_schema,
};
use crate::episodes::{Definitions, Episode, Episodes, Seen, time_type};
use crate::home::HomeFacts;
use crate::live::Round;
use crate::sql::{Lake, context};

pub use received::{LOOK_EVERY, Told, as_received};
pub use recording::{Move, Recording, Silenced};

/// A stretch of event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// From here on.
    pub from: Timestamp,
    /// Up to here, without it.
    pub to: Timestamp,
}

/// Why history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The query engine could not be set up.
    #[error("failed to set up the reading of history")]
    Engine(#[from] EngineError),
    /// The observations could not be read.
    #[error("failed to read observations from the lake")]
    Read(#[from] DataFusionError),
    /// A row that no observation can be.
    #[error("failed to understand a row of observations: {0}")]
    Row(String),
}

/// After how many rows of a home its episodes are brought up to date; it keeps memory flat.
const ROWS_BETWEEN_ADVANCES: usize = 256;

/// How long before a span a button may have been pressed and not let go to be known as pressed at its beginning. One that has hung longer
/// counts as pressed when the span first hears of it.
const HELD_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The episodes of `homes` (all of the view when empty) from the observations of `span`. What began before the span is not seen:
/// give it a lead. Only a button that hangs is known to hang since it was pressed: after a restart it is no new call.
///
/// # Errors
/// When the lake cannot be read.
pub async fn episodes(
    lake: &Lake,
    view: &Arc<View>,
    span: Span,
    homes: &[HomeFacts],
    definitions: Arc<Definitions>,
    limits: Limits,
) -> Result<Episodes, HistoryError> {
    let known = Arc::clone(&definitions);
    let mut episodes = Episodes::new(definitions);
    for facts in homes {
        episodes.set_residents(&facts.home, facts.residents);
    }
    let rows = rows(lake, view, span, homes, &known, limits).await?;
    let mut reader = Reader {
        span,
        view,
        definitions: known,
        home: None,
        last: Timestamp::MIN,
        since_advance: 0,
        held: BTreeMap::new(),
    };
    let mut stream = rows.execute_stream().await?;
    while let Some(batch) = stream.next().await {
        reader.take(&batch?, &mut episodes).map_err(HistoryError::Row)?;
    }
    reader.finish(&mut episodes);
    // Homes that were silent all the span are known to have been, as far as they are complete.
    for facts in homes {
        reader.complete(&facts.home, Timestamp::MIN, &mut episodes);
    }
    Ok(episodes)
}

/// What episodes are made of.
const COLUMNS: [&str; 9] =
    ["home_id", "bed_id", "device_id", "room", "quantity", "event_time", "value", "quality", "boot"];

/// What may matter to episodes, in order of home and event time.
async fn rows(
    lake: &Lake,
    view: &Arc<View>,
    span: Span,
    homes: &[HomeFacts],
    definitions: &Definitions,
    limits: Limits,
) -> Result<DataFrame, HistoryError> {
    let mut wanted = within("event_time", span).and(relevant(definitions));
    let immediate: Vec<Expr> = definitions.immediate_states().map(|q| lit(q.as_str())).collect();
    if !immediate.is_empty() {
        let before = within("event_time", Span { from: span.from - HELD_MAX, to: span.from });
        wanted = wanted.or(before.and(col("quantity").in_list(immediate, false)));
    }
    read(lake, view, limits, wanted, homes, &COLUMNS, &["home_id", "event_time"]).await
}

/// Whether some episode is made from it.
fn relevant(definitions: &Definitions) -> Expr {
    col("quantity").in_list(definitions.quantities().map(|q| lit(q.as_str())).collect(), false)
}

fn within(column: &str, span: Span) -> Expr {
    col(column).gt_eq(time(span.from)).and(col(column).lt(time(span.to)))
}

/// These columns of the wanted observations of `homes` (all of the view when empty), in this order.
async fn read(
    lake: &Lake,
    view: &Arc<View>,
    limits: Limits,
    wanted: Expr,
    homes: &[HomeFacts],
    columns: &[&str],
    order: &[&str],
) -> Result<DataFrame, HistoryError> {
    let observations = context(lake, view, limits)?.table("observations").await?;
    let of_homes = col("home_id").in_list(homes.iter().map(|f| lit(f.home.as_str())).collect(), false);
    let wanted = if homes.is_empty() { wanted } else { wanted.and(of_homes) };
    let order = order.iter().map(|name| col(*name).sort(true, true)).collect();
    Ok(observations.filter(wanted)?.select(columns.iter().map(|name| col(*name)).collect::<Vec<_>>())?.sort(order)?)
}

/// What detections would have found within `span`, with their findings as they stood at its end. Observations before it are read
/// as far as the detections' windows reach back.
///
/// # Errors
/// When the lake cannot be read; a detection that fails is in the round.
pub async fn backtest(
    engine: &Arc<Engine>,
    lake: &Lake,
    view: &Arc<View>,
    span: Span,
    homes: &[HomeFacts],
    detections: &[Detection],
    baselines: &[Baseline],
) -> Result<Round, HistoryError> {
    let lead = detections.iter().map(|d| d.meaning.window).max().unwrap_or(Duration::ZERO);
    let read = Span { from: span.from - lead, to: span.to };
    let definitions = Arc::new(Definitions::builtin().map_err(EngineError::from)?);
    let asked = detections.iter().flat_map(|d| &d.meaning.baselines);
    let asked: BTreeSet<&str> = asked.map(String::as_str).collect();
    let baselines: Vec<_> = baselines.iter().filter(|b| asked.contains(b.name.as_str())).cloned().collect();
    let (episodes, learnt) = futures::join!(
        episodes(lake, view, read, homes, definitions, engine.limits()),
        learn(engine, lake, view, read, homes, &baselines, HalfHours::OfLongQuiets)
    );
    let (mut episodes, (learnt, failed)) = (episodes?, learnt?);
    let facts = || homes.iter().map(|facts| (facts, episodes.complete_to(&facts.home)));
    let complete: Vec<_> = facts().collect();
    let all = episodes.all();
    let coverage = Coverage::new(&all, homes, |home| episodes.sensors(home).to_vec());
    let inputs = Inputs::new(&all, complete).with_baselines(learnt);
    let mut round = Round { findings: Vec::new(), failed };
    let asked = detections.iter().map(|detection| (detection.clone(), inputs.clone()));
    let mut answers = engine.evaluate_each(asked, span.to);
    while let Some((detection, answer)) = answers.next().await {
        match answer {
            Ok(mut found) => {
                coverage.mark_as_raised(&detection.meaning, &mut found);
                let within = found.into_iter().filter(|f| f.raised_at >= span.from && f.raised_at < span.to);
                round.findings.extend(within);
            }
            Err(error) => round.failed.push(error),
        }
    }
    Ok(round)
}

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

/// The event times a view spans; none when it holds no observation.
///
/// # Errors
/// When the lake cannot be read.
pub async fn extent(lake: &Lake, view: &Arc<View>, limits: Limits) -> Result<Option<Span>, HistoryError> {
    let observations = context(lake, view, limits)?.table("observations").await?;
    let least = datafusion::functions_aggregate::expr_fn::min(col("event_time"));
    let found = observations.aggregate(vec![], vec![least, max(col("event_time"))])?.collect().await?;
    let value = |column: usize| {
        let array = found.first()?.columns().get(column)?.as_primitive_opt::<TimestampMillisecondType>()?;
        (!array.is_empty() && array.is_valid(0)).then(|| Timestamp::from_millis(array.value(0)))
    };
    Ok(value(0).zip(value(1)).map(|(from, last)| Span { from, to: last + Duration::from_millis(1) }))
}

fn time(at: Timestamp) -> Expr {
    lit(ScalarValue::TimestampMillisecond(Some(at.millis()), Some("UTC".into())))
}

/// Rows in order of home and event time become episodes.
struct Reader<'a> {
    span: Span,
    view: &'a View,
    definitions: Arc<Definitions>,
    home: Option<HomeId>,
    last: Timestamp,
    since_advance: usize,
    /// What was pressed before the span and not let go.
    held: BTreeMap<(DeviceId, Quantity), Seen>,
}

impl Reader<'_> {
    fn take(&mut self, batch: &RecordBatch, episodes: &mut Episodes) -> Result<(), String> {
        let definitions = Arc::clone(&self.definitions);
        each_row(batch, &definitions, |_, home, time, seen| {
            if self.home.as_ref().is_none_or(|current| current.as_str() != home) {
                self.finish(episodes);
                self.home = Some(HomeId::new(home).map_err(|e| e.to_string())?);
                self.last = Timestamp::MIN;
            }
            if time < self.span.from {
                self.hold(seen);
                return Ok(());
            }
            self.release(episodes);
            let Some(home) = &self.home else { return Ok(()) };
            self.last = time;
            if let Some(seen) = seen {
                episodes.push_seen(home, seen);
            }
            self.since_advance += 1;
            if self.since_advance >= ROWS_BETWEEN_ADVANCES {
                self.since_advance = 0;
                let before = self.last - Duration::from_millis(1);
                let known = self.view.complete.get(home).map_or(before, |complete| complete.complete_to.min(before));
                episodes.seal(home, known);
            }
            Ok(())
        })
    }

    /// The first press since it was let go.
    fn hold(&mut self, seen: Option<Seen>) {
        let Some(seen) = seen else { return };
        let key = (seen.device.clone(), seen.quantity.clone());
        if seen.value > 0.0 {
            self.held.entry(key).or_insert(seen);
        } else {
            self.held.remove(&key);
        }
    }

    fn release(&mut self, episodes: &mut Episodes) {
        let mut held: Vec<Seen> = std::mem::take(&mut self.held).into_values().collect();
        held.sort_by(Seen::order);
        let Some(home) = &self.home else { return };
        for seen in held {
            episodes.push_seen(home, seen);
        }
    }

    fn finish(&mut self, episodes: &mut Episodes) {
        self.release(episodes);
        if let Some(home) = self.home.take() {
            self.complete(&home, self.last, episodes);
        }
    }

    /// A home is known as far as its gateway said, and no further than the span: rows before its last one may still be on
    /// their way. Of a home whose gateway never said anything, the last row is all there is.
    fn complete(&self, home: &HomeId, last: Timestamp, episodes: &mut Episodes) {
        episodes.advance(home, self.said(home).unwrap_or(last).min(self.span.to));
    }

    fn said(&self, home: &HomeId) -> Option<Timestamp> {
        self.view.complete.get(home).map(|complete| complete.complete_to)
    }
}

/// Goes through the rows of a batch: its place, home, event time, and what the row says to episodes if anything.
fn each_row(
    batch: &RecordBatch,
    definitions: &Definitions,
    mut each: impl FnMut(usize, &str, Timestamp, Option<Seen>) -> Result<(), String>,
) -> Result<(), String> {
    let text = |name: &str| {
        let column = batch.column_by_name(name).ok_or_else(|| format!("no column {name}"))?;
        cast(column, &DataType::Utf8).map(|c| c.as_string::<i32>().clone()).map_err(|e| e.to_string())
    };
    let [homes, beds, devices, rooms] = ["home_id", "bed_id", "device_id", "room"].map(text);
    let (homes, beds, devices, rooms) = (homes?, beds?, devices?, rooms?);
    let (quantities, qualities) = (text("quantity")?, text("quality")?);
    let times = batch.column_by_name("event_time").ok_or("no column event_time")?;
    let times = cast(times, &time_type()).map_err(|e| e.to_string())?;
    let times = times.as_primitive::<TimestampMillisecondType>();
    let values = batch.column_by_name("value").ok_or("no column value")?.as_primitive::<Float64Type>();
    let boots = batch.column_by_name("boot").ok_or("no column boot")?;
    let boots = cast(boots, &DataType::UInt64).map_err(|e| e.to_string())?;
    let boots = boots.as_primitive::<UInt64Type>();
    let wrong = |error: carebed_contract::id::IdError| error.to_string();
    for row in 0..batch.num_rows() {
        let time = Timestamp::from_millis(times.value(row));
        let number = values.is_valid(row).then(|| values.value(row));
        let quality = Quality::parse(qualities.value(row));
        let said = Quantity::new(quantities.value(row));
        let said = said.and_then(|q| Seen::value(&q, number, &quality, definitions).map(|value| (q, value)));
        let seen = match said {
            Some((quantity, value)) => {
                let optional =
                    |array: &arrow::array::StringArray| array.is_valid(row).then(|| array.value(row).to_owned());
                Some(Seen {
                    time,
                    quantity,
                    device: devices.value(row).parse().map_err(wrong)?,
                    bed: optional(&beds).map(TryInto::try_into).transpose().map_err(wrong)?,
                    room: optional(&rooms).map(TryInto::try_into).transpose().map_err(wrong)?,
                    value,
                    boot: boots.is_valid(row).then(|| boots.value(row)),
                })
            }
            None => None,
        };
        each(row, homes.value(row), time, seen)?;
    }
    Ok(())
}
