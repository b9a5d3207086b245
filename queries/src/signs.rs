//! When gateways were heard, since when they are not, and whose clock is wrong. Pure.
//!
//! A home's data says nothing about why it stops: that its gateway is silent is only known at the centre, in the centre's time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;

use crate::episodes::Episode;

/// A gateway that was not heard for so long is silent. Gateways tell at least every minute how far they are complete; a
/// heartbeat and several retries have gone by.
pub const SILENT_AFTER: Duration = Duration::from_secs(300);

/// What a gateway said before it was lost may come so much later than its last will. Whoever is back says more soon.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// So long after a last will nobody is told yet (`detections/gateway_silent`).
const WAITED_FOR: Duration = Duration::from_secs(20);
/// A gateway's clock may be ahead of ours by so much (a proposal of ours).
pub const AHEAD_MAX: Duration = Duration::from_secs(60);
/// Data comes later than it was observed, by some minutes where it is to travel together. What is later than this by the gateway's clock is
/// either on its way from a spool or told by a clock that is behind.
pub const BEHIND_MAX: Duration = Duration::from_secs(900);
/// It is the clock, when it stays so late for so long, without a break: a spool that is emptied catches up.
const STEADY_FOR: Duration = Duration::from_secs(600);
/// No more than this earlier or later.
const STEADY_WITHIN: Duration = Duration::from_secs(120);

/// The kinds of episodes that are made here.
pub const KINDS: [&str; 3] = [SILENT, AHEAD, BEHIND];
const SILENT: &str = "gateway_silent";
const AHEAD: &str = "clock_ahead";
const BEHIND: &str = "clock_behind";

/// Past silences and wrong clocks kept per home, and how long: alerts need to see that one has ended.
const PAST_MAX: usize = 16;
const PAST_KEPT: Duration = Duration::from_secs(36 * 3_600);

/// What was heard of all gateways.
#[derive(Debug)]
pub struct Signs {
    /// Nothing can have been heard before.
    since: Timestamp,
    /// The latest that it was.
    now: Timestamp,
    homes: BTreeMap<HomeId, Sign>,
}

#[derive(Debug)]
struct Sign {
    heard_at: Timestamp,
    /// Since when it has been heard without a break.
    contact_since: Timestamp,
    /// The broker said then that it has lost the gateway.
    lost_at: Option<Timestamp>,
    /// How its clock is wrong: none, when it is not.
    wrong: Option<Past>,
    lag: Option<Lag>,
    past: Vec<Past>,
}

/// How late its data has been by its clock since then: at least and at most.
#[derive(Debug, Clone, Copy)]
struct Lag {
    since: Timestamp,
    least: Duration,
    most: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Past {
    kind: &'static str,
    started_at: Timestamp,
    known_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl Signs {
    /// Listening began at `since`: who was heard before it is given the usual time to be heard again.
    #[must_use]
    pub fn new(since: Timestamp) -> Self {
        Self { since, now: since, homes: BTreeMap::new() }
    }

    /// Whether every gateway had its time to be heard since listening began.
    #[must_use]
    pub fn are_settled(&self, now: Timestamp) -> bool {
        now.since(self.since) >= SILENT_AFTER
    }

    /// When gateways were last heard, as was noted then by the centre's clock. One that was ahead and is set back must not stand for a
    /// gateway: what was noted later than now says nothing, and what lasts counts from now.
    pub fn noted<'a>(&mut self, heard: impl IntoIterator<Item = (&'a HomeId, Timestamp)>, now: Timestamp) {
        if now < self.now {
            self.since = self.since.min(now);
            self.homes.values_mut().for_each(|sign| sign.set_back(now));
        }
        self.now = now;
        for (home, at) in heard {
            self.heard(home, if at > now { self.since } else { at });
        }
    }

