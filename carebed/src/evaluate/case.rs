//! One home's recording, its silences, and what a detection makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
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
use chrono::{Offset as _, TimeZone as _};

use super::protocol::{Grid, Moments, WATCHED};
use super::score::{Apart, Home};
use crate::outages::Outage;

/// How many silences are looked at in one query; it bounds memory.
const SILENCES_AT_ONCE: usize = 200;

/// The shortest quiet for which a limit is asked.
const QUIET_MIN: Duration = Duration::from_secs(120 * 60);

/// One home, ready to be tried.
pub(super) struct Case {
    pub(super) recording: Recording,
    pub(super) grid: Grid,
    pub(super) moments: Moments,
    /// All its episodes, those that baselines are learnt from too.
    episodes: Vec<Episode>,
    end: Timestamp,
    asked: Vec<Asked>,
    nights: Vec<Timestamp>,
    silenced: Vec<Silenced>,
    door_silenced: Vec<Silenced>,
    bed_silenced: Vec<Silenced>,
    outages: Vec<Interval>,
}

impl Case {
    /// None for a recording that is too short.
    pub(super) fn new(
        recording: Recording,
        outages: &[Outage],
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
        let mut moments = grid.moments();
        let silenced = |minutes: &[usize]| {
            let instants: Vec<Timestamp> = minutes.iter().map(|minute| grid.instant(*minute)).collect();
            let lasting = Duration::from_secs(60 * WATCHED as u64);
            recording.silenced(&plain, &instants, detection.meaning.window, lasting).collect::<Vec<_>>()
        };
        let (at_home, door_silenced) = (silenced(&moments.at_home), silenced(&moments.door_last));
        let at_home = std::mem::take(&mut moments.at_home).into_iter().zip(at_home);
        let (in_bed, up): (Vec<_>, Vec<_>) = at_home.partition(|(_, silence)| is_in_bed(silence));
        let bed_silenced: Vec<Silenced> = in_bed.into_iter().map(|(_, silence)| silence).collect();
        let (up, silenced): (Vec<usize>, Vec<Silenced>) = up.into_iter().unzip();
        moments.at_home = up;
        let episodes = recording.episodes(&learning, last);
        let nights: Vec<Timestamp> = history::midnights(Span { from: first, to: last }, &facts).collect();
        let long = episodes.iter().filter(|e| &*e.kind == "quiet");
        let long = long.filter(|e| e.ended_at.is_none_or(|t| t.since(e.started_at) >= QUIET_MIN)).map(|e| e.started_at);
        let begun = silenced.iter().chain(&door_silenced).chain(&bed_silenced).filter_map(quiet_since);
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
            bed_silenced,
            outages,
        }))
    }

    /// What the detection does in it, at another price than its own when one is given; `of_beds` is asked about silences in bed.
    pub(super) async fn score(
        &self,
        engine: &Engine,
        detection: &Detection,
        of_beds: Option<&Detection>,
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
        let mut home =
            Home { n_false: raised.iter().filter(is_false).count(), days: self.grid.days(), ..Home::default() };
        let index = learnt.as_ref().map(Index::new);
        home.delays = self.delays(engine, detection, &facts, index.as_ref(), &self.silenced).await?;
        let found = |delays: Vec<Option<f64>>| delays.iter().flatten().count();
        let index = index.as_ref();
        home.door_last = Apart {
            n: self.door_silenced.len(),
            found: found(self.delays(engine, detection, &facts, index, &self.door_silenced).await?),
            ..Apart::default()
        };
        home.in_bed = Apart {
            n: self.bed_silenced.len(),
            found: found(self.delays(engine, detection, &facts, index, &self.bed_silenced).await?),
            found_in_bed: match of_beds {
                Some(of_beds) => found(self.delays(engine, of_beds, &facts, None, &self.bed_silenced).await?),
                None => 0,
            },
        };
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

/// Whether somebody lay in bed when it began, as far as their mat had said.
fn is_in_bed(silence: &Silenced) -> bool {
    silence.episodes.iter().any(|e| &*e.kind == "in_bed" && e.ended_at.is_none())
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

#[cfg(test)]
mod tests {
    use carebed_queries::sql::Lake;

    use super::*;
    use crate::config::Config;
    use crate::import::import;
    use crate::import::meaning::Meaning;
    use crate::{detections, facts, sql};

    /// Twenty days of a life that is the same every day: about from seven to ten, in bed at night but for a few minutes at three.
    fn days() -> String {
        let first = Timestamp::parse("2026-03-01T00:00:00Z").unwrap();
        let mut rows = "ts_utc,sensor_id,kind,value\n".to_owned();
        for day in 0..20 {
            let mut row = |minute: u64, sensor: &str, value: u8| {
                let at = first + Duration::from_secs((day * 1_440 + minute) * 60);
                rows.push_str(&[&at.to_string(), sensor, sensor, &value.to_string()].join(","));
                rows.push('\n');
            };
            row(3 * 60, "bed", 0);
            row(3 * 60 + 2, "motion", 1);
            row(3 * 60 + 5, "bed", 1);
            row(6 * 60 + 50, "bed", 0);
            (7 * 60..22 * 60).step_by(10).for_each(|minute| row(minute, "motion", 1));
            row(22 * 60 + 10, "bed", 1);
        }
        rows
    }

    #[tokio::test]
    async fn who_lies_in_bed_when_silence_falls_is_counted_apart() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::at(folder.path().join("data"));
        let meaning = "area = \"a1\"\ntime_zone = \"UTC\"\n[[sensor]]\nkind = \"motion\"\nquantity = \"motion_event\"\nroom = \"living\"\n\
                       [[sensor]]\nkind = \"bed\"\nquantity = \"bed_occupancy\"\nbed = true\nroom = \"bedroom\"\n";
        let file = folder.path().join("h1.csv");
        std::fs::write(&file, days()).unwrap();
        import(&config, &Meaning::parse("m.toml", meaning).unwrap(), &[file]).await.unwrap();
        let engine = Engine::new(detections::OVER_HISTORY).unwrap();
        let (found, baselines) = detections::with(&engine, None).await.unwrap();
        let named = |name: &str| found.iter().find(|detection| detection.name == name).unwrap();
        let baselines: Vec<_> = baselines.into_iter().filter(|baseline| baseline.name == "inactivity").collect();
        let store = sql::open(&config.data).await.unwrap();
        let (lake, view, limits) = (Lake::of(&store), store.view(), detections::OVER_HISTORY);
        let span = history::extent(&lake, &view, limits).await.unwrap().unwrap();
        let facts = facts::of_data(&config).await.unwrap().remove(0);
        let recording = Recording::read(&lake, &view, span, &facts, limits).await.unwrap();
        let case = Case::new(recording, &[], named("inactivity"), 17).unwrap().unwrap();
        let home =
            case.score(&engine, named("inactivity"), Some(named("bed_overstay")), &baselines, None).await.unwrap();
        // Three days: seventeen hours of each up, at three for a moment, six in bed; the last hour has no day of silence behind it.
        assert_eq!((home.delays.len(), home.in_bed.n, home.door_last.n), (51, 17, 0));
        assert_eq!(home.delays.iter().flatten().count(), home.delays.len(), "all who were up are found");
        assert_eq!((home.in_bed.found, home.in_bed.found_in_bed), (0, home.in_bed.n), "and those in bed by another");
        assert_eq!(home.n_false, 0);
    }
}
