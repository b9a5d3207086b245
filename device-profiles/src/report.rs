//! Which of the values that a device gives are told: the first, changes, and sameness once per heartbeat. Pure.

use std::time::Duration;

use carebed_contract::quality::Quality;
use carebed_contract::value::Value;

/// When a value is worth telling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// Whether a change is told before the heartbeat.
    pub on_change: bool,
    /// A number counts as changed when it has moved by at least this much since it was told.
    pub deadband: f64,
    /// A number is told at most this often, however it changes. States and events are never held back.
    pub spacing: Duration,
    /// After this time of sameness the value is told again, so that silence can be seen.
    pub heartbeat: Duration,
    /// Whether it is an event: told each time, never repeated.
    pub event: bool,
}

/// Why a value is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is the first since the start or since a silence.
    Start,
    /// It is not what was told last.
    Change,
    /// It is still the same.
    Heartbeat,
    /// It happened.
    Event,
}

/// What was told last of one series.
#[derive(Debug, Clone, Default)]
pub struct Reporter {
    told: Option<(Value, Quality, Duration)>,
}

impl Reporter {
    /// Whether a value heard at `now` (monotonic) is to be told, and why. Being told is remembered.
    pub fn offer(&mut self, policy: &Policy, value: &Value, quality: &Quality, now: Duration) -> Option<Why> {
        let why = match &self.told {
            _ if policy.event => Some(Why::Event),
            None => Some(Why::Start),
            Some((told, told_quality, at)) => {
                let age = now.saturating_sub(*at);
                let held = age < policy.spacing && matches!((told, value), (Value::Number(_), Value::Number(_)));
                let changed = told_quality != quality || moved(told, value, policy.deadband);
                if policy.on_change && changed && !held {
                    Some(Why::Change)
                } else {
                    (age >= policy.heartbeat).then_some(Why::Heartbeat)
                }
            }
        };
        if why.is_some() {
            self.told = Some((value.clone(), quality.clone(), now));
        }
        why
    }

    /// Forgets, because the device fell silent: what it says next is told whatever it is.
    pub fn forget(&mut self) {
        self.told = None;
    }
}

fn moved(told: &Value, value: &Value, deadband: f64) -> bool {
    match (told, value) {
        // `>=` with a zero deadband would take sameness for a change.
        (Value::Number(told), Value::Number(value)) => told != value && (told - value).abs() >= deadband,
        _ => told != value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        on_change: true,
        deadband: 0.5,
        spacing: Duration::from_secs(10),
        heartbeat: Duration::from_secs(600),
        event: false,
    };

    /// Steps of (second, value) → whether and why it is told.
    fn check(policy: &Policy, steps: &[(u64, Value, Option<Why>)]) {
        let mut reporter = Reporter::default();
        for (second, value, expected) in steps {
            let quality = if *value == Value::Missing { Quality::Bad("sentinel".into()) } else { Quality::Good };
            let told = reporter.offer(policy, value, &quality, Duration::from_secs(*second));
            assert_eq!(told, *expected, "{value:?} at {second} s");
        }
    }

    #[test]
    fn numbers_are_thinned_out() {
        use Value::{Missing, Number};
        check(
            &POLICY,
            &[
                (0, Number(21.0), Some(Why::Start)),
                (1, Number(25.0), None),
                (10, Number(25.0), Some(Why::Change)),
                (20, Number(25.4), None),
                (30, Number(25.5), Some(Why::Change)),
                (31, Missing, Some(Why::Change)),
                (32, Missing, None),
                (33, Number(25.5), Some(Why::Change)),
                (632, Number(25.5), None),
                (633, Number(25.5), Some(Why::Heartbeat)),
            ],
        );
        check(&Policy { on_change: false, ..POLICY }, &[(0, Number(1.0), Some(Why::Start)), (500, Number(9.0), None)]);
    }

    #[test]
    fn states_are_told_at_once_and_events_each_time() {
        use Value::Flag;
        let states = [
            (0, Flag(false), Some(Why::Start)),
            (1, Flag(true), Some(Why::Change)),
            (2, Flag(true), None),
            (3, Flag(false), Some(Why::Change)),
        ];
        check(&POLICY, &states);
        let event = Policy { event: true, ..POLICY };
        check(&event, &[(0, Flag(true), Some(Why::Event)), (0, Flag(true), Some(Why::Event))]);
    }

    #[test]
    fn silence_makes_the_next_value_news() {
        let mut reporter = Reporter::default();
        let offer = |reporter: &mut Reporter| {
            reporter.offer(&POLICY, &Value::Flag(true), &Quality::Good, Duration::from_secs(1))
        };
        assert_eq!(offer(&mut reporter), Some(Why::Start));
        assert_eq!(offer(&mut reporter), None);
        reporter.forget();
        assert_eq!(offer(&mut reporter), Some(Why::Start));
    }
}
