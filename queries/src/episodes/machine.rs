//! One home in event order: the only place that knows how observations become episodes. It reads no clock: time is what
//! observations and [`Machine::advance`] bring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::id::{BedId, DeviceId, HomeId, Room};
use carebed_contract::quantity::{Activity, Kind, Quantity};
use carebed_contract::time::Timestamp;

use super::Episode;
use super::definition::{About, Absence, Definitions, Exit, Key, Missing, Rules, Silence, While};
use super::seen::Seen;

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
    /// Last activity of any kind; last one from elsewhere than what exits are about.
    active_at: Option<Timestamp>,
    elsewhere_at: Option<Timestamp>,
    /// The outer door moved then, and nobody has stirred inside since.
    door_at: Option<Timestamp>,
    /// What moved last: the room and the device.
    active_in: (Option<Room>, Option<DeviceId>),
    /// When a bed last gave what must not be missing, per rule.
    given: Vec<Given>,
    /// The latest values of measures that are smoothed.
    recent: Vec<Recent>,
    /// Readings of meters, per rule and device.
    meters: Vec<Meter>,
    /// The gateway's boot and its last observation.
    boot: Option<u64>,
    seen_at: Timestamp,
    /// Episodes that last and are known.
    open: Vec<Episode>,
}

/// Values kept per smoothed measure; of a device that talks faster the oldest count no more.
const RECENT_MAX: usize = 128;

#[derive(Debug, Clone)]
struct Recent {
    quantity: Quantity,
    device: DeviceId,
    values: VecDeque<(Timestamp, f64)>,
}

