//! What must not be missing: when a bed last gave it, and when it will be missed.

use std::collections::VecDeque;
use std::time::Duration;

use carebed_contract::id::BedId;
use carebed_contract::time::Timestamp;

use super::super::Episode;
use super::super::definition::Missing;
use super::super::seen::Seen;
use super::spans::Span;
use super::{Machine, Setting, about_home};

/// When a bed last gave what must not be missing.
#[derive(Debug, Clone)]
pub(super) struct Given {
    rule: usize,
    bed: Option<BedId>,
    at: Timestamp,
    /// When it or a sign in its stead was last seen.
    well_at: Timestamp,
    /// How long it took from each of the last values to the next, the latest last.
    waits: VecDeque<Duration>,
}

/// Waits looked at: as many as a mat that tells a changed value gives in a quarter of an hour or more.
const WAITS: usize = 32;

impl Given {
    /// How long nothing must have come for it to be missed.
    fn patience(&self, missing: &Missing) -> Duration {
        let longest = self.waits.iter().max().filter(|_| self.waits.len() >= WAITS && !missing.soonest.is_zero());
        longest.map_or(missing.after, |longest| (*longest * 2).clamp(missing.soonest, missing.after))
    }
}

impl Machine {
    /// The bed gave what must not be missing.
    pub(super) fn give(&mut self, rule: usize, missing: &Missing, seen: &Seen, closed: &mut Vec<Episode>) {
        match self.given.iter_mut().find(|given| given.rule == rule && given.bed == seen.bed) {
            Some(given) => {
                let wait = seen.time.since(given.at);
                // Two values of one instant are one, and who was not in bed gave nothing.
                if !missing.soonest.is_zero() && !wait.is_zero() && wait <= missing.after {
                    if given.waits.len() >= WAITS {
                        given.waits.pop_front();
                    }
                    given.waits.push_back(wait);
                }
                (given.at, given.well_at) = (seen.time, seen.time);
            }
            None => {
                let (bed, at) = (seen.bed.clone(), seen.time);
                self.given.push(Given { rule, bed, at, well_at: at, waits: VecDeque::new() });
            }
        }
        self.end(&missing.kind, &seen.bed, seen.time, seen.time, closed);
    }

    /// The bed showed in another way that all is well: what is missed is missed from then on.
    pub(super) fn show(&mut self, rule: usize, missing: &Missing, seen: &Seen, closed: &mut Vec<Episode>) {
        if let Some(given) = self.given.iter_mut().find(|given| given.rule == rule && given.bed == seen.bed) {
            given.well_at = seen.time;
            self.end(&missing.kind, &seen.bed, seen.time, seen.time, closed);
        }
    }

    /// When what must not be missing of a bed will be, whose bed, and since when.
    pub(super) fn missing_dues<'a>(
        &'a self,
        rule: usize,
        missing: &'a Missing,
        setting: Setting<'a>,
    ) -> impl Iterator<Item = (Timestamp, &'a Option<BedId>, Timestamp)> {
        let given = self.given.iter().filter(move |given| given.rule == rule);
        given.filter_map(move |given| {
            let (bed, at) = (&given.bed, given.well_at);
            let holds = |span: &&Span| {
                let watched = setting.rules.whiles.get(span.rule).is_some_and(|w| *w.kind == *missing.of);
                watched && span.known && span.bed == *bed && span.interrupted_at.is_none()
            };
            let since = self.spans.iter().find(holds)?.holds_since.max(at);
            let is_open = self.open.iter().any(|e| e.kind == missing.kind && e.bed == *bed);
            (!is_open).then(|| (since + given.patience(missing), bed, since))
        })
    }

    /// What is missed at `at`.
    pub(super) fn fire_missing(&mut self, at: Timestamp, setting: Setting<'_>) {
        for (rule, missing) in setting.rules.missings.iter().enumerate() {
            let due = self.missing_dues(rule, missing, setting).filter(|(due, ..)| *due <= at);
            let due: Vec<_> = due.map(|(due, bed, since)| (due, bed.clone(), since)).collect();
            for (due, bed, since) in due {
                let subject = bed.as_ref().map_or_else(|| format!("home/{}", setting.home), |bed| format!("bed/{bed}"));
                let subject = subject.into();
                self.open.push(Episode { subject, bed, ..about_home(&missing.kind, since, due, setting) });
            }
        }
    }
}
