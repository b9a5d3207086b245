//! What one person's days are like.

use std::time::Duration;

use carebed_contract::time::Timestamp;
use chrono::{Days, NaiveDate, NaiveTime, TimeZone};
use chrono_tz::Tz;

use crate::chance::Chance;

/// One person's habits. Each day varies around them.
#[derive(Debug, Clone, PartialEq)]
pub struct Habits {
    /// Where the clock on the wall hangs.
    pub time_zone: Tz,
    /// When the person goes to bed, since local midnight of the day; over 24 h is past midnight. Varies by 25 minutes.
    pub bedtime: Duration,
    /// When the person gets up, since local midnight. Varies by 25 minutes.
    pub rise: Duration,
    /// How often nights have 0, 1, 2 and 3 toilet visits, as weights.
    pub night_visits: [u32; 4],
    /// Probability of a nap in bed after lunch.
    pub nap: f64,
    /// Probability of going out in the morning, and in the afternoon.
    pub outings: [f64; 2],
    /// How often the mat drops out, an hour of lying still; four times as often while restless. Each drop-out of 1 to
    /// 20 s is two edges. The mats of two recorded homes gave 173 and 1,020 edges a night; the default is a good mat.
    pub mat_dropouts_per_hour: f64,
}

const fn at(hours: u64, minutes: u64) -> Duration {
    Duration::from_secs((hours * 60 + minutes) * 60)
}

impl Habits {
    /// A person drawn from a seed: to bed between 21:00 and 22:45, up 7 to 8½ h later, most with a nap and outings.
    #[must_use]
    pub fn of_seed(seed: u64, time_zone: Tz) -> Self {
        let mut chance = Chance::new(seed);
        let bedtime = chance.between(at(21, 0), at(22, 45));
        let rise = (bedtime + chance.between(at(7, 0), at(8, 30))).saturating_sub(at(24, 0));
        let night_visits =
            chance.one_of(&[([5, 4, 1, 0], 3), ([2, 5, 3, 1], 4), ([1, 2, 4, 3], 3)]).unwrap_or([1, 1, 1, 1]);
        let share = |chance: &mut Chance| chance.between(Duration::ZERO, Duration::from_secs(1)).as_secs_f64();
        Self {
            time_zone,
            bedtime,
            rise,
            night_visits,
            nap: share(&mut chance),
            outings: [0.2 + 0.6 * share(&mut chance), 0.1 + 0.5 * share(&mut chance)],
            mat_dropouts_per_hour: 1.0 + 3.0 * share(&mut chance),
        }
    }

    /// The point in time of a wall clock reading on a local day. In the hour that summer time skips, an hour later; in
    /// the one that it repeats, the first.
    #[must_use]
    pub fn at(&self, day: NaiveDate, since_midnight: Duration) -> Timestamp {
        let wall = day.and_time(NaiveTime::MIN) + since_midnight;
        let found = self.time_zone.from_local_datetime(&wall).earliest();
        let found = found.or_else(|| self.time_zone.from_local_datetime(&(wall + at(1, 0))).earliest());
        // A zone that skips more than an hour (one changed sides of the date line) reads as UTC.
        Timestamp::from_millis(found.map_or(wall.and_utc().timestamp_millis(), |time| time.timestamp_millis()))
    }

    /// The local day of a point in time.
    #[must_use]
    pub fn day(&self, time: Timestamp) -> NaiveDate {
        let utc = chrono::DateTime::from_timestamp_millis(time.millis()).unwrap_or_default();
        utc.with_timezone(&self.time_zone).date_naive()
    }

    /// The day before a local day.
    #[must_use]
    pub(crate) fn day_before(&self, time: Timestamp) -> NaiveDate {
        let day = self.day(time);
        day.checked_sub_days(Days::new(1)).unwrap_or(day)
    }
}
