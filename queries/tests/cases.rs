//! Runs `detections/*/cases.slt`.
//!
//! A case file makes the tables `homes(home_id, time_zone, residents, complete_to)` and `observations(home_id, bed_id, device_id,
//! quantity, event_time, value, quality)`, may make `params(home_id, detection, key, value)`, `intervals(home_id, bed_id, kind,
//! started_at, ended_at, entered_at)`, `baselines(home_id, bed_id, key, slot, known_at, value, n_days)` (of the baseline that the detection
//! names; `bed_id` may be missing), `heard(home_id, event, at, clock)` (a gateway was `heard` or `lost`; what its `clock` said may be missing) and
//! `alert_times` (the columns of the table that detections see), says `SET now = '…'`, and asks the tables `findings(subject, raised_at,
//! cleared_at, evidence)` and `episodes`. Observations arrive in the order in which they were inserted; the whole file is run once more with
//! each of them twice and the oldest last, which must change nothing. And each answer is asked for once more while somebody works on the
//! equipment: then nothing rings but calls, hazards and reported falls.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at what it did not expect")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::util::display::array_value_to_string;
use carebed_contract::finding::{Class, Priority};
use carebed_contract::id::HomeId;
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_queries::detection::Source;
use carebed_queries::engine::{Engine, Limits, baselines_schema};
use carebed_queries::episodes::{Definitions, Episodes};
use carebed_queries::home::{AlertTimes, HomeFacts, Interval, IntervalKind, Param};
use carebed_queries::live::{Live, Round};
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use sqllogictest::{DBOutput, DefaultColumnType};

mod common;
use common::observation;

struct Case {
    context: SessionContext,
    source: Source,
    now: Timestamp,
    telling: Telling,
}

/// How observations come. It changes no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telling {
    /// In the order in which they were inserted.
    Once,
    /// Each twice and all in reverse: the oldest comes last.
    TwiceAndBackwards,
}

impl Case {
    async fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, DataFusionError> {
        let mut rows = Vec::new();
        for batch in self.context.sql(sql).await?.collect().await? {
            for row in 0..batch.num_rows() {
                let cell = |column: &ArrayRef| {
                    if column.is_null(row) { "NULL".to_owned() } else { array_value_to_string(column, row).unwrap() }
                };
                rows.push(batch.columns().iter().map(cell).collect());
            }
        }
        Ok(rows)
    }

    /// While somebody works on the equipment the same is found and nobody is told, but of calls and the like.
    async fn keeps_quiet(&self, live: &mut Live, round: &Round) {
        let homes: Vec<HomeFacts> = live.homes().cloned().collect();
        for mut facts in homes {
            facts.intervals.push(Interval {
                bed: None,
                kind: IntervalKind::Maintenance,
                started_at: Timestamp::from_millis(0),
                ended_at: self.now + Duration::from_secs(1),
                entered_at: Timestamp::from_millis(0),
            });
            live.set_home(facts);
        }
        let quiet = live.tick(self.now).await;
        assert_eq!(quiet.findings.len(), round.findings.len());
        for (finding, before) in quiet.findings.iter().zip(&round.findings) {
            let [now, then] = [finding, before].map(|f| f.evidence.get("suppressed_by").cloned().unwrap_or_default());
            let own = self.source.meaning.evolving.iter().any(|name| name == "suppressed_by");
            match self.source.meaning.suppressible {
                true => assert!(!now.is_null() || own, "{} rings during maintenance", finding.detection),
                false => assert_eq!(now, then, "{} is kept quiet", finding.detection),
            }
        }
    }

