//! The service centre's tables for SQL: no names, no phone numbers, no addresses.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array};
use arrow::datatypes::SchemaRef;
use carebed_alerts::transition::{Change, ClearReason, Raised, Transition};
use carebed_console::board::Board;
use carebed_console::registry::{Home, Registry};
use carebed_contract::finding::Subject;
use carebed_contract::time::Timestamp;
use carebed_queries::sql::facts;

/// `areas` and `gateways` as they are registered now, and `registrations` from when to when.
pub(crate) fn registry(registry: &Registry, homes: &[Arc<Home>]) -> Vec<(&'static str, RecordBatch)> {
    let mut areas: Vec<_> = homes.iter().map(|home| home.area.clone()).collect();
    areas.sort();
    areas.dedup();
    let names: Vec<_> = areas.iter().map(|area| registry.area(area)).collect();
    let areas = vec![
        words(areas.iter().map(|area| Some(area.as_str()))),
        words(names.iter().map(|name| name.as_ref().map(|n| &*n.zh))),
        words(names.iter().map(|name| name.as_ref().map(|n| &*n.en))),
    ];
    let served = || homes.iter().filter_map(|home| Some((home.gateway.as_ref()?, home)));
    let gateways = vec![
        words(served().map(|(gateway, _)| Some(gateway.as_str()))),
        words(served().map(|(_, home)| Some(home.id.as_str()))),
        words(served().map(|(_, home)| Some(home.area.as_str()))),
    ];
    let rows = registry.registrations();
    let each = || rows.iter().map(|row| &row.what);
    let registrations = vec![
        words(each().map(|what| Some(what.kind.as_str()))),
        words(each().map(|what| Some(what.id.as_str()))),
        words(each().map(|what| Some(what.home.as_str()))),
        words(each().map(|what| what.bed.as_ref().map(|bed| bed.as_str()))),
        words(each().map(|what| Some(what.area.as_str()))),
        times(rows.iter().map(|row| Some(row.valid_from))),
        times(rows.iter().map(|row| row.valid_to)),
    ];
    let (areas, gateways) = (table(facts::areas(), areas), table(facts::gateways(), gateways));
    vec![("areas", areas), ("gateways", gateways), ("registrations", table(facts::registrations(), registrations))]
}

/// `status` and `device_status`: what gateways have said since this centre started.
pub(crate) fn status(board: &Board, homes: &[Arc<Home>]) -> Vec<(&'static str, RecordBatch)> {
    let heard: Vec<_> = homes.iter().map(|home| (home, board.of(&home.id))).collect();
    let told = || heard.iter().filter_map(|(home, heard)| Some((home, heard.last_heard, heard.status.as_ref()?)));
    let states: Vec<String> = told().map(|(.., status)| word(&status.state)).collect();
    let troubles: Vec<String> = told().map(|(.., status)| status.troubles.join("; ")).collect();
    let gateways = vec![
        words(told().map(|(home, ..)| Some(home.id.as_str()))),
        words(told().map(|(home, ..)| home.gateway.as_ref().map(|gateway| gateway.as_str()))),
        words(told().map(|(home, ..)| Some(home.area.as_str()))),
        words(states.iter().map(|state| Some(state.as_str()))),
        times(told().map(|(.., status)| Some(status.since))),
        times(told().map(|(_, last_heard, _)| last_heard)),
        words(told().map(|(.., status)| Some(status.software.as_str()))),
        words(told().map(|(.., status)| Some(status.clock.as_str()))),
        Arc::new(told().map(|(.., status)| Some(status.spool_batches)).collect::<UInt64Array>()),
        Arc::new(told().map(|(.., status)| Some(status.spool_bytes)).collect::<UInt64Array>()),
        words(troubles.iter().map(|troubles| Some(troubles.as_str()).filter(|told| !told.is_empty()))),
    ];
    let each = || told().flat_map(|(home, _, status)| status.devices.iter().map(move |device| (home, device)));
    let healths: Vec<String> = each().map(|(_, device)| word(&device.health)).collect();
    let devices = vec![
        words(each().map(|(home, _)| Some(home.id.as_str()))),
        words(each().map(|(_, device)| Some(device.device.as_str()))),
        words(each().map(|(home, _)| Some(home.area.as_str()))),
        words(healths.iter().map(|health| Some(health.as_str()))),
        times(each().map(|(_, device)| Some(device.since))),
        times(each().map(|(_, device)| device.last_good)),
    ];
    vec![("status", table(facts::status(), gateways)), ("device_status", table(facts::device_status(), devices))]
}

/// One row of `alerts`: a transition, with what its alert is about.
#[derive(Debug)]
struct Row {
    number: u64,
    at: Timestamp,
    alert: String,
    change: String,
    by: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    rings: Option<bool>,
    about: Arc<About>,
}

#[derive(Debug)]
struct About {
    detection: String,
    subject: String,
    home: String,
    area: String,
    bed: Option<String>,
    class: String,
    priority: String,
    raised_at: Timestamp,
}

