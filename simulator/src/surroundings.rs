//! How warm a home is and what it draws, through a day: what a room sensor and a meter show. Pure.

use std::f64::consts::TAU;

use carebed_contract::time::Timestamp;

use crate::chance::Chance;

/// Warmest at three in the afternoon.
const WARMEST_HOUR: f64 = 15.0;
/// Beijing time; China has one.
const HOURS_EAST: f64 = 8.0;
/// A refrigerator works a third of the time, this long at once.
const FRIDGE_MINUTES: u64 = 15;

/// The surroundings at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Readings {
    /// Degrees Celsius.
    pub celsius: f64,
    /// Relative humidity in percent.
    pub percent: f64,
    /// What is drawn now, in watts.
    pub watts: f32,
    /// What was drawn since the meter was made, in kilowatt-hours.
    pub kilowatt_hours: f32,
}

/// A home's surroundings.
#[derive(Debug)]
pub struct Surroundings {
    chance: Chance,
    kilowatt_hours: f64,
    last: Option<(Timestamp, f64)>,
}

impl Surroundings {
    /// With a meter that shows so much.
    #[must_use]
    pub fn new(kilowatt_hours: f64, seed: u64) -> Self {
        Self { chance: Chance::new(seed), kilowatt_hours, last: None }
    }

    /// How things are at `now`; ask in the order of time.
    pub fn at(&mut self, now: Timestamp) -> Readings {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of this century need 41 bits")]
        let hours = now.millis() as f64 / 3.6e6 + HOURS_EAST;
        let warmth = ((hours - WARMEST_HOUR) / 24.0 * TAU).cos();
        let hour = hours.rem_euclid(24.0);
        let mut noise = |most: f64| (f64::from(self.chance.byte()) / 127.5 - 1.0) * most;
        let celsius = 21.5 + 1.8 * warmth + noise(0.3);
        let percent = 52.0 - 5.0 * warmth + noise(2.0);
        let minutes = u64::try_from(now.millis() / 60_000).unwrap_or_default();
        let fridge = if minutes % (3 * FRIDGE_MINUTES) < FRIDGE_MINUTES { 90.0 } else { 0.0 };
        let evening = if (18.0..22.5).contains(&hour) { 110.0 } else { 0.0 };
        let watts = 35.0 + fridge + evening + noise(6.0);
        if let Some((then, drawn)) = self.last {
            self.kilowatt_hours += drawn * now.since(then).as_secs_f64() / 3.6e6;
        }
        self.last = Some((now, watts));
        #[expect(clippy::cast_possible_truncation, reason = "meters show four bytes")]
        let shown = |value: f64| value as f32;
        Readings { celsius, percent, watts: shown(watts), kilowatt_hours: shown(self.kilowatt_hours) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn afternoons_are_warmer_than_nights_and_a_meter_only_rises() {
        let mut surroundings = Surroundings::new(412.0, 1);
        // 2026-05-01 00:00 in Beijing.
        let midnight = Timestamp::from_millis(1_777_564_800_000);
        let day: Vec<Readings> =
            (0..24 * 60).map(|minute| surroundings.at(midnight + Duration::from_secs(60 * minute))).collect();
        assert!(day[15 * 60].celsius > day[3 * 60].celsius + 2.0);
        assert!(day.windows(2).all(|two| two[0].kilowatt_hours <= two[1].kilowatt_hours));
        let drawn = day.last().unwrap().kilowatt_hours - 412.0;
        assert!((1.5..3.5).contains(&drawn), "{drawn} kWh in a day");
        assert!(day.iter().all(|now| now.watts > 20.0 && (40.0..65.0).contains(&now.percent)));
    }
}
