//! One home in event order: the only place that knows how observations become episodes. It reads no clock: time is what
//! observations and [`Machine::advance`] bring.

mod home;
mod missing;
mod spans;
mod values;

use std::sync::Arc;

use carebed_contract::id::{BedId, DeviceId, HomeId, Room};
use carebed_contract::quantity::{Activity, Kind, Quantity};
use carebed_contract::time::Timestamp;

use super::Episode;
use super::definition::{Definitions, Rules};
use super::seen::Seen;
use missing::Given;
use spans::{Span, begun};
use values::Values;

/// What a machine works with, the same for all its life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) home: &'a HomeId,
    pub(super) residents: u8,
    pub(super) definitions: &'a Definitions,
    pub(super) rules: &'a Rules,
}

/// A home's state at one instant of event time.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// Everything before it is in.
    at: Timestamp,
    /// Last values of states, to tell edges from heartbeats.
    levels: Vec<Level>,
    spans: Vec<Span>,
    leavings: Vec<Leaving>,
    /// When a settled episode of a bed last ended, per exit rule.
    settled: Vec<(usize, Option<BedId>, Timestamp)>,
    /// When exits began that ended without anybody having been seen up.
    drop_outs: Vec<(usize, Option<BedId>, Timestamp)>,
    /// Last activity of any kind; last one from elsewhere than what exits are about.
    active_at: Option<Timestamp>,
    elsewhere_at: Option<Timestamp>,
    /// The outer door moved then, and nobody has stirred inside since.
    door_at: Option<Timestamp>,
    /// What moved last: the room and the device.
    active_in: (Option<Room>, Option<DeviceId>),
    /// When a bed last gave what must not be missing, per rule.
    given: Vec<Given>,
    /// What predicates look at besides the value itself.
    values: Values,
    /// The gateway's boot and its last observation.
    boot: Option<u64>,
    seen_at: Timestamp,
    /// Episodes that last and are known.
    open: Vec<Episode>,
}

#[derive(Debug, Clone)]
struct Level {
    quantity: Quantity,
    device: DeviceId,
    value: f64,
    /// When it became so.
    since: Timestamp,
}

/// Somebody may be leaving, or has left.
#[derive(Debug, Clone)]
struct Leaving {
    rule: usize,
    bed: Option<BedId>,
    left_at: Timestamp,
    confirmed_at: Option<Timestamp>,
    /// How many exits before it were none.
    drop_outs: usize,
}

