//! From a detection's rows to findings.

use arrow::array::{Array, AsArray, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use carebed_contract::finding::{Finding, Subject};
use carebed_contract::id::{Area, BedId, DeviceId, HomeId};
use carebed_contract::time::Timestamp;
use serde_json::{Map, Value};

use super::{Inputs, Returns};
use crate::episodes::time_type;

/// What a detection must return, for those who write one.
const COLUMNS: &str = "a detection returns subject_kind ('bed', 'home', 'device' or 'area'), subject_id, home_id, raised_at, cleared_at; every other column is evidence";

pub(super) const RETURNS: Returns = Returns { check: check_columns, help: COLUMNS };

const TEXTS: [&str; 3] = ["subject_kind", "subject_id", "home_id"];
const TIMES: [&str; 2] = ["raised_at", "cleared_at"];

fn check_columns(schema: &Schema) -> Result<(), String> {
    let kind = |name: &str| schema.field_with_name(name).ok().map(|field| field.data_type().clone());
    for name in TEXTS {
        match kind(name) {
            None => return Err(format!("it returns no column {name}")),
            Some(DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) => {}
            Some(other) => return Err(format!("its column {name} is {other} and not text")),
        }
    }
    for name in TIMES {
        match kind(name) {
            None => return Err(format!("it returns no column {name}")),
            Some(DataType::Timestamp(..) | DataType::Null) => {}
            Some(other) => return Err(format!("its column {name} is {other} and not a time")),
        }
    }
    Ok(())
}

pub(super) fn read(detection: &str, batches: &[RecordBatch], inputs: &Inputs) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for batch in batches {
        read_batch(detection, batch, inputs, &mut findings)?;
    }
    findings.sort_by(|a, b| a.raised_at.cmp(&b.raised_at).then_with(|| a.subject.cmp(&b.subject)));
    Ok(findings)
}

fn read_batch(
    detection: &str,
    batch: &RecordBatch,
    inputs: &Inputs,
    findings: &mut Vec<Finding>,
) -> Result<(), String> {
    let [kinds, subjects, homes] = TEXTS.map(|name| text(batch, name));
    let (kinds, subjects, homes) = (kinds?, subjects?, homes?);
    let [raised, cleared] = TIMES.map(|name| times(batch, name));
    let (raised, cleared) = (raised?, cleared?);
    let evidence = Evidence::of(batch)?;
    for row in 0..batch.num_rows() {
        if subjects.is_null(row) || homes.is_null(row) || raised.is_null(row) {
            return Err("subject_id, home_id and raised_at must not be null".to_owned());
        }
        let (subject, home) = (subjects.value(row), homes.value(row));
        let home = HomeId::new(home).map_err(|error| error.to_string())?;
        let subject = match kinds.value(row) {
            "bed" => Subject::Bed(BedId::new(subject).map_err(|error| error.to_string())?),
            "home" => Subject::Home(HomeId::new(subject).map_err(|error| error.to_string())?),
            "device" => Subject::Device {
                home: home.clone(),
                device: DeviceId::new(subject).map_err(|error| error.to_string())?,
            },
            "area" => Subject::Area(Area::new(subject).map_err(|error| error.to_string())?),
            other => return Err(format!("subject_kind is {other:?} and none of 'bed', 'home', 'device', 'area'")),
        };
        let area =
            inputs.area(&home).ok_or_else(|| format!("home {home} is not one of the homes asked about"))?.clone();
        findings.push(Finding {
            detection: detection.to_owned(),
            subject,
            home,
            area,
            raised_at: Timestamp::from_millis(raised.value(row)),
            cleared_at: cleared.is_valid(row).then(|| Timestamp::from_millis(cleared.value(row))),
            evidence: evidence.row(row),
        });
    }
    Ok(())
}

fn column(batch: &RecordBatch, name: &str, kind: &DataType) -> Result<arrow::array::ArrayRef, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("it returned no column {name}"))?;
    cast(column, kind).map_err(|error| format!("column {name}: {error}"))
}

fn text(batch: &RecordBatch, name: &str) -> Result<StringArray, String> {
    Ok(column(batch, name, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn times(batch: &RecordBatch, name: &str) -> Result<TimestampMillisecondArray, String> {
    Ok(column(batch, name, &time_type())?.as_primitive().clone())
}

/// All columns that are not the finding itself.
struct Evidence {
    columns: Vec<(String, Column)>,
}

enum Column {
    Time(TimestampMillisecondArray),
    Whole(arrow::array::PrimitiveArray<Int64Type>),
    Number(arrow::array::PrimitiveArray<Float64Type>),
    Flag(arrow::array::BooleanArray),
    Text(Vec<Option<String>>),
}

impl Evidence {
    fn of(batch: &RecordBatch) -> Result<Self, String> {
        let mut columns = Vec::new();
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            let name = field.name();
            if TEXTS.contains(&name.as_str()) || TIMES.contains(&name.as_str()) {
                continue;
            }
            let wrong = |error: arrow::error::ArrowError| format!("column {name}: {error}");
            let column = match array.data_type() {
                DataType::Timestamp(_, zone) => {
                    let kind = DataType::Timestamp(TimeUnit::Millisecond, zone.clone());
                    Column::Time(cast(array, &kind).map_err(wrong)?.as_primitive().clone())
                }
                kind if kind.is_integer() => {
                    Column::Whole(cast(array, &DataType::Int64).map_err(wrong)?.as_primitive().clone())
                }
                kind if kind.is_numeric() => {
                    Column::Number(cast(array, &DataType::Float64).map_err(wrong)?.as_primitive().clone())
                }
                DataType::Boolean => Column::Flag(array.as_boolean().clone()),
                _ => {
                    let format = FormatOptions::default();
                    let formatter = ArrayFormatter::try_new(array, &format).map_err(wrong)?;
                    Column::Text(
                        (0..array.len())
                            .map(|row| array.is_valid(row).then(|| formatter.value(row).to_string()))
                            .collect(),
                    )
                }
            };
            columns.push((name.clone(), column));
        }
        Ok(Self { columns })
    }

    fn row(&self, row: usize) -> Map<String, Value> {
        self.columns.iter().map(|(name, column)| (name.clone(), column.value(row))).collect()
    }
}

impl Column {
    /// Times are RFC 3339 in UTC: whoever words them knows the home's clock.
    fn value(&self, row: usize) -> Value {
        match self {
            Self::Time(times) if times.is_valid(row) => Timestamp::from_millis(times.value(row)).to_string().into(),
            Self::Whole(numbers) if numbers.is_valid(row) => numbers.value(row).into(),
            Self::Number(numbers) if numbers.is_valid(row) => numbers.value(row).into(),
            Self::Flag(flags) if flags.is_valid(row) => flags.value(row).into(),
            Self::Text(texts) => texts.get(row).cloned().flatten().map_or(Value::Null, Value::from),
            _ => Value::Null,
        }
    }
}
