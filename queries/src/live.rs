//! Episodes and detections while data arrives.
//!
//! What a detection finds in a home depends on that home alone: its episodes, its facts, what is usual there, and the time. So a round looks at
//! the homes of which something came since the last, and at some of the others in turn, for what time alone brings. Detections that rest on
//! what gateways say of themselves weigh homes against each other: they look at all, and see nothing but those silences.

mod learnt;
mod look;
mod queue;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use carebed_contract::id::HomeId;
use carebed_contract::inventory::InventoryDevice;
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;

use crate::coverage::Coverage;
use crate::engine::{Detection, Engine, Inputs};
use crate::episodes::{Definitions, Episode, Episodes, Pushed, Seen};
use crate::home::{AlertTimes, HomeFacts};
use crate::signs::Signs;
use learnt::Learnt;
pub use look::{Look, Round};
use queue::Queue;

/// How much longer than the longest window ended episodes are kept, so that what a finding within its window rests on is whole.
const MARGIN: Duration = Duration::from_secs(86_400);

/// How many homes a round looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// No more than these, so that a round ends soon and its memory is bounded; of what changed beyond it the next rounds see.
    pub homes_max: usize,
    /// Beside those that changed, so many in turn, and never fewer than a sixtieth of all: with a round a second, what only time brings to a
    /// home is found a minute later at most.
    pub in_turn: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { homes_max: 16_384, in_turn: 512 }
    }
}