/// How an observation changed what was known of its series.
struct Edge {
    activity: Option<Activity>,
    happened: bool,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self {
            at: Timestamp::MIN,
            levels: Vec::new(),
            spans: Vec::new(),
            leavings: Vec::new(),
            settled: Vec::new(),
            drop_outs: Vec::new(),
            active_at: None,
            elsewhere_at: None,
            door_at: None,
            active_in: (None, None),
            given: Vec::new(),
            values: Values::default(),
            boot: None,
            seen_at: Timestamp::MIN,
            open: Vec::new(),
        }
    }

    /// Everything before it is in.
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    /// Episodes that last and are known.
    pub(super) fn open(&self) -> &[Episode] {
        &self.open
    }

    /// Takes the next observation; `closed` receives what ended.
    pub(super) fn step(&mut self, seen: &Seen, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        self.note_watch(seen, setting, closed);
        self.advance(seen.time, setting, closed);
        if seen.is_unknown() {
            return self.lose(seen, setting, closed);
        }
        for rule in &setting.rules.unanswered {
            self.end_where(
                |e| e.kind == rule.kind && e.device.as_ref() == Some(&seen.device),
                seen.time,
                seen.time,
                closed,
            );
        }
        let edge = self.edge(seen, setting.definitions);
        let restless = setting.definitions.restless.as_ref();
        let is_spoilt = restless.is_some_and(|restless| self.values.is_spoilt(restless, seen));
        if !is_spoilt {
            self.sum(seen, setting);
        }
        for (rule, definition) in setting.rules.whiles.iter().enumerate().filter(|_| !is_spoilt) {
            if definition.states.contains(&seen.quantity) {
                let value = self.values.meant(rule, definition, seen);
                self.hold(rule, definition, value, seen, setting, closed);
            }
            if edge.happened && definition.events.contains(&seen.quantity) {
                closed.push(Episode {
                    ended_at: Some(seen.time),
                    end_known_at: Some(seen.time),
                    ..begun(definition, seen, setting)
                });
            }
        }
        for (rule, missing) in setting.rules.missings.iter().enumerate() {
            if missing.quantities.contains(&seen.quantity) && missing.above.is_none_or(|limit| seen.value > limit) {
                self.give(rule, missing, seen, closed);
            } else if missing.signs.contains(&seen.quantity) && seen.value > missing.signs_above {
                self.show(rule, missing, seen, closed);
            }
        }
        if let Some(activity) = edge.activity {
            self.active(activity, seen, setting, closed);
        }
        for rule in setting.rules.absences.iter().filter(|rule| edge.happened && rule.buttons.contains(&seen.quantity))
        {
            self.declare(rule, seen, setting);
        }
    }

    /// Draws what follows from nothing having come before `to`.
    pub(super) fn advance(&mut self, to: Timestamp, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        while let Some(due) = self.due(setting).filter(|due| *due <= to) {
            self.fire(due, setting, closed);
        }
        self.at = self.at.max(to);
    }

    /// What this observation says beside its value. An unknown level counts as 0: the first thing a call button ever says may be a press.
    fn edge(&mut self, seen: &Seen, definitions: &Definitions) -> Edge {
        let Some(definition) = seen.quantity.definition() else { return Edge { activity: None, happened: false } };
        match definition.kind {
            Kind::Event => Edge { activity: definition.activity, happened: true },
            Kind::State => {
                let known = self.levels.iter_mut().find(|l| l.quantity == seen.quantity && l.device == seen.device);
                let before = match known {
                    Some(level) => {
                        if level.value.total_cmp(&seen.value).is_ne() {
                            level.since = seen.time;
                        }
                        std::mem::replace(&mut level.value, seen.value)
                    }
                    None => {
                        let (quantity, device) = (seen.quantity.clone(), seen.device.clone());
                        self.levels.push(Level { quantity, device, value: seen.value, since: seen.time });
                        0.0
                    }
                };
                let changed = before.total_cmp(&seen.value).is_ne();
                let counts = changed && (seen.value > before || definitions.both_edges(&seen.quantity));
                Edge { activity: definition.activity.filter(|_| counts), happened: false }
            }
            Kind::Measure | Kind::Counter => Edge { activity: None, happened: false },
        }
    }

    fn end(
        &mut self,
        kind: &str,
        bed: &Option<BedId>,
        ended_at: Timestamp,
        known_at: Timestamp,
        closed: &mut Vec<Episode>,
    ) {
        if let Some(place) = self.open.iter().position(|e| *e.kind == *kind && e.bed == *bed) {
            let episode = self.open.remove(place);
            closed.push(Episode { ended_at: Some(ended_at), end_known_at: Some(known_at), ..episode });
        }
    }

    fn end_where(
        &mut self,
        which: impl Fn(&Episode) -> bool,
        ended_at: Timestamp,
        known_at: Timestamp,
        closed: &mut Vec<Episode>,
    ) {
        while let Some(place) = self.open.iter().position(&which) {
            let episode = self.open.remove(place);
            // What was only known later is known to have ended no earlier than that.
            let ended_at = ended_at.max(episode.started_at);
            let known_at = known_at.max(ended_at).max(episode.start_known_at);
            closed.push(Episode { ended_at: Some(ended_at), end_known_at: Some(known_at), ..episode });
        }
    }

    /// Activity elsewhere: who is leaving has got up.
    fn confirm(&mut self, at: Timestamp, setting: Setting<'_>) {
        for leaving in &mut self.leavings {
            let Some(exit) = setting.rules.exits.get(leaving.rule) else { continue };
            if leaving.confirmed_at.is_none() && at <= leaving.left_at + exit.confirm_after {
                leaving.confirmed_at = Some(at);
                if let Some(row) = self.open.iter_mut().find(|e| e.kind == exit.kind && e.bed == leaving.bed) {
                    row.attributes = Some(confirmation(leaving));
                }
            }
        }
    }

    /// When the next thing follows from silence.
    fn due(&self, setting: Setting<'_>) -> Option<Timestamp> {
        let spans = self.spans.iter().filter_map(|span| span.due(setting.rules.whiles.get(span.rule)?));
        let quiet = setting.rules.silences.iter().filter_map(|rule| self.quiet_due(rule));
        let away = setting.rules.absences.iter().filter_map(|rule| self.away_due(rule));
        let missing = setting
            .rules
            .missings
            .iter()
            .enumerate()
            .filter_map(|(rule, missing)| self.missing_dues(rule, missing, setting).map(|(due, _, _)| due).min());
        spans.chain(quiet).chain(away).chain(missing).min()
    }

    /// Does what is due at `at`.
    fn fire(&mut self, at: Timestamp, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        self.fire_spans(at, setting, closed);
        self.fire_missing(at, setting);
        self.fire_home(at, setting, closed);
    }
}

fn of(setting: Setting<'_>, exit: usize, kind: &str) -> bool {
    setting.rules.exits.get(exit).is_some_and(|exit| *exit.of == *kind)
}

fn observes(rules: &Rules, kind: &str, quantity: &Quantity) -> bool {
    rules.whiles.iter().any(|w| *w.kind == *kind && w.states.contains(quantity))
}

fn confirmation(leaving: &Leaving) -> Arc<str> {
    let confirmed = leaving.confirmed_at.is_some();
    match leaving.drop_outs {
        0 => format!(r#"{{"confirmed":{confirmed}}}"#).into(),
        n => format!(r#"{{"confirmed":{confirmed},"drop_outs":{n}}}"#).into(),
    }
}

fn about_home(kind: &Arc<str>, started_at: Timestamp, known_at: Timestamp, setting: Setting<'_>) -> Episode {
    Episode {
        subject: format!("home/{}", setting.home).into(),
        home: setting.home.clone(),
        bed: None,
        kind: Arc::clone(kind),
        room: None,
        device: None,
        started_at,
        start_known_at: known_at,
        ended_at: None,
        end_known_at: None,
        revision: 0,
        attributes: None,
    }
}
