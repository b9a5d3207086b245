//! Detections are causal in event time: what was known at `t` gives the findings of the whole with `raised_at` ≤ `t`, and with
//! `cleared_at` only where that was known by `t`. And it does not matter whether they look once or every hour.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use carebed_contract::finding::{Finding, Subject};
use carebed_contract::id::HomeId;
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_pipeline::accept::Marks;
use carebed_pipeline::store::{Commit, Config, Store};
use carebed_queries::coverage::Coverage;
use carebed_queries::engine::{Detection, Engine, Inputs, Limits, baselines_schema};
use carebed_queries::episodes::{Definitions, Episode, Episodes};
use carebed_queries::history::{self, Span};
use carebed_queries::home::{HomeFacts, Param};
use carebed_queries::live::{Live, Pace};
use carebed_queries::sql::Lake;
use common::observation;
use proptest::prelude::*;
use tokio::runtime::Runtime;

const N_HOMES: usize = 16;

/// What happens in the homes.
const QUANTITIES: [&str; 7] =
    ["bed_occupancy", "motion", "motion_event", "door_open", "door_event", "call_button", "call_event"];

struct Bench {
    runtime: Runtime,
    engine: Arc<Engine>,
    detections: Vec<Detection>,
    definitions: Arc<Definitions>,
    homes: Vec<HomeFacts>,
    baselines: RecordBatch,
}

/// Limits of quiet that change from night to night, from half hour to half hour and in one room: more than any home would have. The
/// homes may be there several times over, each time in the same order.
fn baselines(homes: &[HomeFacts]) -> RecordBatch {
    let (mut of, mut keys, mut slots, mut known, mut values) = (vec![], vec![], vec![], vec![], vec![]);
    for (number, facts) in homes.iter().enumerate() {
        for night in 0..6u64 {
            for slot in 0..48i64 {
                for key in [None, Some("pir")] {
                    of.push(facts.home.as_str());
                    keys.push(key);
                    slots.push(slot);
                    // Midnight in Shanghai.
                    known.push(
                        (start() + Duration::from_secs(4 * 3_600 + 86_400 * night) - Duration::from_secs(86_400))
                            .millis(),
                    );
                    let varied =
                        ((number % N_HOMES) as u64 * 7 + night * 5 + slot as u64 * 3 + u64::from(key.is_some())) % 11;
                    values.push(120.0 + 30.0 * f64::from(u32::try_from(varied).unwrap()));
                }
            }
        }
    }
    let n = of.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["inactivity"; n])),
        Arc::new(StringArray::from(of)),
        Arc::new(StringArray::from(vec![None::<&str>; n])),
        Arc::new(StringArray::from(keys)),
        Arc::new(Int64Array::from(slots)),
        Arc::new(TimestampMillisecondArray::from(known).with_timezone("UTC")),
        Arc::new(Float64Array::from(values)),
        Arc::new(Int64Array::from(vec![30; n])),
    ];
    RecordBatch::try_new(baselines_schema(), columns).unwrap()
}

fn bench() -> Bench {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine = Arc::new(Engine::new(Limits::default()).unwrap());
    let (mut detections, refused) = runtime.block_on(engine.builtin());
    assert!(refused.is_empty(), "{refused:?}");
    // The others find nothing in what happens here.
    detections.retain(|detection| {
        let requires = &detection.meaning.requires_any;
        requires.is_empty() || requires.iter().any(|quantity| QUANTITIES.contains(&quantity.as_str()))
    });
    let home = |number: usize| HomeFacts {
        residents: if number % 4 == 3 { 2 } else { 1 },
        params: vec![Param {
            detection: "inactivity_cap".into(),
            key: "hours".into(),
            value: if number.is_multiple_of(2) { 3.0 } else { 8.0 },
        }],
        ..HomeFacts::unregistered(format!("h{number}").parse().unwrap(), "area-1".parse().unwrap())
    };
    let homes: Vec<_> = (0..N_HOMES).map(home).collect();
    let baselines = baselines(&homes);
    Bench { runtime, engine, detections, definitions: Arc::new(Definitions::builtin().unwrap()), homes, baselines }
}

