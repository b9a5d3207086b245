//! `carebed evaluate`: how good a detection of silence is, on real homes, beside what is published.
//!
//! The detection's own SQL runs over unmodified history: what it raises there is false, for nothing happened in these recordings. Then, at every full
//! hour at which somebody is at home, the sensors fall silent for 24 h, and the same SQL says when it would have noticed. The price that the baseline
//! puts on a false alert is varied, which gives the whole trade-off.

mod chart;
mod protocol;
mod references;
mod score;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use carebed_contract::finding::Finding;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_queries::engine::{Asked, Baseline, Detection, Engine, Inputs};
use carebed_queries::episodes::{Definitions, Episode};
use carebed_queries::history::{self, Recording, Silenced, Span};
use carebed_queries::home::{HomeFacts, Interval, IntervalKind, Param};
use carebed_queries::sql::Lake;
use chrono::{Offset as _, TimeZone as _};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{EvaluateArguments, complain, say};
use crate::config::Config;
use crate::detections::OVER_HISTORY as LIMITS;
use crate::exit::{Exit, Misuse};
use crate::{detections, facts, sql};
use protocol::{Grid, Moments, WATCHED};
use references::Reference;
use score::{HEAD, Home, Score};

/// Recordings shorter than this many whole days are left out.
const DAYS_MIN: usize = 28;

/// How many silences are looked at in one query; it bounds memory.
const SILENCES_AT_ONCE: usize = 200;

/// The shortest quiet for which a limit is asked.
const QUIET_MIN: Duration = Duration::from_secs(120 * 60);

/// The prices tried for the trade-off, in hours of delay for one false alert; beside them the detection's own.
const PRICES: [f64; 10] = [20.0, 50.0, 80.0, 160.0, 320.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0];

/// What a provider called acceptable: 0.14 false alerts a resident a month (README of github.com/nadeeg/DataAnalysisBox).
const ACCEPTABLE: f64 = 0.005;

/// `carebed evaluate`
pub async fn run(arguments: EvaluateArguments) -> anyhow::Result<Exit> {
    let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let engine = Engine::new(LIMITS).context("failed to set up the query engine")?;
    let (found, baselines) = detections::with(&engine, arguments.with.as_deref()).await?;
    let Some(detection) = found.into_iter().find(|d| d.name == arguments.detection) else {
        bail!(Misuse(format!("there is no detection {} that can be used", arguments.detection)));
    };
    let baselines: Vec<_> = baselines.into_iter().filter(|b| detection.meaning.baselines.contains(&b.name)).collect();
    let store = sql::open(&arguments.data).await?;
    let (lake, view) = (Lake::of(&store), store.view());
    let Some(span) = history::extent(&lake, &view, LIMITS).await? else {
        bail!("{} holds no observations", arguments.data.display());
    };
    let outages = arguments.outages.as_deref().map(outages).transpose()?.unwrap_or_default();
    let days_min = arguments.days_min.unwrap_or(DAYS_MIN);
    let (mut cases, mut left_out) = (Vec::new(), Vec::new());
    for facts in facts::of_data(&Config::at(arguments.data.clone())).await? {
        spinner.set_message(format!("reading {}", facts.home));
        let recording = Recording::read(&lake, &view, span, &facts, LIMITS).await?;
        match Case::new(recording, &outages, &detection, days_min)? {
            Some(case) => cases.push(case),
            None => left_out.push(facts.home.to_string()),
        }
    }
    if !left_out.is_empty() && !cases.is_empty() {
        complain(&format!(
            "left out, with fewer than {days_min} whole days or a thousand minutes in which something moved: {}",
            left_out.join(", ")
        ));
    }
    if cases.is_empty() {
        bail!(
            "no home has {days_min} whole days with a thousand minutes in which something moved\nhint: --days-min asks for fewer days"
        );
    }
    let prices: Vec<Option<f64>> = match arguments.curve {
        true => std::iter::once(None).chain(PRICES.map(Some)).collect(),
        false => vec![None],
    };
    let mut scores = Vec::new();
    for price in prices {
        let name = price.map_or_else(|| detection.name.clone(), |price| format!("{} at {price} h", detection.name));
        let mut homes = Vec::with_capacity(cases.len());
        for case in &cases {
            spinner.set_message(format!("{name}: {}", case.recording.home().home));
            homes.push(case.score(&engine, &detection, &baselines, price).await?);
        }
        scores.push((name, homes));
    }
    spinner.finish_and_clear();
    report(&arguments, &cases, &scores)?;
    Ok(Exit::Done)
}

