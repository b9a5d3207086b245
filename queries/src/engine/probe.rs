//! Finds out whether a detection looks ahead: whether what it finds of a time changes with what happened later.
//!
//! That a detection is causal cannot be seen from its SQL. It is tried on a made-up week of a few homes in which much happens: what was known at
//! an instant must give what the whole week gives, as far as that was raised by then. A detection that passes may still look ahead where
//! nothing of that week shows it; the tests of the ones that come along search far longer.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::finding::Finding;
use carebed_contract::id::HomeId;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;

use super::{Detection, Engine, EvaluateError, Inputs};
use crate::episodes::{Definitions, Episodes, Seen, Watch};
use crate::home::HomeFacts;

const N_HOMES: u64 = 4;
/// Steps of each home's week.
const STEPS: u64 = 400;
/// Instants at which it is tried, beside those at which something was raised.
const CUTS: u64 = 6;

/// What happens in a home: bed, device, quantity.
const HAPPENS: [(bool, &str, &str); 12] = [
    (true, "mat", "bed_occupancy"),
    (true, "mat", "bed_occupancy"),
    (true, "mat", "heart_rate"),
    (true, "mat", "respiratory_rate"),
    (false, "pir", "motion_event"),
    (false, "pir", "motion_event"),
    (false, "bath", "motion_event"),
    (false, "door", "door_open"),
    (false, "door2", "door_event"),
    (true, "button", "call_button"),
    (false, "alarm", "smoke"),
    (false, "leak", "water_leak"),
];

impl Engine {
    /// Where a detection's findings change with what happened after them; none when they do not, on a made-up week.
    ///
    /// # Errors
    /// When the detection gives no answer.
    pub async fn looks_ahead(&self, detection: &Detection) -> Result<Option<String>, EvaluateError> {
        let homes: Vec<HomeFacts> = (0..N_HOMES).filter_map(facts).collect();
        let week = week(&homes);
        let end = week.iter().map(|(_, seen)| seen.time).max().unwrap_or(start()) + Duration::from_secs(86_400);
        let whole = self.evaluate(detection, &inputs(&homes, &week, end), end).await?;
        let mut cuts: Vec<Timestamp> =
            (1..=CUTS).map(|n| start() + end.since(start()) * u32_of(n) / u32_of(CUTS + 1)).collect();
        cuts.extend(whole.iter().step_by(whole.len().div_ceil(6).max(1)).map(|finding| finding.raised_at));
        for cut in cuts {
            let known: Vec<_> = week.iter().filter(|(_, seen)| seen.time <= cut).cloned().collect();
            let found = self.evaluate(detection, &inputs(&homes, &known, cut), cut).await?;
            let of = |findings: &[Finding]| -> Vec<_> {
                let raised = findings.iter().filter(|finding| finding.raised_at <= cut);
                raised
                    .map(|f| (f.subject.clone(), f.raised_at, f.cleared_at.filter(|cleared| *cleared <= cut)))
                    .collect()
            };
            let (then, later) = (of(&found), of(&whole));
            let differs = then.iter().find(|f| !later.contains(f)).map(|f| (f, "is not found any more"));
            let differs =
                differs.or_else(|| later.iter().find(|f| !then.contains(f)).map(|f| (f, "was not found then")));
            if let Some(((subject, raised_at, _), how)) = differs {
                return Ok(Some(format!(
                    "it looks ahead: with what happened after {cut}, what it finds of {subject} at {raised_at} {how}"
                )));
            }
        }
        Ok(None)
    }
}

fn u32_of(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// 20:00 by the clock in Shanghai.
fn start() -> Timestamp {
    Timestamp::from_millis(1_772_366_400_000)
}

fn facts(number: u64) -> Option<HomeFacts> {
    let facts = HomeFacts::unregistered(HomeId::new(format!("h{number}")).ok()?, "probe".parse().ok()?);
    Some(HomeFacts { residents: if number % 4 == 3 { 2 } else { 1 }, ..facts })
}

/// The same each time: what happens when follows from its number.
fn week(homes: &[HomeFacts]) -> Vec<(HomeId, Seen)> {
    let mut happened = Vec::new();
    for (number, facts) in (0..).zip(homes) {
        let mut time = start();
        for step in 0..STEPS {
            // A linear congruential generator (Knuth's MMIX), the high bits of it.
            let random =
                (number * STEPS + step).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let random = (random ^ (random >> 29)).wrapping_mul(6_364_136_223_846_793_005) >> 33;
            time = time + Duration::from_secs(if random.is_multiple_of(5) { random % 17_000 } else { random % 1_500 });
            let place = usize::try_from(random / 7 % HAPPENS.len() as u64).unwrap_or(0);
            let Some((of_bed, device, quantity)) = HAPPENS.get(place) else { continue };
            let Some((device, quantity)) = device.parse().ok().zip(Quantity::new(quantity)) else { continue };
            let value = match quantity.as_str() {
                "heart_rate" => [50.0, 64.0, 99.0, 120.0].get(usize::try_from(random / 97 % 4).unwrap_or(0)).copied(),
                "respiratory_rate" => {
                    [8.0, 15.0, 25.0, 28.0].get(usize::try_from(random / 97 % 4).unwrap_or(0)).copied()
                }
                _ => Some(if (random / 97).is_multiple_of(2) { 1.0 } else { 0.0 }),
            };
            let bed = of_bed.then(|| format!("b{number}").parse().ok()).flatten();
            let seen =
                Seen { bed, device, room: None, quantity, time, value: value.unwrap_or(1.0), watch: Watch::Unsaid };
            happened.push((facts.home.clone(), seen));
        }
    }
    happened.sort_by_key(|(_, seen)| seen.time);
    happened
}

fn inputs(homes: &[HomeFacts], happened: &[(HomeId, Seen)], complete_to: Timestamp) -> Inputs {
    let Ok(definitions) = Definitions::builtin() else { return Inputs::empty() };
    let mut episodes = Episodes::new(Arc::new(definitions));
    for facts in homes {
        episodes.set_residents(&facts.home, facts.residents);
    }
    for (home, seen) in happened {
        episodes.push_seen(home, seen.clone());
    }
    for facts in homes {
        episodes.advance(&facts.home, complete_to);
    }
    Inputs::new(&episodes.all(), homes.iter().map(|facts| (facts, Some(complete_to))))
}
