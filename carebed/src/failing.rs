//! Which detections cannot be used: refused when they were loaded, or switched off because they failed again and again. Pure.

use std::collections::BTreeMap;

use carebed_contract::finding::{Finding, Subject};
use carebed_contract::id::{Area, HomeId};
use carebed_contract::time::Timestamp;

use crate::detections;

/// The home and area of what is about the centre itself.
pub(crate) const CENTRE: &str = "centre";

/// How often in a row a detection may fail before it is switched off.
const FAILURES_MAX: u32 = 3;

/// What cannot be used, and what may soon not be.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    /// Since when, and where and why.
    off: BTreeMap<String, (Timestamp, String)>,
    /// How often each failed in a row.
    in_a_row: BTreeMap<String, u32>,
}

impl Failing {
    /// With those that were refused at `now`: name, and where and why.
    pub(crate) fn new(refused: impl IntoIterator<Item = (String, String)>, now: Timestamp) -> Self {
        let off = refused.into_iter().map(|(name, why)| (name, (now, why))).collect();
        Self { off, in_a_row: BTreeMap::new() }
    }

    /// Takes how a round went: which failed, and why. Answers with those that are to be switched off from now on.
    pub(crate) fn note(&mut self, failed: BTreeMap<String, String>, now: Timestamp) -> Vec<String> {
        self.in_a_row.retain(|name, _| failed.contains_key(name));
        let mut off = Vec::new();
        for (name, why) in failed {
            let times = self.in_a_row.entry(name.clone()).or_default();
            *times = times.saturating_add(1);
            if *times >= FAILURES_MAX && !self.off.contains_key(&name) {
                self.off.insert(name.clone(), (now, why));
                off.push(name);
            }
        }
        off
    }

    /// Each as a finding about the centre itself.
    pub(crate) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.off.iter().filter_map(|(name, (since, why))| {
            let evidence = serde_json::json!({ "part": name, "why": why });
            Some(Finding {
                detection: detections::OFF.to_owned(),
                subject: Subject::Centre(name.clone()),
                home: HomeId::new(CENTRE).ok()?,
                area: Area::new(CENTRE).ok()?,
                raised_at: *since,
                cleared_at: None,
                evidence: evidence.as_object()?.clone(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn failed(names: &[&str]) -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), "detection drift took longer than 30s".to_owned())).collect()
    }

    fn told(failing: &Failing) -> Vec<(String, Timestamp, String)> {
        let of = |f: Finding| (f.subject.to_string(), f.raised_at, f.evidence["why"].as_str().unwrap().to_owned());
        failing.findings().map(of).collect()
    }

    #[test]
    fn three_failures_in_a_row_switch_it_off_and_that_is_told_once_with_the_reason() {
        let mut failing = Failing::default();
        for (second, names, off) in [
            (0, vec!["drift", "apnea"], vec![]),
            (2, vec!["drift"], vec![]),
            // It answered in between: counted anew.
            (4, vec!["apnea"], vec![]),
            (6, vec!["drift"], vec![]),
            (8, vec!["drift"], vec![]),
            (10, vec!["drift"], vec!["drift"]),
            (12, vec!["drift"], vec![]),
        ] {
            assert_eq!(failing.note(failed(&names), at(second)), off, "after {second} s");
        }
        assert_eq!(told(&failing), [("centre/drift".into(), at(10), "detection drift took longer than 30s".into())]);
    }

    #[test]
    fn what_was_refused_when_it_was_loaded_is_told_with_its_place() {
        let why = "detections/drift/detection.sql:4:8: detection drift is not used: no column x".to_owned();
        let failing = Failing::new([("drift".to_owned(), why.clone())], at(5));
        assert_eq!(told(&failing), [("centre/drift".into(), at(5), why)]);
    }
}