fn report(arguments: &EvaluateArguments, cases: &[Case], scores: &[(String, Vec<Home>)]) -> anyhow::Result<()> {
    let of = |homes: &[Home]| Score::of(homes, arguments.seed);
    let days: f64 = cases.iter().map(|case| case.grid.days()).sum();
    let silences: usize = cases.iter().map(|case| case.moments.at_home.len()).sum();
    say(&format!("{} homes, {days:.0} home-days, {silences} silences", cases.len()));
    say(HEAD);
    let mut curve = Vec::new();
    for (name, homes) in scores {
        say(&of(homes).line(name));
        curve.push((name.clone(), of(homes)));
    }
    if curve.len() > 1 {
        let scores: Vec<Score> = curve.iter().map(|(_, score)| *score).collect();
        let (mean, how) = score::at(&scores, ACCEPTABLE);
        say(&format!("at {ACCEPTABLE} false alerts a home-day the curve stands at {mean:.2} h: {how}"));
    }
    let mut points = Vec::new();
    for reference in Reference::ALL {
        let homes: Vec<Home> = cases.iter().map(|case| reference.score(&case.grid)).collect();
        say(&of(&homes).line(&reference.name()));
        points.push((reference.name(), of(&homes)));
    }
    let (Some((name, own)), n_door) = (scores.first(), cases.iter().map(|c| c.moments.door_last.len()).sum::<usize>())
    else {
        return Ok(());
    };
    let found: usize = own.iter().filter_map(|home| home.n_door_last_found).sum();
    say(&format!(
        "last event at a door, which looks like leaving: {n_door} silences apart; {name} finds {found} within 24 h"
    ));
    say("");
    say("home            days  false   mean h");
    for (case, home) in cases.iter().zip(own) {
        let score = of(std::slice::from_ref(home));
        say(&format!(
            "{:<14}{:>6.0}{:>7}{:>9.2}",
            case.recording.home().home.as_str(),
            home.days,
            home.n_false,
            score.mean
        ));
    }
    if let Some(path) = &arguments.svg {
        curve.sort_by(|a, b| a.1.false_per_day.total_cmp(&b.1.false_per_day));
        std::fs::write(path, chart::svg(&curve, &points))
            .with_context(|| format!("failed to write {}", path.display()))?;
        complain(&format!("the trade-off is drawn in {}", path.display()));
    }
    Ok(())
}

/// Spans in which every home was silent because the platform was: `start,end` per line after a heading.
fn outages(path: &Path) -> anyhow::Result<Vec<(Timestamp, Timestamp)>> {
    let mut reader = csv::Reader::from_path(path).with_context(|| format!("failed to read {}", path.display()))?;
    let mut outages = Vec::new();
    for (row, record) in reader.records().enumerate() {
        let record = record.with_context(|| format!("failed to read {}", path.display()))?;
        let time = |field: usize| record.get(field).and_then(Timestamp::parse);
        let Some(outage) = time(0).zip(time(1)) else {
            bail!(
                "{}:{}: a line is two times, as in 2019-05-27T01:25:57Z,2019-05-27T03:31:54Z",
                path.display(),
                row + 2
            );
        };
        outages.push(outage);
    }
    Ok(outages)
}

/// One home, ready to be tried.
struct Case {
    recording: Recording,
    grid: Grid,
    moments: Moments,
    /// All its episodes, those that baselines are learnt from too.
    episodes: Vec<Episode>,
    end: Timestamp,
    asked: Vec<Asked>,
    nights: Vec<Timestamp>,
    silenced: Vec<Silenced>,
    door_silenced: Vec<Silenced>,
    outages: Vec<Interval>,
}

