//! Where nothing can be said, and where what is found is already explained.
//!
//! A finding about a person is quiet while the person is away or in hospital, while a visitor or a mechanic is there, or while no
//! device that the detection rests on answers. That is not a good sign but a gap: it is told as one. What holds after the
//! explanation has ended is no longer quiet; every explanation ends.

use std::collections::{BTreeMap, BTreeSet};

use carebed_contract::finding::{Class, Finding, Subject};
use carebed_contract::id::{BedId, DeviceId, HomeId};
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::detection::Meaning;
use crate::episodes::Episode;
use crate::home::{HomeFacts, IntervalKind};

/// Why a finding is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nobody is at home, as somebody said or as the doors say.
    Away,
    /// A visitor is there.
    Visit,
    /// The person is in hospital.
    Hospital,
    /// Somebody works on the equipment.
    Maintenance,
    /// No device answers that could say so.
    NotEvaluable,
}

impl Reason {
    /// The word used in evidence and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Visit => "visit",
            Self::Hospital => "hospital",
            Self::Maintenance => "maintenance",
            Self::NotEvaluable => "not_evaluable",
        }
    }
}

impl From<IntervalKind> for Reason {
    fn from(kind: IntervalKind) -> Self {
        match kind {
            IntervalKind::Away => Self::Away,
            IntervalKind::Visit => Self::Visit,
            IntervalKind::Hospital => Self::Hospital,
            IntervalKind::Maintenance => Self::Maintenance,
        }
    }
}

/// A device that has given a quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sensor {
    /// Which device.
    pub device: DeviceId,
    /// The bed it belongs to.
    pub bed: Option<BedId>,
    /// What it gives.
    pub quantity: Quantity,
}

/// A stretch of time, known since an instant.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    known_at: Timestamp,
    from: Timestamp,
    to: Option<Timestamp>,
}

impl Stretch {
    fn covers(&self, at: Timestamp) -> bool {
        self.known_at <= at && self.from <= at && self.to.is_none_or(|to| at < to)
    }
}

#[derive(Debug, Clone, Default)]
struct Home {
    explained: Vec<(Reason, Option<BedId>, Stretch)>,
    silent: Vec<(DeviceId, Stretch)>,
    sensors: Vec<Sensor>,
    /// Its monitored beds, and how many people live there.
    beds: Vec<BedId>,
    residents: usize,
}

/// A detection that cannot say anything about a home now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The detection.
    pub detection: String,
    /// Since when.
    pub since: Timestamp,
}

/// What is known of homes besides what detections find. Homes of which nothing is to be said take no room.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    homes: BTreeMap<HomeId, Home>,
}

