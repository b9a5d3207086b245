//! Runs `detections/*/timeline.toml`: what happens in a home, step by step, and how the detection's alert stands then.
//!
//! A story begins at `start`; its steps follow by `at`, counted from there. Up to each step the home's data is complete, unless the
//! story says `offline` in between. A step may `see` an observation (`bed device quantity value room`, `-` for no bed, the room may be
//! missing), which happened `late` earlier than it comes; `say` what explains a stretch (`visit 2h`); let an operator `act`; and `expect`
//! how the newest alert stands: `none`, or its state and priority, then what is so of `rings`, the reason that keeps it quiet, `late`,
//! `cleared`, and its outcome.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carebed_alerts::alert::{Alert, AlertId, OperatorId, Outcome};
use carebed_alerts::{Act, Alerts, Evaluated};
use carebed_contract::id::HomeId;
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;
use carebed_queries::detection::Source;
use carebed_queries::engine::{Engine, Limits};
use carebed_queries::episodes::Definitions;
use carebed_queries::home::{HomeFacts, Interval, IntervalKind, TIME_ZONE_DEFAULT};
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
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at: String,
    see: Option<String>,
    late: Option<String>,
    say: Option<String>,
    act: Option<String>,
    offline: Option<bool>,
    expect: Option<String>,
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
    home: HomeId,
    complete_to: Timestamp,
    seen: u64,
    ids: Vec<AlertId>,
}

impl World {
    fn feed(&mut self, text: &str, event_time: Timestamp, received_time: Timestamp) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [bed, device, quantity, value, room @ ..] = words.as_slice() else { panic!("{text:?} is no observation") };
        self.seen += 1;
        self.live.feed(&[Observation {
            area: "area-1".parse().unwrap(),
            home: self.home.clone(),
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

    async fn look(&mut self, now: Timestamp) {
        let round =
            if self.urgent { self.live.tick_home(&self.home.clone(), now).await } else { self.live.tick(now).await };
        let Round { findings, failed } = round;
        assert!(failed.is_empty(), "{failed:?}");
        let evaluated = Evaluated {
            detections: [self.detection.clone()].into(),
            homes: [(self.home.clone(), self.complete_to)].into(),
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

async fn run(source: &Source, story: &Story, told: &mut Vec<String>) {
    let engine = Arc::new(Engine::new(Limits::default()).unwrap());
    let detection = engine.prepare(source.clone()).await.unwrap();
    let policy = centre::policy(std::slice::from_ref(&detection));
    let home: HomeId = "h1".parse().unwrap();
    let mut facts = HomeFacts::unregistered(home.clone(), "area-1".parse().unwrap());
    let urgent = detection.meaning.urgent;
    let live = Live::new(engine, vec![detection], Arc::new(Definitions::builtin().unwrap()));
    let start = Timestamp::parse(&story.start).unwrap_or_else(|| panic!("{} is not a time", story.start));
    let alerts = Alerts::new(policy);
    let (detection, ids) = (source.name.clone(), Vec::new());
    let mut world = World { live, alerts, detection, urgent, home, complete_to: start, seen: 0, ids };
    world.live.set_home(facts.clone());
    let mut is_offline = false;
    let mut now = start;
    for step in &story.steps {
        let at = start + span(&step.at);
        assert!(at >= now, "{}: steps are in order of time", story.title);
        // Timers that run out before it.
        while let Some(due) = world.alerts.next_due().filter(|due| *due < at) {
            if !is_offline {
                world.complete_to = world.complete_to.max(due);
                world.live.advance(&world.home.clone(), due);
            }
            world.look(due.max(now)).await;
        }
        now = at;
        is_offline = step.offline.unwrap_or(is_offline);
        if let Some(seen) = &step.see {
            world.feed(seen, at - step.late.as_deref().map(span).unwrap_or_default(), at);
        }
        if let Some(said) = &step.say {
            let (kind, lasts) = said.split_once(' ').unwrap();
            let kind = IntervalKind::ALL.into_iter().find(|k| k.as_str() == kind).unwrap();
            facts.intervals.push(Interval {
                bed: None,
                kind,
                started_at: at,
                ended_at: at + span(lasts),
                entered_at: at,
            });
            world.live.set_home(facts.clone());
        }
        if !is_offline {
            world.complete_to = at;
            world.live.advance(&world.home.clone(), at);
        }
        world.look(at).await;
        if let Some(act) = &step.act {
            world.act(act, at);
        }
        if let Some(expected) = &step.expect {
            let found = world.stands();
            if found != *expected {
                told.push(format!("{}: {} at {}: {found}, expected {expected}", source.name, story.title, step.at));
            }
        }
    }
}

#[tokio::test]
async fn alerts_stand_as_their_time_lines_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/detections");
    let (sources, refused) = Source::load(&folder).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    let (mut told, mut n_stories) = (Vec::new(), 0);
    for source in sources {
        let Ok(text) = std::fs::read_to_string(folder.join(&source.name).join("timeline.toml")) else { continue };
        let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", source.name));
        for story in &file.story {
            run(&source, story, &mut told).await;
            n_stories += 1;
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
    assert!(n_stories >= 8, "{n_stories} stories");
}
