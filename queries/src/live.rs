//! Episodes and detections while data arrives.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use carebed_contract::finding::Finding;
use carebed_contract::id::HomeId;
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;

use crate::coverage::Coverage;
use crate::engine::{Detection, Engine, EvaluateError, Inputs};
use crate::episodes::{Definitions, Episode, Episodes, KEEP_MAX, Pushed};
use crate::home::HomeFacts;
use crate::signs::Signs;

/// How much longer than the longest window ended episodes are kept, so that what a finding within its window rests on is whole.
const MARGIN: Duration = Duration::from_secs(86_400);

/// What a round of detections found. One that failed does not hold up the others.
#[derive(Debug, Default)]
pub struct Round {
    /// What holds, or held within the detections' windows.
    pub findings: Vec<Finding>,
    /// Detections that gave no answer for the homes asked about.
    pub failed: Vec<EvaluateError>,
}

/// How observations were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fed {
    /// Taken in.
    pub taken: usize,
    /// Already there.
    pub duplicates: usize,
    /// Too late to be put in their place: these homes' episodes are only right again after a rebuild from history.
    pub too_late: usize,
}

/// The living side: feed it what the pipeline accepts, ask it what is the matter.
#[derive(Debug)]
pub struct Live {
    engine: Arc<Engine>,
    detections: Vec<Detection>,
    /// Those for the short way.
    urgent: Vec<Detection>,
    episodes: Episodes,
    homes: BTreeMap<HomeId, HomeFacts>,
    /// When gateways were heard.
    signs: Signs,
    /// What the last round saw of them.
    silences: Vec<Episode>,
    /// What keeps findings quiet, as the inputs say.
    coverage: Arc<Coverage>,
    /// What is usual in the homes, as learnt last.
    baselines: Option<RecordBatch>,
    /// Made anew only after something was fed.
    inputs: Option<Inputs>,
}

impl Live {
    /// Nothing known yet.
    #[must_use]
    pub fn new(engine: Arc<Engine>, detections: Vec<Detection>, definitions: Arc<Definitions>) -> Self {
        let urgent = detections.iter().filter(|d| d.meaning.urgent).cloned().collect();
        Self {
            engine,
            detections,
            urgent,
            episodes: Episodes::new(definitions),
            homes: BTreeMap::new(),
            signs: Signs::new(Timestamp::MIN),
            silences: Vec::new(),
            coverage: Arc::default(),
            baselines: None,
            inputs: None,
        }
    }

    /// Compares from now on with what [`crate::history::learn`] has learnt.
    pub fn set_baselines(&mut self, baselines: RecordBatch) {
        self.baselines = Some(baselines);
        self.inputs = None;
    }

    /// Goes on from episodes that [`crate::history::episodes`] made of what the lake holds, as after a restart: who was in bed then is still
    /// known to be. Feeding rows once more that were in it does no harm.
    pub fn resume(&mut self, episodes: Episodes) {
        self.episodes = episodes;
        for facts in self.homes.values() {
            self.episodes.set_residents(&facts.home, facts.residents);
        }
        self.inputs = None;
    }

    /// The detections in use.
    #[must_use]
    pub fn detections(&self) -> &[Detection] {
        &self.detections
    }

    /// The homes that are looked at.
    pub fn homes(&self) -> impl Iterator<Item = &HomeFacts> {
        self.homes.values()
    }

    /// The urgent detections once more, planned apart: a plan runs once at a time, and a call does not wait for a round.
    #[must_use]
    pub fn with_urgent(mut self, urgent: Vec<Detection>) -> Self {
        self.urgent = urgent;
        self
    }

    /// Gateways are listened to from `now` on: whoever was heard before has the usual time to be heard again.
    pub fn listen_from(&mut self, now: Timestamp) {
        self.signs = Signs::new(now);
    }

    /// When gateways were heard: tell it.
    pub fn signs(&mut self) -> &mut Signs {
        &mut self.signs
    }

    /// What the last round knew of why findings are quiet, and of what cannot be found.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Takes a detection out of use: the others go on.
    pub fn switch_off(&mut self, detection: &str) {
        self.detections.retain(|d| d.name != detection);
    }

    /// The episodes so far.
    pub fn episodes(&mut self) -> &mut Episodes {
        &mut self.episodes
    }

