//! Episodes and detections over what a view of the lake holds: the same code and the same SQL as live.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampMillisecondType, UInt64Type};
use carebed_contract::id::HomeId;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, col, lit};
use futures::StreamExt;

use crate::coverage::Coverage;
use crate::engine::{Detection, Engine, EngineError, Inputs, Limits};
use crate::episodes::{Definitions, Episodes, Seen, time_type};
use crate::home::HomeFacts;
use crate::live::Round;
use crate::sql::{Lake, context};

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

/// The episodes of `homes` (all of the view when empty) from the observations of `span`. What began before the span is not seen:
/// give it a lead.
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
    let quantities: Vec<Expr> = definitions.quantities().map(|q| lit(q.as_str())).collect();
    let known = Arc::clone(&definitions);
    let mut episodes = Episodes::new(definitions);
    for facts in homes {
        episodes.set_residents(&facts.home, facts.residents);
    }
    let observations = context(lake, view, limits)?.table("observations").await?;
    let columns =
        ["home_id", "bed_id", "device_id", "room", "quantity", "event_time", "value", "quality", "boot"].map(col);
    let in_span = col("event_time").gt_eq(time(span.from)).and(col("event_time").lt(time(span.to)));
    let mut wanted = in_span.and(col("quantity").in_list(quantities, false));
    if !homes.is_empty() {
        wanted = wanted.and(col("home_id").in_list(homes.iter().map(|f| lit(f.home.as_str())).collect(), false));
    }
    let rows = observations
        .filter(wanted)?
        .select(columns.to_vec())?
        .sort(vec![col("home_id").sort(true, true), col("event_time").sort(true, true)])?;
    let mut reader = Reader { span, view, definitions: known, home: None, last: Timestamp::MIN, since_advance: 0 };
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

/// What detections would have found within `span`, with their findings as they stood at its end. Observations before it are read
/// as far as the detections' windows reach back.
///
/// # Errors
/// When the lake cannot be read; a detection that fails is in the round.
pub async fn backtest(
    engine: &Engine,
    lake: &Lake,
    view: &Arc<View>,
    span: Span,
    homes: &[HomeFacts],
    detections: &[Detection],
) -> Result<Round, HistoryError> {
    let lead = detections.iter().map(|d| d.meaning.window).max().unwrap_or(Duration::ZERO);
    let read = Span { from: span.from - lead, to: span.to };
    let definitions = Arc::new(Definitions::builtin().map_err(EngineError::from)?);
    let mut episodes = episodes(lake, view, read, homes, definitions, engine.limits()).await?;
    let facts = || homes.iter().map(|facts| (facts, episodes.complete_to(&facts.home)));
    let complete: Vec<_> = facts().collect();
    let all = episodes.all();
    let coverage = Coverage::new(&all, homes, |home| episodes.sensors(home).to_vec());
    let inputs = Inputs::new(&all, complete);
    let mut round = Round::default();
    for detection in detections {
        match engine.evaluate(detection, &inputs, span.to).await {
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
}

impl Reader<'_> {
    fn take(&mut self, batch: &RecordBatch, episodes: &mut Episodes) -> Result<(), String> {
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
        for row in 0..batch.num_rows() {
            let home = homes.value(row);
            if self.home.as_ref().is_none_or(|current| current.as_str() != home) {
                self.finish(episodes);
                self.home = Some(HomeId::new(home).map_err(|e| e.to_string())?);
                self.last = Timestamp::MIN;
            }
            let Some(home) = &self.home else { continue };
            self.last = Timestamp::from_millis(times.value(row));
            let Some(quantity) = Quantity::new(quantities.value(row)) else { continue };
            let number = values.is_valid(row).then(|| values.value(row));
            if let Some(value) =
                Seen::value(&quantity, number, &Quality::parse(qualities.value(row)), &self.definitions)
            {
                let optional =
                    |array: &arrow::array::StringArray| array.is_valid(row).then(|| array.value(row).to_owned());
                let seen = Seen {
                    time: self.last,
                    quantity,
                    device: devices.value(row).parse().map_err(|e: carebed_contract::id::IdError| e.to_string())?,
                    bed: optional(&beds)
                        .map(TryInto::try_into)
                        .transpose()
                        .map_err(|e: carebed_contract::id::IdError| e.to_string())?,
                    room: optional(&rooms)
                        .map(TryInto::try_into)
                        .transpose()
                        .map_err(|e: carebed_contract::id::IdError| e.to_string())?,
                    value,
                    boot: boots.is_valid(row).then(|| boots.value(row)),
                };
                episodes.push_seen(home, seen);
            }
            self.since_advance += 1;
            if self.since_advance >= ROWS_BETWEEN_ADVANCES {
                self.since_advance = 0;
                let before = self.last - Duration::from_millis(1);
                let known = self.view.complete.get(home).map_or(before, |complete| complete.complete_to.min(before));
                episodes.seal(home, known);
            }
        }
        Ok(())
    }

    fn finish(&mut self, episodes: &mut Episodes) {
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
