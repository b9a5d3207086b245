//! Runs `detections/*/timeline.toml`: what happens in a home, step by step, and how the detection's alert stands then.
//!
//! A story begins at `start`, in the first of so many `homes`, with numbers of its own for the detection (`params`); its steps follow by
//! `at`, counted from there. Up to each step the homes' data is complete, unless the story says `offline` in between. A step may
//!
//! - `see` an observation (`bed device quantity value room`, `-` for no bed, the room may be missing), which happened `late` earlier than
//!   it comes; `again` says that one or several are seen so many `times` more, each time `every` so long later;
//! - `learn` what is usual from then on (`bed key half-hour value`, `-` for none, `*` for each half hour of the day);
//! - `say` what explains a stretch (`visit 2h`);
//! - `hear` gateways (`h1 h2`), `lose` them by their last will, or find a gateway's clock `ahead`;
//! - tell of an alert of `another` detection that it `rings`, was `acknowledged`, `dispatched`, `arrived` or `resolved`;
//! - let an operator `act`;
//! - and `expect` how the newest alert stands: `none`, or its state and priority, then what is so of `rings`, the reason that keeps it
//!   quiet, `late`, `cleared`, and its outcome.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use carebed_alerts::alert::{Alert, AlertId, OperatorId, Outcome};
use carebed_alerts::{Act, Alerts, Evaluated};
use carebed_contract::finding::{Class, Priority};
use carebed_contract::id::HomeId;
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;
use carebed_queries::detection::Source;
use carebed_queries::engine::{Engine, Limits, baselines_schema};
use carebed_queries::episodes::Definitions;
use carebed_queries::home::{AlertTimes, HomeFacts, Interval, IntervalKind, Param, TIME_ZONE_DEFAULT};
use carebed_queries::live::{Live, Round};
use serde::Deserialize;

use crate::centre;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    story: Vec<Story>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Story {
    title: String,
    start: String,
    #[serde(default = "one")]
    homes: usize,
    #[serde(default)]
    params: BTreeMap<String, f64>,
    steps: Vec<Step>,
}

fn one() -> usize {
    1
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Step {
    at: String,
    see: Option<String>,
    late: Option<String>,
    again: Option<Again>,
    learn: Option<String>,
    say: Option<String>,
    hear: Option<String>,
    lose: Option<String>,
    ahead: Option<String>,
    another: Option<String>,
    act: Option<String>,
    offline: Option<bool>,
    expect: Option<String>,
}

/// The same observations so many times, each after its own time in the turn.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Again {
    every: String,
    times: u32,
    see: Vec<(String, String)>,
}

impl Step {
    /// The steps that it stands for, in order, each with its time.
    fn written_out(self) -> Vec<(Duration, Self)> {
        let at = span(&self.at);
        let mut steps = Vec::new();
        if let Some(again) = &self.again {
            for turn in 0..again.times {
                let seen = again.see.iter().map(|(after, seen)| {
                    let at = at + span(&again.every) * turn + span(after);
                    (at, Self { see: Some(seen.clone()), ..Self::default() })
                });
                steps.extend(seen);
            }
        }
        steps.insert(0, (at, self));
        steps
    }
}

/// `1h 30m 5s`
fn span(text: &str) -> Duration {
    let parts = text.split_whitespace().map(|part| {
        let (number, unit) = part.split_at(part.len() - 1);
        let seconds = match unit {
            "h" => 3_600,
            "m" => 60,
            "s" => 1,
            other => panic!("{other:?} is no unit of {text:?}"),
        };
        number.parse::<u64>().unwrap_or_else(|_| panic!("{text:?} is no span")) * seconds
    });
    Duration::from_secs(parts.sum())
}

/// A home and the centre's view of it.
struct World {
    live: Live,
    alerts: Alerts,
    detection: String,
    urgent: bool,
    homes: Vec<HomeId>,
    complete_to: Timestamp,
    seen: u64,
    ids: Vec<AlertId>,
    usual: Vec<Usual>,
}

/// A row of the table `baselines` without its home: bed, key, half hour, from when on, value.
type Usual = (Option<String>, Option<String>, Option<i64>, Timestamp, f64);

