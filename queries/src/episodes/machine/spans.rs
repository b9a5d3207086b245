//! What holds while a value says so: interruptions, what must last to count, and what follows when it ends.

use std::sync::Arc;

use carebed_contract::id::{BedId, DeviceId};
use carebed_contract::quantity::{Activity, Quantity};
use carebed_contract::time::Timestamp;

use super::super::Episode;
use super::super::definition::{About, Exit, Key, While};
use super::super::seen::Seen;
use super::{Leaving, Machine, Setting, about_home, confirmation, observes, of};

/// A stretch during which a `while` rule holds, interruptions included.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) rule: usize,
    pub(super) bed: Option<BedId>,
    device: Option<DeviceId>,
    /// Devices that say so now.
    pub(super) holders: Vec<DeviceId>,
    pub(super) episode: Episode,
    pub(super) known: bool,
    pub(super) interrupted_at: Option<Timestamp>,
    /// When it last began to hold, interruptions counted.
    pub(super) holds_since: Timestamp,
    /// When a value last said that it holds.
    said_at: Timestamp,
    /// The measures whose mean is asked for.
    sums: Vec<(Quantity, Sum)>,
}

/// What a mean and its deviation are made of.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    values: f64,
    squares: f64,
    n: u32,
}

impl Sum {
    fn add(&mut self, value: f64) {
        *self =
            Self { values: self.values + value, squares: self.squares + value * value, n: self.n.saturating_add(1) };
    }

    fn mean(&self) -> f64 {
        self.values / f64::from(self.n)
    }

    fn deviation(&self) -> f64 {
        (self.squares / f64::from(self.n) - self.mean().powi(2)).max(0.0).sqrt()
    }
}

impl Machine {
    /// Adds a measure to those whose mean is asked for.
    pub(super) fn sum(&mut self, seen: &Seen, setting: Setting<'_>) {
        for span in self.spans.iter_mut().filter(|span| span.bed == seen.bed && span.interrupted_at.is_none()) {
            let means = setting.rules.whiles.get(span.rule).map(|w| w.means.as_slice()).unwrap_or_default();
            if !means.contains(&seen.quantity) || seen.value <= 0.0 {
                continue;
            }
            let place = span.sums.iter().position(|(quantity, _)| *quantity == seen.quantity).unwrap_or_else(|| {
                span.sums.push((seen.quantity.clone(), Sum::default()));
                span.sums.len() - 1
            });
            if let Some((_, sum)) = span.sums.get_mut(place) {
                sum.add(seen.value);
            }
        }
    }

    pub(super) fn hold(
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
                    let drop_outs = self.drop_outs_before(rule, exit, &bed, seen.time);
                    self.leavings.push(Leaving { rule, bed: bed.clone(), left_at: seen.time, confirmed_at, drop_outs });
                }
                if definition.gap.is_zero() {
                    self.fire(seen.time, setting, closed);
                }
            }
        }
    }

    /// How many exits of the bed, not so long before one at `at`, were none.
    fn drop_outs_before(&mut self, rule: usize, exit: &Exit, bed: &Option<BedId>, at: Timestamp) -> usize {
        let counts = |of: usize, left_at: Timestamp| of != rule || left_at > at - exit.drop_outs_of;
        self.drop_outs.retain(|(of, _, left_at)| counts(*of, *left_at));
        self.drop_outs.iter().filter(|(of, bed_left, _)| *of == rule && bed_left == bed).count()
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

    /// The device says nothing any more, or is no longer there. What only it knew ends without anybody having done anything: a dead mat
    /// is neither a person in bed nor one who got up.
    pub(super) fn lose(&mut self, seen: &Seen, setting: Setting<'_>, closed: &mut Vec<Episode>) {
        for rule in &setting.rules.unanswered {
            let is_its = |e: &Episode| e.kind == rule.kind && e.device.as_ref() == Some(&seen.device);
            if seen.is_gone() {
                self.end_where(is_its, seen.time, seen.time, closed);
            } else if seen.is_unanswered() && !self.open.iter().any(is_its) {
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
            if watches && (span.bed.is_none() || span.bed == seen.bed) {
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
        for (rule, exit) in setting.rules.exits.iter().enumerate().filter(|(_, exit)| *exit.of == *kind) {
            let open = self.open.iter().find(|e| e.kind == exit.kind && e.bed == bed);
            let left_at = open.map(|exit| exit.started_at);
            let was_seen = self.leavings.iter().any(|l| l.rule == rule && l.bed == bed && l.confirmed_at.is_some());
            if let Some(left_at) = left_at.filter(|_| !was_seen) {
                self.drop_outs.push((rule, bed.clone(), left_at));
            }
            self.end(&exit.kind, &bed, started_at, known_at, closed);
        }
        self.leavings.retain(|l| !(l.bed == bed && of(setting, l.rule, &kind)));
    }

    /// Ends and opens what is due at `at`.
    pub(super) fn fire_spans(&mut self, at: Timestamp, setting: Setting<'_>, closed: &mut Vec<Episode>) {
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
        let rounded = |value: f64| serde_json::Value::from((10.0 * value).round() / 10.0);
        let fields = self.sums.iter().flat_map(|(quantity, sum)| {
            [
                (quantity.to_string(), rounded(sum.mean())),
                (format!("{quantity}_n"), sum.n.into()),
                (format!("{quantity}_sd"), rounded(sum.deviation())),
            ]
        });
        let fields: serde_json::Map<String, serde_json::Value> = fields.collect();
        (!fields.is_empty()).then(|| serde_json::Value::Object(fields).to_string().into())
    }

    pub(super) fn due(&self, rule: &While) -> Option<Timestamp> {
        match self.interrupted_at {
            Some(at) => Some(at + rule.gap),
            None if !rule.stale.is_zero() => Some(self.said_at + rule.stale),
            None if !self.known => Some(self.episode.started_at + rule.hold),
            None => None,
        }
    }
}

pub(super) fn same(one: &Episode, other: &Episode) -> bool {
    one.kind == other.kind && one.bed == other.bed && one.started_at == other.started_at && one.device == other.device
}

pub(super) fn begun(definition: &While, seen: &Seen, setting: Setting<'_>) -> Episode {
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