impl Bench {
    /// What `observations` say of the homes, complete up to `complete_to`.
    fn episodes(&self, observations: &[Observation], complete_to: Timestamp) -> Episodes {
        let mut episodes = Episodes::new(Arc::clone(&self.definitions));
        for facts in &self.homes {
            episodes.set_residents(&facts.home, facts.residents);
        }
        for observation in observations {
            episodes.push(observation);
        }
        for facts in &self.homes {
            episodes.advance(&facts.home, complete_to);
        }
        episodes
    }

    /// All that is found at `now` with `observations`, complete up to `complete_to`; what keeps findings quiet is not said.
    fn find(&self, observations: &[Observation], complete_to: Timestamp, now: Timestamp) -> Vec<Finding> {
        let mut episodes = self.episodes(observations, complete_to);
        let inputs = Inputs::new(&episodes.all(), self.homes.iter().map(|facts| (facts, Some(complete_to))));
        self.evaluate(&inputs.with_baselines(self.baselines.clone()), now)
    }

    fn evaluate(&self, inputs: &Inputs, now: Timestamp) -> Vec<Finding> {
        let mut findings = Vec::new();
        for detection in &self.detections {
            findings.extend(self.runtime.block_on(self.engine.evaluate(detection, inputs, now)).unwrap());
        }
        findings.into_iter().map(|finding| self.settled(finding)).collect()
    }

    /// What is found at `now`, for each cut, when what is `known` then is all there is and complete.
    fn find_cut<I: Iterator<Item = Observation>>(
        &self,
        cuts: &[Timestamp],
        known: impl Fn(Timestamp) -> I,
        now: Timestamp,
    ) -> Vec<Vec<Finding>> {
        let name = |home: &HomeId, number: usize| format!("{home}-{number}").parse::<HomeId>().unwrap();
        let mut homes = Vec::new();
        let mut all = Vec::new();
        for (number, cut) in cuts.iter().enumerate() {
            let mut episodes = self.episodes(&known(*cut).collect::<Vec<_>>(), *cut);
            for facts in &self.homes {
                let (home, own) = (name(&facts.home, number), format!("home/{}", facts.home));
                let subject: Arc<str> = format!("home/{home}").into();
                all.extend(episodes.of(&facts.home).into_iter().map(|episode| Episode {
                    home: home.clone(),
                    subject: if *episode.subject == *own { Arc::clone(&subject) } else { Arc::clone(&episode.subject) },
                    ..episode
                }));
                homes.push((HomeFacts { home, ..facts.clone() }, *cut));
            }
        }
        let facts: Vec<HomeFacts> = homes.iter().map(|(facts, _)| facts.clone()).collect();
        let inputs = Inputs::new(&all, homes.iter().map(|(facts, cut)| (facts, Some(*cut))));
        let found = self.evaluate(&inputs.with_baselines(baselines(&facts)), now);
        let mut by_cut = vec![Vec::new(); cuts.len()];
        for mut finding in found {
            let (home, number) = finding.home.as_str().rsplit_once('-').unwrap();
            let (home, number): (HomeId, usize) = (home.parse().unwrap(), number.parse().unwrap());
            if let Subject::Home(subject) | Subject::Device { home: subject, .. } = &mut finding.subject {
                *subject = home.clone();
            }
            finding.home = home;
            by_cut.get_mut(number).unwrap().push(finding);
        }
        by_cut
    }

    /// Says what keeps findings quiet, as a round at `now` does.
    fn mark(&self, findings: &mut [Finding], observations: &[Observation], now: Timestamp) {
        let mut episodes = self.episodes(observations, now);
        let all = episodes.all();
        let coverage = Coverage::new(&all, &self.homes, |home| episodes.sensors(home).to_vec());
        for finding in findings {
            let detection = self.detections.iter().find(|d| d.name == finding.detection).unwrap();
            coverage.mark(&detection.meaning, std::slice::from_mut(finding), now);
        }
    }

