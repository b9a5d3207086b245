//! Episodes and detections over what a view of the lake holds: the same code and the same SQL as live.

mod holes;
mod learning;
mod reader;
mod received;
mod recording;
mod rows;
mod windows;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array as _, AsArray as _};
use arrow::datatypes::TimestampMillisecondType;
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;
use datafusion::common::DataFusionError;
use datafusion::functions_aggregate::expr_fn::{max, min};
use datafusion::logical_expr::col;
use futures::StreamExt;

use crate::coverage::Coverage;
use crate::engine::{Baseline, Detection, Engine, EngineError, Inputs, Limits};
use crate::episodes::{Definitions, Episode, Episodes};
use crate::home::HomeFacts;
use crate::live::Round;
use crate::sql::{Lake, context};

pub use learning::{HalfHours, half_hour, learn, learn_for, midnights};
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
    let windows = windows::windows(view, span, homes.len(), windows::ROWS_AT_ONCE);
    episodes_of(lake, view, &windows, homes, definitions, limits).await
}

/// The episodes of windows that follow each other: so many rows are in memory at once as one of them has.
async fn episodes_of(
    lake: &Lake,
    view: &Arc<View>,
    windows: &[Span],
    homes: &[HomeFacts],
    definitions: Arc<Definitions>,
    limits: Limits,
) -> Result<Episodes, HistoryError> {
    let known = Arc::clone(&definitions);
    let mut episodes = Episodes::new(definitions);
    for facts in homes {
        episodes.set_residents(&facts.home, facts.residents);
    }
    let mut reader = reader::Reader::new(view, homes, Arc::clone(&known));
    for (number, window) in windows.iter().enumerate() {
        let rows = rows::rows(lake, view, *window, number == 0, homes, &known, limits).await?;
        reader.begin(*window);
        let mut stream = rows.execute_stream().await?;
        while let Some(batch) = stream.next().await {
            reader.take(&batch?, &mut episodes).map_err(HistoryError::Row)?;
        }
        reader.leave(&mut episodes);
    }
    reader.finish(&mut episodes);
    // Homes that were silent all the span are known to have been, as far as they are complete.
    for facts in homes {
        reader.complete(&facts.home, Timestamp::MIN, &mut episodes);
    }
    Ok(episodes)
}

/// What detections would have said of a span.
#[derive(Debug)]
pub struct Backtest {
    /// What they found, and which of them failed.
    pub round: Round,
    /// When nothing of a home was observed, so that nothing could be found: its gateway was off, its recording has a hole, or what it said in
    /// a known outage is lost ([`HomeFacts::outages`]).
    pub unobserved: Vec<Episode>,
}

/// The kind of those episodes: `episodes/unobserved.toml`.
const UNOBSERVED: &str = "unobserved";

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
) -> Result<Backtest, HistoryError> {
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
    let unobserved = all.into_iter().filter(|episode| &*episode.kind == UNOBSERVED).collect();
    Ok(Backtest { round, unobserved })
}

/// The event times a view spans; none when it holds no observation.
///
/// # Errors
/// When the lake cannot be read.
pub async fn extent(lake: &Lake, view: &Arc<View>, limits: Limits) -> Result<Option<Span>, HistoryError> {
    let observations = context(lake, view, limits)?.table("observations").await?;
    let found = observations.aggregate(vec![], vec![min(col("event_time")), max(col("event_time"))])?.collect().await?;
    let value = |column: usize| {
        let array = found.first()?.columns().get(column)?.as_primitive_opt::<TimestampMillisecondType>()?;
        (!array.is_empty() && array.is_valid(0)).then(|| Timestamp::from_millis(array.value(0)))
    };
    Ok(value(0).zip(value(1)).map(|(from, last)| Span { from, to: last + Duration::from_millis(1) }))
}

#[cfg(test)]
mod tests;
