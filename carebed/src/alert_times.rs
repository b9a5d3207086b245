//! How the homes' alerts went, as the log of alerts tells: what detections and baselines may know of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use carebed_alerts::alert::AlertId;
use carebed_alerts::transition::{Change, Transition};
use carebed_contract::finding::Subject;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_queries::home::AlertTimes;

/// An alert that rang longer ago matters to nobody any more: baselines look back two months, visits and tests are due within three.
const KEPT: Duration = Duration::from_secs(100 * 86_400);

/// The log, folded. Made anew or brought up to date: the same comes out.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// The last transition that was taken.
    number: u64,
    /// Of each alert how it went, and how it went again when something new under it had to be acknowledged anew.
    alerts: BTreeMap<AlertId, (HomeId, Vec<AlertTimes>)>,
}

impl Times {
    /// Of the whole log.
    pub(crate) fn of(log: &[Transition]) -> Self {
        let mut times = Self::default();
        times.take(log);
        times
    }

    /// After which transition to go on reading.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Takes what was logged since, in order; says of which homes something changed.
    pub(crate) fn take(&mut self, log: &[Transition]) -> BTreeSet<HomeId> {
        let mut changed = BTreeSet::new();
        for step in log {
            self.number = self.number.max(step.number);
            changed.extend(self.step(step));
        }
        let Some(now) = log.last().map(|step| step.at) else { return changed };
        self.alerts.retain(|_, (_, times)| times.iter().any(|times| times.last() + KEPT > now));
        changed
    }

    fn step(&mut self, Transition { alert, at, change, .. }: &Transition) -> Option<HomeId> {
        if let Change::Raised(about) = change {
            let bed = match &about.subject {
                Subject::Bed(bed) => Some(bed.clone()),
                _ => None,
            };
            let times = AlertTimes {
                detection: about.detection.clone(),
                bed,
                class: about.class,
                priority: about.priority,
                raised_at: about.raised_at,
                rang_at: about.rings.then_some(*at),
                acknowledged_at: None,
                dispatched_at: None,
                arrived_at: None,
                resolved_at: None,
                outcome: None,
            };
            self.alerts.insert(alert.clone(), (about.home.clone(), vec![times]));
            return Some(about.home.clone());
        }
        let (home, all) = self.alerts.get_mut(alert)?;
        let at = Some(*at);
        if let Change::Repeated { occurrence, reopens: true, .. } = change {
            let again = all.last().map(|times| AlertTimes {
                raised_at: occurrence.raised_at,
                rang_at: at,
                acknowledged_at: None,
                dispatched_at: None,
                arrived_at: None,
                ..times.clone()
            });
            all.extend(again);
            return Some(home.clone());
        }
        let mut changed = false;
        for times in all {
            changed |= match change {
                Change::Opened { rings: true } | Change::Repeated { rings: true, .. } | Change::Rang => {
                    set(&mut times.rang_at, at)
                }
                Change::Acknowledged { .. } => set(&mut times.acknowledged_at, at),
                Change::Dispatched { .. } => set(&mut times.dispatched_at, at),
                Change::Arrived { .. } => set(&mut times.arrived_at, at),
                Change::Resolved { outcome, .. } => {
                    (times.resolved_at, times.outcome) = (at, Some(outcome.as_str().to_owned()));
                    true
                }
                _ => false,
            };
        }
        changed.then(|| home.clone())
    }

    /// Those of one home, in order of their ids.
    pub(crate) fn of_home(&self, home: &HomeId) -> Vec<AlertTimes> {
        self.alerts.values().filter(|(of, _)| of == home).flat_map(|(_, times)| times.clone()).collect()
    }

    /// Those of all homes.
    pub(crate) fn by_home(&self) -> BTreeMap<HomeId, Vec<AlertTimes>> {
        let mut homes = BTreeMap::<HomeId, Vec<AlertTimes>>::new();
        for (home, times) in self.alerts.values() {
            homes.entry(home.clone()).or_default().extend(times.iter().cloned());
        }
        homes
    }
}

/// The first time counts. Says whether this was it.
fn set(known: &mut Option<Timestamp>, at: Option<Timestamp>) -> bool {
    let is_new = known.is_none();
    *known = known.or(at);
    is_new
}

