//! When to ask which device what. Pure; times are wire time since an arbitrary start.
//!
//! Devices that answer are asked by deadline. A device that failed twice in a row is asked one thing once a second at most,
//! its cheapest, and lets others go first; one that has never answered so far, from its first failure on. So a start on a bus
//! with dead devices costs the others one time-out of each. Once a device has failed for three seconds as well
//! (wb-mqtt-serial's figures) its circuit is open: it is probed only when nobody who answers has to wait for it, or out of a
//! small share of the line's time. So however many are dead, the others keep their rate.

use std::time::Duration;

/// A failing device is asked at most this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A circuit opens after a device has failed for this long …
pub(crate) const OPEN_AFTER: Duration = Duration::from_secs(3);
/// … and in so many cycles.
pub(crate) const OPEN_CYCLES: u32 = 2;
/// How many times longer a device waits that did not answer last time.
const DOUBT: f64 = 16.0;
/// Probes that make others wait may take one part in this many of the line's time.
const PROBE_SHARE: u32 = 32;

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// The answer.
    Answer,
    /// The device's word that it does not answer this: it is there.
    Refusal,
    /// Nothing that can be used.
    Nothing,
}

/// One thing that one device is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Which device of the link.
    pub(super) device: usize,
    /// Which block of its plan.
    pub(super) block: usize,
    every: Duration,
    due: Duration,
    /// When it was asked last.
    asked: Duration,
}

/// How one device fares.
#[derive(Debug, Clone, Copy)]
struct Course {
    /// What asking in vain costs.
    cost: Duration,
    failed: Option<Failed>,
    /// Whether it answered when it was asked last.
    answers: bool,
    /// Whether it ever answered.
    has_answered: bool,
    /// Not asked before.
    not_before: Duration,
}

impl Course {
    fn failing(&self) -> Option<Failed> {
        self.failed.filter(|failed| !self.has_answered || failed.cycles >= OPEN_CYCLES)
    }

    /// Counted by what was asked in vain, not by the time since: so that the silence is noticed in time.
    fn is_open(&self) -> bool {
        self.failing().is_some_and(|failed| failed.last.saturating_sub(failed.since) >= OPEN_AFTER)
    }
}

/// How long a device has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    /// Cycles in a row.
    pub(super) cycles: u32,
    /// When the first of them ended.
    pub(super) since: Duration,
    /// When the last of them ended.
    pub(super) last: Duration,
}

/// What one link asks.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    courses: Vec<Course>,
    slots: Vec<Slot>,
    /// Before this no probe may make others wait.
    probe_from: Duration,
}

impl Schedule {
    /// One more device; `cost` is what asking it in vain takes.
    pub(super) fn add_device(&mut self, cost: Duration) -> usize {
        self.courses.push(Course {
            cost,
            failed: None,
            answers: false,
            has_answered: false,
            not_before: Duration::ZERO,
        });
        self.courses.len() - 1
    }

    /// Sets what a device is asked: how often each block, the cheapest first. All of it is due at once.
    pub(super) fn plan(&mut self, device: usize, blocks: impl IntoIterator<Item = Duration>, now: Duration) {
        self.slots.retain(|slot| slot.device != device);
        let slot = |(block, every)| Slot { device, block, every, due: now, asked: now };
        self.slots.extend(blocks.into_iter().enumerate().map(slot));
    }

    /// What is asked next, and when. `ready` says from when on a slot may be asked on the wire.
    pub(super) fn next(&self, now: Duration, ready: impl Fn(Slot) -> Duration) -> Option<(Slot, Duration)> {
        let course = |slot: &Slot| self.courses.get(slot.device).copied();
        let well = self.slots.iter().filter_map(|slot| {
            let course = course(slot).filter(|course| course.failing().is_none())?;
            Some((*slot, slot.due.max(course.not_before).max(ready(*slot))))
        });
        // Of those that may be asked now, the one that has waited longest for its period, so that a line with too much to
        // do slows all of them alike; else the one that may be asked first. Who did not answer last time counts less: it
        // may well cost its time-out again.
        let waited = |slot: &Slot| {
            let periods = now.saturating_sub(slot.asked).as_secs_f64() / slot.every.as_secs_f64().max(1e-3);
            if course(slot).is_some_and(|course| course.answers) { periods } else { periods / DOUBT }
        };
        let well = well.min_by(|(one, one_at), (two, two_at)| match (*one_at <= now, *two_at <= now) {
            (true, true) => waited(two).total_cmp(&waited(one)).then(one.due.cmp(&two.due)),
            _ => one_at.cmp(two_at),
        });
        let probes = self.courses.iter().enumerate().filter_map(|(device, course)| {
            course.failing()?;
            let mut slots = self.slots.iter().filter(|slot| slot.device == device);
            // Of a device that never answered nobody knows which of its blocks it has.
            let slot = *if course.has_answered { slots.next() } else { slots.min_by_key(|slot| slot.due) }?;
            let at = course.not_before.max(ready(slot));
            let may_begin = at.max(now);
            let is_free = well.is_none_or(|(_, well)| well >= may_begin + course.cost);
            // Until it is known to be dead it only lets go first who is due.
            let is_short = !course.is_open() && well.is_some_and(|(_, well)| well > may_begin);
            let at = if is_free || is_short { at } else { at.max(self.probe_from) };
            Some((slot, at, course.not_before))
        });
        let probe = probes.min_by_key(|(_, at, waits_since)| (*at, *waits_since)).map(|(slot, at, _)| (slot, at));
        match (well, probe) {
            (Some(well), Some(probe)) => Some(if probe.1 < well.1.max(now) { probe } else { well }),
            (well, probe) => well.or(probe),
        }
    }

