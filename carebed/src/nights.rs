//! `carebed nights`: how bed exits, falls and calls are found on simulated nights with mats that chatter as measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arrow::compute::concat_batches;
use carebed_contract::finding::Finding;
use carebed_contract::id::HomeId;
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;
use carebed_queries::engine::{Asked, Baseline, Detection, Engine, Inputs, Limits, baselines_schema};
use carebed_queries::episodes::{Definitions, Episodes};
use carebed_queries::history::{self, Span};
use carebed_queries::home::{HomeFacts, TIME_ZONE_DEFAULT};
use carebed_simulator::fact::{Change, Fact, LabelKind, Room};
use carebed_simulator::nights::{Mat, Nights, live};

use crate::cli::{NightsArguments, say};
use crate::detections;
use crate::exit::Exit;

/// After its rule's wait, how much later an alert may be and still be in time: what is debounced is known later.
const GRACE: Duration = Duration::from_secs(180);

/// What was found over many nights.
#[derive(Debug, Default)]
struct Tally {
    nights: u32,
    edges: usize,
    falls: usize,
    in_time: usize,
    calls: usize,
    called: usize,
    /// False alerts by detection.
    wrong: BTreeMap<String, usize>,
    waits: Vec<Duration>,
    /// What went wrong, a line each.
    list: Vec<String>,
}

/// `carebed nights`
pub async fn run(arguments: NightsArguments) -> anyhow::Result<Exit> {
    let engine =
        Engine::new(Limits { partitions: 1, ..Limits::default() }).context("failed to set up the query engine")?;
    let (list, mut baselines) = detections::with(&engine, arguments.with.as_deref()).await?;
    let wanted = ["bed_exit_no_return", "suspected_fall", "call_for_help"];
    let list: Vec<_> = list.into_iter().filter(|d| wanted.contains(&d.name.as_str())).collect();
    baselines.retain(|baseline| list.iter().any(|detection| detection.meaning.baselines.contains(&baseline.name)));
    let definitions = Arc::new(Definitions::learning().context("failed to read the episodes")?);
    say(
        "mat    nights  edges/night  falls  in time  wait p50 min  wait max min  calls  found  false/night  bed exit  fall",
    );
    let mut good = true;
    for (name, mat) in [("good", Mat::Good), ("B", Mat::B), ("C", Mat::C)] {
        let mut tally = Tally::default();
        let mut listed = 0;
        for home in 0..arguments.homes {
            let seed = arguments.seed.wrapping_add(u64::from(home) * 1_000);
            let lived = live(mat, arguments.nights, [7, 5], seed, TIME_ZONE_DEFAULT);
            let findings = find(&engine, &list, &baselines, &definitions, &lived).await?;
            tally.add(&lived, &findings);
            for line in tally.list.iter().skip(listed).filter(|_| arguments.list) {
                say(&format!("{name} {home}: {line}"));
            }
            listed = tally.list.len();
        }
        say(&tally.line(name));
        good &= tally.is_good();
    }
    Ok(if good { Exit::Done } else { Exit::Missed })
}

async fn find(
    engine: &Engine,
    list: &[Detection],
    baselines: &[Baseline],
    definitions: &Arc<Definitions>,
    lived: &Nights,
) -> anyhow::Result<Vec<Finding>> {
    let home = HomeId::new("h1")?;
    let mut episodes = Episodes::new(Arc::clone(definitions));
    for change in &lived.changes {
        episodes.push(&observation(change)?);
        episodes.advance(&home, change.at);
    }
    episodes.advance(&home, lived.to);
    let facts = HomeFacts::unregistered(home, "demo".parse()?);
    let mut inputs = Inputs::new(&episodes.all(), [(&facts, Some(lived.to))]);
    // What is usual of the person is learnt every midnight, as live.
    let midnights = history::midnights(Span { from: lived.from, to: lived.to }, &facts);
    let asked = midnights.map(|known_at| Asked { home: facts.home.clone(), known_at, slot: None });
    let asking = inputs.clone().with_asked(&asked.collect::<Vec<_>>());
    let mut learnt = Vec::new();
    for baseline in baselines {
        learnt.push(engine.learn(baseline, &asking, lived.to).await?);
    }
    inputs = inputs.with_baselines(concat_batches(&baselines_schema(), &learnt)?);
    let mut findings = Vec::new();
    for detection in list {
        findings.extend(engine.evaluate(detection, &inputs, lived.to).await?);
    }
    Ok(findings)
}