/// When a bed last gave what must not be missing.
#[derive(Debug, Clone)]
struct Given {
    rule: usize,
    bed: Option<BedId>,
    at: Timestamp,
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

/// How much denser than the span looked at a meter's readings are kept.
const READINGS: u32 = 64;

#[derive(Debug, Clone)]
struct Meter {
    rule: usize,
    device: DeviceId,
    /// In order of time: the newest, and of the others no two closer than a [`READINGS`]th of the span.
    readings: VecDeque<(Timestamp, f64)>,
}

#[derive(Debug, Clone)]
struct Level {
    quantity: Quantity,
    device: DeviceId,
    value: f64,
    /// When it became so.
    since: Timestamp,
}

/// A stretch during which a `while` rule holds, interruptions included.
#[derive(Debug, Clone)]
struct Span {
    rule: usize,
    bed: Option<BedId>,
    device: Option<DeviceId>,
    /// Devices that say so now.
    holders: Vec<DeviceId>,
    episode: Episode,
    known: bool,
    interrupted_at: Option<Timestamp>,
    /// When it last began to hold, interruptions counted.
    holds_since: Timestamp,
    /// When a value last said that it holds.
    said_at: Timestamp,
    /// Sums of the measures whose mean is asked for, with how many values.
    sums: Vec<(Quantity, f64, u32)>,
}

/// Somebody may be leaving, or has left.
#[derive(Debug, Clone)]
struct Leaving {
    rule: usize,
    bed: Option<BedId>,
    left_at: Timestamp,
    confirmed_at: Option<Timestamp>,
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
            active_at: None,
            elsewhere_at: None,
            door_at: None,
            active_in: (None, None),
            given: Vec::new(),
            recent: Vec::new(),
            meters: Vec::new(),
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
        self.note_boot(seen, setting, closed);
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
        self.sum(seen, setting);
        for (rule, definition) in setting.rules.whiles.iter().enumerate() {
            if definition.states.contains(&seen.quantity) {
                let value = match definition.over {
                    Duration::ZERO => self.smoothed(definition.smooth, seen),
                    over => self.grown(rule, over, seen),
                };
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

    /// Nothing was observed while the gateway was off: no silence of that stretch says anything, and nobody was seen to stay.
    fn note_boot(&mut self, seen: &Seen, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        let (from, to) = (self.seen_at, seen.time);
        self.seen_at = to;
        let Some(boot) = seen.boot else { return };
        let is_new = self.boot.replace(boot).is_some_and(|old| old != boot);
        let rule = setting.rules.unobserved.first().filter(|rule| is_new && to.since(from) > rule.longer_than);
        let Some(rule) = rule else { return };
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

    /// The median of what the device said of late, this value included.
    fn smoothed(&mut self, over: Duration, seen: &Seen) -> f64 {
        if over.is_zero() {
            return seen.value;
        }
        let place = self.recent.iter().position(|r| r.quantity == seen.quantity && r.device == seen.device);
        let place = place.unwrap_or_else(|| {
            let (quantity, device) = (seen.quantity.clone(), seen.device.clone());
            self.recent.push(Recent { quantity, device, values: VecDeque::new() });
            self.recent.len() - 1
        });
        let Some(Recent { values, .. }) = self.recent.get_mut(place) else { return seen.value };
        while values.len() >= RECENT_MAX || values.front().is_some_and(|(at, _)| seen.time.since(*at) >= over) {
            values.pop_front();
        }
        if values.back().is_none_or(|last| *last != (seen.time, seen.value)) {
            values.push_back((seen.time, seen.value));
        }
        let mut sorted: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(seen.value)
    }

    /// By how much a meter's reading has grown over so long, or a little longer; not a number while that is not known.
    fn grown(&mut self, rule: usize, over: Duration, seen: &Seen) -> f64 {
        let place = self.meters.iter().position(|m| m.rule == rule && m.device == seen.device);
        let place = place.unwrap_or_else(|| {
            self.meters.push(Meter { rule, device: seen.device.clone(), readings: VecDeque::new() });
            self.meters.len() - 1
        });
        let Some(Meter { readings, .. }) = self.meters.get_mut(place) else { return f64::NAN };
        if readings.back().is_some_and(|(_, last)| seen.value < *last) {
            // Another meter, or one that began anew.
            readings.clear();
        }
        let is_close = |readings: &VecDeque<(Timestamp, f64)>| {
            let before = readings.len().checked_sub(2).and_then(|place| readings.get(place));
            before.is_some_and(|(at, _)| seen.time.since(*at) < over / READINGS)
        };
        if is_close(readings) {
            readings.pop_back();
        }
        readings.push_back((seen.time, seen.value));
        while readings.get(1).is_some_and(|(at, _)| seen.time.since(*at) >= over) {
            readings.pop_front();
        }
        match readings.front() {
            // Whatever was used in a longer gap was not used in this span alone.
            Some((at, first)) if (over..=over + over / 4).contains(&seen.time.since(*at)) => seen.value - first,
            _ => f64::NAN,
        }
    }

    /// Adds a measure to those whose mean is asked for.
    fn sum(&mut self, seen: &Seen, setting: Setting<'_>) {
        for span in self.spans.iter_mut().filter(|span| span.bed == seen.bed && span.interrupted_at.is_none()) {
            let means = setting.rules.whiles.get(span.rule).map(|w| w.means.as_slice()).unwrap_or_default();
            if !means.contains(&seen.quantity) || seen.value <= 0.0 {
                continue;
            }
            match span.sums.iter_mut().find(|(quantity, ..)| *quantity == seen.quantity) {
                Some((_, sum, n)) => (*sum, *n) = (*sum + seen.value, n.saturating_add(1)),
                None => span.sums.push((seen.quantity.clone(), seen.value, 1)),
            }
        }
    }

    /// The bed gave what must not be missing.
    fn give(&mut self, rule: usize, missing: &Missing, seen: &Seen, closed: &mut Vec<Episode>) {
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
                given.at = seen.time;
            }
            None => self.given.push(Given { rule, bed: seen.bed.clone(), at: seen.time, waits: VecDeque::new() }),
        }
        self.end(&missing.kind, &seen.bed, seen.time, seen.time, closed);
    }

    /// Somebody said that the home will be empty.
    fn declare(&mut self, rule: &Absence, seen: &Seen, setting: Setting<'_>) {
        if !self.open.iter().any(|e| e.kind == rule.kind) {
            let attributes = Some(Arc::from(DECLARED));
            self.open.push(Episode { attributes, ..about_home(&rule.kind, seen.time, seen.time, setting) });
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

    fn hold(
        &mut self,
        rule: usize,
        definition: &While,
        value: f64,
        seen: &Seen,
        setting: Setting<'_>,
        closed: &mut Vec<Episode>,
    ) {
        let bed = (definition.key != Key::Home).then(|| seen.bed.clone()).flatten();
        let device = (definition.key == Key::Device).then(|| seen.device.clone());
        let place = self.spans.iter().position(|s| s.rule == rule && s.bed == bed && s.device == device);
        if definition.holds(value) {
            let place = place.unwrap_or_else(|| {
                self.spans.push(Span {
                    rule,
                    bed,
                    device,
                    holders: Vec::new(),
                    episode: begun(definition, seen, setting),
                    known: false,
                    interrupted_at: None,
                    holds_since: seen.time,
                    said_at: seen.time,
                    sums: Vec::new(),
                });
                self.spans.len() - 1
            });
            let Some(span) = self.spans.get_mut(place) else { return };
            if !span.holders.contains(&seen.device) {
                span.holders.push(seen.device.clone());
            }
            let known = span.known;
            span.said_at = seen.time;
            let was_interrupted = span.interrupted_at.take().is_some();
            if was_interrupted {
                span.holds_since = seen.time;
            }
            if was_interrupted && known {
                let bed = span.bed.clone();
                self.leavings.retain(|l| !(l.bed == bed && of(setting, l.rule, &definition.kind)));
            } else if !known && seen.time >= span.episode.started_at + definition.hold {
                self.know(place, seen.time, setting, closed);
            }
        } else if let Some(span) = place.and_then(|place| self.spans.get_mut(place)) {
            span.holders.retain(|device| *device != seen.device);
            if span.holders.is_empty() && span.interrupted_at.is_none() {
                span.interrupted_at = Some(seen.time);
                let bed = span.bed.clone();
                let known = span.known;
                for missing in setting.rules.missings.iter().filter(|m| *m.of == *definition.kind) {
                    self.end(&missing.kind, &bed, seen.time, seen.time, closed);
                }
                let exits = setting.rules.exits.iter().enumerate().filter(|(_, e)| known && *e.of == *definition.kind);
                for (rule, exit) in exits {
                    let moved = self.elsewhere_at.filter(|at| *at >= seen.time - exit.confirm_before);
                    let confirmed_at = moved.or(self.is_seen(exit, seen.time, setting).then_some(seen.time));
                    self.leavings.push(Leaving { rule, bed: bed.clone(), left_at: seen.time, confirmed_at });
                }
                if definition.gap.is_zero() {
                    self.fire(seen.time, setting, closed);
                }
            }
        }
    }

    /// A sensor that let go by itself would have, had nobody moved before it: whoever began to move a little while ago still does.
    fn is_seen(&self, exit: &Exit, at: Timestamp, setting: Setting<'_>) -> bool {
        self.levels.iter().any(|level| {
            let is_inside = level.quantity.definition().is_some_and(|d| d.activity == Some(Activity::Inside));
            is_inside
                && level.value > 0.0
                && level.since >= at - exit.confirm_after
                && !setting.definitions.both_edges(&level.quantity)
                && !observes(setting.rules, &exit.of, &level.quantity)
        })
    }

    /// The device says nothing any more. What only it knew ends without anybody having done anything: a dead mat is
    /// neither a person in bed nor one who got up.
    fn lose(&mut self, seen: &Seen, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        for rule in &setting.rules.unanswered {
            if !self.open.iter().any(|e| e.kind == rule.kind && e.device.as_ref() == Some(&seen.device)) {
                self.open.push(Episode {
                    subject: format!("device/{}/{}", setting.home, seen.device).into(),
                    bed: seen.bed.clone(),
                    room: seen.room.clone(),
                    device: Some(seen.device.clone()),
                    ..about_home(&rule.kind, seen.time, seen.time, setting)
                });
            }
        }
        let mut place = 0;
        while let Some(span) = self.spans.get_mut(place) {
            let watches = setting.rules.whiles.get(span.rule).is_some_and(|w| w.states.contains(&seen.quantity));
            let held = span.holders.len();
            if watches {
                span.holders.retain(|device| *device != seen.device);
            }
            if held == 0 || !span.holders.is_empty() || held == span.holders.len() {
                place += 1;
                continue;
            }
            let span = self.spans.remove(place);
            if let Some(open) = self.open.iter().position(|e| same(e, &span.episode)).filter(|_| span.known) {
                let episode = self.open.remove(open);
                closed.push(Episode { ended_at: Some(seen.time), end_known_at: Some(seen.time), ..episode });
            }
            let kind = setting.rules.whiles.get(span.rule).map(|w| Arc::clone(&w.kind));
            for missing in setting.rules.missings.iter().filter(|m| kind.as_deref() == Some(m.of.as_str())) {
                self.end(&missing.kind, &span.bed, seen.time, seen.time, closed);
            }
        }
    }

    /// The span's episode counts from now on: it opens, and whoever was out is back.
    fn know(&mut self, place: usize, known_at: Timestamp, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        let Some(span) = self.spans.get_mut(place).filter(|span| !span.known) else { return };
        span.known = true;
        span.episode.start_known_at = known_at;
        let (bed, kind, started_at) = (span.bed.clone(), Arc::clone(&span.episode.kind), span.episode.started_at);
        self.open.push(span.episode.clone());
        for exit in setting.rules.exits.iter().filter(|exit| *exit.of == *kind) {
            self.end(&exit.kind, &bed, started_at, known_at, closed);
        }
        self.leavings.retain(|l| !(l.bed == bed && of(setting, l.rule, &kind)));
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

    fn active(&mut self, activity: Activity, seen: &Seen, setting: Setting<'_>, closed: &mut Vec<Episode>) {
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

    /// When what must not be missing of a bed will be, whose bed, and since when.
    fn missing_dues<'a>(
        &'a self,
        rule: usize,
        missing: &'a Missing,
        setting: Setting<'a>,
    ) -> impl Iterator<Item = (Timestamp, &'a Option<BedId>, Timestamp)> {
        let given = self.given.iter().filter(move |given| given.rule == rule);
        given.filter_map(move |given| {
            let (bed, at) = (&given.bed, given.at);
            let holds = |span: &&Span| {
                let watched = setting.rules.whiles.get(span.rule).is_some_and(|w| *w.kind == *missing.of);
                watched && span.known && span.bed == *bed && span.interrupted_at.is_none()
            };
            let since = self.spans.iter().find(holds)?.holds_since.max(at);
            let is_open = self.open.iter().any(|e| e.kind == missing.kind && e.bed == *bed);
            (!is_open).then(|| (since + given.patience(missing), bed, since))
        })
    }

    fn quiet_due(&self, rule: &Silence) -> Option<Timestamp> {
        let is_open = self.open.iter().any(|e| e.kind == rule.kind);
        self.active_at.filter(|_| !is_open).map(|at| at + rule.hold)
    }

    fn away_due(&self, rule: &Absence) -> Option<Timestamp> {
        match self.open.iter().find(|e| e.kind == rule.kind) {
            Some(away) => Some(away.started_at + rule.expires),
            None => self.door_at.map(|at| at + rule.wait),
        }
    }

    /// Does what is due at `at`.
    fn fire(&mut self, at: Timestamp, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        let mut place = 0;
        while let Some(span) = self.spans.get(place) {
            let Some(rule) = setting.rules.whiles.get(span.rule) else { return };
            match (span.due(rule), span.interrupted_at) {
                (Some(due), Some(left_at)) if due <= at => {
                    let span = self.spans.remove(place);
                    if span.known {
                        self.end_span(&span, rule, left_at, at, setting, closed);
                    }
                }
                (Some(due), None) if due <= at && !rule.stale.is_zero() => {
                    let span = self.spans.remove(place);
                    if span.known {
                        self.end_where(|e| same(e, &span.episode), span.said_at, at, closed);
                    }
                }
                (Some(due), None) if due <= at => {
                    self.know(place, at, setting, closed);
                    place += 1;
                }
                _ => place += 1,
            }
        }
        for rule in &setting.rules.silences {
            if let Some(started_at) = self.active_at.filter(|_| self.quiet_due(rule).is_some_and(|due| due <= at)) {
                let (room, device) = self.active_in.clone();
                self.open.push(Episode { room, device, ..about_home(&rule.kind, started_at, at, setting) });
            }
        }
        for (rule, missing) in setting.rules.missings.iter().enumerate() {
            let due = self.missing_dues(rule, missing, setting).filter(|(due, ..)| *due <= at);
            let due: Vec<_> = due.map(|(due, bed, since)| (due, bed.clone(), since)).collect();
            for (due, bed, since) in due {
                let subject = bed.as_ref().map_or_else(|| format!("home/{}", setting.home), |bed| format!("bed/{bed}"));
                let subject = subject.into();
                self.open.push(Episode { subject, bed, ..about_home(&missing.kind, since, due, setting) });
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

    fn end_span(
        &mut self,
        span: &Span,
        rule: &While,
        ended_at: Timestamp,
        known_at: Timestamp,
        setting: Setting<'_>,
        closed: &mut Vec<Episode>,
    ) {
        let begun = &span.episode;
        if let Some(place) = self.open.iter().position(|e| same(e, begun)) {
            self.open.remove(place);
        }
        let attributes = span.means().or_else(|| begun.attributes.clone());
        closed.push(Episode { ended_at: Some(ended_at), end_known_at: Some(known_at), attributes, ..begun.clone() });
        for (number, exit) in setting.rules.exits.iter().enumerate().filter(|(_, exit)| *exit.of == *rule.kind) {
            let remembered = self.settled.iter_mut().find(|(rule, bed, _)| *rule == number && *bed == span.bed);
            let settled = ended_at.since(begun.started_at) >= exit.settled;
            let resumed = remembered.as_ref().is_some_and(|(_, _, at)| ended_at.since(*at) <= exit.resume);
            match remembered {
                Some((_, _, at)) if settled => *at = ended_at,
                None if settled => self.settled.push((number, span.bed.clone(), ended_at)),
                _ => {}
            }
            if !settled && !resumed {
                self.leavings.retain(|l| !(l.rule == number && l.bed == span.bed));
            } else if let Some(leaving) = self.leavings.iter().find(|l| l.rule == number && l.bed == span.bed) {
                self.open.push(Episode {
                    kind: Arc::clone(&exit.kind),
                    started_at: ended_at,
                    start_known_at: known_at,
                    attributes: Some(confirmation(leaving)),
                    ..begun.clone()
                });
            }
        }
    }
}

impl Span {
    /// The means that were asked for, as attributes.
    fn means(&self) -> Option<Arc<str>> {
        let fields = self.sums.iter().flat_map(|(quantity, sum, n)| {
            let mean = (10.0 * sum / f64::from(*n)).round() / 10.0;
            [(quantity.to_string(), mean.into()), (format!("{quantity}_n"), (*n).into())]
        });
        let fields: serde_json::Map<String, serde_json::Value> = fields.collect();
        (!fields.is_empty()).then(|| serde_json::Value::Object(fields).to_string().into())
    }

    fn due(&self, rule: &While) -> Option<Timestamp> {
        match self.interrupted_at {
            Some(at) => Some(at + rule.gap),
            None if !rule.stale.is_zero() => Some(self.said_at + rule.stale),
            None if !self.known => Some(self.episode.started_at + rule.hold),
            None => None,
        }
    }
}

/// The attributes of an absence that a press of a button declared.
const DECLARED: &str = r#"{"source":"button"}"#;

fn same(one: &Episode, other: &Episode) -> bool {
    one.kind == other.kind && one.bed == other.bed && one.started_at == other.started_at && one.device == other.device
}

fn of(setting: Setting<'_>, exit: usize, kind: &str) -> bool {
    setting.rules.exits.get(exit).is_some_and(|exit| *exit.of == *kind)
}

fn observes(rules: &Rules, kind: &str, quantity: &Quantity) -> bool {
    rules.whiles.iter().any(|w| *w.kind == *kind && w.states.contains(quantity))
}

fn confirmation(leaving: &Leaving) -> Arc<str> {
    Arc::from(if leaving.confirmed_at.is_some() { r#"{"confirmed":true}"# } else { r#"{"confirmed":false}"# })
}

fn begun(definition: &While, seen: &Seen, setting: Setting<'_>) -> Episode {
    let home = setting.home;
    let subject = match (definition.subject, definition.key, &seen.bed) {
        (Some(About::Person), _, Some(bed)) | (None, Key::Bed, Some(bed)) => format!("bed/{bed}"),
        (None, Key::Device, _) => format!("device/{home}/{}", seen.device),
        _ => format!("home/{home}"),
    };
    Episode {
        subject: subject.into(),
        home: home.clone(),
        bed: seen.bed.clone(),
        kind: Arc::clone(&definition.kind),
        room: seen.room.clone(),
        device: Some(seen.device.clone()),
        started_at: seen.time,
        start_known_at: seen.time,
        ended_at: None,
        end_known_at: None,
        revision: 0,
        attributes: None,
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
