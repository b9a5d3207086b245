//! What really was the matter in the homes, as the log of alerts tells: nothing of it is usual.

use std::collections::BTreeMap;

use carebed_alerts::alert::{AlertId, Outcome};
use carebed_alerts::transition::{Change, Transition};
use carebed_contract::finding::{Class, Subject};
use carebed_contract::id::HomeId;
use carebed_queries::home::Incident;

/// The alerts about people that somebody resolved as being so, by home, in the log's order.
#[must_use]
pub(crate) fn of(log: &[Transition]) -> BTreeMap<HomeId, Vec<Incident>> {
    let mut raised = BTreeMap::<&AlertId, (&HomeId, Incident)>::new();
    let mut incidents = BTreeMap::<HomeId, Vec<Incident>>::new();
    for Transition { alert, at, change, .. } in log {
        match change {
            Change::Raised(about) if about.class == Class::Care => {
                let bed = match &about.subject {
                    Subject::Bed(bed) => Some(bed.clone()),
                    _ => None,
                };
                let (started_at, ended_at, entered_at) = (about.raised_at, *at, *at);
                raised.insert(alert, (&about.home, Incident { bed, started_at, ended_at, entered_at }));
            }
            Change::Resolved { outcome: Outcome::Verified, .. } => {
                let Some((home, incident)) = raised.remove(alert) else { continue };
                let incident = Incident { ended_at: (*at).max(incident.started_at), entered_at: *at, ..incident };
                incidents.entry(home.clone()).or_default().push(incident);
            }
            _ => {}
        }
    }
    incidents
}

#[cfg(test)]
mod tests {
    use carebed_alerts::alert::OperatorId;
    use carebed_alerts::policy::Policy;
    use carebed_alerts::rule::Rule;
    use carebed_alerts::{Act, Alerts, Evaluated};
    use carebed_contract::finding::Finding;
    use carebed_contract::time::Timestamp;
    use carebed_queries::home::TIME_ZONE_DEFAULT;

    use super::*;

    #[test]
    fn only_what_somebody_found_to_be_so_counts_and_from_then_on() {
        let at = |second: i64| Timestamp::from_millis(second * 1_000);
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
        for (id, outcome) in ids.iter().zip([Outcome::Verified, Outcome::FalseAlarm]) {
            log.push(alerts.act(id, Act::Acknowledge, OperatorId::new("op").unwrap(), at(200)).unwrap());
            log.push(
                alerts.act(id, Act::Resolve { outcome, note: None }, OperatorId::new("op").unwrap(), at(900)).unwrap(),
            );
        }
        let incidents = of(&log);
        assert_eq!(incidents.len(), 1, "{incidents:?}");
        let expected = Incident {
            bed: Some("bed-h1".parse().unwrap()),
            started_at: at(100),
            ended_at: at(900),
            entered_at: at(900),
        };
        assert_eq!(incidents.into_values().flatten().collect::<Vec<_>>(), [expected]);
    }
}