    /// Without the evidence that may still change.
    fn settled(&self, mut finding: Finding) -> Finding {
        let detection = self.detections.iter().find(|d| d.name == finding.detection).unwrap();
        finding.evidence.retain(|name, _| !detection.meaning.evolving.contains(name));
        finding
    }
}

fn start() -> Timestamp {
    // 20:00 by the clock in Shanghai.
    Timestamp::parse("2026-03-01T12:00:00Z").unwrap()
}

/// What one home's sensors may say over a few days, mostly nights: (seconds since the last, what, on).
type Steps = Vec<(u64, usize, bool)>;

/// Observations of all homes, in event order. Many homes in one stream: one evaluation then tries many stories.
fn streams() -> impl Strategy<Value = Vec<Observation>> {
    let gap = prop_oneof![4 => 0u64..400, 4 => 300u64..4_000, 2 => 3_000u64..20_000];
    let any_step = (gap, 0usize..9, any::<bool>()).prop_map(|step| vec![step]);
    // Hours in bed, up, perhaps seen, perhaps out of the door: where the detections' limits and waits meet.
    let night = (600u64..12_000, 0u64..1_500, 0u64..2_700, any::<[bool; 2]>()).prop_map(
        |(asleep, seen, door, [is_seen, is_out])| {
            let mut story = vec![(60, 0, true), (asleep, 0, false)];
            story.extend(is_seen.then_some((seen, 4, true)));
            story.extend(is_out.then_some((door, 6, true)));
            story
        },
    );
    let steps = prop::collection::vec(prop_oneof![4 => any_step, 1 => night], 10..60);
    prop::collection::vec(steps, N_HOMES).prop_map(|homes: Vec<Vec<Steps>>| {
        let mut made = Vec::new();
        for (number, steps) in homes.into_iter().enumerate() {
            let (home, bed) = (format!("h{number}"), format!("b{number}"));
            let mut time = start();
            for (gap, what, on) in steps.into_iter().flatten() {
                time = time + Duration::from_secs(gap);
                let value = Some(f64::from(u8::from(on)));
                let (bed, device, quantity) = match what {
                    0..=2 => (bed.as_str(), "mat", "bed_occupancy"),
                    3 => ("-", "pir", "motion"),
                    4 => ("-", "pir2", "motion_event"),
                    5 => ("-", "door", "door_open"),
                    6 => ("-", "door2", "door_event"),
                    7 => (bed.as_str(), "button", "call_button"),
                    _ => ("-", "cord", "call_event"),
                };
                made.push(observation(&home, bed, device, quantity, time, value, "good"));
            }
        }
        made.sort_by_key(|o| o.event_time);
        made
    })
}

fn end_of(stream: &[Observation]) -> Timestamp {
    stream.last().map_or(start(), |last| last.event_time) + Duration::from_secs(50_000)
}