impl World {
    fn feed(&mut self, text: &str, event_time: Timestamp, received_time: Timestamp) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [bed, device, quantity, value, room @ ..] = words.as_slice() else { panic!("{text:?} is no observation") };
        self.seen += 1;
        self.live.feed(&[Observation {
            area: "area-1".parse().unwrap(),
            home: self.homes[0].clone(),
            bed: Some(*bed).filter(|bed| *bed != "-").map(|bed| bed.parse().unwrap()),
            device: device.parse().unwrap(),
            room: room.first().map(|room| room.parse().unwrap()),
            quantity: Quantity::new(quantity).unwrap_or_else(|| panic!("{quantity} is no quantity")),
            unit: Arc::from("1"),
            event_time,
            value: value.parse().map_or(Value::Missing, Value::Number),
            quality: Quality::parse(if *value == "?" { "bad:no_answer" } else { "good" }),
            clock: ClockQuality::Synchronised,
            gateway: "gw-1".parse().unwrap(),
            boot: None,
            epoch: Epoch::new(1),
            lane: if self.urgent { Lane::Urgent } else { Lane::Routine },
            seq: self.seen,
            gateway_time: event_time,
            received_time,
        }]);
    }

    /// From `known_at` on this is usual in the first home.
    fn learn(&mut self, text: &str, baseline: &str, known_at: Timestamp) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [bed, key, slot, value] = words.as_slice() else { panic!("{text:?} is nothing usual") };
        let word = |word: &str| Some(word.to_owned()).filter(|word| word != "-");
        let slots = if *slot == "*" { (0..48).map(Some).collect() } else { vec![slot.parse().ok()] };
        let of = |slot| (word(bed), word(key), slot, known_at, value.parse().unwrap());
        self.usual.extend(slots.into_iter().map(of));
        let (rows, n) = (|| self.usual.iter(), self.usual.len());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![baseline; n])),
            Arc::new(StringArray::from(vec![self.homes[0].as_str(); n])),
            Arc::new(rows().map(|row| row.0.clone()).collect::<StringArray>()),
            Arc::new(rows().map(|row| row.1.clone()).collect::<StringArray>()),
            Arc::new(rows().map(|row| row.2).collect::<Int64Array>()),
            Arc::new(
                TimestampMillisecondArray::from_iter_values(rows().map(|row| row.3.millis())).with_timezone("UTC"),
            ),
            Arc::new(rows().map(|row| Some(row.4)).collect::<Float64Array>()),
            Arc::new(Int64Array::from(vec![30; n])),
        ];
        self.live.set_baselines(&RecordBatch::try_new(baselines_schema(), columns).unwrap());
    }

    /// The homes' data is complete up to then.
    fn advance(&mut self, complete_to: Timestamp) {
        self.complete_to = self.complete_to.max(complete_to);
        self.homes.iter().for_each(|home| self.live.advance(home, complete_to));
    }

    async fn look(&mut self, now: Timestamp) {
        let round =
            if self.urgent { self.live.tick_home(&self.homes[0], now).await } else { self.live.tick(now).await };
        let Round { findings, failed } = round;
        assert!(failed.is_empty(), "{failed:?}");
        let evaluated = Evaluated {
            detections: [self.detection.clone()].into(),
            homes: self.homes.iter().map(|home| (home.clone(), self.complete_to)).collect(),
            since: Timestamp::MIN,
        };
        let steps = self.alerts.apply(&findings, &evaluated, |_| TIME_ZONE_DEFAULT, now);
        for step in steps.into_iter().chain(self.alerts.due(now)) {
            if !self.ids.contains(&step.alert) {
                self.ids.push(step.alert);
            }
        }
    }

    fn act(&mut self, text: &str, now: Timestamp) {
        let act = match text {
            "acknowledge" => Act::Acknowledge,
            "dispatch" => Act::Dispatch,
            "arrive" => Act::Arrive,
            "resolve" => Act::Resolve { outcome: Outcome::Verified, note: None },
            "resolve as false" => Act::Resolve { outcome: Outcome::FalseAlarm, note: None },
            other => panic!("{other:?} is no act"),
        };
        let id = self.ids.last().expect("an alert to act on");
        self.alerts.act(id, act, OperatorId::new("op").unwrap(), now).unwrap();
    }

    fn stands(&self) -> String {
        self.ids.last().and_then(|id| self.alerts.get(id)).map_or_else(|| "none".to_owned(), describe)
    }
}

fn describe(alert: &Alert) -> String {
    let mut words = vec![alert.state.as_str().to_owned(), alert.priority.as_str().to_owned()];
    words.extend(alert.rings().then(|| "rings".to_owned()));
    words.extend(alert.suppressed.clone());
    words.extend(alert.late.then(|| "late".to_owned()));
    words.extend(alert.cleared_at().map(|_| "cleared".to_owned()));
    words.extend(alert.outcome.map(|outcome| outcome.as_str().to_owned()));
    words.join(" ")
}

/// An alert that another detection has raised about the home, and how it went on.
fn go_on(alerts: &mut Vec<AlertTimes>, text: &str, at: Timestamp) {
    let (detection, step) = text.split_once(' ').unwrap();
    if step == "rings" {
        alerts.push(AlertTimes {
            detection: detection.to_owned(),
            bed: None,
            class: Class::Care,
            priority: Priority::P1,
            raised_at: at,
            rang_at: Some(at),
            acknowledged_at: None,
            dispatched_at: None,
            arrived_at: None,
            resolved_at: None,
            outcome: None,
        });
        return;
    }
    let alert = alerts.iter_mut().rfind(|alert| alert.detection == detection).expect("it rang before");
    let time = match step {
        "acknowledged" => &mut alert.acknowledged_at,
        "dispatched" => &mut alert.dispatched_at,
        "arrived" => &mut alert.arrived_at,
        "resolved" => &mut alert.resolved_at,
        other => panic!("{other:?} is no step of an alert"),
    };
    *time = Some(at);
}

