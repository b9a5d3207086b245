//! The state machine: findings, timers and people in; transitions out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use carebed_contract::finding::{Class, Finding, Priority, SUPPRESSED_BY, Subject};
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use chrono_tz::Tz;

use crate::alert::{Alert, AlertId, NOTE_LENGTH_MAX, Occurrence, OperatorId, Outcome, State};
use crate::policy::Policy;
use crate::refused::Refused;
use crate::rule::Rule;
use crate::transition::{Change, ClearReason, Raised, Transition};
use crate::wording::render;

/// How long a resolved alert is remembered. A finding raised longer ago than this raises nothing any more: it is
/// history, and its rows are in the lake.
pub const MEMORY: Duration = Duration::from_secs(35 * 24 * 3600);

/// Most further findings that one alert counts; more of them (a stuck button) change nothing until it is resolved.
pub const REPEATS_MAX: usize = 999;

/// Changed evidence alone is told at most this often per alert: a detection that counts minutes must not fill the log.
pub const UPDATE_EVERY: Duration = Duration::from_secs(30);

/// The evidence name by which a detection says that a finding is more or less pressing than its rule says: `P1` to `P4`.
pub const PRIORITY: &str = "priority";

/// The evidence name by which a detection says when what it found last happened again, in RFC 3339: a call finding
/// that joins presses some minutes apart still has each new press counted and told, and a press after the alert was
/// resolved raises a new one.
pub const HAPPENED_AGAIN_AT: &str = "last_press_at";

/// A step that a person takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// "I see it and act."
    Acknowledge,
    /// A responder is sent.
    Dispatch,
    /// The responder is there.
    Arrive,
    /// Done.
    Resolve {
        /// What it turned out to be; not [`Outcome::Recovered`].
        outcome: Outcome,
        /// In the operator's words.
        note: Option<String>,
    },
    /// A second look at a resolved alert.
    Review {
        /// In the reviewer's words.
        note: Option<String>,
    },
}

/// What an evaluation looked at: which detections, in which homes, and up to which event time each home's data was
/// complete. Only what was looked at can be found to be over: say nothing here of a detection that could not be
/// evaluated, nor before the history is restored after a start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// Names of the detections that ran.
    pub detections: BTreeSet<String>,
    /// The homes they ran over, each with the time up to which it is known.
    pub homes: BTreeMap<HomeId, Timestamp>,
    /// From when on what they rest on was looked at: what was raised before and is not found again is not taken back.
    pub since: Timestamp,
}

/// A log that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Numbers must rise.
    #[error("transition {found} stands behind {last} in the log: restore the alert database from a backup")]
    Order {
        /// The number before.
        last: u64,
        /// The number found.
        found: u64,
    },
    /// A step of an alert that was never raised.
    #[error(
        "transition {number} is about alert {alert}, which was never raised: restore the alert database from a backup"
    )]
    NeverRaised {
        /// The transition.
        number: u64,
        /// The alert.
        alert: AlertId,
    },
}

type Key = (String, Subject);

type Found<'a> = BTreeMap<Key, Vec<(&'a Finding, RangeInclusive<Timestamp>)>>;

/// All alerts of a service centre.
#[derive(Debug, Clone, PartialEq)]
pub struct Alerts {
    policy: Policy,
    alerts: BTreeMap<AlertId, Alert>,
    /// The alert that now stands for a detection and subject: at most one.
    current: BTreeMap<Key, AlertId>,
    /// Which alert a finding belongs to, by when it was raised: also findings of resolved alerts.
    seen: BTreeMap<Key, BTreeMap<Timestamp, AlertId>>,
    /// Resolved alerts, oldest first, to forget after [`MEMORY`].
    settled: VecDeque<(Timestamp, AlertId)>,
    last_number: u64,
}