/// The log as it was read so far.
#[derive(Debug, Default)]
pub(crate) struct AlertLog {
    rows: Vec<Row>,
    about: HashMap<String, Arc<About>>,
    last: u64,
    table: Option<RecordBatch>,
}

impl AlertLog {
    /// The number of the last transition that was read.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn take(&mut self, transitions: Vec<Transition>) {
        for transition in transitions {
            self.last = self.last.max(transition.number);
            self.table = None;
            let alert = transition.alert.to_string();
            if let Change::Raised(raised) = &transition.change {
                self.about.insert(alert.clone(), Arc::new(about(raised)));
            }
            // A transition of an alert whose beginning is not in the log says nothing that can be counted.
            let Some(about) = self.about.get(&alert).map(Arc::clone) else { continue };
            self.rows.push(row(&transition, alert, about));
        }
    }

    pub(crate) fn table(&mut self) -> RecordBatch {
        let rows = &self.rows;
        let make = || {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(rows.iter().map(|r| Some(r.number)).collect::<UInt64Array>()),
                times(rows.iter().map(|r| Some(r.at))),
                words(rows.iter().map(|r| Some(r.alert.as_str()))),
                words(rows.iter().map(|r| Some(r.change.as_str()))),
                words(rows.iter().map(|r| Some(r.about.detection.as_str()))),
                words(rows.iter().map(|r| Some(r.about.subject.as_str()))),
                words(rows.iter().map(|r| Some(r.about.home.as_str()))),
                words(rows.iter().map(|r| r.about.bed.as_deref())),
                words(rows.iter().map(|r| Some(r.about.area.as_str()))),
                words(rows.iter().map(|r| Some(r.about.class.as_str()))),
                words(rows.iter().map(|r| Some(r.about.priority.as_str()))),
                times(rows.iter().map(|r| Some(r.about.raised_at))),
                words(rows.iter().map(|r| r.by.as_deref())),
                words(rows.iter().map(|r| r.outcome.as_deref())),
                words(rows.iter().map(|r| r.reason.as_deref())),
                Arc::new(rows.iter().map(|r| r.rings).collect::<BooleanArray>()),
            ];
            table(facts::alerts(), columns)
        };
        self.table.get_or_insert_with(make).clone()
    }
}

fn about(raised: &Raised) -> About {
    About {
        detection: raised.detection.clone(),
        subject: raised.subject.to_string(),
        home: raised.home.to_string(),
        area: raised.area.to_string(),
        bed: match &raised.subject {
            Subject::Bed(bed) => Some(bed.to_string()),
            _ => None,
        },
        class: word(&raised.class),
        priority: word(&raised.priority),
        raised_at: raised.raised_at,
    }
}

fn row(transition: &Transition, alert: String, about: Arc<About>) -> Row {
    let mut row = Row {
        number: transition.number,
        at: transition.at,
        alert,
        // The name under which the change stands in the log.
        change: serde_json::to_value(&transition.change)
            .ok()
            .and_then(|value| value.get("change")?.as_str().map(str::to_owned))
            .unwrap_or_default(),
        by: None,
        outcome: None,
        reason: None,
        rings: None,
        about,
    };
    match &transition.change {
        Change::Raised(raised) => {
            row.rings = Some(raised.rings);
            row.reason.clone_from(&raised.suppressed);
        }
        Change::Opened { rings } | Change::Repeated { rings, .. } => row.rings = Some(*rings),
        Change::Updated { suppressed, .. } => row.reason.clone_from(suppressed),
        Change::Cleared { reason, .. } => {
            row.reason = Some(match reason {
                ClearReason::Recovered => "recovered".to_owned(),
                ClearReason::LateData => "late_data".to_owned(),
            });
        }
        Change::Escalated { to } => row.outcome = Some(word(to)),
        Change::Acknowledged { by }
        | Change::Dispatched { by }
        | Change::Arrived { by }
        | Change::Reviewed { by, .. } => {
            row.by = Some(by.to_string());
        }
        Change::Resolved { by, outcome, .. } => {
            row.by = by.as_ref().map(ToString::to_string);
            row.outcome = Some(word(outcome));
        }
        _ => {}
    }
    row
}

/// The word a unit variant has in JSON.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn words<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn times(values: impl Iterator<Item = Option<Timestamp>>) -> ArrayRef {
    let times: TimestampMillisecondArray = values.map(|time| time.map(Timestamp::millis)).collect();
    Arc::new(times.with_timezone("UTC"))
}

fn table(schema: SchemaRef, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(schema, columns).expect("the columns are made after the schema")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_without_its_beginning_is_left_out() {
        let acknowledged = serde_json::from_value::<Transition>(serde_json::json!({
            "number": 7, "at": 1_777_593_600_000_i64, "alert": "0123456789abcdef01234567", "change": "acknowledged", "by": "li"
        }))
        .unwrap();
        let mut log = AlertLog::default();
        log.take(vec![acknowledged]);
        assert_eq!((log.last(), log.table().num_rows()), (7, 0));
    }
}
