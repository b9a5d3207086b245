//! Detectors from the literature under the same protocol, so that ours have something beside them: fixed limits; Cuddihy et al. 2007 (60 days,
//! 97th percentile of the quiet at the end of each half hour, widened over its neighbours); Wilhelm and Wahl 2024 (doi 10.3390/s24206583: 1.1 × the
//! smaller of the maximum and Q3 + 1.5 IQR of the last 30 days of the same class within ±1 h). Floor 2 h, cap 12 h. All cases count from the
//! data of the days before only.

#![expect(clippy::cast_precision_loss, reason = "counts of minutes, days and alerts are far below 2^52")]

use super::protocol::{Grid, Moments, WARM_UP_DAYS, WATCHED};
use super::score::Home;

/// Half hours in a day.
const SLOTS: usize = 48;
const FLOOR: f64 = 120.0;
const CAP: f64 = 720.0;

/// A detector from the literature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reference {
    /// So many hours, always.
    Fixed(f64),
    /// Cuddihy et al. 2007.
    Cuddihy,
    /// Wilhelm and Wahl 2024.
    WilhelmWahl,
}

impl Reference {
    /// Those shown.
    pub(super) const ALL: [Self; 5] =
        [Self::Fixed(12.0), Self::Fixed(8.0), Self::Fixed(4.0), Self::Cuddihy, Self::WilhelmWahl];

    /// What it is called.
    #[must_use]
    pub(super) fn name(self) -> String {
        match self {
            Self::Fixed(hours) => format!("fixed {hours} h"),
            Self::Cuddihy => "Cuddihy 2007".to_owned(),
            Self::WilhelmWahl => "Wilhelm-Wahl 2024".to_owned(),
        }
    }

    /// What it does in one home, and with silences from these moments on.
    #[must_use]
    pub(super) fn score(self, grid: &Grid, moments: &Moments) -> Home {
        let limits = self.limits(grid);
        let limit = |minute: usize| limits.get(minute / 1_440 * SLOTS + minute % 1_440 / 30).copied().unwrap_or(CAP);
        let over = |minute: usize, elapsed: i64| elapsed as f64 > limit(minute);
        let mut home = Home { days: grid.days(), ..Home::default() };
        let mut told = None;
        for minute in (0..grid.last.len()).filter(|m| grid.counts(*m)) {
            let quiet = grid.last.get(minute).copied();
            if over(minute, grid.elapsed(minute)) && !grid.away.get(minute).copied().unwrap_or(true) && told != quiet {
                told = quiet;
                home.n_false += 1;
            }
        }
        for moment in moments.at_home.iter().copied() {
            let elapsed = grid.elapsed(moment);
            let found = (0..WATCHED).find(|later| over(moment + later, elapsed.saturating_add_unsigned(*later as u64)));
            home.delays.push(found.map(|later| later as f64));
        }
        home
    }

    /// Minutes per day and half hour.
    fn limits(self, grid: &Grid) -> Vec<f64> {
        let n_days = grid.n_days();
        let mut limits = vec![CAP; n_days * SLOTS];
        let quiet = |minute: usize| {
            let masked =
                grid.bad.get(minute).copied().unwrap_or(true) || grid.away.get(minute).copied().unwrap_or(true);
            (!masked).then(|| grid.elapsed(minute) as f64)
        };
        let mut set = |day: usize, slot: usize, minutes: f64| {
            if let Some(limit) = limits.get_mut(day * SLOTS + slot) {
                *limit = minutes.clamp(FLOOR, CAP);
            }
        };
        match self {
            Self::Fixed(hours) => (0..n_days * SLOTS).for_each(|place| set(place / SLOTS, place % SLOTS, hours * 60.0)),
            Self::Cuddihy => {
                for day in WARM_UP_DAYS..n_days {
                    let m: Vec<f64> = (0..SLOTS)
                        .map(|slot| {
                            let days = day.saturating_sub(60)..day;
                            let ends: Vec<f64> = days.filter_map(|d| quiet(d * 1_440 + slot * 30 + 29)).collect();
                            if ends.len() < 5 { CAP } else { percentile(ends, 97.0) }
                        })
                        .collect();
                    for slot in 0..SLOTS {
                        let near = |by: usize| m.get((slot + SLOTS + by - 2) % SLOTS).copied().unwrap_or(CAP);
                        let weighted: f64 =
                            (0..5).zip([1.0, 2.0, 3.0, 2.0, 1.0]).map(|(by, w)| w * 0.4 * near(by)).sum();
                        let highest = (0..5).map(near).fold(0.0, f64::max);
                        set(day, slot, highest + 0.3 * near(2) + weighted / 9.0);
                    }
                }
            }
            Self::WilhelmWahl => {
                let highest: Vec<Option<f64>> = (0..n_days * SLOTS)
                    .map(|place| {
                        let (day, slot) = (place / SLOTS, place % SLOTS);
                        // An hour to both sides of the half hour's middle, around the clock of that day.
                        let minutes = (0..120).map(|m| day * 1_440 + (slot * 30 + 1_440 - 45 + m) % 1_440);
                        minutes.filter_map(quiet).reduce(f64::max)
                    })
                    .collect();
                let first_weekday = grid.first_weekday();
                let weekend = |day: usize| (first_weekday + day) % 7 >= 5;
                for day in WARM_UP_DAYS..n_days {
                    for slot in 0..SLOTS {
                        let days = (day.saturating_sub(30)..day).filter(|d| weekend(*d) == weekend(day));
                        let values: Vec<f64> =
                            days.filter_map(|d| highest.get(d * SLOTS + slot).copied().flatten()).collect();
                        if values.len() < 3 {
                            continue;
                        }
                        let (q1, q3) = (percentile(values.clone(), 25.0), percentile(values.clone(), 75.0));
                        let most = values.iter().copied().fold(0.0, f64::max);
                        set(day, slot, 1.1 * most.min(q3 + 1.5 * (q3 - q1)));
                    }
                }
            }
        }
        limits
    }
}

/// With linear interpolation between the two nearest; 0 of nothing.
pub(super) fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = percent / 100.0 * values.len().saturating_sub(1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place within the values")]
    let low = place.floor() as usize;
    let at = |place: usize| values.get(place).or(values.last()).copied().unwrap_or(0.0);
    at(low) + (at(low + 1) - at(low)) * (place - place.floor())
}