impl Alerts {
    /// No alerts yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            alerts: BTreeMap::new(),
            current: BTreeMap::new(),
            seen: BTreeMap::new(),
            settled: VecDeque::new(),
            last_number: 0,
        }
    }

    /// The state that a log led to.
    pub fn replay<'a>(policy: Policy, log: impl IntoIterator<Item = &'a Transition>) -> Result<Self, ReplayError> {
        let mut alerts = Self::new(policy);
        for transition in log {
            alerts.resume(transition)?;
        }
        Ok(alerts)
    }

    /// Takes one more transition of a log, in its order; for whoever wants to see the state after each.
    pub fn resume(&mut self, transition: &Transition) -> Result<(), ReplayError> {
        let (number, alert) = (transition.number, &transition.alert);
        if number <= self.last_number {
            return Err(ReplayError::Order { last: self.last_number, found: number });
        }
        if !matches!(transition.change, Change::Raised(_)) && !self.alerts.contains_key(alert) {
            return Err(ReplayError::NeverRaised { number, alert: alert.clone() });
        }
        self.fold(transition);
        Ok(())
    }

    /// The number of the last transition; 0 before the first.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// One alert, while it is remembered.
    #[must_use]
    pub fn get(&self, id: &AlertId) -> Option<&Alert> {
        self.alerts.get(id)
    }

    /// Alerts that somebody must act on: most pressing first, then those that still ring, then emergencies that came again and again (a person
    /// who presses once more is pressed), then oldest first.
    #[must_use]
    pub fn open(&self) -> Vec<&Alert> {
        let mut open: Vec<_> = self.unsettled().filter(|alert| alert.state != State::Waiting).collect();
        let came_again = |alert: &Alert| alert.repeats() > 0 && self.is_emergency(alert);
        open.sort_by_cached_key(|alert| {
            (alert.priority, !alert.rings(), !came_again(alert), alert.raised_at, alert.id.clone())
        });
        open
    }

    /// Alerts resolved lately, the last first.
    pub fn resolved(&self) -> impl Iterator<Item = &Alert> {
        self.settled.iter().rev().filter_map(|(_, id)| self.alerts.get(id))
    }

    /// Takes what an evaluation found, and what it looked at. The same findings again change nothing. `zone` says
    /// where a home is, for the times in sentences.
    pub fn apply(
        &mut self,
        findings: &[Finding],
        evaluated: &Evaluated,
        zone: impl Fn(&HomeId) -> Tz,
        now: Timestamp,
    ) -> Vec<Transition> {
        let mut out = Vec::new();
        let found = by_key(findings);
        for (key, (finding, span)) in found.iter().flat_map(|(key, row)| row.iter().map(move |found| (key, found))) {
            let times: BTreeSet<_> = [*span.start(), *span.end()].into();
            for at in times.iter().copied().filter(|at| self.owner(key, *at).is_none()).collect::<Vec<_>>() {
                let new = match self.current.get(key).cloned() {
                    Some(id) => self.repeated(&id, finding, at, &zone, now).map(|change| (id, change)),
                    None => {
                        let id = AlertId::new(&finding.detection, &finding.subject, at);
                        self.raised(key, finding, at, &zone, now).map(|change| (id, change))
                    }
                };
                out.extend(new.map(|(id, change)| self.record(now, id, change)));
            }
            let owners: BTreeSet<_> = times.iter().filter_map(|at| self.owner(key, *at)).collect();
            for id in owners {
                self.note(&id, finding, span, &zone, now, &mut out);
            }
        }
        self.withdraw(&found, evaluated, now, &mut out);
        self.settle(evaluated, now, &mut out);
        out
    }

    /// What the timers ask for now. After a long sleep each asks once, not once for every time it missed.
    pub fn due(&mut self, now: Timestamp) -> Vec<Transition> {
        let due: Vec<_> = self.unsettled().filter_map(|alert| Some((alert.id.clone(), self.timer(alert)?))).collect();
        due.into_iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(id, (_, change))| self.record(now, id, change))
            .collect()
    }

    /// When [`Self::due`] should be asked next.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.unsettled().filter_map(|alert| Some(self.timer(alert)?.0)).min()
    }

    /// A person takes a step.
    pub fn act(&mut self, id: &AlertId, act: Act, by: OperatorId, now: Timestamp) -> Result<Transition, Refused> {
        let alert = self.alerts.get(id).ok_or_else(|| Refused::Unknown(id.clone()))?;
        let change = match act {
            Act::Acknowledge => Change::Acknowledged { by },
            Act::Dispatch => Change::Dispatched { by },
            Act::Arrive => Change::Arrived { by },
            Act::Resolve { outcome, .. } if !Outcome::CHOICES.contains(&outcome) => return Err(Refused::NotAChoice),
            Act::Resolve { outcome, note } => Change::Resolved { by: Some(by), outcome, note: check(note)? },
            Act::Review { note } => Change::Reviewed { by, note: check(note)? },
        };
        let (to, needs) = match change.leads_to() {
            Some(to @ State::Acknowledged) => (to, State::Open),
            Some(to @ State::Reviewed) => (to, State::Resolved),
            Some(to) => (to, State::Acknowledged),
            None => (State::Acknowledged, State::Open),
        };
        if alert.state >= to {
            let (state, at, by) = match alert.step(to).or(alert.done.last()) {
                Some(done) => (done.state, done.at, done.by.clone()),
                None => (alert.state, alert.created_at, None),
            };
            return Err(Refused::Already { state, by, at });
        }
        if alert.state < needs {
            return Err(Refused::TooEarly { state: alert.state, needs });
        }
        Ok(self.record(now, id.clone(), change))
    }

    fn unsettled(&self) -> impl Iterator<Item = &Alert> {
        self.current.values().filter_map(|id| self.alerts.get(id))
    }

    /// The alert that stands for what happened then.
    fn owner(&self, key: &Key, at: Timestamp) -> Option<AlertId> {
        self.seen.get(key)?.get(&at).cloned()
    }

    fn is_emergency(&self, alert: &Alert) -> bool {
        self.policy.rules.get(&alert.detection).is_some_and(Rule::is_emergency)
    }

    fn rule(&self, detection: &str) -> Rule {
        self.policy.rules.get(detection).cloned().unwrap_or_else(|| Rule::unknown(detection))
    }

    fn is_late(&self, at: Timestamp, now: Timestamp) -> bool {
        now.since(at) > self.policy.freshness
    }

    /// Something that happened at `at` and that no alert stands for.
    fn raised(
        &self,
        key: &Key,
        finding: &Finding,
        at: Timestamp,
        zone: impl Fn(&HomeId) -> Tz,
        now: Timestamp,
    ) -> Option<Change> {
        if now.since(at) > MEMORY || self.is_overflow(key, at) {
            return None;
        }
        let rule = self.rule(&finding.detection);
        let zone = zone(&finding.home);
        let late = self.is_late(at, now);
        let suppressed = suppression(&rule, finding);
        Some(Change::Raised(Box::new(Raised {
            detection: finding.detection.clone(),
            subject: finding.subject.clone(),
            home: finding.home.clone(),
            area: finding.area.clone(),
            class: rule.class,
            priority: priority(&rule, finding),
            title: render(&rule.title, &rule.words, finding, zone),
            sentence: render(&rule.wording, &rule.words, finding, zone),
            evidence: finding.evidence.clone(),
            raised_at: at,
            cleared_at: finding.cleared_at,
            opens_at: (!rule.wait.is_zero()).then(|| now + rule.wait),
            late,
            rings: rings(&rule, late, suppressed.as_ref()),
            suppressed,
        })))
    }

    /// Something that happened at `at`, under an alert that nobody resolved yet.
    fn repeated(
        &self,
        id: &AlertId,
        finding: &Finding,
        at: Timestamp,
        zone: impl Fn(&HomeId) -> Tz,
        now: Timestamp,
    ) -> Option<Change> {
        let alert = self.alerts.get(id)?;
        if alert.repeats() >= REPEATS_MAX || now.since(at) > MEMORY {
            return None;
        }
        let rule = self.rule(&finding.detection);
        let rings = rings(&rule, self.is_late(at, now), suppression(&rule, finding).as_ref());
        let lapsed =
            |state: State| alert.step(state).is_some_and(|done| now.since(done.at) > self.policy.acknowledgement_holds);
        // A second fall or a fire is another emergency than the one somebody acts on. Presses come in rows, and whoever has just
        // acknowledged one is about to call back; but help that is on its way, or there, does not know of this one.
        let is_emergency = rule.is_emergency();
        let joins_presses = finding.evidence.contains_key(HAPPENED_AGAIN_AT);
        let reopens = match alert.state {
            State::Acknowledged => (is_emergency && !joins_presses) || lapsed(State::Acknowledged),
            State::Dispatched | State::OnSite => is_emergency,
            _ => false,
        };
        // The sentence and the evidence are those of the latest finding, whatever order they come in.
        let latest = alert.occurrences.last().is_none_or(|last| last.raised_at < at);
        Some(Change::Repeated {
            occurrence: Occurrence { raised_at: at, cleared_at: finding.cleared_at },
            sentence: if latest {
                render(&rule.wording, &rule.words, finding, zone(&finding.home))
            } else {
                alert.sentence.clone()
            },
            evidence: if latest { finding.evidence.clone() } else { alert.evidence.clone() },
            rings,
            reopens: rings && reopens,
        })
    }

    /// A finding that an alert already stands for: has it ended, or changed?
    fn note(
        &mut self,
        id: &AlertId,
        finding: &Finding,
        span: &RangeInclusive<Timestamp>,
        zone: impl Fn(&HomeId) -> Tz,
        now: Timestamp,
        out: &mut Vec<Transition>,
    ) {
        let Some(alert) = self.alerts.get(id).filter(|alert| !alert.is_settled()) else { return };
        let changed =
            alert.occurrences.iter().filter(|o| span.contains(&o.raised_at) && o.cleared_at != finding.cleared_at);
        let rule = self.rule(&finding.detection);
        let worse = priority(&rule, finding);
        let worsens = worse < alert.priority && finding.cleared_at.is_none();
        let mut changes: Vec<_> = changed
            .map(|&Occurrence { raised_at, .. }| match finding.cleared_at {
                Some(cleared_at) => Change::Cleared { raised_at, cleared_at, reason: ClearReason::Recovered },
                None => Change::HoldsAgain { raised_at },
            })
            .collect();
        let is_latest = alert.occurrences.last().is_some_and(|last| span.contains(&last.raised_at));
        if worsens {
            changes.push(Change::Escalated { to: worse });
        }
        let suppressed = suppression(&rule, finding);
        let is_due = suppressed != alert.suppressed || now.since(alert.updated_at) >= UPDATE_EVERY;
        if is_latest && is_due && finding.evidence != alert.evidence {
            let sentence = render(&rule.wording, &rule.words, finding, zone(&finding.home));
            changes.push(Change::Updated { sentence, evidence: finding.evidence.clone(), suppressed });
        }
        for change in changes {
            out.push(self.record(now, id.clone(), change));
        }
    }

    /// Conditions that an evaluation looked for and no longer found: late data refuted them.
    fn withdraw(&mut self, found: &Found<'_>, evaluated: &Evaluated, now: Timestamp, out: &mut Vec<Transition>) {
        let mut gone = Vec::new();
        for (key, id) in &self.current {
            let Some(alert) = self.alerts.get(id) else { continue };
            if !evaluated.detections.contains(&alert.detection) || !evaluated.homes.contains_key(&alert.home) {
                continue;
            }
            if self.was_said(alert) {
                continue;
            }
            let still =
                |at: Timestamp| found.get(key).is_some_and(|spans| spans.iter().any(|(_, span)| span.contains(&at)));
            let judged = |at: Timestamp| at >= evaluated.since && !still(at);
            let holding = alert.occurrences.iter().filter(|o| o.cleared_at.is_none() && judged(o.raised_at));
            gone.extend(holding.map(|o| (id.clone(), o.raised_at)));
        }
        for (id, raised_at) in gone {
            let change = Change::Cleared { raised_at, cleared_at: now, reason: ClearReason::LateData };
            out.push(self.record(now, id, change));
        }
    }

    /// Whether it rests on nothing but somebody's or a device's word: a press, a reported fall, smoke. Nothing that comes later makes that
    /// unsaid, and one that is not found again was found in another way (a press of a wrong clock, after a restart).
    fn was_said(&self, alert: &Alert) -> bool {
        let is_at_once = alert.evidence.get(PRIORITY).is_none_or(|priority| priority == Priority::P1.as_str());
        self.is_emergency(alert) && is_at_once
    }

    /// What follows by itself: technical alerts, and those the home was still being asked about, are over with their
    /// condition; a quiet alert rings once nothing explains it and its condition is known to hold now.
    fn settle(&mut self, evaluated: &Evaluated, now: Timestamp, out: &mut Vec<Transition>) {
        let holds_now = |alert: &Alert| {
            let known = evaluated.homes.get(&alert.home).is_some_and(|at| now.since(*at) <= self.policy.freshness);
            // What is about the equipment does not wait for the home's data: its silence is the matter.
            (known || alert.class == Class::Technical)
                && evaluated.detections.contains(&alert.detection)
                && alert.cleared_at().is_none()
        };
        let mut changes = Vec::new();
        for alert in self.unsettled() {
            let is_over = alert.cleared_at().is_some();
            if is_over && (alert.class == Class::Technical || alert.state == State::Waiting) {
                changes
                    .push((alert.id.clone(), Change::Resolved { by: None, outcome: Outcome::Recovered, note: None }));
            } else if alert.state == State::Open
                && alert.rings_since.is_none()
                && alert.suppressed.is_none()
                && holds_now(alert)
            {
                changes.push((alert.id.clone(), Change::Rang));
            }
        }
        for (id, change) in changes {
            out.push(self.record(now, id, change));
        }
    }

    /// The next thing that time alone does to an alert.
    fn timer(&self, alert: &Alert) -> Option<(Timestamp, Change)> {
        if let (State::Waiting, Some(at)) = (alert.state, alert.opens_at) {
            let rule = self.rule(&alert.detection);
            return Some((at, Change::Opened { rings: rings(&rule, alert.late, alert.suppressed.as_ref()) }));
        }
        let (since, told) = (alert.rings_since?, alert.told_at?);
        if !alert.rings() {
            return None;
        }
        let steps = self.policy.escalation.of(alert.priority)?;
        let escalates = steps.escalate.filter(|(_, to)| *to < alert.priority);
        let escalates = escalates.map(|(after, to)| (since + after, Change::Escalated { to }));
        let first = steps.repeat_after.iter().map(|after| since + *after).find(|at| *at > told);
        let reminds = first.or(steps.repeat_every.map(|every| told + every.max(Duration::from_secs(1))));
        let reminds = reminds.map(|at| (at, Change::Reminded));
        [escalates, reminds].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// A stuck button's findings that its alert did not count belong to it all the same.
    fn is_overflow(&self, key: &Key, at: Timestamp) -> bool {
        let Some(times) = self.seen.get(key) else { return false };
        let before = times.range(..at).next_back().and_then(|(_, id)| self.alerts.get(id));
        before.is_some_and(|alert| {
            let resolved = alert.step(State::Resolved).map_or(Timestamp::MIN, |done| done.at);
            alert.repeats() >= REPEATS_MAX && at <= resolved
        })
    }

    fn record(&mut self, at: Timestamp, alert: AlertId, change: Change) -> Transition {
        let transition = Transition { number: self.last_number + 1, at, alert, change };
        self.fold(&transition);
        transition
    }

    /// The only place that changes state: so a replay cannot differ.
    fn fold(&mut self, transition: &Transition) {
        let Transition { number, at, alert: id, change } = transition;
        self.last_number = *number;
        match change {
            Change::Raised(raised) => {
                let key = (raised.detection.clone(), raised.subject.clone());
                self.alerts.insert(id.clone(), Alert::raised(id.clone(), raised, *at));
                self.seen.entry(key.clone()).or_default().insert(raised.raised_at, id.clone());
                self.current.insert(key, id.clone());
            }
            change => {
                let Some(alert) = self.alerts.get_mut(id) else { return };
                alert.fold(change, *at);
                let key = (alert.detection.clone(), alert.subject.clone());
                if let Change::Repeated { occurrence, .. } = change {
                    self.seen.entry(key).or_default().insert(occurrence.raised_at, id.clone());
                } else if let Change::Resolved { .. } = change {
                    self.current.remove(&key);
                    self.settled.push_back((*at, id.clone()));
                }
            }
        }
        self.forget(*at);
    }

    fn forget(&mut self, now: Timestamp) {
        while let Some((at, _)) = self.settled.front()
            && now.since(*at) > MEMORY
            && let Some((_, id)) = self.settled.pop_front()
        {
            let Some(alert) = self.alerts.remove(&id) else { continue };
            let key = (alert.detection, alert.subject);
            if let Some(times) = self.seen.get_mut(&key) {
                times.retain(|_, owner| *owner != id);
                if times.is_empty() {
                    self.seen.remove(&key);
                }
            }
        }
    }
}