    /// Rows of the table `baselines`.
    fn baselines(&self, rows: &[Vec<String>]) -> RecordBatch {
        let name = self
            .source
            .meaning
            .baselines
            .first()
            .expect("only detections that compare with a baseline have rows of it");
        let text = |column: usize| {
            let cells = rows.iter().map(|row| Some(row[column].as_str()).filter(|cell| *cell != "NULL"));
            Arc::new(cells.collect::<StringArray>()) as ArrayRef
        };
        let numbers = |column: usize| {
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row[column].parse::<i64>().ok()))) as ArrayRef
        };
        let known = TimestampMillisecondArray::from_iter(rows.iter().map(|row| Some(time(&row[4]).millis())));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![name.as_str(); rows.len()])),
            text(0),
            text(1),
            text(2),
            numbers(3),
            Arc::new(known.with_timezone("UTC")),
            Arc::new(Float64Array::from_iter(rows.iter().map(|row| row[5].parse::<f64>().ok()))),
            numbers(6),
        ];
        RecordBatch::try_new(baselines_schema(), columns).unwrap()
    }

    /// Puts everything through the way it goes live, and makes the answers tables.
    async fn evaluate(&self) -> Result<(), DataFusionError> {
        let engine = Arc::new(Engine::new(Limits::default()).unwrap());
        let detection = engine.prepare(self.source.clone()).await.unwrap();
        let mut live = Live::new(engine, vec![detection], Arc::new(Definitions::builtin().unwrap()));
        let params =
            if self.context.table_exist("params")? { self.rows("SELECT * FROM params").await? } else { vec![] };
        let intervals =
            if self.context.table_exist("intervals")? { self.rows("SELECT * FROM intervals").await? } else { vec![] };
        let interval = |i: &Vec<String>| Interval {
            bed: i[1].parse().ok().filter(|_| i[1] != "NULL"),
            kind: IntervalKind::ALL.into_iter().find(|kind| kind.as_str() == i[2]).unwrap(),
            started_at: time(&i[3]),
            ended_at: time(&i[4]),
            entered_at: time(&i[5]),
        };
        let sql = "SELECT home_id, detection, class, priority, raised_at, rang_at, acknowledged_at, dispatched_at, arrived_at, resolved_at, \
                   outcome FROM alert_times";
        let alerts = if self.context.table_exist("alert_times")? { self.rows(sql).await? } else { vec![] };
        let alert = |a: &Vec<String>| {
            let step = |column: usize| Some(&a[column]).filter(|cell| *cell != "NULL").map(|cell| time(cell));
            AlertTimes {
                detection: a[1].clone(),
                bed: None,
                class: if a[2] == "care" { Class::Care } else { Class::Technical },
                priority: [Priority::P1, Priority::P2, Priority::P3, Priority::P4]
                    .into_iter()
                    .find(|p| p.as_str() == a[3])
                    .unwrap(),
                raised_at: time(&a[4]),
                rang_at: step(5),
                acknowledged_at: step(6),
                dispatched_at: step(7),
                arrived_at: step(8),
                resolved_at: step(9),
                outcome: Some(a[10].clone()).filter(|cell| cell != "NULL"),
            }
        };
        let homes = self.rows("SELECT home_id, time_zone, residents, complete_to FROM homes").await?;
        for home in &homes {
            let param =
                |p: &Vec<String>| Param { detection: p[1].clone(), key: p[2].clone(), value: p[3].parse().unwrap() };
            live.set_home(HomeFacts {
                home: HomeId::new(&home[0]).unwrap(),
                area: "area-1".parse().unwrap(),
                time_zone: home[1].parse().unwrap(),
                residents: home[2].parse().unwrap(),
                beds: Vec::new(),
                params: params.iter().filter(|p| p[0] == home[0]).map(param).collect(),
                intervals: intervals.iter().filter(|i| i[0] == home[0]).map(interval).collect(),
                alerts: alerts.iter().filter(|a| a[0] == home[0]).map(alert).collect(),
                outages: Vec::new(),
            });
        }
        if self.context.table_exist("baselines")? {
            let of_beds = self.context.table("baselines").await?.schema().has_column_with_unqualified_name("bed_id");
            let bed = if of_beds { "bed_id" } else { "NULL AS bed_id" };
            let sql = format!("SELECT home_id, {bed}, key, slot, known_at, value, n_days FROM baselines");
            live.set_baselines(&self.baselines(&self.rows(&sql).await?));
        }
        // Rooms and boots are said by those cases that need them.
        let observations = self.context.table("observations").await?;
        let has = |name: &str| observations.schema().has_column_with_unqualified_name(name);
        let (room, boot) =
            (if has("room") { "room" } else { "NULL AS room" }, if has("boot") { "boot" } else { "NULL AS boot" });
        let sql = format!(
            "SELECT home_id, bed_id, device_id, quantity, event_time, value, quality, {room}, {boot} FROM observations"
        );
        let mut rows = self.rows(&sql).await?;
        if self.telling == Telling::TwiceAndBackwards {
            rows.extend_from_within(..);
            rows.reverse();
        }
        for row in rows {
            let value = row[5].parse().ok();
            let observation = observation(&row[0], &row[1], &row[2], &row[3], time(&row[4]), value, &row[6]);
            let room = row[7].parse().ok().filter(|_| row[7] != "NULL");
            live.feed(&[Observation { room, boot: row[8].parse().ok(), ..observation }]);
        }
        if self.context.table_exist("heard")? {
            let heard = self.context.table("heard").await?;
            let says = heard.schema().has_column_with_unqualified_name("clock");
            let clock = if says { "clock" } else { "CAST(NULL AS text)" };
            for row in self.rows(&format!("SELECT home_id, event, at, {clock} FROM heard")).await? {
                let home = HomeId::new(&row[0]).unwrap();
                match row[1].as_str() {
                    "lost" => live.signs().lost(&home, time(&row[2])),
                    _ => live.signs().heard(&home, time(&row[2])),
                }
                if row[3] != "NULL" {
                    live.signs().clock(&home, time(&row[3]), time(&row[2]));
                }
            }
        }
        for home in homes.iter().filter(|home| home[3] != "NULL") {
            live.advance(&HomeId::new(&home[0]).unwrap(), time(&home[3]));
        }
        let round = live.tick(self.now).await;
        assert!(round.failed.is_empty(), "{:?}", round.failed);
        self.keeps_quiet(&mut live, &round).await;
        let text = |t: Timestamp| t.to_string().replace(".000Z", "Z");
        let column = |cells: Vec<Option<String>>| Arc::new(StringArray::from(cells)) as ArrayRef;
        let f = || round.findings.iter();
        let findings = RecordBatch::try_from_iter_with_nullable([
            ("subject", column(f().map(|f| Some(f.subject.to_string())).collect()), true),
            ("raised_at", column(f().map(|f| Some(text(f.raised_at))).collect()), true),
            ("cleared_at", column(f().map(|f| f.cleared_at.map(text)).collect()), true),
            ("evidence", column(f().map(|f| serde_json::to_string(&f.evidence).ok()).collect()), true),
        ])?;
        let episodes = Episodes::table(&live.episodes().all());
        for (name, batch) in [("findings", findings), ("episodes", episodes)] {
            self.context.deregister_table(name)?;
            self.context.register_batch(name, batch)?;
        }
        Ok(())
    }
}