#[cfg(test)]
mod tests {
    use carebed_alerts::alert::{OperatorId, Outcome};
    use carebed_alerts::policy::Policy;
    use carebed_alerts::rule::Rule;
    use carebed_alerts::{Act, Alerts, Evaluated};
    use carebed_contract::finding::{Class, Finding};
    use carebed_queries::home::TIME_ZONE_DEFAULT;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    #[test]
    fn only_what_somebody_found_to_be_so_counts_and_from_then_on() {
        let rule = Rule { detection: "fall".into(), class: Class::Care, ..crate::detections::off_rule() };
        let mut alerts = Alerts::new(Policy::new([rule]));
        let finding = |home: &str| Finding {
            detection: "fall".to_owned(),
            subject: Subject::Bed(format!("bed-{home}").parse().unwrap()),
            home: home.parse().unwrap(),
            area: "a1".parse().unwrap(),
            raised_at: at(100),
            cleared_at: None,
            evidence: serde_json::Map::new(),
        };
        let found = [finding("h1"), finding("h2"), finding("h3")];
        let mut log = alerts.apply(&found, &Evaluated::default(), |_| TIME_ZONE_DEFAULT, at(101));
        let ids: Vec<AlertId> = log.iter().map(|step| step.alert.clone()).collect();
        let by = || OperatorId::new("op").unwrap();
        for (id, outcome) in ids.iter().zip([Outcome::Verified, Outcome::FalseAlarm]) {
            log.push(alerts.act(id, Act::Acknowledge, by(), at(200)).unwrap());
            log.push(alerts.act(id, Act::Resolve { outcome, note: None }, by(), at(900)).unwrap());
        }
        let times = Times::of(&log).by_home();
        let incidents: BTreeMap<&str, Vec<_>> = times
            .iter()
            .map(|(home, alerts)| (home.as_str(), alerts.iter().filter_map(AlertTimes::incident).collect()))
            .collect();
        let expected = [("h1", vec![[at(100), at(900), at(900)]]), ("h2", vec![]), ("h3", vec![])];
        assert_eq!(incidents, BTreeMap::from(expected));
        let home: HomeId = "h1".parse().unwrap();
        let first = &times[&home][0];
        assert_eq!((first.rang_at, first.acknowledged_at), (Some(at(101)), Some(at(200))));
        assert_eq!(first.outcome.as_deref(), Some("verified"));

        // Read on from where it stopped, the same comes out, and only what changed is told.
        let (early, late) = log.split_at(3);
        let mut read_on = Times::of(early);
        assert_eq!(read_on.number(), early.last().unwrap().number);
        let changed: Vec<String> = read_on.take(late).into_iter().map(|home| home.to_string()).collect();
        assert_eq!(changed, ["h1", "h2"]);
        assert_eq!(read_on.by_home(), times);
    }

    #[test]
    fn what_happened_while_help_was_on_its_way_has_its_own_time_of_answer() {
        let rule = Rule { detection: "fall".into(), class: Class::Care, ..crate::detections::off_rule() };
        let mut alerts = Alerts::new(Policy::new([Rule { suppressible: false, ..rule }]));
        let fall = |second| Finding {
            detection: "fall".to_owned(),
            subject: Subject::Bed("b1".parse().unwrap()),
            home: "h1".parse().unwrap(),
            area: "a1".parse().unwrap(),
            raised_at: at(second),
            cleared_at: None,
            evidence: serde_json::Map::new(),
        };
        let mut log = alerts.apply(&[fall(100)], &Evaluated::default(), |_| TIME_ZONE_DEFAULT, at(100));
        let id = log[0].alert.clone();
        let act = |alerts: &mut Alerts, log: &mut Vec<Transition>, act, second| {
            log.push(alerts.act(&id, act, OperatorId::new("op").unwrap(), at(second)).unwrap());
        };
        act(&mut alerts, &mut log, Act::Acknowledge, 110);
        act(&mut alerts, &mut log, Act::Dispatch, 120);
        log.extend(alerts.apply(&[fall(100), fall(300)], &Evaluated::default(), |_| TIME_ZONE_DEFAULT, at(301)));
        act(&mut alerts, &mut log, Act::Acknowledge, 900);
        act(&mut alerts, &mut log, Act::Arrive, 1_000);
        let times = Times::of(&log).of_home(&"h1".parse().unwrap());
        let told: Vec<_> =
            times.iter().map(|t| (t.raised_at, t.rang_at, t.acknowledged_at, t.dispatched_at, t.arrived_at)).collect();
        let t = |second| Some(at(second));
        let expected = [(at(100), t(100), t(110), t(120), t(1_000)), (at(300), t(301), t(900), None, t(1_000))];
        assert_eq!(told, expected);
    }
}