    /// A gateway was heard.
    pub fn heard(&mut self, home: &HomeId, at: Timestamp) {
        let Some(sign) = self.homes.get_mut(home) else {
            let sign =
                Sign { heard_at: at, contact_since: at, lost_at: None, wrong: None, lag: None, past: Vec::new() };
            self.homes.insert(home.clone(), sign);
            return;
        };
        if at <= sign.heard_at {
            return;
        }
        if sign.lost_at.is_some_and(|lost| at <= lost + UNDER_WAY) {
            // It came before the last will, or beside it over another connection.
            return;
        }
        if let Some(silence) = sign.silence(self.since).filter(|silence| silence.known_at <= at) {
            sign.keep(Past { ended_at: Some(at), ..silence });
        }
        if sign.lost_at.is_some() || at.since(sign.heard_at) > SILENT_AFTER {
            sign.contact_since = at;
        }
        (sign.heard_at, sign.lost_at) = (at, None);
    }

    /// Since when a gateway has been heard without a break; none for one that is lost or was never heard.
    #[must_use]
    pub fn contact_since(&self, home: &HomeId) -> Option<Timestamp> {
        self.homes.get(home).filter(|sign| sign.lost_at.is_none()).map(|sign| sign.contact_since)
    }

    /// What came at `heard_at` was observed at `observed_at` by the gateway's clock.
    pub fn clock(&mut self, home: &HomeId, observed_at: Timestamp, heard_at: Timestamp) {
        let Some(sign) = self.homes.get_mut(home) else { return };
        sign.note_lag(heard_at.since(observed_at), heard_at);
        let begun = |kind, started_at| Past { kind, started_at, known_at: heard_at, ended_at: None };
        let wrong = if observed_at > heard_at + AHEAD_MAX {
            Some(begun(AHEAD, heard_at))
        } else {
            let lag = sign.lag.filter(|lag| heard_at.since(lag.since) >= STEADY_FOR);
            // What comes so late may be on its way, also from a clock that was found to be behind.
            let was_behind = sign.wrong.filter(|wrong| wrong.kind == BEHIND && sign.lag.is_some());
            was_behind.or(lag.map(|lag| begun(BEHIND, lag.since)))
        };
        let before = std::mem::replace(&mut sign.wrong, wrong);
        if let Some(before) = before {
            match &mut sign.wrong {
                Some(wrong) if wrong.kind == before.kind => *wrong = before,
                _ => sign.keep(Past { ended_at: Some(heard_at), ..before }),
            }
        }
    }

    /// The broker told a gateway's last will. Of one that was not heard since listening began it keeps that of before: nobody waits once more
    /// to see whether it is back, and when it is, its silence is over.
    pub fn lost(&mut self, home: &HomeId, at: Timestamp) {
        if let Some(sign) = self.homes.get_mut(home) {
            let at = if sign.heard_at < self.since { self.since - WAITED_FOR } else { at };
            sign.lost_at.get_or_insert(at.max(sign.heard_at));
        }
    }

    /// The silences and wrong clocks of all gateways, as far as they are known at `now`.
    #[must_use]
    pub fn episodes(&self, now: Timestamp) -> Vec<Episode> {
        let kinds = KINDS.map(|kind| (kind, Arc::<str>::from(kind)));
        let kind =
            |of: &str| kinds.iter().find(|(kind, _)| *kind == of).map(|(_, kind)| Arc::clone(kind)).unwrap_or_default();
        let mut episodes = Vec::new();
        for (home, sign) in &self.homes {
            let past = sign.past.iter().copied().chain(sign.silence(self.since)).chain(sign.wrong);
            let known = past.filter(|past| past.known_at <= now);
            episodes.extend(known.map(|silence| Episode {
                subject: format!("home/{home}").into(),
                home: home.clone(),
                bed: None,
                kind: kind(silence.kind),
                room: None,
                device: None,
                started_at: silence.started_at,
                start_known_at: silence.known_at,
                ended_at: silence.ended_at,
                end_known_at: silence.ended_at,
                revision: 0,
                attributes: None,
            }));
        }
        episodes
    }
}

impl Sign {
    fn set_back(&mut self, now: Timestamp) {
        self.heard_at = self.heard_at.min(now);
        self.contact_since = self.contact_since.min(now);
        self.lost_at = self.lost_at.map(|at| at.min(now));
        self.wrong = self.wrong.filter(|wrong| wrong.known_at <= now);
        self.lag = None;
        self.past.retain(|past| past.known_at <= now);
    }

