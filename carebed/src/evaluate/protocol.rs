//! The protocol: what counts as a false alert, a day, a moment at home. All on a grid of minutes of one home's recording.
//!
//! Whole local days; 14 of warm-up. Stretches without any event for more than 24 h and outages (and an hour after) are left out. Somebody is taken to
//! be away from the last door event on, once 15 minutes have passed without an event inside, and for 24 hours at most. Emergencies are
//! silences that begin at a full hour at which the person is at home: the last event inside at most 3 h ago. Those whose last event is
//! at a door look like leaving and are kept apart; where a bed sensor says that the person lies in bed, so are those, which look like sleep.

#![expect(clippy::cast_precision_loss, reason = "counts of minutes, days and alerts are far below 2^52")]

use carebed_contract::quantity::Activity;
use carebed_contract::time::Timestamp;
use carebed_queries::history::Move;

/// Days at the beginning of a recording in which nothing is counted.
pub(super) const WARM_UP_DAYS: usize = 14;
/// How long a silence is watched, in minutes.
pub(super) const WATCHED: usize = 1_440;
/// Minutes in a day.
const DAY: usize = 1_440;
const MINUTE_MS: i64 = 60_000;

/// One home's recording, minute by minute of its whole days.
#[derive(Debug)]
pub(super) struct Grid {
    /// The minute (since 1970, by the home's clock at the beginning) of the first midnight.
    first: i64,
    offset_ms: i64,
    /// Of each minute: that of the last event, of the last one inside and at a door.
    pub(super) last: Vec<i64>,
    inside: Vec<i64>,
    door: Vec<i64>,
    /// Whether the person is taken to be away.
    pub(super) away: Vec<bool>,
    /// Whether nothing may be counted.
    pub(super) bad: Vec<bool>,
}

/// Silences to try.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// Minutes of the grid at which the person is at home.
    pub(super) at_home: Vec<usize>,
    /// Those whose last event is at a door.
    pub(super) door_last: Vec<usize>,
}

impl Grid {
    /// None when the recording is too thin: under a thousand minutes with events, or no whole day.
    #[must_use]
    pub(super) fn new(moves: &[Move], outages: &[(Timestamp, Timestamp)], offset_ms: i64) -> Option<Self> {
        let minute = |at: Timestamp| (at.millis() + offset_ms).div_euclid(MINUTE_MS);
        let of = |place: Activity| {
            let mut minutes: Vec<i64> = moves.iter().filter(|m| m.place == place).map(|m| minute(m.at)).collect();
            minutes.sort_unstable();
            minutes.dedup();
            minutes
        };
        let (inside, door) = (of(Activity::Inside), of(Activity::Door));
        let mut all: Vec<i64> = inside.iter().chain(&door).copied().collect();
        all.sort_unstable();
        all.dedup();
        if all.len() < 1_000 {
            return None;
        }
        let day = DAY as i64;
        let (first, end) = (all.first()? / day * day + day, all.last()? / day * day);
        let mut grid = Self {
            first,
            offset_ms,
            last: Vec::new(),
            inside: Vec::new(),
            door: Vec::new(),
            away: Vec::new(),
            bad: Vec::new(),
        };
        let before = |events: &[i64], t: i64| {
            let place = events.partition_point(|e| *e <= t);
            place.checked_sub(1).and_then(|place| events.get(place)).copied()
        };
        let outages: Vec<(i64, i64)> = outages.iter().map(|(from, to)| (minute(*from), minute(*to))).collect();
        for t in first..end {
            let last = before(&all, t)?;
            let next = all.get(all.partition_point(|e| *e <= t)).copied().unwrap_or(last);
            let in_last = before(&inside, t).unwrap_or(i64::MIN / 2);
            let at_door = before(&door, t).unwrap_or(i64::MIN / 2);
            grid.last.push(last);
            grid.inside.push(in_last);
            grid.door.push(at_door);
            grid.away.push(at_door >= in_last && (15..=day).contains(&(t - at_door)));
            grid.bad.push(next - last > day || outages.iter().any(|(from, to)| (*from..=*to + 60).contains(&t)));
        }
        Some(grid)
    }

    /// Whole days.
    #[must_use]
    pub(super) fn n_days(&self) -> usize {
        self.last.len() / DAY
    }

    /// The instant of a minute of the grid: its end, so that what happened in it has happened.
    #[must_use]
    pub(super) fn instant(&self, minute: usize) -> Timestamp {
        let minute = self.first.saturating_add_unsigned(minute as u64);
        Timestamp::from_millis((minute + 1) * MINUTE_MS - 1 - self.offset_ms)
    }

    /// Whether an alert that held from one instant to another is a false one, as the references are judged: at some whole minute of it nothing
    /// is left out and nobody is taken to be away.
    #[must_use]
    pub(super) fn is_false(&self, from: Timestamp, to: Timestamp) -> bool {
        let minute = |at: Timestamp| (at.millis() + self.offset_ms).div_euclid(MINUTE_MS) - self.first;
        let minute = |at| usize::try_from(minute(at)).unwrap_or(0);
        let is_away = |minute: usize| self.away.get(minute).copied().unwrap_or(true);
        (minute(from)..minute(to)).any(|minute| self.counts(minute) && !is_away(minute))
    }

    /// The weekday of the first day, Monday 0.
    #[must_use]
    pub(super) fn first_weekday(&self) -> usize {
        usize::try_from((self.first.div_euclid(DAY as i64) + 3).rem_euclid(7)).unwrap_or(0)
    }

    /// How long it has been quiet at a minute.
    #[must_use]
    pub(super) fn elapsed(&self, minute: usize) -> i64 {
        self.last.get(minute).map_or(0, |last| self.first.saturating_add_unsigned(minute as u64) - last)
    }

    /// Whether an alert at this minute counts.
    #[must_use]
    pub(super) fn counts(&self, minute: usize) -> bool {
        minute >= WARM_UP_DAYS * DAY && self.bad.get(minute).is_some_and(|bad| !bad)
    }

    /// Days that count.
    #[must_use]
    pub(super) fn days(&self) -> f64 {
        let minutes = (0..self.last.len()).filter(|minute| self.counts(*minute)).count();
        minutes as f64 / DAY as f64
    }

    /// Full hours at which silences are tried.
    #[must_use]
    pub(super) fn moments(&self) -> Moments {
        let mut moments = Moments::default();
        let hours = (WARM_UP_DAYS * DAY..self.last.len().saturating_sub(WATCHED + 60)).step_by(60);
        for minute in hours.filter(|minute| self.counts(*minute)) {
            let at = |events: &[i64]| events.get(minute).copied().unwrap_or(i64::MIN / 2);
            let now = self.first.saturating_add_unsigned(minute as u64);
            if at(&self.inside) < now - 180 || self.away.get(minute).copied().unwrap_or(true) {
                continue;
            }
            let door_last = at(&self.door) >= at(&self.inside);
            (if door_last { &mut moments.door_last } else { &mut moments.at_home }).push(minute);
        }
        moments
    }
}