#[test]
fn detections_look_at_nothing_later() {
    let bench = bench();
    let seen: RefCell<BTreeMap<String, usize>> = RefCell::default();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 64,
        ..ProptestConfig::with_cases(6)
    });
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 3);
    let check = |(stream, cuts, later): (Vec<Observation>, Vec<prop::sample::Index>, u64)| {
        let end = end_of(&stream);
        let whole = bench.find(&stream, end, end);
        for finding in &whole {
            *seen.borrow_mut().entry(finding.detection.clone()).or_default() += 1;
        }
        // Cuts anywhere, and at the instants that matter: where something was raised or cleared, and a while after.
        let mut instants: Vec<_> =
            cuts.iter().map(|c| c.get(&stream).event_time + Duration::from_secs(later)).collect();
        for cut in &cuts {
            if let Some(finding) = whole.get(cut.index(whole.len().max(1))) {
                instants.extend([finding.raised_at, finding.raised_at - Duration::from_millis(1)]);
                instants.extend([finding.raised_at + Duration::from_secs(later % 900)]);
                instants.extend(finding.cleared_at);
            }
        }
        let known = |cut: Timestamp| stream.iter().filter(move |o| o.event_time <= cut).cloned();
        let expected = |cut: Timestamp| {
            let mut expected: Vec<_> = whole.iter().filter(|f| f.raised_at <= cut).cloned().collect();
            for finding in &mut expected {
                finding.cleared_at = finding.cleared_at.filter(|cleared| *cleared <= cut);
            }
            expected
        };
        // Our clock is ahead, and what is complete is the bound: each cut in homes of its own, all in one look.
        let mut found = bench.find_cut(&instants, known, end);
        for (cut, found) in instants.iter().zip(&mut found) {
            prop_assert_eq!(&*found, &expected(*cut), "complete to {}", cut);
        }
        let cut = instants[instants.len() / 2];
        let known: Vec<_> = known(cut).collect();
        prop_assert_eq!(&bench.find(&known, cut, cut), &expected(cut), "cut at {}", cut);
        // More is known, and `now` is the bound. (A call waits for no clock: it is raised though it be in the future.)
        let mut found = bench.find(&stream, end, cut);
        found.retain(|finding| finding.raised_at <= cut);
        prop_assert_eq!(&found, &expected(cut), "seen from {}", cut);
        Ok(())
    };
    runner.run(&(streams(), cuts, 0u64..5_000), check).unwrap_or_else(|error| panic!("{error}"));
    let seen = seen.into_inner();
    for name in ["bed_exit_no_return", "call_for_help", "inactivity", "inactivity_cap"] {
        assert!(seen.contains_key(name), "{name} was never raised: {seen:?}");
    }
}

#[test]
fn once_and_every_few_hours_find_the_same() {
    let bench = bench();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::with_cases(4)
    });
    // Many homes a round, or a few at a time: then several rounds pass before all were looked at.
    let few = Pace { homes_max: 5, in_turn: 3 };
    let check = |(stream, hours, pace): (Vec<Observation>, u64, Pace)| {
        let end = end_of(&stream);
        let mut whole = bench.find(&stream, end, end);
        bench.mark(&mut whole, &stream, end);
        let mut live = Live::new(Arc::clone(&bench.engine), bench.detections.clone(), Arc::clone(&bench.definitions));
        live = live.with_pace(pace);
        bench.homes.iter().for_each(|facts| live.set_home(facts.clone()));
        live.set_baselines(&bench.baselines);
        let mut found: BTreeMap<_, Finding> = BTreeMap::new();
        let mut rest = stream.as_slice();
        let mut now = start();
        let mut rounds_after = 0;
        // Until every home had its turn since the end.
        let rounds_of_a_turn = if pace == few { N_HOMES.div_ceil(few.in_turn) + 1 } else { 1 };
        while rounds_after < rounds_of_a_turn {
            rounds_after += usize::from(now == end);
            now = (now + Duration::from_secs(3_600 * hours)).min(end);
            let (come, later) = rest.split_at(rest.partition_point(|o| o.event_time <= now));
            rest = later;
            live.feed(come);
            bench.homes.iter().for_each(|facts| live.advance(&facts.home, now));
            let round = bench.runtime.block_on(live.tick(now));
            prop_assert!(round.failed.is_empty(), "{:?}", round.failed);
            for finding in round.findings {
                let finding = bench.settled(finding);
                found.insert((finding.detection.clone(), finding.raised_at, finding.subject.clone()), finding);
            }
        }
        whole.sort_by(|a, b| (&a.detection, a.raised_at, &a.subject).cmp(&(&b.detection, b.raised_at, &b.subject)));
        let found: Vec<_> = found.into_values().collect();
        let only =
            |of: &[Finding], not: &[Finding]| of.iter().filter(|f| !not.contains(f)).cloned().collect::<Vec<_>>();
        prop_assert_eq!((only(&found, &whole), only(&whole, &found)), (vec![], vec![]));
        Ok(())
    };
    runner
        .run(&(streams(), 2u64..6, prop_oneof![Just(Pace::default()), Just(few)]), check)
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn order_duplicates_and_other_homes_change_nothing() {
    let bench = bench();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::with_cases(3)
    });
    let check = |(stream, twice, alone): (Vec<Observation>, Vec<prop::sample::Index>, prop::sample::Index)| {
        let end = end_of(&stream);
        let whole = bench.find(&stream, end, end);
        // What comes within the hour may come in any order, and more than once.
        let mut mixed = stream.clone();
        mixed.extend(twice.iter().map(|index| index.get(&stream).clone()));
        mixed.sort_by_key(|o| (o.event_time.millis() / 3_600_000, o.event_time.millis() % 977));
        prop_assert_eq!(&bench.find(&mixed, end, end), &whole);
        // The neighbours may as well not be there.
        let home = &bench.homes[alone.index(bench.homes.len())].home;
        let own: Vec<_> = stream.iter().filter(|o| o.home == *home).cloned().collect();
        let mut expected = whole;
        expected.retain(|finding| finding.home == *home);
        let mut found = bench.find(&own, end, end);
        found.retain(|finding| finding.home == *home);
        prop_assert_eq!(found, expected);
        Ok(())
    };
    let twice = prop::collection::vec(any::<prop::sample::Index>(), 20);
    runner.run(&(streams(), twice, any::<prop::sample::Index>()), check).unwrap_or_else(|error| panic!("{error}"));
}