/// Findings in order, each with when it happened first and last. No two claim the same time: where they would, the
/// later finding has it.
fn by_key(findings: &[Finding]) -> Found<'_> {
    let mut rows = BTreeMap::<Key, BTreeMap<Timestamp, &Finding>>::new();
    for finding in findings {
        let key = (finding.detection.clone(), finding.subject.clone());
        rows.entry(key).or_default().insert(finding.raised_at, finding);
    }
    rows.into_iter().map(|(key, row)| (key, spans(row))).collect()
}

fn spans(row: BTreeMap<Timestamp, &Finding>) -> Vec<(&Finding, RangeInclusive<Timestamp>)> {
    let nexts: Vec<_> = row.keys().copied().skip(1).map(Some).chain([None]).collect();
    row.into_iter()
        .zip(nexts)
        .map(|((first, finding), next)| {
            let again = finding.evidence.get(HAPPENED_AGAIN_AT).and_then(|at| Timestamp::parse(at.as_str()?));
            let last = again.filter(|at| next.is_none_or(|next| *at < next)).unwrap_or(first);
            (finding, first..=last.max(first))
        })
        .collect()
}

/// Lateness and suppression keep an alert quiet, unless nothing may.
fn rings(rule: &Rule, late: bool, suppressed: Option<&String>) -> bool {
    !rule.suppressible || (!late && suppressed.is_none())
}

fn suppression(rule: &Rule, finding: &Finding) -> Option<String> {
    let reason = finding.evidence.get(SUPPRESSED_BY)?.as_str()?;
    rule.suppressible.then(|| reason.chars().take(64).collect())
}

/// How pressing a finding is: what its detection says of it, else what the rule says.
fn priority(rule: &Rule, finding: &Finding) -> Priority {
    match finding.evidence.get(PRIORITY).and_then(serde_json::Value::as_str) {
        Some("P1") => Priority::P1,
        Some("P2") => Priority::P2,
        Some("P3") => Priority::P3,
        Some("P4") => Priority::P4,
        _ => rule.priority,
    }
}

fn check(note: Option<String>) -> Result<Option<String>, Refused> {
    let note = note.map(|note| note.trim().to_owned()).filter(|note| !note.is_empty());
    match note {
        Some(note) if note.chars().count() > NOTE_LENGTH_MAX => Err(Refused::NoteTooLong),
        note => Ok(note),
    }
}

#[cfg(test)]
mod tests;