async fn run(source: &Source, story: Story, told: &mut Vec<String>) {
    let engine = Arc::new(Engine::new(Limits::default()).unwrap());
    let detection = engine.prepare(source.clone()).await.unwrap();
    let policy = centre::policy(std::slice::from_ref(&detection));
    let homes: Vec<HomeId> = (1..=story.homes).map(|number| format!("h{number}").parse().unwrap()).collect();
    let facts = |home: &HomeId| HomeFacts::unregistered(home.clone(), "area-1".parse().unwrap());
    let urgent = detection.meaning.urgent;
    let mut live = Live::new(engine, vec![detection], Arc::new(Definitions::builtin().unwrap()));
    homes.iter().for_each(|home| live.set_home(facts(home)));
    let start = Timestamp::parse(&story.start).unwrap_or_else(|| panic!("{} is not a time", story.start));
    let alerts = Alerts::new(policy);
    let (detection, ids, usual) = (source.name.clone(), Vec::new(), Vec::new());
    let mut facts = facts(&homes[0]);
    let param = |(key, value)| Param { detection: source.name.clone(), key, value };
    facts.params = story.params.into_iter().map(param).collect();
    let mut world = World { live, alerts, detection, urgent, homes, complete_to: start, seen: 0, ids, usual };
    world.live.set_home(facts.clone());
    let mut is_offline = false;
    let mut now = start;
    for (after, step) in story.steps.into_iter().flat_map(Step::written_out) {
        let at = start + after;
        assert!(at >= now, "{}: steps are in order of time", story.title);
        // Timers that run out before it.
        while let Some(due) = world.alerts.next_due().filter(|due| *due < at) {
            if !is_offline {
                world.advance(due);
            }
            world.look(due.max(now)).await;
        }
        now = at;
        is_offline = step.offline.unwrap_or(is_offline);
        if let Some(seen) = &step.see {
            world.feed(seen, at - step.late.as_deref().map(span).unwrap_or_default(), at);
        }
        if let Some(usual) = &step.learn {
            let baseline = source.meaning.baselines.first().expect("a detection that compares with what is usual");
            world.learn(usual, baseline, at);
        }
        if let Some(said) = &step.say {
            let (kind, lasts) = said.split_once(' ').unwrap();
            let kind = IntervalKind::ALL.into_iter().find(|k| k.as_str() == kind).unwrap();
            let ended_at = at + span(lasts);
            facts.intervals.push(Interval { bed: None, kind, started_at: at, ended_at, entered_at: at });
            world.live.set_home(facts.clone());
        }
        let named = |names: Option<&String>| -> Vec<HomeId> {
            names.iter().flat_map(|names| names.split_whitespace()).map(|name| name.parse().unwrap()).collect()
        };
        named(step.hear.as_ref()).iter().for_each(|home| world.live.signs().heard(home, at));
        named(step.lose.as_ref()).iter().for_each(|home| world.live.signs().lost(home, at));
        if let Some(ahead) = &step.ahead {
            world.live.signs().heard(&facts.home, at);
            world.live.signs().clock(&facts.home, at + span(ahead), at);
        }
        if let Some(another) = &step.another {
            go_on(&mut facts.alerts, another, at);
            world.live.set_alerts(&facts.home, facts.alerts.clone());
        }
        if !is_offline {
            world.advance(at);
        }
        world.look(at).await;
        if let Some(act) = &step.act {
            if world.ids.is_empty() {
                told.push(format!("{}: {} at {}: nothing to {act}", source.name, story.title, step.at));
                return;
            }
            world.act(act, at);
        }
        if let Some(expected) = &step.expect {
            let found = world.stands();
            if found != *expected {
                told.push(format!("{}: {} at {}: {found}, expected {expected}", source.name, story.title, step.at));
                return;
            }
        }
    }
}

#[tokio::test]
async fn alerts_stand_as_their_time_lines_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/detections");
    let (sources, refused) = Source::load(&folder).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let mut told = Vec::new();
    for source in sources {
        let Ok(text) = std::fs::read_to_string(folder.join(&source.name).join("timeline.toml")) else {
            told.push(format!("{} has no timeline.toml", source.name));
            continue;
        };
        let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", source.name));
        assert!(file.story.iter().all(|story| story.steps.iter().any(|step| step.expect.is_some())), "{}", source.name);
        for story in file.story {
            run(&source, story, &mut told).await;
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}