/// In how many rounds every home had its turn.
const ROUNDS_OF_A_TURN: usize = 60;

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
    /// The devices of homes, and since when they are so.
    devices: BTreeMap<HomeId, (Vec<InventoryDevice>, Timestamp)>,
    pace: Pace,
    /// Homes of which something came since they were last looked at.
    changed: Queue,
    /// The last home whose turn it was.
    turn: Option<HomeId>,
    /// When gateways were heard.
    signs: Signs,
    /// What the last round saw of them.
    silences: Vec<Episode>,
    /// These silences and all homes; made anew when one of them changes.
    neighbours: Option<Inputs>,
    /// What keeps findings quiet, as the last rounds saw it.
    coverage: Arc<Coverage>,
    /// What is usual in the homes, as learnt last.
    learnt: Learnt,
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
            devices: BTreeMap::new(),
            pace: Pace::default(),
            changed: Queue::default(),
            turn: None,
            signs: Signs::new(Timestamp::MIN),
            silences: Vec::new(),
            neighbours: None,
            coverage: Arc::default(),
            learnt: Learnt::default(),
        }
    }

    /// Looks at so many homes a round from now on.
    #[must_use]
    pub fn with_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Compares from now on with what [`crate::history::learn`] has learnt.
    pub fn set_baselines(&mut self, baselines: &RecordBatch) {
        let learnt = Learnt::new(baselines);
        let before = std::mem::take(&mut self.learnt);
        let first = learnt.first_night().unwrap_or(Timestamp::MIN);
        self.learnt = learnt.with_earlier(&before, &self.lasting_since(first));
        self.homes.keys().for_each(|home| self.changed.push(home));
    }

    /// The homes in which something lasts that began before then.
    #[must_use]
    pub fn lasting_since(&self, before: Timestamp) -> BTreeSet<HomeId> {
        self.homes.keys().filter(|home| self.episodes.lasts_since(home, before)).cloned().collect()
    }

    /// Goes on from episodes that [`crate::history::episodes`] made of what the lake holds, as after a restart: who was in bed then is still
    /// known to be. Feeding rows once more that were in it does no harm.
    pub fn resume(&mut self, episodes: Episodes) {
        self.episodes = episodes;
        for facts in self.homes.values() {
            self.episodes.set_residents(&facts.home, facts.residents);
        }
        for home in self.devices.keys().cloned().collect::<Vec<_>>() {
            self.look_over_devices(&home);
        }
        self.homes.keys().for_each(|home| self.changed.push(home));
        self.neighbours = None;
    }

    /// Forgets what a home's observations said: its episodes, its devices and what is usual there. What the registry says of it
    /// stays.
    pub fn forget_home(&mut self, home: &HomeId) {
        self.episodes.remove(home);
        self.learnt.forget(home);
        Arc::make_mut(&mut self.coverage).renew([home], Coverage::default());
        self.changed.push(home);
        self.neighbours = None;
    }

    /// Forgets what is usual in a home.
    pub fn forget_baselines(&mut self, home: &HomeId) {
        self.learnt.forget(home);
    }

    /// Goes on, in one home, from episodes that were made anew of what the lake holds, and from what was fed `since`.
    pub fn resume_home<'a>(
        &mut self,
        home: &HomeId,
        mut rebuilt: Episodes,
        since: impl IntoIterator<Item = &'a [Observation]>,
    ) {
        let complete_to = self.episodes.complete_to(home);
        self.episodes.adopt(home, &mut rebuilt);
        if let Some(facts) = self.homes.get(home) {
            self.episodes.set_residents(home, facts.residents);
        }
        for rows in since {
            self.feed(rows);
        }
        self.look_over_devices(home);
        if let Some(complete_to) = complete_to {
            self.episodes.advance(home, complete_to);
        }
        self.changed.push(home);
        self.neighbours = None;
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

    /// What the last rounds knew of why findings are quiet, and of what cannot be found.
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
        self.changed.push(&facts.home);
        self.neighbours = None;
        self.homes.insert(facts.home.clone(), facts);
    }

    /// Says which devices a home has since `at`.
    pub fn set_devices(&mut self, home: &HomeId, devices: Vec<InventoryDevice>, at: Timestamp) {
        self.devices.insert(home.clone(), (devices, at));
        self.look_over_devices(home);
    }

    /// What a home no longer has is unknown from then on.
    fn look_over_devices(&mut self, home: &HomeId) {
        if let Some((devices, at)) = self.devices.get(home) {
            self.episodes.set_devices(home, devices, *at);
            self.changed.push(home);
        }
    }

    /// Says how a home's alerts went so far.
    pub fn set_alerts(&mut self, home: &HomeId, alerts: Vec<AlertTimes>) {
        if let Some(facts) = self.homes.get_mut(home) {
            facts.alerts = alerts;
            self.changed.push(home);
        }
    }

    /// Takes accepted observations, in any order and more than once. A home that nobody registered is taken with default facts: a
    /// call from it must ring.
    pub fn feed(&mut self, observations: &[Observation]) -> Fed {
        let mut fed = Fed::default();
        for observation in observations {
            match self.episodes.push(observation) {
                Pushed::Irrelevant => continue,
                Pushed::Duplicate => fed.duplicates += 1,
                Pushed::Taken => {
                    fed.taken += 1;
                    self.changed.push(&observation.home);
                }
                Pushed::TooLate => {
                    fed.too_late += 1;
                    self.changed.push(&observation.home);
                }
            }
            if !self.homes.contains_key(&observation.home) {
                self.set_home(HomeFacts::unregistered(observation.home.clone(), observation.area.clone()));
            }
        }
        fed
    }

    /// Takes one already read, of a home that is known. For [`crate::history`].
    pub(crate) fn feed_seen(&mut self, home: &HomeId, seen: Seen) {
        self.episodes.push_seen(home, seen);
        self.changed.push(home);
    }

    /// All of a home's event times before `complete_to` have been fed.
    pub fn advance(&mut self, home: &HomeId, complete_to: Timestamp) {
        let before = self.episodes.complete_to(home);
        if before.is_some_and(|before| complete_to <= before) {
            return;
        }
        self.episodes.advance(home, complete_to);
        self.changed.push(home);
        if before.is_none() {
            // Its neighbours count it from now on.
            self.neighbours = None;
        }
    }

    /// From when on every episode that began is remembered, if its home was fed from before then.
    #[must_use]
    pub fn remembers_from(&self, now: Timestamp) -> Timestamp {
        let window = self.detections.iter().map(|d| d.meaning.window).max().unwrap_or(Duration::ZERO);
        now - window - MARGIN
    }

    /// A round at once: see [`Self::look`].
    pub async fn tick(&mut self, now: Timestamp) -> Round {
        self.look(now).run().await
    }

    /// A round over the homes whose turn it is as things stand, to be run beside: what comes meanwhile is not in it.
    pub fn look(&mut self, now: Timestamp) -> Look {
        let homes = self.next_homes();
        let before = self.remembers_from(now);
        let mut episodes = Vec::new();
        for home in &homes {
            self.episodes.forget(home, before);
            episodes.extend(self.episodes.of(home));
        }
        let complete = |home: &HomeId| self.episodes.complete_to(home);
        let facts = || homes.iter().filter_map(|home| self.homes.get(home));
        let sensors = |home: &HomeId| self.episodes.sensors(home).to_vec();
        Arc::make_mut(&mut self.coverage).renew(&homes, Coverage::new(&episodes, facts(), sensors));
        let inputs = Inputs::new(&episodes, facts().map(|facts| (facts, complete(&facts.home))));
        let inputs = inputs.with_baselines(self.learnt.of(&homes));
        let silences = self.signs.episodes(now);
        if silences != self.silences {
            self.silences = silences;
            self.neighbours = None;
        }
        let neighbours = self.neighbours.take().unwrap_or_else(|| {
            Inputs::new(&self.silences, self.homes.values().map(|facts| (facts, complete(&facts.home))))
        });
        self.neighbours = Some(neighbours.clone());
        let homes = homes.into_iter().map(|home| (complete(&home).unwrap_or(Timestamp::MIN), home));
        Look {
            engine: Arc::clone(&self.engine),
            detections: self.detections.clone(),
            homes: homes.map(|(complete_to, home)| (home, complete_to)).collect(),
            inputs,
            neighbours,
            coverage: Arc::clone(&self.coverage),
            now,
        }
    }

    /// The homes of the next round: those that changed, the longest waiting first, and some in turn.
    fn next_homes(&mut self) -> BTreeSet<HomeId> {
        let in_turn = self.pace.in_turn.max(self.homes.len().div_ceil(ROUNDS_OF_A_TURN));
        let from = self.turn.take().map_or(Bound::Unbounded, Bound::Excluded);
        let turn: Vec<HomeId> =
            self.homes.range((from, Bound::Unbounded)).take(in_turn).map(|(home, _)| home.clone()).collect();
        self.turn = turn.last().cloned().filter(|_| turn.len() == in_turn);
        turn.iter().for_each(|home| self.changed.push(home));
        let mut homes = self.changed.pop(self.pace.homes_max);
        homes.retain(|home| self.homes.contains_key(home));
        homes
    }

    /// What the urgent detections find in one home: the short way for a call. It has plans of its own, so that it waits for no round.
    pub async fn tick_home(&mut self, home: &HomeId, now: Timestamp) -> Round {
        let Some(facts) = self.homes.get(home) else { return Round::default() };
        let complete_to = self.episodes.complete_to(home);
        let inputs = Inputs::new(&self.episodes.of(home), [(facts, complete_to)]);
        Look {
            engine: Arc::clone(&self.engine),
            detections: self.urgent.clone(),
            homes: BTreeMap::from([(home.clone(), complete_to.unwrap_or(Timestamp::MIN))]),
            neighbours: inputs.clone(),
            inputs,
            // Nothing explains a call away.
            coverage: Arc::default(),
            now,
        }
        .run()
        .await
    }
}

#[cfg(test)]
mod tests;
