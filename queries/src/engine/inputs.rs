//! The tables a detection reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use carebed_contract::finding::Class;
use carebed_contract::id::{Area, HomeId};
use carebed_contract::time::Timestamp;

use super::Table;
use crate::episodes::{self, Episode, Episodes};
use crate::home::{AlertTimes, HomeFacts};

/// For what a baseline is asked: a row of its table `asked`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The home.
    pub home: HomeId,
    /// As known then: a local midnight.
    pub known_at: Timestamp,
    /// For this half hour of the local day, 0 to 47; none asks for the night as a whole.
    pub slot: Option<i64>,
}

/// What one evaluation sees. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inputs {
    episodes: RecordBatch,
    homes: RecordBatch,
    beds: RecordBatch,
    params: RecordBatch,
    intervals: RecordBatch,
    alert_times: RecordBatch,
    baselines: RecordBatch,
    asked: RecordBatch,
    areas: Arc<BTreeMap<HomeId, Area>>,
}

impl Inputs {
    /// Episodes and the facts of their homes, each with how far its data is complete (none: nothing may be said of its silence).
    #[must_use]
    pub fn new<'a>(episodes: &[Episode], homes: impl IntoIterator<Item = (&'a HomeFacts, Option<Timestamp>)>) -> Self {
        let homes: Vec<_> = homes.into_iter().collect();
        let facts = || homes.iter().map(|(facts, _)| *facts);
        let beds = || facts().flat_map(|f| f.beds.iter().map(move |bed| (f, bed)));
        let params = || facts().flat_map(|f| f.params.iter().map(move |param| (f, param)));
        let home_columns: Vec<ArrayRef> = vec![
            words(facts().map(|f| f.home.as_str())),
            words(facts().map(|f| f.area.as_str())),
            words(facts().map(|f| f.time_zone.name())),
            Arc::new(facts().map(|f| Some(f.residents)).collect::<UInt8Array>()),
            episodes::times(homes.iter().map(|(_, complete_to)| *complete_to)),
        ];
        let bed_columns: Vec<ArrayRef> =
            vec![words(beds().map(|(_, bed)| bed.as_str())), words(beds().map(|(f, _)| f.home.as_str()))];
        let param_columns: Vec<ArrayRef> = vec![
            words(params().map(|(f, _)| f.home.as_str())),
            words(params().map(|(_, p)| p.detection.as_str())),
            words(params().map(|(_, p)| p.key.as_str())),
            Arc::new(params().map(|(_, p)| Some(p.value)).collect::<Float64Array>()),
        ];
        let mut intervals = Vec::new();
        for f in facts() {
            let said =
                f.intervals.iter().map(|i| (f, &i.bed, i.kind.as_str(), [i.started_at, i.ended_at, i.entered_at]));
            intervals.extend(said);
            let so = f.alerts.iter().filter_map(|alert| Some((f, &alert.bed, "incident", alert.incident()?)));
            intervals.extend(so);
        }
        let i = || intervals.iter();
        let mut interval_columns: Vec<ArrayRef> = vec![
            words(i().map(|(f, ..)| f.home.as_str())),
            Arc::new(i().map(|(_, bed, ..)| bed.as_ref().map(|bed| bed.as_str())).collect::<StringArray>()),
            words(i().map(|(_, _, kind, _)| *kind)),
        ];
        interval_columns.extend([0, 1, 2].map(|n| episodes::times(i().map(|(.., times)| times.get(n).copied()))));
        let alerts: Vec<_> = facts().flat_map(|f| f.alerts.iter().map(move |alert| (f, alert))).collect();
        let a = || alerts.iter().map(|(_, alert)| *alert);
        let mut alert_columns: Vec<ArrayRef> = vec![
            words(alerts.iter().map(|(f, _)| f.home.as_str())),
            Arc::new(a().map(|alert| alert.bed.as_ref().map(|bed| bed.as_str())).collect::<StringArray>()),
            words(a().map(|alert| alert.detection.as_str())),
            words(a().map(|alert| if alert.class == Class::Care { "care" } else { "technical" })),
            words(a().map(|alert| alert.priority.as_str())),
            Arc::new(a().map(|alert| alert.outcome.as_deref()).collect::<StringArray>()),
            episodes::times(a().map(|alert| Some(alert.raised_at))),
        ];
        let steps: [fn(&AlertTimes) -> Option<Timestamp>; 5] =
            [|a| a.rang_at, |a| a.acknowledged_at, |a| a.dispatched_at, |a| a.arrived_at, |a| a.resolved_at];
        alert_columns.extend(steps.map(|step| episodes::times(a().map(step))));
        Self {
            episodes: Episodes::table(episodes),
            homes: batch(homes_schema(), home_columns),
            beds: batch(beds_schema(), bed_columns),
            params: batch(params_schema(), param_columns),
            intervals: batch(intervals_schema(), interval_columns),
            alert_times: batch(alert_times_schema(), alert_columns),
            baselines: RecordBatch::new_empty(baselines_schema()),
            asked: RecordBatch::new_empty(asked_schema()),
            areas: Arc::new(facts().map(|f| (f.home.clone(), f.area.clone())).collect()),
        }
    }

    /// With what [`crate::history::learn`] learnt, of these homes or more.
    #[must_use]
    pub fn with_baselines(mut self, baselines: RecordBatch) -> Self {
        self.baselines = baselines;
        self
    }

    /// With what baselines are to be learnt for.
    #[must_use]
    pub fn with_asked(mut self, asked: &[Asked]) -> Self {
        let columns: Vec<ArrayRef> = vec![
            words(asked.iter().map(|asked| asked.home.as_str())),
            episodes::times(asked.iter().map(|asked| Some(asked.known_at))),
            Arc::new(asked.iter().map(|asked| asked.slot).collect::<Int64Array>()),
        ];
        self.asked = batch(asked_schema(), columns);
        self
    }

    pub(super) fn empty() -> Self {
        Self::new(&[], [])
    }

    pub(super) fn table(&self, name: &str) -> Option<&RecordBatch> {
        match name {
            "episodes" => Some(&self.episodes),
            "homes" => Some(&self.homes),
            "beds" => Some(&self.beds),
            "params" => Some(&self.params),
            "intervals" => Some(&self.intervals),
            "alert_times" => Some(&self.alert_times),
            "baselines" => Some(&self.baselines),
            "asked" => Some(&self.asked),
            _ => None,
        }
    }

    /// The facts without the episodes, as named tables.
    pub(crate) fn into_facts(self) -> [(&'static str, RecordBatch); 4] {
        [("homes", self.homes), ("beds", self.beds), ("params", self.params), ("intervals", self.intervals)]
    }

    pub(super) fn area(&self, home: &HomeId) -> Option<&Area> {
        self.areas.get(home)
    }
}