    /// Its data is late by so much: as before, or anew. A break in contact begins it anew too, for then there is a spool to be emptied.
    fn note_lag(&mut self, late: Duration, heard_at: Timestamp) {
        let before = self.lag.filter(|lag| self.contact_since <= lag.since).map(|lag| Lag {
            least: lag.least.min(late),
            most: lag.most.max(late),
            ..lag
        });
        let steady = before.filter(|lag| lag.most - lag.least <= STEADY_WITHIN);
        self.lag = (late > BEHIND_MAX).then(|| steady.unwrap_or(Lag { since: heard_at, least: late, most: late }));
    }

    fn keep(&mut self, past: Past) {
        self.past.retain(|old| old.ended_at.zip(past.ended_at).is_some_and(|(old, new)| new.since(old) <= PAST_KEPT));
        if self.past.len() >= PAST_MAX {
            self.past.remove(0);
        }
        self.past.push(past);
    }

    /// The silence that lasts or may begin.
    fn silence(&self, since: Timestamp) -> Option<Past> {
        let by_time = self.heard_at.max(since) + SILENT_AFTER;
        let known_at = self.lost_at.map_or(by_time, |lost| lost.min(by_time));
        Some(Past { kind: SILENT, started_at: self.heard_at, known_at, ended_at: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    /// `start known..end` in seconds.
    fn told(signs: &Signs, now: i64) -> Vec<String> {
        let second = |t: Timestamp| t.millis() / 1_000;
        let line = |e: Episode| {
            let end = e.ended_at.map_or("-".to_owned(), |t| second(t).to_string());
            format!("{} {}..{end}", second(e.started_at), second(e.start_known_at))
        };
        signs.episodes(at(now)).into_iter().map(line).collect()
    }

    #[test]
    fn a_gateway_is_silent_after_five_minutes_and_at_once_by_its_last_will() {
        let home: HomeId = "h1".parse().unwrap();
        let mut signs = Signs::new(at(0));
        signs.heard(&home, at(10));
        assert_eq!(told(&signs, 309), [""; 0]);
        assert_eq!(told(&signs, 310), ["10 310..-"]);
        signs.heard(&home, at(400));
        assert_eq!(told(&signs, 401), ["10 310..400"]);
        signs.lost(&home, at(420));
        assert_eq!(told(&signs, 420), ["10 310..400", "400 420..-"]);
        signs.heard(&home, at(430));
        assert_eq!(told(&signs, 430), ["10 310..400", "400 420..430"]);
    }

    #[test]
    fn after_a_start_everybody_has_time_to_be_heard_and_a_silence_keeps_its_beginning() {
        let home: HomeId = "h1".parse().unwrap();
        let mut signs = Signs::new(at(10_000));
        signs.heard(&home, at(10));
        assert_eq!(told(&signs, 10_299), [""; 0]);
        assert!(!signs.are_settled(at(10_299)) && signs.are_settled(at(10_300)));
        assert_eq!(told(&signs, 10_300), ["10 10300..-"]);
    }

    #[test]
    fn a_clock_of_ours_that_was_ahead_hides_no_silence() {
        let (h1, h2): (HomeId, HomeId) = ("h1".parse().unwrap(), "h2".parse().unwrap());
        // Set back while the centre runs, a day ahead until then.
        let mut signs = Signs::new(at(86_400));
        signs.noted([(&h1, at(86_410)), (&h2, at(86_410))], at(86_420));
        signs.noted([(&h1, at(86_410)), (&h2, at(86_410))], at(20));
        signs.noted([(&h1, at(86_410)), (&h2, at(25))], at(30));
        assert_eq!(told(&signs, 319), [""; 0]);
        assert_eq!(told(&signs, 320), ["20 320..-"], "h1 is not heard since");
        // Set back before a restart: what is kept is of a time to come.
        let mut signs = Signs::new(at(100));
        for now in (101..400).step_by(60) {
            signs.noted([(&h1, at(86_410))], at(now));
        }
        assert_eq!(told(&signs, 400), ["100 400..-"]);
        signs.noted([(&h1, at(410))], at(411));
        assert_eq!(told(&signs, 411), ["100 400..410"]);
    }

    #[test]
    fn contact_is_broken_by_a_silence_and_by_a_last_will() {
        let home: HomeId = "h1".parse().unwrap();
        let mut signs = Signs::new(at(0));
        let since = |signs: &Signs| signs.contact_since(&home).map(|at| at.millis() / 1_000);
        assert_eq!(since(&signs), None);
        for heard in [10, 300, 610] {
            signs.heard(&home, at(heard));
        }
        assert_eq!(since(&signs), Some(610));
        signs.heard(&home, at(900));
        assert_eq!(since(&signs), Some(610));
        signs.lost(&home, at(920));
        assert_eq!(since(&signs), None);
        signs.heard(&home, at(930));
        assert_eq!(since(&signs), Some(930));
    }

    #[test]
    fn a_last_will_of_before_a_restart_is_not_waited_for_again() {
        let home: HomeId = "h1".parse().unwrap();
        let mut signs = Signs::new(at(1_000));
        signs.heard(&home, at(900));
        signs.lost(&home, at(1_001));
        assert_eq!(told(&signs, 1_001), ["900 980..-"]);
        signs.heard(&home, at(1_005));
        assert_eq!(told(&signs, 1_005), ["900 980..1005"]);
    }

    #[test]
    fn what_was_under_way_when_the_last_will_came_brings_nobody_back() {
        let home: HomeId = "h1".parse().unwrap();
        let mut signs = Signs::new(at(0));
        signs.heard(&home, at(10));
        signs.lost(&home, at(20));
        for heard in [15, 21] {
            signs.heard(&home, at(heard));
            assert_eq!(told(&signs, 30), ["10 20..-"], "heard at {heard}");
        }
        signs.heard(&home, at(23));
        assert_eq!(told(&signs, 24), ["10 20..23"]);
    }

    #[test]
    fn a_clock_more_than_a_minute_ahead_is_told_until_it_is_right() {
        let home: HomeId = "h1".parse().unwrap();
        let mut signs = Signs::new(at(0));
        signs.heard(&home, at(100));
        signs.clock(&home, at(160), at(100));
        assert_eq!(told(&signs, 100), [""; 0]);
        signs.clock(&home, at(161), at(100));
        signs.clock(&home, at(190), at(101));
        assert_eq!(told(&signs, 101), ["100 100..-"]);
        signs.clock(&home, at(190), at(130));
        assert_eq!(told(&signs, 131), ["100 100..130"]);
    }

    #[test]
    fn a_clock_that_is_behind_is_told_from_data_on_its_way() {
        let home: HomeId = "h1".parse().unwrap();
        let every_minute = |from: i64, to: i64| (from..=to).step_by(60);
        // How late its data is at a second, and what is told at the end.
        let check = |case: &str, late: &dyn Fn(i64) -> i64, breaks_at: i64, expected: &[&str]| {
            let mut signs = Signs::new(at(0));
            for second in every_minute(60, 3_600).filter(|second| *second < breaks_at || *second >= breaks_at + 400) {
                signs.heard(&home, at(second));
                signs.clock(&home, at(second - late(second)), at(second));
            }
            assert_eq!(told(&signs, 3_600), expected, "{case}");
        };
        check("behind by an hour", &|_| 3_600, 9_999, &["60 660..-"]);
        check("behind by less than data may wait", &|_| 899, 9_999, &[]);
        check("set right", &|second| if second < 1_800 { 3_600 } else { 5 }, 9_999, &["60 660..1800"]);
        check("a spool that is emptied in an hour", &|second| 7_200 - 2 * second, 9_999, &[]);
        check("a break: what was kept comes first", &|_| 3_600, 600, &["540 840..1020", "1020 1620..-"]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let home: HomeId = "h1".parse().unwrap();
        let mut signs = Signs::new(at(0));
        for outage in 0..100 {
            signs.heard(&home, at(outage * 1_000));
        }
        assert_eq!(told(&signs, 99_100).len(), PAST_MAX);
    }
}
