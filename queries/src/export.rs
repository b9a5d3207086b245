//! What is given to those who keep their own: observations, alerts, visits and gaps as Parquet and JSON lines, nightly vitals as
//! FHIR R5.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use carebed_contract::digest::Digest;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;
use chrono::{NaiveDate, TimeZone as _};
use chrono_tz::Tz;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::functions::expr_fn::starts_with;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::engine::{EngineError, Limits};
use crate::history::Span;
use crate::sql::{Format, Lake, SqlSession, WriteError, Writer, context};

/// What to give away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Whose.
    pub areas: Areas,
    /// The event times.
    pub span: Span,
}

/// Whose rows to give away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Areas {
    /// Those of areas that begin so: a district's code begins those of its streets and communities. Empty: all.
    Beginning(String),
    /// Those of just these areas.
    These(Vec<String>),
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The query engine could not be set up.
    #[error("failed to set up the reading of the lake")]
    Engine(#[from] EngineError),
    /// The lake could not be read.
    #[error("failed to read the lake")]
    Read(#[from] DataFusionError),
    /// Rows that cannot be written.
    #[error("failed to read rows")]
    Rows(#[from] ArrowError),
    /// A file of rows that cannot be written.
    #[error(transparent)]
    Written(#[from] WriteError),
    /// The disk.
    #[error("failed to write")]
    Write(#[from] std::io::Error),
}

/// A table of which rows are given away: those of the selected areas, and of the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its name, in SQL and of its files.
    pub name: &'static str,
    /// The column that says whether a row lies in the selected span.
    time: &'static str,
}

const OBSERVATIONS: Table = Table { name: "observations", time: "event_time" };

/// What is given away. An alert goes with all that was done about it, by when it was raised.
pub const TABLES: [Table; 4] = [
    OBSERVATIONS,
    Table { name: "alerts", time: "raised_at" },
    Table { name: "visits", time: "started_at" },
    Table { name: "gaps", time: "noted_at" },
];

/// Writes the rows of a table that are selected as Parquet and as JSON lines. Returns how many rows each has.
///
/// # Errors
/// When the lake cannot be read, or a file cannot be written; what was written then is no export.
pub async fn rows(
    session: &SqlSession,
    table: Table,
    selection: &Selection,
    parquet: impl Write + Send,
    lines: impl Write + Send,
) -> Result<u64, ExportError> {
    let frame = selected(session.context(), table, selection).await?;
    let mut stream = frame.execute_stream().await?;
    let mut parquet = Writer::new(&stream.schema(), Format::Parquet, parquet)?;
    let mut lines = Writer::new(&stream.schema(), Format::Jsonl, lines)?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        parquet.write(&batch)?;
        lines.write(&batch)?;
        rows += batch.num_rows() as u64;
    }
    parquet.finish()?;
    lines.finish()?;
    Ok(rows)
}

/// The areas that have rows in a selection.
///
/// # Errors
/// When the lake cannot be read.
pub async fn areas(session: &SqlSession, selection: &Selection) -> Result<BTreeSet<String>, ExportError> {
    let mut areas = BTreeSet::new();
    for table in TABLES {
        let frame = selected(session.context(), table, selection).await?;
        for batch in frame.select(vec![col("area")])?.distinct()?.collect().await? {
            let column = cast(batch.column(0), &DataType::Utf8)?;
            areas.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
        }
    }
    Ok(areas)
}

async fn selected(
    context: &SessionContext,
    Table { name, time }: Table,
    selection: &Selection,
) -> Result<DataFrame, ExportError> {
    let frame = context.table(name).await?.filter(within(time, selection.span))?;
    Ok(match &selection.areas {
        Areas::Beginning(code) if code.is_empty() => frame,
        Areas::Beginning(code) => frame.filter(starts_with(col("area"), lit(code.as_str())))?,
        Areas::These(areas) => frame.filter(col("area").in_list(areas.iter().map(lit).collect(), false))?,
    })
}

fn within(column: &str, span: Span) -> Expr {
    let time = |at: Timestamp| lit(ScalarValue::TimestampMillisecond(Some(at.millis()), Some("UTC".into())));
    col(column).gt_eq(time(span.from)).and(col(column).lt(time(span.to)))
}

/// What a night is: from 20:00 to 08:00 of the home's local time, named by the day on which it begins.
const NIGHTLY: &str = "
SELECT home_id, bed_id, quantity, CAST(night AS DATE) AS night, CAST(min(event_time) AS BIGINT) AS began,
       CAST(max(event_time) AS BIGINT) AS ended, avg(value) AS mean, min(value) AS low, max(value) AS high, count(*) AS n,
       CASE WHEN min(device_id) = max(device_id) THEN min(device_id) END AS device
FROM (SELECT home_id, bed_id, device_id, quantity, event_time, value,
             date_trunc('day', to_local_time(arrow_cast(event_time, '{zone}')) - INTERVAL '8 hours') AS night,
             date_part('hour', to_local_time(arrow_cast(event_time, '{zone}')) - INTERVAL '8 hours') AS hour
      FROM selected
      WHERE quantity IN ('heart_rate', 'respiratory_rate') AND quality = 'good' AND value > 0 AND bed_id IS NOT NULL)
WHERE hour >= 12
GROUP BY home_id, bed_id, quantity, night
ORDER BY home_id, bed_id, night, quantity";

/// Writes one FHIR R5 Observation a bed, night and vital sign, as NDJSON. The subject is the bed: who lay in it, the receiver
/// must know. A night of which a part is outside of the selection, or may yet arrive, is `preliminary`. Returns how many.
///
/// # Errors
/// When the lake cannot be read or the output not be written.
pub async fn nightly_vitals(
    lake: &Lake,
    view: &Arc<View>,
    selection: &Selection,
    zone: Tz,
    limits: Limits,
    mut out: impl Write,
) -> Result<u64, ExportError> {
    let context = context(lake, view, limits)?;
    let frame = selected(&context, OBSERVATIONS, selection).await?;
    context.register_table("selected", frame.into_view())?;
    let sql = NIGHTLY.replace("{zone}", &format!("Timestamp(Millisecond, Some(\"{zone}\"))"));
    let mut n = 0;
    for batch in context.sql(&sql).await?.collect().await? {
        for row in 0..batch.num_rows() {
            let is_whole = |home: &str, night: &str| {
                let known = view.complete.get(home).map(|complete| complete.complete_to);
                of_night(night, zone).is_some_and(|(begin, end)| {
                    selection.span.from <= begin && end <= selection.span.to && known.is_some_and(|known| end <= known)
                })
            };
            if let Some(resource) = resource(&batch, row, is_whole)? {
                serde_json::to_writer(&mut out, &resource).map_err(std::io::Error::from)?;
                out.write_all(b"\n")?;
                n += 1;
            }
        }
    }
    out.flush()?;
    Ok(n)
}

/// When a night begins and ends.
fn of_night(night: &str, zone: Tz) -> Option<(Timestamp, Timestamp)> {
    let evening: NaiveDate = night.parse().ok()?;
    let at = |day: NaiveDate, hour| {
        let at = zone.from_local_datetime(&day.and_hms_opt(hour, 0, 0)?).earliest()?;
        Some(Timestamp::from_millis(at.timestamp_millis()))
    };
    Some((at(evening, 20)?, at(evening.succ_opt()?, 8)?))
}

/// None for a quantity that has no LOINC code. `is_whole` knows of a home and a night whether all of it is known.
fn resource(
    batch: &RecordBatch,
    row: usize,
    is_whole: impl Fn(&str, &str) -> bool,
) -> Result<Option<Value>, ArrowError> {
    let column = |name: &str, kind: &DataType| cast(batch.column(batch.schema().index_of(name)?), kind);
    let text = |name: &str| column(name, &DataType::Utf8).map(|c| c.as_string::<i32>().value(row).to_owned());
    let number = |name: &str| column(name, &DataType::Float64).map(|c| c.as_primitive::<Float64Type>().value(row));
    let time = |name: &str| {
        let millis = column(name, &DataType::Int64)?.as_primitive::<Int64Type>().value(row);
        Ok::<_, ArrowError>(Timestamp::from_millis(millis).to_string())
    };
    let (home, bed, night, name) = (text("home_id")?, text("bed_id")?, text("night")?, text("quantity")?);
    let Some(quantity) = Quantity::new(&name) else { return Ok(None) };
    let Some((loinc, definition)) = quantity.definition().and_then(|d| Some((d.loinc.as_deref()?, d))) else {
        return Ok(None);
    };
    let value = |value: f64| {
        json!({"value": (value * 10.0).round() / 10.0, "unit": &*definition.ucum,
            "system": "http://unitsofmeasure.org", "code": &*definition.ucum})
    };
    let extreme = |what: &str, number: f64| json!({"code": {"text": what}, "valueQuantity": value(number)});
    // Of a night that several devices observed none is named.
    let device = column("device", &DataType::Utf8)?;
    let device = device.as_string::<i32>();
    let device = device.is_valid(row).then(|| format!("{home}/{}", device.value(row)));
    // Ids of FHIR are at most 64 of A-Z a-z 0-9 - and dots; the same night has the same id each time.
    let id = Digest::of_bytes(format!("{home}/{bed}/{night}/{name}").as_bytes()).to_string();
    let mut observation = json!({
        "resourceType": "Observation",
        "id": id,
        "status": if is_whole(&home, &night) { "final" } else { "preliminary" },
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category",
            "code": "vital-signs", "display": "Vital Signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": loinc}], "text": definition.title.en},
        "subject": {"type": "Location", "identifier": {"system": "urn:carebed:bed", "value": format!("{home}/{bed}")}},
        "effectivePeriod": {"start": time("began")?, "end": time("ended")?},
        "valueQuantity": value(number("mean")?),
        "method": {"text": format!("mean of {} observations of the night of {night}", number("n")?)},
        "component": [extreme("minimum", number("low")?), extreme("maximum", number("high")?)],
    });
    if let (Some(device), Some(fields)) = (device, observation.as_object_mut()) {
        let device = json!({"type": "Device", "identifier": {"system": "urn:carebed:device", "value": device}});
        fields.insert("device".to_owned(), device);
    }
    Ok(Some(observation))
}

#[cfg(test)]
mod tests;
