//! One home's observations in whatever order they arrive, and the episodes that event order makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;

use super::definition::{Definitions, Rules};
use super::machine::{Machine, Setting};
use super::seen::Seen;
use super::{Episode, KEEP_MAX, Pushed};
use crate::coverage::Sensor;

/// How far behind the complete data a late observation may still be put in its place. The contract promises none at all;
/// corrected clocks and second gateways may break it.
const LATE_MAX: Duration = Duration::from_secs(3_600);

/// Observations kept per home to be played again. Beyond it the oldest are taken as final, even when their home has not said that it
/// is complete.
const RECENT_MAX: usize = 4_096;

/// Devices and quantities remembered per home; what comes beyond it is not asked whether it still answers.
const SENSORS_MAX: usize = 256;

/// How many must be ready before the checkpoint moves; it spares a replay for each.
const FOLD_MIN: usize = 32;

#[derive(Debug, Clone)]
pub(super) struct Stream {
    home: HomeId,
    definitions: Arc<Definitions>,
    residents: u8,
    complete_to: Timestamp,
    /// Observations after the checkpoint, in event order.
    recent: Vec<Seen>,
    /// Observations up to here are in the checkpoint.
    base: Timestamp,
    /// Episodes that ended before the checkpoint: final.
    ended: Vec<Episode>,
    steady: Track,
    immediate: Track,
    /// Devices and what they have given.
    sensors: Vec<Sensor>,
    /// Rows that late data changed, by identity, and how often.
    revised: BTreeMap<Identity, u32>,
}

type Identity = (Arc<str>, Arc<str>, Timestamp);

/// One machine, at the checkpoint and as far as data goes.
#[derive(Debug, Clone)]
struct Track {
    checkpoint: Machine,
    live: Machine,
    /// How many of the recent observations the live machine has taken.
    taken: usize,
    /// What ended since the checkpoint.
    ended: Vec<Episode>,
    /// Something came late: what is live is to be made again, and what was told before is kept to compare.
    stale: Option<Vec<Episode>>,
}

impl Stream {
    pub(super) fn new(home: HomeId, definitions: Arc<Definitions>) -> Self {
        Self {
            home,
            definitions,
            residents: 1,
            complete_to: Timestamp::MIN,
            recent: Vec::new(),
            base: Timestamp::MIN,
            ended: Vec::new(),
            steady: Track::new(),
            immediate: Track::new(),
            sensors: Vec::new(),
            revised: BTreeMap::new(),
        }
    }

    pub(super) fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// What is no longer observed, as the home says since `at`, is unknown from then on. `is_there` says whether the home still has it so,
    /// and if not whether it has the device at all.
    pub(super) fn retain_sensors(&mut self, at: Timestamp, is_there: impl Fn(&Sensor) -> Result<(), bool>) {
        // What is final stays as it is: then from the first instant that is not.
        let at = if at > self.base { at } else { self.base + Duration::from_millis(1) };
        let sensors = std::mem::take(&mut self.sensors);
        for sensor in &sensors {
            if let Err(has_device) = is_there(sensor) {
                self.push(Seen::ended(sensor, at, !has_device));
            }
        }
        self.sensors = sensors.into_iter().filter(|sensor| is_there(sensor).is_ok()).collect();
    }

    pub(super) fn set_residents(&mut self, residents: u8) {
        self.residents = residents;
    }

    pub(super) fn complete_to(&self) -> Timestamp {
        self.complete_to
    }

    pub(super) fn push(&mut self, seen: Seen) -> Pushed {
        let is_known = |sensor: &Sensor| sensor.device == seen.device && sensor.quantity == seen.quantity;
        if self.sensors.len() < SENSORS_MAX && !self.sensors.iter().any(is_known) {
            let (device, bed, quantity) = (seen.device.clone(), seen.bed.clone(), seen.quantity.clone());
            self.sensors.push(Sensor { device, bed, quantity });
        }
        if seen.time <= self.base {
            return self.push_too_late(&seen);
        }
        let place = match self.recent.last().map(|last| last.order(&seen)) {
            None | Some(std::cmp::Ordering::Less) => self.recent.len(),
            Some(_) => match self.recent.binary_search_by(|other| other.order(&seen)) {
                Ok(_) => return Pushed::Duplicate,
                Err(place) => place,
            },
        };
        for track in [&mut self.steady, &mut self.immediate] {
            if place < track.taken || seen.time < track.live.at() {
                track.spoil();
            }
        }
        self.recent.insert(place, seen);
        if self.recent.len() > RECENT_MAX {
            let middle = self.recent.get(RECENT_MAX / 2).map_or(self.base, |seen| seen.time);
            self.settle();
            self.fold(middle);
        }
        Pushed::Taken
    }

    /// A press is never lost: what cannot be put in its place any more is a call of no length.
    fn push_too_late(&mut self, seen: &Seen) -> Pushed {
        if !self.definitions.is_immediate(&seen.quantity) {
            return Pushed::TooLate;
        }
        let mut found = Vec::new();
        let mut machine = Machine::new();
        let definitions = Arc::clone(&self.definitions);
        machine.step(seen, setting(&self.home, self.residents, &definitions, &definitions.immediate), &mut found);
        found.extend(machine.open().iter().map(|call| Episode {
            ended_at: Some(call.started_at),
            end_known_at: Some(call.started_at),
            ..call.clone()
        }));
        // It may well be one that was in time when it came first.
        let live = self.episodes();
        found.retain(|call| !live.iter().any(|other| same(call, other)));
        self.ended.extend(found);
        Pushed::TooLate
    }

