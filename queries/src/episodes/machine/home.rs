//! What is so of the whole home: that nobody watched it, that nothing moves in it, in which room somebody is, that it is empty.

use std::sync::Arc;

use carebed_contract::quantity::Activity;
use carebed_contract::time::Timestamp;

use super::super::Episode;
use super::super::definition::{Absence, Silence};
use super::super::seen::{Seen, Watch};
use super::spans::{Span, same};
use super::{Machine, Setting, about_home, observes};

/// The attributes of an absence that a press of a button declared.
const DECLARED: &str = r#"{"source":"button"}"#;

impl Machine {
    /// Nothing was observed while the gateway was off: no silence of that stretch says anything, and nobody was seen to stay.
    pub(super) fn note_watch(&mut self, seen: &Seen, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        let to = seen.time;
        let last = std::mem::replace(&mut self.seen_at, to);
        let from = match seen.watch {
            Watch::Boot(boot) if self.boot.replace(boot).is_some_and(|old| old != boot) => last,
            Watch::NotSince(since) => since.max(last),
            Watch::Boot(_) | Watch::Unsaid => return,
        };
        let rule = setting.rules.unobserved.first().filter(|rule| to.since(from) > rule.longer_than);
        let Some(rule) = rule else { return };
        // Until then somebody did.
        self.advance(from, setting, closed);
        closed.push(Episode {
            ended_at: Some(to),
            end_known_at: Some(to),
            ..about_home(&rule.kind, from, to, setting)
        });
        let is_silence = |kind: &Arc<str>| {
            setting.rules.silences.iter().any(|rule| rule.kind == *kind)
                || setting.rules.stays.iter().any(|rule| rule.kind == *kind)
                || setting.rules.missings.iter().any(|rule| rule.kind == *kind)
        };
        self.end_where(|e| is_silence(&e.kind), from, from, closed);
        for span in std::mem::take(&mut self.spans).into_iter().filter(|span| span.known) {
            self.end_where(|e| same(e, &span.episode), from, from, closed);
        }
        self.leavings.retain(|l| {
            self.open.iter().any(|e| e.bed == l.bed && setting.rules.exits.iter().any(|x| x.kind == e.kind))
        });
        self.door_at = None;
        self.active_at = self.active_at.map(|_| to);
        self.at = self.at.max(to);
    }

    /// Somebody said that the home will be empty.
    pub(super) fn declare(&mut self, rule: &Absence, seen: &Seen, setting: Setting<'_>) {
        if !self.open.iter().any(|e| e.kind == rule.kind) {
            let attributes = Some(Arc::from(DECLARED));
            self.open.push(Episode { attributes, ..about_home(&rule.kind, seen.time, seen.time, setting) });
        }
    }

    /// Something moved.
    pub(super) fn active(&mut self, activity: Activity, seen: &Seen, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        self.active_at = Some(seen.time);
        self.active_in = (seen.room.clone(), Some(seen.device.clone()));
        for stay in &setting.rules.stays {
            self.stay(&stay.kind, activity, seen, setting.residents <= stay.residents_max, setting, closed);
        }
        for silence in &setting.rules.silences {
            self.end(&silence.kind, &None, seen.time, seen.time, closed);
        }
        for absence in &setting.rules.absences {
            let is_leaving = |e: &Episode| {
                e.attributes.as_deref() == Some(DECLARED) && seen.time.since(e.started_at) <= absence.grace
            };
            self.end_where(|e| e.kind == absence.kind && !is_leaving(e), seen.time, seen.time, closed);
        }
        self.door_at = matches!(activity, Activity::Door).then_some(seen.time);
        if !setting.rules.exits.iter().any(|exit| observes(setting.rules, &exit.of, &seen.quantity)) {
            self.elsewhere_at = Some(seen.time);
            self.confirm(seen.time, setting);
        }
    }

    /// Whoever is seen in a room is there until something moves elsewhere.
    fn stay(
        &mut self,
        kind: &Arc<str>,
        activity: Activity,
        seen: &Seen,
        alone: bool,
        setting: Setting<'_>,
        closed: &mut Vec<Episode>,
    ) {
        let room = seen.room.as_ref().filter(|_| alone && matches!(activity, Activity::Inside));
        if room.is_some() && self.open.iter().any(|e| e.kind == *kind && e.room.as_ref() == room) {
            return;
        }
        self.end_where(|e| e.kind == *kind, seen.time, seen.time, closed);
        if room.is_some() {
            let (room, device) = (room.cloned(), Some(seen.device.clone()));
            self.open.push(Episode { room, device, ..about_home(kind, seen.time, seen.time, setting) });
        }
    }

    /// When it is quiet.
    pub(super) fn quiet_due(&self, rule: &Silence) -> Option<Timestamp> {
        let is_open = self.open.iter().any(|e| e.kind == rule.kind);
        self.active_at.filter(|_| !is_open).map(|at| at + rule.hold)
    }

    /// When the home is empty, or when that is no longer believed.
    pub(super) fn away_due(&self, rule: &Absence) -> Option<Timestamp> {
        match self.open.iter().find(|e| e.kind == rule.kind) {
            Some(away) => Some(away.started_at + rule.expires),
            None => self.door_at.map(|at| at + rule.wait),
        }
    }

    /// Does what is due at `at`.
    pub(super) fn fire_home(&mut self, at: Timestamp, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        for rule in &setting.rules.silences {
            if let Some(started_at) = self.active_at.filter(|_| self.quiet_due(rule).is_some_and(|due| due <= at)) {
                let (room, device) = self.active_in.clone();
                self.open.push(Episode { room, device, ..about_home(&rule.kind, started_at, at, setting) });
            }
        }
        for rule in &setting.rules.absences {
            if self.away_due(rule).is_none_or(|due| due > at) {
                continue;
            }
            if self.open.iter().any(|e| e.kind == rule.kind) {
                self.end(&rule.kind, &None, at, at, closed);
            } else if let Some(started_at) = self.door_at.take() {
                let in_bed = |span: &Span| {
                    !span.holders.is_empty()
                        && setting.rules.whiles.get(span.rule).is_some_and(|w| *w.kind == *rule.bed)
                };
                if setting.residents <= rule.residents_max && !self.spans.iter().any(in_bed) {
                    self.open.push(about_home(&rule.kind, started_at, at, setting));
                }
            }
        }
    }
}