impl Case {
    /// None for a recording that is too short.
    fn new(
        recording: Recording,
        outages: &[(Timestamp, Timestamp)],
        detection: &Detection,
        days_min: usize,
    ) -> anyhow::Result<Option<Self>> {
        let (moves, facts) = (recording.moves(), recording.home().clone());
        let Some((first, last)) = moves.first().zip(moves.last()).map(|(a, b)| (a.at, b.at)) else { return Ok(None) };
        let utc = chrono::DateTime::from_timestamp_millis(first.millis()).context("a time beyond the calendar")?;
        let offset = facts.time_zone.offset_from_utc_datetime(&utc.naive_utc()).fix().local_minus_utc();
        let Some(grid) = Grid::new(&moves, outages, i64::from(offset) * 1_000).filter(|g| g.n_days() >= days_min)
        else {
            return Ok(None);
        };
        let learning = Arc::new(Definitions::learning()?);
        let plain = Arc::new(Definitions::builtin()?);
        let moments = grid.moments();
        let silenced = |minutes: &[usize]| {
            let instants: Vec<Timestamp> = minutes.iter().map(|minute| grid.instant(*minute)).collect();
            let lasting = Duration::from_secs(60 * WATCHED as u64);
            recording.silenced(&plain, &instants, detection.meaning.window, lasting).collect::<Vec<_>>()
        };
        let (silenced, door_silenced) = (silenced(&moments.at_home), silenced(&moments.door_last));
        let episodes = recording.episodes(&learning, last);
        let nights: Vec<Timestamp> = history::midnights(Span { from: first, to: last }, &facts).collect();
        let long = episodes.iter().filter(|e| &*e.kind == "quiet");
        let long = long.filter(|e| e.ended_at.is_none_or(|t| t.since(e.started_at) >= QUIET_MIN)).map(|e| e.started_at);
        let begun = silenced.iter().chain(&door_silenced).filter_map(quiet_since);
        let mut asked: Vec<_> = long.chain(begun).filter_map(|at| history::half_hour(&facts, &nights, at)).collect();
        asked.sort();
        asked.dedup();
        let outages = outages.iter().map(|(from, to)| Interval {
            bed: None,
            kind: IntervalKind::Maintenance,
            started_at: *from,
            ended_at: *to,
            entered_at: *to,
        });
        let outages = outages.collect();
        Ok(Some(Self {
            recording,
            grid,
            moments,
            episodes,
            end: last,
            asked,
            nights,
            silenced,
            door_silenced,
            outages,
        }))
    }

    async fn score(
        &self,
        engine: &Engine,
        detection: &Detection,
        baselines: &[Baseline],
        price: Option<f64>,
    ) -> anyhow::Result<Home> {
        let mut facts = self.recording.home().clone();
        facts.intervals.extend(self.outages.iter().cloned());
        if let Some(value) = price {
            facts.params.retain(|p| p.detection != detection.name || p.key != "false_alert_hours");
            facts.params.push(Param { detection: detection.name.clone(), key: "false_alert_hours".into(), value });
        }
        let inputs = Inputs::new(&self.episodes, [(&facts, Some(self.end))]).with_asked(&self.asked);
        let mut learnt = Vec::new();
        for baseline in baselines {
            learnt.push(engine.learn(baseline, &inputs, self.end).await?);
        }
        let learnt = match learnt.first() {
            Some(first) => Some(concat_batches(&first.schema(), &learnt)?),
            None => None,
        };
        let inputs = match &learnt {
            Some(learnt) => inputs.with_baselines(learnt.clone()),
            None => inputs,
        };
        let raised = engine.evaluate(detection, &inputs, self.end).await?;
        let is_false = |f: &&Finding| self.grid.is_false(f.raised_at, f.cleared_at.unwrap_or(self.end));
        let mut home = Home {
            n_false: raised.iter().filter(is_false).count(),
            days: self.grid.days(),
            n_door_last: self.moments.door_last.len(),
            ..Home::default()
        };
        let index = learnt.as_ref().map(Index::new);
        home.delays = self.delays(engine, detection, &facts, index.as_ref(), &self.silenced).await?;
        let at_door = self.delays(engine, detection, &facts, index.as_ref(), &self.door_silenced).await?;
        home.n_door_last_found = Some(at_door.iter().flatten().count());
        Ok(home)
    }

