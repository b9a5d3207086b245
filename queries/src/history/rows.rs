//! Rows of the lake as episodes read them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampMillisecondType, UInt64Type};
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;
use datafusion::common::ScalarValue;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, col, lit};

use super::{HELD_MAX, HistoryError, Span};
use crate::engine::Limits;
use crate::episodes::{Definitions, Seen, Watch, time_type};
use crate::home::HomeFacts;
use crate::sql::{Lake, context};

/// What episodes are made of.
pub(super) const COLUMNS: [&str; 9] =
    ["home_id", "bed_id", "device_id", "room", "quantity", "event_time", "value", "quality", "boot"];

/// What may matter to episodes, in order of home and event time; of the first window also what may have been pressed before it.
pub(super) async fn rows(
    lake: &Lake,
    view: &Arc<View>,
    span: Span,
    is_first: bool,
    homes: &[HomeFacts],
    definitions: &Definitions,
    limits: Limits,
) -> Result<DataFrame, HistoryError> {
    let mut wanted = within("event_time", span).and(relevant(definitions));
    let immediate: Vec<Expr> = definitions.immediate_states().map(|q| lit(q.as_str())).collect();
    if is_first && !immediate.is_empty() {
        let before = within("event_time", Span { from: span.from - HELD_MAX, to: span.from });
        wanted = wanted.or(before.and(col("quantity").in_list(immediate, false)));
    }
    read(lake, view, limits, wanted, homes, &COLUMNS, &["home_id", "event_time"]).await
}

/// Whether some episode is made from it.
pub(super) fn relevant(definitions: &Definitions) -> Expr {
    col("quantity").in_list(definitions.quantities().map(|q| lit(q.as_str())).collect(), false)
}

pub(super) fn within(column: &str, span: Span) -> Expr {
    col(column).gt_eq(time(span.from)).and(col(column).lt(time(span.to)))
}

/// These columns of the wanted observations of `homes` (all of the view when empty), in this order.
pub(super) async fn read(
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

fn time(at: Timestamp) -> Expr {
    lit(ScalarValue::TimestampMillisecond(Some(at.millis()), Some("UTC".into())))
}

/// Goes through the rows of a batch: its place, home, event time, and what the row says to episodes if anything.
pub(super) fn each_row(
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
                let optional = |array: &StringArray| array.is_valid(row).then(|| array.value(row).to_owned());
                Some(Seen {
                    time,
                    quantity,
                    device: devices.value(row).parse().map_err(wrong)?,
                    bed: optional(&beds).map(TryInto::try_into).transpose().map_err(wrong)?,
                    room: optional(&rooms).map(TryInto::try_into).transpose().map_err(wrong)?,
                    value,
                    watch: boots.is_valid(row).then(|| boots.value(row)).map_or(Watch::Unsaid, Watch::Boot),
                })
            }
            None => None,
        };
        each(row, homes.value(row), time, seen)?;
    }
    Ok(())
}