    /// Whether a device's circuit is open.
    pub(super) fn is_given_up(&self, device: usize) -> bool {
        self.courses.get(device).is_some_and(Course::is_open)
    }

    /// A slot was asked from `began` to `now`. What was missed meanwhile is left out: after a stall there is one poll, not
    /// a burst. The device needs `gap` before it is asked again. Returns how it fares.
    pub(super) fn done(
        &mut self,
        asked: Slot,
        began: Duration,
        now: Duration,
        came: Came,
        gap: Duration,
    ) -> Option<Failed> {
        let answered = came == Came::Answer;
        let course = self.courses.get_mut(asked.device)?;
        let was_failing = course.failing().is_some();
        (course.not_before, course.answers) = (now + gap, answered);
        course.has_answered |= came != Came::Nothing;
        if answered {
            course.failed = None;
        } else {
            let Failed { cycles, since, .. } = course.failed.unwrap_or(Failed { cycles: 0, since: now, last: now });
            let failed = Failed { cycles: cycles.saturating_add(1), since, last: now };
            course.failed = Some(failed);
            if course.failing().is_some() {
                course.not_before = now + gap.max(asked.every.max(PROBE_EVERY).saturating_sub(now - began));
            }
        }
        if was_failing {
            self.probe_from = now + (now - began) * (PROBE_SHARE - 1);
        }
        let failed = course.failed;
        if let Some(slot) = self.slots.iter_mut().find(|s| (s.device, s.block) == (asked.device, asked.block)) {
            slot.asked = began;
            let every = slot.every.max(Duration::from_millis(1));
            let missed = now.saturating_sub(slot.due).as_nanos() / every.as_nanos();
            slot.due += every * u32::try_from(missed + 1).unwrap_or(u32::MAX);
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn schedule(devices: &[(u64, &[u64])]) -> Schedule {
        let mut schedule = Schedule::default();
        for (cost, blocks) in devices {
            let device = schedule.add_device(MS(*cost));
            schedule.plan(device, blocks.iter().map(|every| MS(*every)), Duration::ZERO);
        }
        schedule
    }

    #[test]
    fn polls_keep_their_beat_and_a_stall_costs_no_burst() {
        let mut schedule = schedule(&[(500, &[20]), (500, &[100])]);
        let mut asked = Vec::new();
        // Ends of polls: a stall of a second after 30 ms.
        let mut began = Duration::ZERO;
        for now in [1, 2, 21, 1_000, 1_001, 1_020] {
            let (slot, _) = schedule.next(began, |_| Duration::ZERO).unwrap();
            asked.push((slot.device, slot.due));
            began = MS(now);
            schedule.done(slot, began, began, Came::Answer, Duration::ZERO);
        }
        let expected = [(0, 0), (1, 0), (0, 20), (0, 40), (1, 100), (0, 1_020)];
        assert_eq!(asked, expected.map(|(device, due)| (device, MS(due))));
        assert_eq!(schedule.next(began, |_| Duration::ZERO).unwrap().1, MS(1_040));
    }

    /// Plays on a line where an answer takes 30 ms and every dead device its whole timeout. Returns how often each device
    /// was asked between two seconds.
    fn play(n_devices: usize, n_dead: usize, every: u64, timeout: u64, span: std::ops::Range<u64>) -> Vec<u64> {
        let mut schedule = schedule(&vec![(timeout, &[every][..]); n_devices]);
        let mut asked = vec![0; n_devices];
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(span.end) {
            let (slot, at) = schedule.next(now, |_| Duration::ZERO).unwrap();
            let began = now.max(at);
            let dead = slot.device < n_dead;
            now = began + MS(if dead { timeout } else { 30 });
            schedule.done(slot, began, now, if dead { Came::Nothing } else { Came::Answer }, Duration::ZERO);
            if began >= Duration::from_secs(span.start) {
                asked[slot.device] += 1;
            }
        }
        asked
    }

    #[test]
    fn the_dead_take_nothing_from_the_living() {
        for (n_devices, every) in [(3, 1_000), (8, 1_000), (20, 1_000), (8, 100), (32, 1_000)] {
            let whole = play(n_devices, 0, every, 200, 120..600);
            for n_dead in [1, n_devices / 2, n_devices - 1] {
                let asked = play(n_devices, n_dead, every, 200, 120..600);
                for device in n_dead..n_devices {
                    let kept = asked[device] as f64 / whole[device] as f64;
                    assert!(kept > 0.95, "{n_dead} of {n_devices} dead, every {every} ms: {kept}");
                }
                // And the dead are not forgotten: each is asked again and again.
                assert!(asked[..n_dead].iter().all(|n| *n >= 2), "{n_dead} of {n_devices}: {asked:?}");
            }
        }
    }

    /// Also after a start, when nobody has answered yet and the dead come first: each costs one time-out, once.
    #[test]
    fn a_start_among_the_dead_costs_the_living_one_time_out_of_each() {
        for n_dead in 1..10 {
            let asked = play(10, n_dead, 1_000, 520, 0..30);
            let lost = (n_dead as u64 * 520).div_ceil(1_000);
            assert!(asked[n_dead..].iter().all(|n| *n >= 30 - lost), "{n_dead} dead: {asked:?}");
            assert!(asked[..n_dead].iter().all(|n| *n >= 2), "{n_dead} dead: {asked:?}");
        }
    }

    #[test]
    fn a_device_that_fails_is_asked_one_thing_and_comes_back_whole() {
        let mut schedule = schedule(&[(200, &[1_000, 500, 500])]);
        let mut now = Duration::ZERO;
        let mut asked = Vec::new();
        for cycle in 1..10 {
            let (slot, at) = schedule.next(now, |_| Duration::ZERO).unwrap();
            let began = now.max(at);
            asked.push((slot.block, began));
            now = began + MS(200);
            let failed = schedule.done(slot, began, now, Came::Nothing, Duration::ZERO);
            assert_eq!(failed, Some(Failed { cycles: cycle, since: MS(200), last: now }));
        }
        let blocks = asked.iter().map(|(block, _)| *block).collect::<Vec<_>>();
        assert_eq!(blocks[..4], [0, 1, 2, 0], "nobody knows yet which of them it has");
        let times: Vec<Duration> = asked.iter().map(|(_, began)| *began).collect();
        assert_eq!(times[..4], [0, 1_000, 2_000, 3_000].map(MS));
        let (slot, at) = schedule.next(now, |_| Duration::ZERO).unwrap();
        schedule.done(slot, at, at, Came::Answer, Duration::ZERO);
        let mut blocks = Vec::new();
        for _ in 0..3 {
            let (slot, _) = schedule.next(at, |_| Duration::ZERO).unwrap();
            blocks.push(slot.block);
            schedule.done(slot, at, at, Came::Answer, Duration::ZERO);
        }
        blocks.sort_unstable();
        assert_eq!(blocks[1..], [1, 2], "everything is asked again");
    }

    #[test]
    fn what_may_not_be_asked_yet_lets_others_go_first() {
        let mut schedule = schedule(&[(200, &[100]), (200, &[100])]);
        let ready = |slot: Slot| if slot.device == 0 { MS(70) } else { Duration::ZERO };
        let (slot, at) = schedule.next(Duration::ZERO, ready).unwrap();
        assert_eq!((slot.device, at), (1, Duration::ZERO));
        schedule.done(slot, MS(0), MS(30), Came::Answer, MS(200));
        let (slot, at) = schedule.next(MS(30), ready).unwrap();
        assert_eq!((slot.device, at), (0, MS(70)));
        schedule.done(slot, MS(70), MS(100), Came::Answer, Duration::ZERO);
        let (slot, at) = schedule.next(MS(100), ready).unwrap();
        assert_eq!((slot.device, at), (0, MS(200)), "the other one needs its pause");
    }
}