    /// Minutes until each silence is found.
    async fn delays(
        &self,
        engine: &Engine,
        detection: &Detection,
        facts: &HomeFacts,
        learnt: Option<&Index<'_>>,
        silences: &[Silenced],
    ) -> anyhow::Result<Vec<Option<f64>>> {
        let watched = Duration::from_secs(60 * WATCHED as u64);
        let mut delays = Vec::with_capacity(silences.len());
        for silences in silences.chunks(SILENCES_AT_ONCE) {
            let (mut homes, mut episodes, mut baselines) = (Vec::new(), Vec::new(), Vec::new());
            for (number, silence) in silences.iter().enumerate() {
                let home: HomeId = format!("{}-{number}", facts.home).parse().context("a home's name is too long")?;
                let subject: Arc<str> = format!("home/{home}").into();
                episodes.extend(silence.episodes.iter().map(|episode| Episode {
                    home: home.clone(),
                    subject: if episode.bed.is_none() { Arc::clone(&subject) } else { Arc::clone(&episode.subject) },
                    ..episode.clone()
                }));
                let asked = quiet_since(silence).and_then(|at| history::half_hour(facts, &self.nights, at));
                if let Some((learnt, asked)) = learnt.zip(asked) {
                    baselines.extend(learnt.rows(&asked, &home)?);
                }
                homes.push((HomeFacts { home, ..facts.clone() }, silence.from + watched));
            }
            let end = silences.iter().map(|silence| silence.from + watched).max().unwrap_or(self.end);
            let mut inputs = Inputs::new(&episodes, homes.iter().map(|(facts, end)| (facts, Some(*end))));
            if let Some(first) = baselines.first() {
                inputs = inputs.with_baselines(concat_batches(&first.schema(), &baselines)?);
            }
            // What still holds at the end of the silence is about it, and not about a quiet before.
            let findings = engine.evaluate(detection, &inputs, end).await?;
            let lasting = findings.iter().filter(|finding| finding.cleared_at.is_none());
            let mut first: BTreeMap<&HomeId, Timestamp> = BTreeMap::new();
            for finding in lasting {
                let raised = first.entry(&finding.home).or_insert(finding.raised_at);
                *raised = (*raised).min(finding.raised_at);
            }
            delays.extend(homes.iter().zip(silences).map(|((facts, end), silence)| {
                let raised = first.get(&facts.home).filter(|raised| **raised <= *end)?;
                Some(raised.since(silence.from).as_secs_f64() / 60.0)
            }));
        }
        Ok(delays)
    }
}

/// When the silence really began: with the last activity before it.
fn quiet_since(silence: &Silenced) -> Option<Timestamp> {
    silence.episodes.iter().filter(|e| &*e.kind == "quiet" && e.ended_at.is_none()).map(|e| e.started_at).max()
}

/// What was learnt of one home, by night and half hour.
struct Index<'a> {
    learnt: &'a RecordBatch,
    rows: BTreeMap<(i64, Option<i64>), Vec<u64>>,
}

impl<'a> Index<'a> {
    fn new(learnt: &'a RecordBatch) -> Self {
        let mut rows: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        let nights = learnt.column_by_name("known_at").and_then(|c| c.as_primitive_opt::<TimestampMillisecondType>());
        let slots = learnt.column_by_name("slot").and_then(|c| c.as_primitive_opt::<Int64Type>());
        if let Some((nights, slots)) = nights.zip(slots) {
            for (row, (night, slot)) in nights.iter().zip(slots.iter()).enumerate() {
                rows.entry((night.unwrap_or_default(), slot)).or_default().push(row as u64);
            }
        }
        Self { learnt, rows }
    }

    /// The rows for one half hour, and those for the whole night, as if they were of another home.
    fn rows(&self, asked: &Asked, home: &HomeId) -> anyhow::Result<Option<RecordBatch>> {
        let night = asked.known_at.millis();
        let rows = [(night, asked.slot), (night, None)].into_iter().filter_map(|key| self.rows.get(&key)).flatten();
        let rows: UInt64Array = rows.copied().collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let taken = take_record_batch(self.learnt, &rows)?;
        let (schema, n_rows) = (taken.schema(), taken.num_rows());
        let columns = schema.fields().iter().zip(taken.columns()).map(|(field, column)| match field.name().as_str() {
            "home_id" => Arc::new(StringArray::from(vec![home.as_str(); n_rows])) as ArrayRef,
            _ => Arc::clone(column),
        });
        Ok(Some(RecordBatch::try_new(Arc::clone(&schema), columns.collect())?))
    }
}