    pub(super) fn advance(&mut self, complete_to: Timestamp) {
        if complete_to <= self.complete_to {
            return;
        }
        self.complete_to = complete_to;
        self.settle();
        let target = complete_to - LATE_MAX;
        let ready = self.recent.partition_point(|seen| seen.time <= target);
        if ready >= FOLD_MIN && ready * 2 >= self.recent.len() {
            self.fold(target);
        }
    }

    pub(super) fn seal(&mut self, complete_to: Timestamp) {
        if complete_to > self.complete_to {
            self.complete_to = complete_to;
            self.fold(complete_to);
        }
    }

    /// Brings both machines as far as data goes.
    fn settle(&mut self) {
        let definitions = Arc::clone(&self.definitions);
        let steady = setting(&self.home, self.residents, &definitions, &definitions.steady);
        let immediate = setting(&self.home, self.residents, &definitions, &definitions.immediate);
        let complete = self.recent.partition_point(|seen| seen.time <= self.complete_to);
        self.steady.run(
            self.recent.get(..complete).unwrap_or_default(),
            Some(self.complete_to),
            steady,
            &mut self.revised,
        );
        self.immediate.run(&self.recent, None, immediate, &mut self.revised);
    }

    /// Moves the checkpoint: what was until then is final.
    fn fold(&mut self, target: Timestamp) {
        let definitions = Arc::clone(&self.definitions);
        let ready = self.recent.partition_point(|seen| seen.time <= target);
        let final_ones: Vec<Seen> = self.recent.drain(..ready).collect();
        self.base = self.base.max(target);
        for (track, rules) in [(&mut self.steady, &definitions.steady), (&mut self.immediate, &definitions.immediate)] {
            let setting = setting(&self.home, self.residents, &definitions, rules);
            for seen in &final_ones {
                track.checkpoint.step(seen, setting, &mut self.ended);
            }
            track.checkpoint.advance(target, setting, &mut self.ended);
            track.restart();
        }
        self.settle();
    }

    pub(super) fn episodes(&mut self) -> Vec<Episode> {
        self.settle();
        let tracks = [&self.steady, &self.immediate];
        let recent = tracks.into_iter().flat_map(Track::told);
        let mut all: Vec<Episode> = self.ended.iter().chain(recent).cloned().collect();
        if !self.revised.is_empty() {
            for episode in &mut all {
                episode.revision = self.revised.get(&identity(episode)).copied().unwrap_or(0);
            }
        }
        all.sort_by(|a, b| a.kind.cmp(&b.kind).then(a.started_at.cmp(&b.started_at)).then(a.subject.cmp(&b.subject)));
        all
    }

    /// Whether something lasts, as far as is known, that began before then.
    pub(super) fn lasts_since(&self, before: Timestamp) -> bool {
        self.steady.live.open().iter().any(|episode| episode.started_at < before)
    }

    pub(super) fn forget(&mut self, before: Timestamp) {
        let recent = self.ended.iter().filter(|episode| episode.end_known_at.is_none_or(|known| known >= before));
        let lasting = self.steady.told().chain(self.immediate.told());
        let oldest = recent.chain(lasting).map(|episode| episode.started_at).min().unwrap_or(before);
        let before = before.min(oldest.max(before - KEEP_MAX));
        self.ended.retain(|episode| episode.end_known_at.is_none_or(|known| known >= before));
        self.revised.retain(|(_, _, started_at), _| *started_at >= before);
    }
}

impl Track {
    fn new() -> Self {
        Self { checkpoint: Machine::new(), live: Machine::new(), taken: 0, ended: Vec::new(), stale: None }
    }

    fn told(&self) -> impl Iterator<Item = &Episode> {
        self.ended.iter().chain(self.live.open())
    }

    /// What is live was made without an observation that belongs before its end.
    fn spoil(&mut self) {
        if self.stale.is_none() {
            self.stale = Some(self.told().cloned().collect());
        }
    }

    fn restart(&mut self) {
        self.live = self.checkpoint.clone();
        self.taken = 0;
        self.ended.clear();
    }

    fn run(
        &mut self,
        recent: &[Seen],
        complete_to: Option<Timestamp>,
        setting: Setting<'_>,
        revised: &mut BTreeMap<Identity, u32>,
    ) {
        let before = self.stale.take();
        if before.is_some() {
            self.restart();
        }
        for seen in recent.get(self.taken..).unwrap_or_default() {
            self.live.step(seen, setting, &mut self.ended);
        }
        self.taken = self.taken.max(recent.len());
        if let Some(complete_to) = complete_to {
            self.live.advance(complete_to, setting, &mut self.ended);
        }
        for old in before.iter().flatten() {
            if self.told().any(|new| same(old, new) && old != new) {
                *revised.entry(identity(old)).or_insert(0) += 1;
            }
        }
    }
}

fn identity(episode: &Episode) -> Identity {
    (Arc::clone(&episode.kind), Arc::clone(&episode.subject), episode.started_at)
}

fn same(a: &Episode, b: &Episode) -> bool {
    a.started_at == b.started_at && a.kind == b.kind && a.subject == b.subject && a.device == b.device
}

fn setting<'a>(home: &'a HomeId, residents: u8, definitions: &'a Definitions, rules: &'a Rules) -> Setting<'a> {
    Setting { home, residents, definitions, rules }
}