/// The tables that detections and baselines read, and their columns.
pub(super) fn tables() -> [Table; 8] {
    [
        ("baselines", baselines_schema()),
        ("asked", asked_schema()),
        ("episodes", episodes::schema()),
        ("homes", homes_schema()),
        ("beds", beds_schema()),
        ("params", params_schema()),
        ("intervals", intervals_schema()),
        ("alert_times", alert_times_schema()),
    ]
}

fn words<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<StringArray>())
}

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(schema, columns).expect("the columns are made after the schema")
}

fn table(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn homes_schema() -> SchemaRef {
    table(vec![
        text("home_id"),
        text("area"),
        text("time_zone"),
        Field::new("residents", DataType::UInt8, false),
        Field::new("complete_to", episodes::time_type(), true),
    ])
}

fn beds_schema() -> SchemaRef {
    table(vec![text("bed_id"), text("home_id")])
}

/// The columns of the table `baselines`: what was learnt of each home, and from when on it was known.
#[must_use]
pub fn baselines_schema() -> SchemaRef {
    table(vec![
        text("baseline"),
        text("home_id"),
        Field::new("bed_id", DataType::Utf8, true),
        Field::new("key", DataType::Utf8, true),
        Field::new("slot", DataType::Int64, true),
        Field::new("known_at", episodes::time_type(), false),
        Field::new("value", DataType::Float64, false),
        Field::new("n_days", DataType::Int64, false),
    ])
}

fn asked_schema() -> SchemaRef {
    table(vec![
        text("home_id"),
        Field::new("known_at", episodes::time_type(), false),
        Field::new("slot", DataType::Int64, true),
    ])
}

fn intervals_schema() -> SchemaRef {
    let time = |name: &str| Field::new(name, episodes::time_type(), false);
    table(vec![
        text("home_id"),
        Field::new("bed_id", DataType::Utf8, true),
        text("kind"),
        time("started_at"),
        time("ended_at"),
        time("entered_at"),
    ])
}

fn alert_times_schema() -> SchemaRef {
    let optional = |name: &str| Field::new(name, DataType::Utf8, true);
    let time = |name: &str| Field::new(name, episodes::time_type(), true);
    table(vec![
        text("home_id"),
        optional("bed_id"),
        text("detection"),
        text("class"),
        text("priority"),
        optional("outcome"),
        Field::new("raised_at", episodes::time_type(), false),
        time("rang_at"),
        time("acknowledged_at"),
        time("dispatched_at"),
        time("arrived_at"),
        time("resolved_at"),
    ])
}

fn params_schema() -> SchemaRef {
    table(vec![text("home_id"), text("detection"), text("key"), Field::new("value", DataType::Float64, false)])
}