/// When an observation comes: most within a minute, some hours late. An urgent one is never held up.
fn arrivals(stream: &[Observation], lateness: &[u64]) -> Vec<(Timestamp, Observation)> {
    let late = |row: &Observation, late: u64| match late {
        _ if ["button", "cord"].contains(&row.device.as_str()) => Duration::ZERO,
        late if late.is_multiple_of(8) => Duration::from_secs(late % 20_000),
        late => Duration::from_secs(late % 60),
    };
    let rows = stream.iter().zip(lateness.iter().cycle());
    let mut arrived: Vec<_> = rows.map(|(row, by)| (row.event_time + late(row, *by), row.clone())).collect();
    arrived.sort_by_key(|(at, _)| *at);
    arrived
}

/// A lake with everything that has come, each hour in a commit of its own.
struct Written {
    _directory: tempfile::TempDir,
    store: Store,
}

impl Written {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(Config::local(directory.path()).unwrap()).await.unwrap();
        Self { _directory: directory, store }
    }

    async fn commit(
        &self,
        rows: Vec<Observation>,
        homes: &[HomeFacts],
        complete: &BTreeMap<HomeId, Timestamp>,
        now: Timestamp,
    ) {
        // A gateway for each home: each is complete up to another time.
        let mark = |facts: &HomeFacts| {
            let complete_to = complete.get(&facts.home).copied().unwrap_or(Timestamp::MIN);
            let marks = Marks { homes: [facts.home.clone()].into(), complete_to, received: now, ..Marks::default() };
            (format!("gw-{}", facts.home).parse().unwrap(), marks)
        };
        let commit = Commit { rows: vec![rows.into()], marks: homes.iter().map(mark).collect(), ..Commit::default() };
        self.store.commit(&commit, now).await.unwrap();
    }

    async fn episodes(&self, bench: &Bench) -> Episodes {
        let (lake, view) = (Lake::of(&self.store), self.store.view());
        let all = Span { from: Timestamp::MIN, to: Timestamp::MAX };
        let definitions = Arc::clone(&bench.definitions);
        history::episodes(&lake, &view, all, &bench.homes, definitions, Limits::default()).await.unwrap()
    }
}

