//! What outputs of a home do by themselves when something is observed, whether or not the centre is reached: a light when
//! somebody leaves the bed at night, a siren when there is smoke. Pure; times are monotonic.
//!
//! An action follows changes: what is told again as the same does not begin it anew.

use std::time::Duration;

use carebed_contract::id::DeviceId;
use carebed_contract::quantity::{Kind, Quantity};
use carebed_contract::value::Value;
use serde::Deserialize;

use crate::stamp::Observed;

/// A minute of the local day, written `"21:30"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// Of an hour and a minute; none when there is no such time.
    #[must_use]
    pub fn new(hour: u32, minute: u32) -> Option<Self> {
        let minutes = u16::try_from(hour.checked_mul(60)?.checked_add(minute)?).ok()?;
        (hour < 24 && minute < 60).then_some(Self(minutes))
    }
}

impl TryFrom<String> for TimeOfDay {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let read = || {
            let (hour, minute) = text.split_once(':')?;
            Self::new(hour.parse().ok()?, minute.parse().ok()?)
        };
        read().ok_or_else(|| format!("{text:?} is not a time of day such as \"21:30\""))
    }
}

/// One `[[action]]` of the home file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAction {
    /// Whose observation begins it.
    pub device: DeviceId,
    /// Of what.
    pub quantity: Quantity,
    /// When it becomes so; an event is always on.
    pub becomes: bool,
    /// What is set on: a position in [`crate::home::HomeFile::outputs`].
    pub output: usize,
    /// For how long; none: until the observation turns back.
    pub lasts: Option<Duration>,
    /// Only between these times of the home's day, over midnight where the second is earlier.
    pub between: Option<[TimeOfDay; 2]>,
}

/// What to do with an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Set it on for so long; none: until it is released.
    On(Option<Duration>),
    /// Its reason is over.
    Release,
}

/// The actions of a home.
#[derive(Debug, Clone)]
pub struct Actions {
    /// Each with what was observed last.
    all: Vec<(LocalAction, Option<bool>)>,
}

impl Actions {
    /// Nothing was observed yet.
    #[must_use]
    pub fn new(actions: &[LocalAction]) -> Self {
        Self { all: actions.iter().map(|action| (action.clone(), None)).collect() }
    }

    /// Something was observed at a time of the home's day. While nobody knows the time, actions go by no time of the day.
    pub fn observed(&mut self, observed: &Observed, time: Option<TimeOfDay>) -> Vec<(usize, Act)> {
        let Value::Flag(value) = observed.value else { return Vec::new() };
        if !observed.quality.is_usable() {
            return Vec::new();
        }
        let mut acts = Vec::new();
        for (action, known) in &mut self.all {
            if action.device != observed.series.device || action.quantity != observed.series.quantity {
                continue;
            }
            let is_event = action.quantity.definition().is_some_and(|known| known.kind == Kind::Event);
            let is_news = is_event || known.replace(value) != Some(value);
            let is_time = time.is_none_or(|time| action.is_at(time));
            match (value == action.becomes, action.lasts) {
                (true, lasts) if is_news && is_time => acts.push((action.output, Act::On(lasts))),
                (false, None) if is_news => acts.push((action.output, Act::Release)),
                _ => {}
            }
        }
        acts
    }
}

impl LocalAction {
    fn is_at(&self, time: TimeOfDay) -> bool {
        match self.between {
            None => true,
            Some([from, to]) if from <= to => (from..to).contains(&time),
            Some([from, to]) => time >= from || time < to,
        }
    }
}

#[cfg(test)]
mod tests {
    use carebed_contract::quality::Quality;
    use carebed_contract::record::Series;
    use carebed_contract::time::Timestamp;

    use super::*;
    use crate::stamp::Sample;

    fn observed(device: &str, quantity: &str, value: bool, quality: Quality) -> Observed {
        let series = Series::parse(&format!("h1/-/{device}/{quantity}")).unwrap();
        let sample = Sample { monotonic: Duration::ZERO, wall: Timestamp::MIN };
        Observed { series, value: Value::Flag(value), quality, sample }
    }

    fn action(
        device: &str,
        quantity: &str,
        becomes: bool,
        lasts: Option<u64>,
        between: Option<[&str; 2]>,
    ) -> LocalAction {
        LocalAction {
            device: device.parse().unwrap(),
            quantity: Quantity::new(quantity).unwrap(),
            becomes,
            output: 0,
            lasts: lasts.map(Duration::from_secs),
            between: between.map(|times| times.map(|time| time.to_owned().try_into().unwrap())),
        }
    }

    #[test]
    fn an_action_follows_changes_in_its_hours() {
        let light = action("mat-1", "bed_occupancy", false, Some(300), Some(["21:00", "06:00"]));
        let siren = action("smoke-1", "smoke", true, None, None);
        let bell = action("sos-1", "call_event", true, Some(5), None);
        let mut actions = Actions::new(&[light, siren, bell]);
        let on = Act::On(Some(Duration::from_secs(300)));
        let good = || Quality::Good;
        let cases = [
            ("mat-1", "bed_occupancy", true, good(), "22:00", vec![]),
            ("mat-1", "bed_occupancy", false, good(), "23:59", vec![(0, on)]),
            ("mat-1", "bed_occupancy", false, good(), "00:09", vec![]),
            ("mat-1", "bed_occupancy", true, good(), "00:10", vec![]),
            ("mat-1", "bed_occupancy", false, Quality::Bad("no_answer".into()), "00:11", vec![]),
            ("mat-1", "bed_occupancy", false, good(), "05:59", vec![(0, on)]),
            ("mat-1", "bed_occupancy", true, good(), "06:00", vec![]),
            ("mat-1", "bed_occupancy", false, good(), "06:00", vec![]),
            ("mat-2", "bed_occupancy", false, good(), "23:00", vec![]),
            ("smoke-1", "smoke", true, good(), "12:00", vec![(0, Act::On(None))]),
            ("smoke-1", "smoke", true, good(), "12:01", vec![]),
            ("smoke-1", "smoke", false, good(), "12:02", vec![(0, Act::Release)]),
            ("sos-1", "call_event", true, good(), "12:00", vec![(0, Act::On(Some(Duration::from_secs(5))))]),
            ("sos-1", "call_event", true, good(), "12:00", vec![(0, Act::On(Some(Duration::from_secs(5))))]),
        ];
        for (device, quantity, value, quality, time, expected) in cases {
            let time = time.to_owned().try_into().ok();
            assert_eq!(
                actions.observed(&observed(device, quantity, value, quality), time),
                expected,
                "{device} {time:?}"
            );
        }
        for text in ["24:00", "7", "12:60", "床", "-1:00"] {
            assert!(TimeOfDay::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