impl Coverage {
    /// From the episodes and facts of homes; `sensors` says which devices a home has.
    pub fn new<'a>(
        episodes: &[Episode],
        facts: impl IntoIterator<Item = &'a HomeFacts>,
        sensors: impl Fn(&HomeId) -> Vec<Sensor>,
    ) -> Self {
        let mut homes: BTreeMap<HomeId, Home> = BTreeMap::new();
        for episode in episodes {
            let stretch = Stretch {
                known_at: episode.start_known_at,
                from: episode.started_at,
                to: episode.end_known_at.and(episode.ended_at),
            };
            match (&*episode.kind, &episode.device) {
                ("away", _) => {
                    let home = homes.entry(episode.home.clone()).or_default();
                    home.explained.push((Reason::Away, None, stretch));
                }
                ("device_silent", Some(device)) => {
                    homes.entry(episode.home.clone()).or_default().silent.push((device.clone(), stretch));
                }
                _ => {}
            }
        }
        for facts in facts.into_iter().filter(|facts| !facts.intervals.is_empty()) {
            let home = homes.entry(facts.home.clone()).or_default();
            (home.beds, home.residents) = (facts.beds.clone(), usize::from(facts.residents));
            home.explained.extend(facts.intervals.iter().map(|interval| {
                let (known_at, from, to) = (interval.entered_at, interval.started_at, Some(interval.ended_at));
                (interval.kind.into(), interval.bed.clone(), Stretch { known_at, from, to })
            }));
        }
        for (id, home) in homes.iter_mut().filter(|(_, home)| !home.silent.is_empty()) {
            home.sensors = sensors(id);
        }
        Self { homes }
    }

    /// Puts what was seen of `homes` now in the place of what was known of them.
    pub fn renew<'a>(&mut self, homes: impl IntoIterator<Item = &'a HomeId>, seen: Self) {
        homes.into_iter().for_each(|home| drop(self.homes.remove(home)));
        self.homes.extend(seen.homes);
    }

    /// Writes into the evidence of each finding what keeps it quiet: as things stand at `now`, or as they stood when it ended.
    pub fn mark(&self, meaning: &Meaning, findings: &mut [Finding], now: Timestamp) {
        for finding in findings {
            let at = finding.cleared_at.map_or(now, |cleared| Timestamp::from_millis(cleared.millis() - 1));
            self.mark_at(meaning, finding, at.max(finding.raised_at));
        }
    }

    /// The same, as things stood when each was raised.
    pub fn mark_as_raised(&self, meaning: &Meaning, findings: &mut [Finding]) {
        for finding in findings {
            let at = finding.raised_at;
            self.mark_at(meaning, finding, at);
        }
    }

    fn mark_at(&self, meaning: &Meaning, finding: &mut Finding, at: Timestamp) {
        if let Some(reason) = self.reason(meaning, finding, at) {
            finding.evidence.insert(carebed_contract::finding::SUPPRESSED_BY.to_owned(), reason.as_str().into());
        }
    }

    /// What explains a finding at an instant; nothing does for calls and hazards.
    #[must_use]
    pub fn reason(&self, meaning: &Meaning, finding: &Finding, at: Timestamp) -> Option<Reason> {
        let home = self.homes.get(&finding.home).filter(|_| meaning.suppressible)?;
        let bed = match &finding.subject {
            Subject::Bed(bed) => Some(bed),
            _ => None,
        };
        let counts = |reason: Reason| {
            let concerns = meaning.class == Class::Care || reason == Reason::Maintenance;
            concerns && !meaning.not_suppressed_by.contains(&reason)
        };
        let of_all = || home.explained.iter().filter(|(reason, _, stretch)| counts(*reason) && stretch.covers(at));
        let explained = of_all().find(|(_, about, _)| match (about, bed) {
            (None, _) => true,
            (Some(about), Some(bed)) => about == bed,
            // What is said of one person says nothing of who else is at home.
            (Some(_), None) => home.is_all_of(of_all().filter_map(|(_, about, _)| about.as_ref()).collect()),
        });
        explained.map(|(reason, ..)| *reason).or_else(|| {
            let blind = counts(Reason::NotEvaluable) && home.blind_since(meaning, bed, at).is_some();
            blind.then_some(Reason::NotEvaluable)
        })
    }

    /// Which detections cannot say anything about a home at `now`.
    pub fn gaps<'a>(
        &self,
        home: &HomeId,
        detections: impl IntoIterator<Item = (&'a str, &'a Meaning)>,
        now: Timestamp,
    ) -> Vec<Gap> {
        let Some(home) = self.homes.get(home) else { return Vec::new() };
        let blind = |(name, meaning): (&str, &Meaning)| {
            let since = home.blind_since(meaning, None, now)?;
            Some(Gap { detection: name.to_owned(), since })
        };
        detections.into_iter().filter_map(blind).collect()
    }

    /// The homes of which something is to be said.
    pub fn homes(&self) -> impl Iterator<Item = &HomeId> {
        self.homes.keys()
    }
}

impl Home {
    /// Whether these beds are all the home has, and nobody lives there besides.
    fn is_all_of(&self, beds: BTreeSet<&BedId>) -> bool {
        beds.len() >= self.residents && self.beds.iter().all(|bed| beds.contains(bed))
    }

    /// Since when none of the devices answers that a detection rests on. A home that never had one is no gap: nobody promised it.
    fn blind_since(&self, meaning: &Meaning, bed: Option<&BedId>, at: Timestamp) -> Option<Timestamp> {
        let mut wanted = self.sensors.iter().filter(|sensor| {
            let belongs = bed.is_none_or(|bed| sensor.bed.as_ref().is_none_or(|of| of == bed));
            belongs && meaning.requires_any.contains(&sensor.quantity)
        });
        let silent = |sensor: &Sensor| {
            let silent = self.silent.iter().filter(|(device, stretch)| *device == sensor.device && stretch.covers(at));
            silent.map(|(_, stretch)| stretch.from).max()
        };
        let first = silent(wanted.next()?)?;
        wanted.try_fold(first, |since, sensor| Some(since.max(silent(sensor)?)))
    }
}

#[cfg(test)]
mod tests;