#[test]
fn late_rows_restarts_and_compaction_change_nothing() {
    let bench = bench();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::with_cases(1)
    });
    let check = |(stream, lateness, (hours, restart_every)): (Vec<Observation>, Vec<u64>, (u64, usize))| {
        let mut stream = stream;
        // One row a series and instant: of two the lake would have to say which came first.
        stream.sort_by(|a, b| (&a.home, &a.device, a.event_time).cmp(&(&b.home, &b.device, b.event_time)));
        stream.dedup_by(|a, b| (&a.home, &a.device, a.event_time) == (&b.home, &b.device, b.event_time));
        stream.sort_by_key(|o| o.event_time);
        for (number, row) in stream.iter_mut().enumerate() {
            row.seq = number as u64;
        }
        let arrivals = arrivals(&stream, &lateness);
        let end = arrivals.last().map_or(start(), |(at, _)| *at).max(end_of(&stream));
        let mut whole = bench.find(&stream, end, end);
        bench.mark(&mut whole, &stream, end);
        let written = bench.runtime.block_on(Written::new());
        let begin = || {
            let (engine, detections) = (Arc::clone(&bench.engine), bench.detections.clone());
            let mut live = Live::new(engine, detections, Arc::clone(&bench.definitions));
            bench.homes.iter().for_each(|facts| live.set_home(facts.clone()));
            live.set_baselines(&bench.baselines);
            live
        };
        let mut live = begin();
        let mut found: BTreeMap<_, Finding> = BTreeMap::new();
        let (mut now, mut rounds, mut rest) = (start(), 0, arrivals.as_slice());
        while now < end {
            now = (now + Duration::from_secs(3_600 * hours)).min(end);
            rounds += 1;
            let (come, later) = rest.split_at(rest.partition_point(|(at, _)| *at <= now));
            rest = later;
            // Each home is complete up to what is still on its way.
            let mut complete: BTreeMap<HomeId, Timestamp> =
                bench.homes.iter().map(|facts| (facts.home.clone(), now)).collect();
            for (_, row) in later {
                let complete_to = complete.get_mut(&row.home).unwrap();
                *complete_to = (*complete_to).min(row.event_time);
            }
            let come: Vec<Observation> = come.iter().map(|(_, row)| row.clone()).collect();
            let committing = written.commit(come.clone(), &bench.homes, &complete, now);
            bench.runtime.block_on(committing);
            if rounds % 5 == 0 {
                while bench.runtime.block_on(written.store.compact(now)).unwrap().is_some() {}
            }
            if rounds % restart_every == 0 {
                live = begin();
                live.resume(bench.runtime.block_on(written.episodes(&bench)));
            } else {
                live.feed(&come);
            }
            complete.iter().for_each(|(home, complete_to)| live.advance(home, *complete_to));
            let round = bench.runtime.block_on(live.tick(now));
            prop_assert!(round.failed.is_empty(), "{:?}", round.failed);
            for finding in round.findings {
                let finding = bench.settled(finding);
                found.insert((finding.detection.clone(), finding.raised_at, finding.subject.clone()), finding);
            }
        }
        let order = |f: &Finding| (f.detection.clone(), f.raised_at, f.subject.clone());
        whole.sort_by_key(order);
        let only =
            |of: &[Finding], not: &[Finding]| of.iter().filter(|f| !not.contains(f)).cloned().collect::<Vec<_>>();
        let hourly: Vec<_> = found.into_values().collect();
        prop_assert_eq!((only(&hourly, &whole), only(&whole, &hourly)), (vec![], vec![]));
        // And all that the lake has at the end, merged into few files, says the same at once.
        while bench.runtime.block_on(written.store.compact(end)).unwrap().is_some() {}
        let mut episodes = bench.runtime.block_on(written.episodes(&bench));
        let inputs = Inputs::new(&episodes.all(), bench.homes.iter().map(|facts| (facts, Some(end))));
        let mut merged = bench.evaluate(&inputs.with_baselines(bench.baselines.clone()), end);
        bench.mark(&mut merged, &stream, end);
        merged.sort_by_key(order);
        prop_assert_eq!((only(&merged, &whole), only(&whole, &merged)), (vec![], vec![]));
        Ok(())
    };
    let lateness = prop::collection::vec(0u64..100_000, 97);
    runner.run(&(streams(), lateness, (2u64..5, 2usize..9)), check).unwrap_or_else(|error| panic!("{error}"));
}
