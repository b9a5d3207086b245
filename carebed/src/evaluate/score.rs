//! What a detector did, home by home, and what that says about homes at large.

#![expect(clippy::cast_precision_loss, reason = "counts of minutes, days and alerts are far below 2^52")]

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::references::percentile;

/// What a detector did in one home.
#[derive(Debug, Clone, Default)]
pub(super) struct Home {
    /// Alerts on unmodified days.
    pub(super) n_false: usize,
    /// Days that count.
    pub(super) days: f64,
    /// Minutes until each silence was found; none when it was not within 24 h.
    pub(super) delays: Vec<Option<f64>>,
    /// Silences whose last event was at a door, which look like leaving.
    pub(super) door_last: Apart,
    /// Silences of somebody in bed, which look like sleep.
    pub(super) in_bed: Apart,
}

/// Silences that are counted apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Apart {
    /// How many.
    pub(super) n: usize,
    /// How many were found within 24 h.
    pub(super) found: usize,
    /// How many the detection for people in bed found.
    pub(super) found_in_bed: usize,
}

/// All homes together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Score {
    /// False alerts per home-day, and its 95 % interval over homes.
    pub(super) false_per_day: f64,
    /// Lower and upper end.
    pub(super) interval: (f64, f64),
    /// The worst home's.
    pub(super) worst: f64,
    /// Mean hours until a silence is found.
    pub(super) mean: f64,
    /// The 95th percentile of the hours.
    pub(super) p95: f64,
    /// Share found within 24 h.
    pub(super) found: f64,
}

/// How often homes are drawn for the interval.
const DRAWS: usize = 2_000;

impl Score {
    /// Of these homes; `seed` makes the interval repeatable.
    #[must_use]
    pub(super) fn of(homes: &[Home], seed: u64) -> Self {
        let rate = |homes: &mut dyn Iterator<Item = &Home>| {
            let (n, days) = homes.fold((0, 0.0), |(n, days), home| (n + home.n_false, days + home.days));
            n as f64 / f64::max(days, 1.0)
        };
        let mut random = StdRng::seed_from_u64(seed);
        let draws = (0..DRAWS).map(|_| {
            let mut drawn = (0..homes.len()).filter_map(|_| homes.get(random.random_range(0..homes.len())));
            rate(&mut drawn)
        });
        let draws: Vec<f64> = draws.collect();
        let delays: Vec<f64> = homes.iter().flat_map(|home| &home.delays).flatten().copied().collect();
        let cases = homes.iter().map(|home| home.delays.len()).sum::<usize>().max(1);
        let worst = homes.iter().map(|home| rate(&mut std::iter::once(home))).fold(0.0, f64::max);
        Self {
            false_per_day: rate(&mut homes.iter()),
            interval: (percentile(draws.clone(), 2.5), percentile(draws, 97.5)),
            worst,
            mean: delays.iter().sum::<f64>() / delays.len().max(1) as f64 / 60.0,
            p95: percentile(delays.clone(), 95.0) / 60.0,
            found: delays.len() as f64 / cases as f64,
        }
    }

    /// One line of the table.
    #[must_use]
    pub(super) fn line(&self, name: &str) -> String {
        let (low, high) = self.interval;
        format!(
            "{name:<26}{:>8.4} [{low:.3}, {high:.3}]{:>8.2}{:>9.2}{:>8.1}{:>9.2}",
            self.false_per_day,
            self.worst,
            self.mean,
            self.p95,
            100.0 * self.found
        )
    }
}

/// Where a trade-off stands at so many false alerts a day: the mean hours, and how that is known.
#[must_use]
pub(super) fn at(curve: &[Score], false_per_day: f64) -> (f64, String) {
    let mut curve = curve.to_vec();
    curve.sort_by(|a, b| a.false_per_day.total_cmp(&b.false_per_day).then(b.mean.total_cmp(&a.mean)));
    // Of settings that are wrong as often the soonest counts.
    let below = curve.iter().rfind(|score| score.false_per_day <= false_per_day);
    let above = curve
        .iter()
        .filter(|score| score.false_per_day > false_per_day)
        .min_by(|a, b| a.false_per_day.total_cmp(&b.false_per_day).then(a.mean.total_cmp(&b.mean)));
    match (below, above) {
        (Some(below), Some(above)) => {
            let share = (false_per_day - below.false_per_day) / (above.false_per_day - below.false_per_day);
            let how = format!(
                "between {:.4} at {:.2} h and {:.4} at {:.2} h",
                below.false_per_day, below.mean, above.false_per_day, above.mean
            );
            (below.mean + share * (above.mean - below.mean), how)
        }
        (Some(below), None) => (below.mean, format!("no setting has more than {:.4}", below.false_per_day)),
        (None, Some(above)) => {
            (above.mean, format!("no setting comes down to it, the nearest has {:.4}", above.false_per_day))
        }
        (None, None) => (f64::NAN, "nothing was tried".to_owned()),
    }
}

/// The head of the table.
pub(super) const HEAD: &str = "                          false/day [95 % by home]   worst  mean h   P95 h  found %";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trade_off_is_read_between_its_settings() {
        let score = |(false_per_day, mean): (f64, f64)| Score {
            false_per_day,
            interval: (0.0, 0.0),
            worst: 0.0,
            mean,
            p95: 0.0,
            found: 1.0,
        };
        for (curve, says, hours) in [
            (vec![(0.01, 7.0), (0.0, 11.0), (0.05, 3.5)], "between", 9.0),
            (vec![(0.005, 8.0), (0.05, 3.5)], "between", 8.0),
            // As often wrong and sooner.
            (vec![(0.005, 8.0), (0.005, 7.5), (0.05, 3.5)], "between", 7.5),
            (vec![(0.02, 5.0), (0.05, 3.5)], "the nearest has 0.0200", 5.0),
            (vec![(0.001, 5.0)], "no setting has more", 5.0),
        ] {
            let curve: Vec<Score> = curve.into_iter().map(score).collect();
            let (mean, how) = at(&curve, 0.005);
            assert!(how.contains(says) && (mean - hours).abs() < 1e-9, "{curve:?}: {how} {mean}");
        }
    }
}
