//! When gateways were heard, since when they are not, and whose clock is ahead. Pure.
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

/// The kinds of episodes that are made here.
pub const KINDS: [&str; 2] = [SILENT, AHEAD];
const SILENT: &str = "gateway_silent";
const AHEAD: &str = "clock_ahead";

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
    /// Since when its clock is ahead of ours.
    ahead_since: Option<Timestamp>,
    past: Vec<Past>,
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
            let (lost_at, ahead_since, past) = (None, None, Vec::new());
            self.homes.insert(home.clone(), Sign { heard_at: at, contact_since: at, lost_at, ahead_since, past });
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

    /// What came at `heard_at` was observed at `observed_at` by the gateway's clock. A clock behind ours looks like data on its way and is not
    /// judged; gateways learn the time from receipts.
    pub fn clock(&mut self, home: &HomeId, observed_at: Timestamp, heard_at: Timestamp) {
        let Some(sign) = self.homes.get_mut(home) else { return };
        let is_ahead = observed_at > heard_at + AHEAD_MAX;
        match sign.ahead_since {
            None if is_ahead => sign.ahead_since = Some(heard_at),
            Some(started_at) if !is_ahead => {
                sign.ahead_since = None;
                sign.keep(Past { kind: AHEAD, started_at, known_at: started_at, ended_at: Some(heard_at) });
            }
            _ => {}
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
            let ahead = sign.ahead_since.map(|at| Past { kind: AHEAD, started_at: at, known_at: at, ended_at: None });
            let past = sign.past.iter().copied().chain(sign.silence(self.since)).chain(ahead);
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
        self.ahead_since = self.ahead_since.map(|at| at.min(now));
        self.past.retain(|past| past.known_at <= now);
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
    fn what_is_kept_is_bounded() {
        let home: HomeId = "h1".parse().unwrap();
        let mut signs = Signs::new(at(0));
        for outage in 0..100 {
            signs.heard(&home, at(outage * 1_000));
        }
        assert_eq!(told(&signs, 99_100).len(), PAST_MAX);
    }
}