fn time(text: &str) -> Timestamp {
    let text = text.replace(' ', "T");
    Timestamp::parse(&text)
        .or_else(|| Timestamp::parse(&format!("{text}Z")))
        .unwrap_or_else(|| panic!("{text} is not a time"))
}

#[async_trait::async_trait]
impl sqllogictest::AsyncDB for Case {
    type Error = DataFusionError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, DataFusionError> {
        if let Some(now) = sql.trim().strip_prefix("SET now = ") {
            self.now = time(now.trim_matches(['\'', ';']));
            return Ok(DBOutput::StatementComplete(0));
        }
        let is_query = sql.trim_start().to_uppercase().starts_with("SELECT");
        if is_query {
            self.evaluate().await?;
        }
        let rows = self.rows(sql).await?;
        if !is_query {
            return Ok(DBOutput::StatementComplete(0));
        }
        let types = vec![DefaultColumnType::Text; rows.first().map_or(0, Vec::len)];
        Ok(DBOutput::Rows { types, rows })
    }

    async fn shutdown(&mut self) {}
}

fn check(name: &str) {
    // Read where they lie: whoever changes a detection need not build anything to try it.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("detections");
    let (sources, _) = Source::load(&folder).unwrap();
    let source = sources.into_iter().find(|s| s.name == name).unwrap();
    let file = folder.join(name).join("cases.slt");
    for telling in [Telling::Once, Telling::TwiceAndBackwards] {
        let connect = || {
            let case = Case { context: SessionContext::new(), source: source.clone(), now: Timestamp::MIN, telling };
            async move { Ok(case) }
        };
        let mut runner = sqllogictest::Runner::new(connect);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let told = runtime.block_on(runner.run_file_async(&file));
        told.unwrap_or_else(|error| panic!("{telling:?}: {}", error.display(true)));
    }
}

#[test]
fn call_for_help() {
    check("call_for_help");
}

#[test]
fn hazard() {
    check("hazard");
}

#[test]
fn fall_reported() {
    check("fall_reported");
}

#[test]
fn bed_exit_no_return() {
    check("bed_exit_no_return");
}

#[test]
fn suspected_fall() {
    check("suspected_fall");
}

#[test]
fn inactivity() {
    check("inactivity");
}

#[test]
fn inactivity_cap() {
    check("inactivity_cap");
}

#[test]
fn bathroom_overstay() {
    check("bathroom_overstay");
}

#[test]
fn bed_overstay() {
    check("bed_overstay");
}

#[test]
fn not_in_bed() {
    check("not_in_bed");
}

#[test]
fn night_door() {
    check("night_door");
}

#[test]
fn night_unrest() {
    check("night_unrest");
}

#[test]
fn heart_rate() {
    check("heart_rate");
}

#[test]
fn respiratory_rate() {
    check("respiratory_rate");
}

#[test]
fn vitals_lost() {
    check("vitals_lost");
}

#[test]
fn no_turning() {
    check("no_turning");
}

#[test]
fn away_too_long() {
    check("away_too_long");
}

#[test]
fn device_health() {
    check("device_health");
}

#[test]
fn gateway_silent() {
    check("gateway_silent");
}

#[test]
fn gateway_outage() {
    check("gateway_outage");
}

#[test]
fn water_use() {
    check("water_use");
}

#[test]
fn apnea() {
    check("apnea");
}

#[test]
fn drift() {
    check("drift");
}

#[test]
fn operations() {
    check("operations");
}

#[test]
fn button_test() {
    check("button_test");
}

#[test]
fn late_answer() {
    check("late_answer");
}

#[test]
fn gateway_clock() {
    check("gateway_clock");
}

#[test]
fn every_detection_has_cases_and_they_are_run() {
    let (sources, _) = Source::builtin();
    let this = include_str!("cases.rs");
    for source in sources {
        assert!(this.contains(&format!("check(\"{}\")", source.name)), "add a test for {}", source.name);
    }
}