    /// Says what is known of a home, or says it anew.
    pub fn set_home(&mut self, facts: HomeFacts) {
        self.episodes.set_residents(&facts.home, facts.residents);
        self.homes.insert(facts.home.clone(), facts);
        self.inputs = None;
    }

    /// Takes accepted observations, in any order and more than once. A home that nobody registered is taken with default facts: a
    /// call from it must ring.
    pub fn feed(&mut self, observations: &[Observation]) -> Fed {
        let mut fed = Fed::default();
        for observation in observations {
            match self.episodes.push(observation) {
                Pushed::Irrelevant => continue,
                Pushed::Taken => fed.taken += 1,
                Pushed::Duplicate => fed.duplicates += 1,
                Pushed::TooLate => fed.too_late += 1,
            }
            if !self.homes.contains_key(&observation.home) {
                self.set_home(HomeFacts::unregistered(observation.home.clone(), observation.area.clone()));
            }
        }
        if fed.taken + fed.too_late > 0 {
            self.inputs = None;
        }
        fed
    }

    /// All of a home's event times before `complete_to` have been fed.
    pub fn advance(&mut self, home: &HomeId, complete_to: Timestamp) {
        self.episodes.advance(home, complete_to);
        self.inputs = None;
    }

    /// What all detections find in all homes.
    pub async fn tick(&mut self, now: Timestamp) -> Round {
        self.look(now).run().await
    }

    /// A round over all homes as things stand, to be run beside: what comes meanwhile is not in it.
    pub fn look(&mut self, now: Timestamp) -> Look {
        let silences = self.signs.episodes(now);
        let inputs = match self.inputs.take().filter(|_| silences == self.silences) {
            Some(inputs) => inputs,
            None => {
                let window = self.detections.iter().map(|d| d.meaning.window).max().unwrap_or(Duration::ZERO);
                self.episodes.forget(now - window - MARGIN);
                let complete = self.homes.values().map(|facts| (facts, self.episodes.complete_to(&facts.home)));
                let complete: Vec<_> = complete.collect();
                let mut episodes = self.episodes.all();
                let sensors = |home: &HomeId| self.episodes.sensors(home).to_vec();
                self.coverage = Arc::new(Coverage::new(&episodes, self.homes.values(), sensors));
                episodes.extend(silences.iter().cloned());
                self.silences = silences;
                let inputs = Inputs::new(&episodes, complete);
                match &self.baselines {
                    Some(baselines) => inputs.with_baselines(baselines.clone()),
                    None => inputs,
                }
            }
        };
        self.inputs = Some(inputs.clone());
        let (engine, coverage) = (Arc::clone(&self.engine), Arc::clone(&self.coverage));
        Look { engine, detections: self.detections.clone(), inputs, coverage, now }
    }

    /// What the urgent detections find in one home: the short way for a call. It has plans of its own, so that it waits for no round.
    pub async fn tick_home(&mut self, home: &HomeId, now: Timestamp) -> Round {
        let Some(facts) = self.homes.get(home) else { return Round::default() };
        let complete_to = self.episodes.complete_to(home);
        let inputs = Inputs::new(&self.episodes.of(home), [(facts, complete_to)]);
        // Nothing explains a call away.
        let (engine, coverage) = (Arc::clone(&self.engine), Arc::default());
        Look { engine, detections: self.urgent.clone(), inputs, coverage, now }.run().await
    }
}

/// A round that was prepared and can run beside whatever happens next.
#[derive(Debug)]
pub struct Look {
    engine: Arc<Engine>,
    detections: Vec<Detection>,
    inputs: Inputs,
    coverage: Arc<Coverage>,
    now: Timestamp,
}

impl Look {
    /// What the detections find.
    pub async fn run(self) -> Round {
        let mut round = Round::default();
        for detection in &self.detections {
            match self.engine.evaluate(detection, &self.inputs, self.now).await {
                Ok(mut findings) => {
                    self.coverage.mark(&detection.meaning, &mut findings, self.now);
                    // What others rest on is forgotten in part: they were told in their time, or were not so.
                    let (over, known) = (self.now - detection.meaning.window, self.now - KEEP_MAX);
                    let is_whole =
                        |f: &Finding| f.raised_at >= known && f.cleared_at.is_none_or(|cleared| cleared >= over);
                    round.findings.extend(findings.into_iter().filter(is_whole));
                }
                Err(error) => round.failed.push(error),
            }
        }
        round
    }
}