fn observation(change: &Change) -> anyhow::Result<Observation> {
    let (device, bed, room) = match change.fact {
        Fact::CallPressed => ("button", Some("b1"), "bedroom"),
        Fact::DoorOpen => ("door", None, "entrance"),
        Fact::BedOccupied => ("mat", Some("b1"), "bedroom"),
        Fact::Motion(Room::Bedroom) => ("pir-bedroom", None, "bedroom"),
        Fact::Motion(Room::Bathroom) => ("pir-bathroom", None, "bathroom"),
        Fact::Motion(Room::Living) => ("pir-living", None, "living"),
    };
    Ok(Observation {
        area: "demo".parse()?,
        home: "h1".parse()?,
        bed: bed.map(str::parse).transpose()?,
        device: device.parse()?,
        room: Some(room.parse()?),
        quantity: Quantity::new(change.fact.quantity()).context("a quantity that is none")?,
        unit: Arc::from("1"),
        event_time: change.at,
        value: Value::Number(f64::from(u8::from(change.on))),
        quality: Quality::Good,
        clock: ClockQuality::Synchronised,
        gateway: "gw-1".parse()?,
        boot: None,
        epoch: Epoch::new(1),
        lane: Lane::Routine,
        seq: 0,
        gateway_time: change.at,
        received_time: change.at,
    })
}

impl Tally {
    fn add(&mut self, lived: &Nights, findings: &[Finding]) {
        self.nights += lived.n_nights;
        self.edges += lived.n_edges;
        let alerts: Vec<&Finding> = findings.iter().filter(|f| f.detection != "call_for_help").collect();
        let helped = |from: Timestamp| {
            let on = lived.labels.iter().filter(|l| l.kind == LabelKind::CarryOn && l.at >= from);
            on.map(|l| l.at).min().unwrap_or(lived.to)
        };
        let mut falls: Vec<(Timestamp, Timestamp)> = Vec::new();
        for label in &lived.labels {
            match label.kind {
                LabelKind::Fall(room) => {
                    let rule = Duration::from_secs(if room == Room::Bathroom { 30 } else { 15 } * 60);
                    let until = helped(label.at);
                    let first = alerts.iter().filter(|f| f.raised_at >= label.at && f.raised_at <= until);
                    let wait = first.map(|f| f.raised_at.since(label.at)).min();
                    let in_time = wait.is_some_and(|wait| wait <= rule + GRACE);
                    self.falls += 1;
                    self.in_time += usize::from(in_time);
                    if !in_time {
                        let found = wait
                            .map_or("not found".to_owned(), |wait| format!("found after {} min", wait.as_secs() / 60));
                        self.list.push(format!("fell in the {room:?} at {}: {found}", wall(label.at)));
                    }
                    self.waits.extend(wait);
                    falls.push((label.at, until));
                }
                LabelKind::Press => {
                    self.calls += 1;
                    let heard = |f: &&Finding| f.detection == "call_for_help" && f.raised_at == label.at;
                    self.called += usize::from(findings.iter().any(|f| heard(&f)));
                }
                _ => {}
            }
        }
        // What is raised while somebody lies there is about that.
        for alert in alerts {
            if !falls.iter().any(|(from, to)| alert.raised_at >= *from && alert.raised_at <= *to) {
                *self.wrong.entry(alert.detection.clone()).or_default() += 1;
                let evidence = serde_json::to_string(&alert.evidence).unwrap_or_default();
                self.list.push(format!("{} at {}: {evidence}", alert.detection, wall(alert.raised_at)));
            }
        }
    }

    fn per_night(&self, detection: Option<&str>) -> f64 {
        let wrong: usize =
            self.wrong.iter().filter(|(d, _)| detection.is_none_or(|only| only == *d)).map(|(_, n)| n).sum();
        f64::from(u32::try_from(wrong).unwrap_or(u32::MAX)) / f64::from(self.nights.max(1))
    }

    fn line(&self, mat: &str) -> String {
        let mut waits = self.waits.clone();
        waits.sort();
        let minutes = |d: Option<&Duration>| d.map_or(f64::NAN, |d| d.as_secs_f64() / 60.0);
        format!(
            "{mat:<6} {:>6}  {:>11}  {:>5}  {:>6.1}%  {:>12.1}  {:>12.1}  {:>5}  {:>5}  {:>11.3}  {:>8.3}  {:>4.3}",
            self.nights,
            self.edges / usize::try_from(self.nights.max(1)).unwrap_or(1),
            self.falls,
            100.0 * share(self.in_time, self.falls),
            minutes(waits.get(waits.len() / 2)),
            minutes(waits.last()),
            self.calls,
            self.called,
            self.per_night(None),
            self.per_night(Some("bed_exit_no_return")),
            self.per_night(Some("suspected_fall")),
        )
    }

    fn is_good(&self) -> bool {
        self.per_night(None) <= 0.2 && share(self.in_time, self.falls) >= 0.99 && self.called == self.calls
    }
}

/// The clock on the wall of the simulated homes.
fn wall(at: Timestamp) -> String {
    chrono::DateTime::from_timestamp_millis(at.millis())
        .map_or_else(|| at.to_string(), |at| at.with_timezone(&TIME_ZONE_DEFAULT).format("%m-%d %H:%M:%S").to_string())
}

fn share(part: usize, whole: usize) -> f64 {
    let number = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    if whole == 0 { 1.0 } else { number(part) / number(whole) }
}
