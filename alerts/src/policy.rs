//! The settings of a service centre: rules, timers, limits. All of it is data.

use std::collections::BTreeMap;
use std::time::Duration;

use carebed_contract::finding::Priority;

use crate::rule::Rule;

/// What happens while nobody acknowledges an alert of one priority.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// Tell again so long after it began to ring, in order.
    pub repeat_after: Vec<Duration>,
    /// And then this often; none never repeats. Less than a second is taken as a second.
    pub repeat_every: Option<Duration>,
    /// After so long, raise the priority to this one (once; only to a more pressing one).
    pub escalate: Option<(Duration, Priority)>,
}

/// The timers of all priorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Escalation(pub BTreeMap<Priority, Steps>);

impl Default for Escalation {
    /// P1 is told again after 60 and after 180 s, by which the British TSA wants 97.5 and 99 of 100 calls answered, and then every 300 s; P2
    /// every 600 s, and becomes P1 after 300 s without acknowledgement (as in the alert policies published in
    /// github.com/hhtbing-wisefido/owlRD-prototype); P3 and P4 wait in their lists.
    fn default() -> Self {
        let secs = Duration::from_secs;
        let p1 = Steps { repeat_after: vec![secs(60), secs(180)], repeat_every: Some(secs(300)), ..Steps::default() };
        let p2 = Steps { repeat_every: Some(secs(600)), escalate: Some((secs(300), Priority::P1)), ..Steps::default() };
        Self(BTreeMap::from([(Priority::P1, p1), (Priority::P2, p2)]))
    }
}

impl Escalation {
    /// The timers of one priority; one that is not listed has none.
    #[must_use]
    pub fn of(&self, priority: Priority) -> Option<&Steps> {
        self.0.get(&priority)
    }
}

/// All settings of the alert rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// By detection name.
    pub rules: BTreeMap<String, Rule>,
    /// Timers.
    pub escalation: Escalation,
    /// A finding raised longer ago than this when it is first seen is late.
    pub freshness: Duration,
    /// A new finding under an alert that was acknowledged longer ago than this opens the alert again: whoever
    /// acknowledged the first did not see the second.
    pub acknowledgement_holds: Duration,
}

impl Policy {
    /// The given rules with the default timers: 30 min freshness, 10 min for which an acknowledgement holds.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            rules: rules.into_iter().map(|rule| (rule.detection.clone(), rule)).collect(),
            escalation: Escalation::default(),
            freshness: Duration::from_secs(30 * 60),
            acknowledgement_holds: Duration::from_secs(10 * 60),
        }
    }
}
