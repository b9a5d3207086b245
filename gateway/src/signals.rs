//! What the home itself shows of a call, whether or not the centre is reached. Pure; times are monotonic.
//!
//! An output may *answer* calls: it blinks slowly while a call is under way, quickly once the centre has it, and stays on
//! when an operator has acknowledged it (the centre sets it then, and from that moment it is the centre's). An output may
//! *sound* when a call has waited too long for the centre. Pressing the cancel button tells the centre one thing more; it
//! takes nothing back and delays nothing, but in the home it stops the sounding.
//!
//! An output may also be set by an action of the home itself ([`crate::actions`]), for some time or until it is released.
//!
//! The centre may also *warn*: some minutes before it would raise an alert because nobody moves, it lets an output blink, so
//! that who is there may move, or press cancel.

use std::time::Duration;

/// Half a period of the slow and the quick blinking.
const SLOW: Duration = Duration::from_secs(1);
const QUICK: Duration = Duration::from_millis(300);
/// Nobody acknowledged for so long: the lamp goes dark, since it would promise what does not come.
const ANSWER_MAX: Duration = Duration::from_secs(30 * 60);
/// A siren sounds no longer than this (neighbours, and its own heat).
const SOUND_MAX: Duration = Duration::from_secs(180);
/// What did not reach its output is asked again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The longest warning.
pub const WARN_MAX: Duration = Duration::from_secs(15 * 60);

/// What an output shows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// How far a call has come.
    Answer,
    /// That a call has waited so long for the centre.
    Unheard(Duration),
}

/// Where the last call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    None,
    /// Taken, and not yet with the centre, since then.
    UnderWay(Duration),
    /// With the centre, since then.
    Received(Duration),
}

/// One output.
#[derive(Debug, Clone)]
struct Lamp {
    shows: Option<Shows>,
    warning: Option<Warning>,
    /// Until when an action of the home has set it.
    acts_until: Option<Duration>,
    /// What the centre set it to since the last call or action.
    centres: Option<bool>,
    /// What was last asked of it; none: nothing by us.
    is_on: Option<bool>,
    /// What did not reach it, and when to ask again.
    failed: Option<(bool, Duration)>,
    /// What was last asked of it by us, whoever has it now.
    asked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Warning {
    since: Duration,
    until: Duration,
}

/// The signals of a home: one for each output, in the home file's order.
#[derive(Debug, Clone)]
pub struct Signals {
    call: Call,
    is_silenced: bool,
    lamps: Vec<Lamp>,
}

impl Signals {
    /// Nothing is shown yet.
    #[must_use]
    pub fn new(outputs: impl IntoIterator<Item = Option<Shows>>) -> Self {
        let lamp = |shows| Lamp {
            shows,
            warning: None,
            acts_until: None,
            centres: None,
            is_on: None,
            failed: None,
            asked: false,
        };
        Self { call: Call::None, is_silenced: false, lamps: outputs.into_iter().map(lamp).collect() }
    }

    /// Somebody called for help.
    pub fn called(&mut self, now: Duration) {
        if !matches!(self.call, Call::UnderWay(_)) {
            self.call = Call::UnderWay(now);
        }
        self.is_silenced = false;
        for lamp in &mut self.lamps {
            lamp.centres = None;
            lamp.warning = None;
        }
    }

    /// The centre has every call.
    pub fn received(&mut self, now: Duration) {
        if matches!(self.call, Call::UnderWay(_)) {
            self.call = Call::Received(now);
        }
    }

    /// Somebody pressed cancel: sounds and warnings end. Lamps go on to show how far the call has come.
    pub fn cancelled(&mut self) {
        self.is_silenced = true;
        for lamp in &mut self.lamps {
            lamp.warning = None;
        }
    }

    /// The centre set an output itself.
    pub fn set_by_centre(&mut self, output: usize, on: bool) {
        if let Some(lamp) = self.lamps.get_mut(output) {
            (lamp.centres, lamp.is_on, lamp.warning, lamp.acts_until) = (Some(on), None, None, None);
            lamp.failed = None;
        }
    }

    /// What was asked of an output last did not reach it: it is asked again, until it does or something else is to be shown.
    pub fn failed(&mut self, output: usize, now: Duration) {
        if let Some(lamp) = self.lamps.get_mut(output).filter(|lamp| lamp.is_ours_or_left()) {
            lamp.failed = Some((lamp.asked, now + AGAIN_AFTER));
        }
    }

    /// An action of the home sets an output on for so long, or until it is released.
    pub fn act(&mut self, output: usize, lasts: Option<Duration>, now: Duration) {
        if let Some(lamp) = self.lamps.get_mut(output) {
            lamp.acts_until = Some(lasts.map_or(Duration::MAX, |lasts| now.saturating_add(lasts)));
            lamp.centres = None;
        }
    }

    /// The reason of an action is over.
    pub fn release(&mut self, output: usize) {
        if let Some(lamp) = self.lamps.get_mut(output) {
            lamp.acts_until = None;
        }
    }

    /// The centre wants an output to warn for so long.
    pub fn warn(&mut self, output: usize, lasts: Duration, now: Duration) {
        if let Some(lamp) = self.lamps.get_mut(output) {
            lamp.warning = Some(Warning { since: now, until: now + lasts.min(WARN_MAX) });
        }
    }

    /// What to set now: outputs that must change, each with its new state.
    pub fn turn(&mut self, now: Duration) -> Vec<(usize, bool)> {
        let (call, is_silenced) = (self.call, self.is_silenced);
        let mut changes = Vec::new();
        for (index, lamp) in self.lamps.iter_mut().enumerate() {
            lamp.warning = lamp.warning.filter(|warning| now < warning.until);
            lamp.acts_until = lamp.acts_until.filter(|until| now < *until);
            let wanted = lamp.wanted(call, is_silenced, now);
            let change = wanted.filter(|on| lamp.is_on.unwrap_or(false) != *on);
            let again = lamp.failed.filter(|(_, at)| now >= *at).map(|(asked, _)| wanted.unwrap_or(asked));
            if let Some(on) = change.or(again) {
                (lamp.failed, lamp.asked) = (None, on);
                changes.push((index, on));
            }
            let is_ours = lamp.warning.is_some()
                || (lamp.centres.is_none() && (lamp.shows.is_some() || lamp.acts_until.is_some()));
            lamp.is_on = wanted.filter(|_| is_ours);
        }
        changes
    }

    /// How long until [`Signals::turn`] may have something to do by itself.
    #[must_use]
    pub fn due_in(&self, now: Duration) -> Option<Duration> {
        let again = self.lamps.iter().filter_map(|lamp| Some(lamp.failed?.1.saturating_sub(now)));
        self.lamps.iter().filter_map(|lamp| lamp.due_in(self.call, self.is_silenced, now)).chain(again).min()
    }
}

impl Lamp {
    /// Whether the centre has not set it since: then a failure is of something that is no longer asked.
    fn is_ours_or_left(&self) -> bool {
        self.centres.is_none() || self.is_on.is_some()
    }

    /// Whether it shall be on; none: it is not ours to say. After a warning it is left as it was.
    fn wanted(&self, call: Call, is_silenced: bool, now: Duration) -> Option<bool> {
        if let Some(Warning { since, .. }) = self.warning {
            return Some(blinks(now - since, SLOW));
        }
        if self.acts_until.is_some() {
            return Some(true);
        }
        let left_as = self.is_on.map(|_| self.centres.unwrap_or(false));
        let Some(shows) = self.shows.filter(|_| self.centres.is_none()) else { return left_as };
        let on = match (shows, call) {
            (Shows::Answer, Call::UnderWay(since)) => blinks(now - since, SLOW),
            (Shows::Answer, Call::Received(since)) => now - since < ANSWER_MAX && blinks(now - since, QUICK),
            (Shows::Unheard(after), Call::UnderWay(since)) => {
                !is_silenced && (after..after + SOUND_MAX).contains(&(now - since))
            }
            _ => false,
        };
        Some(on)
    }

    fn due_in(&self, call: Call, is_silenced: bool, now: Duration) -> Option<Duration> {
        if let Some(Warning { since, until }) = self.warning {
            return Some(turns_in(now - since, SLOW).min(until.saturating_sub(now)));
        }
        if let Some(until) = self.acts_until {
            return (until < Duration::MAX).then(|| until.saturating_sub(now));
        }
        if self.centres.is_some() {
            return None;
        }
        match (self.shows?, call) {
            (Shows::Answer, Call::UnderWay(since)) => Some(turns_in(now - since, SLOW)),
            (Shows::Answer, Call::Received(since)) if now - since < ANSWER_MAX => Some(turns_in(now - since, QUICK)),
            (Shows::Unheard(after), Call::UnderWay(since)) if !is_silenced => {
                [since + after, since + after + SOUND_MAX].into_iter().find(|at| *at > now).map(|at| at - now)
            }
            _ => None,
        }
    }
}

/// On in the first half of each period.
fn blinks(elapsed: Duration, half: Duration) -> bool {
    (elapsed.as_millis() / half.as_millis()).is_multiple_of(2)
}

fn turns_in(elapsed: Duration, half: Duration) -> Duration {
    let into = u64::try_from(elapsed.as_millis() % half.as_millis()).unwrap_or(0);
    half - Duration::from_millis(into)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAMP: usize = 0;
    const SIREN: usize = 1;

    fn home() -> Signals {
        Signals::new([Some(Shows::Answer), Some(Shows::Unheard(Duration::from_secs(20))), None])
    }

    /// Lets time pass and notes every change, as `output on/off @ seconds`.
    fn run(signals: &mut Signals, from: Duration, to: Duration) -> Vec<String> {
        let mut now = from;
        let mut changes = Vec::new();
        loop {
            for (output, on) in signals.turn(now) {
                changes.push(format!("{output} {} @ {:.1}", if on { "on" } else { "off" }, now.as_secs_f64()));
            }
            match signals.due_in(now) {
                Some(wait) if now + wait <= to => now += wait.max(Duration::from_millis(1)),
                _ => return changes,
            }
        }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lamp_shows_how_far_a_call_has_come() {
        let mut signals = home();
        assert!(run(&mut signals, secs(0), secs(9)).is_empty());
        signals.called(secs(10));
        assert_eq!(run(&mut signals, secs(10), secs(12)), ["0 on @ 10.0", "0 off @ 11.0", "0 on @ 12.0"]);
        signals.received(secs(12));
        assert_eq!(run(&mut signals, secs(12), Duration::from_millis(12_700)), ["0 off @ 12.3", "0 on @ 12.6"]);
        // The operator acknowledges: the centre lights the lamp itself, and it is not touched any more.
        signals.set_by_centre(LAMP, true);
        assert!(run(&mut signals, secs(13), secs(4000)).is_empty());
        // The next call is ours again.
        signals.called(secs(5000));
        assert_eq!(run(&mut signals, secs(5000), secs(5001)), ["0 on @ 5000.0", "0 off @ 5001.0"]);
    }

    #[test]
    fn a_lamp_does_not_promise_for_ever() {
        let mut signals = home();
        signals.called(secs(0));
        signals.received(secs(0));
        let changes = run(&mut signals, secs(0), secs(4000));
        let last: f64 = changes.last().and_then(|change| change.strip_prefix("0 off @ ")?.parse().ok()).unwrap();
        assert!((1799.0..=1800.0).contains(&last), "{last}");
    }

    #[test]
    fn a_siren_sounds_when_the_centre_is_not_reached_and_until_somebody_cancels() {
        let siren = |signals: &mut Signals, from, to| {
            let all = run(signals, secs(from), secs(to));
            all.into_iter().filter(|change| change.starts_with(&SIREN.to_string())).collect::<Vec<_>>()
        };
        let mut signals = home();
        signals.called(secs(0));
        assert_eq!(siren(&mut signals, 0, 400), ["1 on @ 20.0", "1 off @ 200.0"], "bounded");
        let mut signals = home();
        signals.called(secs(0));
        assert_eq!(siren(&mut signals, 0, 30), ["1 on @ 20.0"]);
        signals.cancelled();
        assert_eq!(siren(&mut signals, 30, 100), ["1 off @ 30.0"]);
        let mut signals = home();
        signals.called(secs(0));
        signals.received(secs(3));
        assert!(siren(&mut signals, 3, 100).is_empty(), "the centre has it");
    }

    #[test]
    fn an_action_sets_its_output_for_its_time_or_until_it_is_released() {
        let mut signals = home();
        signals.act(2, Some(secs(300)), secs(10));
        assert_eq!(run(&mut signals, secs(10), secs(900)), ["2 on @ 10.0", "2 off @ 310.0"]);
        signals.act(2, None, secs(1000));
        assert_eq!(run(&mut signals, secs(1000), secs(9000)), ["2 on @ 1000.0"]);
        signals.release(2);
        assert_eq!(run(&mut signals, secs(9000), secs(9999)), ["2 off @ 9000.0"]);
        // What the centre sets holds, until the home has a reason again.
        signals.act(2, None, secs(10_000));
        assert_eq!(run(&mut signals, secs(10_000), secs(10_000)), ["2 on @ 10000.0"]);
        signals.set_by_centre(2, false);
        assert!(run(&mut signals, secs(10_001), secs(10_002)).is_empty());
        signals.release(2);
        assert!(run(&mut signals, secs(10_003), secs(10_004)).is_empty());
    }

    #[test]
    fn what_does_not_reach_its_output_is_asked_again() {
        let mut signals = home();
        signals.called(secs(0));
        let siren = |signals: &mut Signals, from, to| {
            let all = run(signals, secs(from), secs(to));
            all.into_iter().filter(|change| change.starts_with(&SIREN.to_string())).collect::<Vec<_>>()
        };
        assert_eq!(siren(&mut signals, 0, 21), ["1 on @ 20.0"]);
        signals.failed(SIREN, secs(21));
        assert_eq!(siren(&mut signals, 21, 25), ["1 on @ 22.0"]);
        assert_eq!(siren(&mut signals, 25, 300), ["1 off @ 200.0"]);
        // Its board is away for a while.
        for at in [300, 301, 302] {
            signals.failed(SIREN, secs(at));
            assert_eq!(siren(&mut signals, at, at + 1), [format!("1 off @ {:.1}", (at + 1) as f64)]);
        }
        assert!(siren(&mut signals, 310, 400).is_empty());
        // What ended is switched off, although nothing of ours is shown any more.
        signals.act(2, Some(secs(10)), secs(500));
        let of_it = |signals: &mut Signals, from, to| {
            let all = run(signals, secs(from), secs(to));
            all.into_iter().filter(|change| change.starts_with('2')).collect::<Vec<_>>()
        };
        assert_eq!(of_it(&mut signals, 500, 520), ["2 on @ 500.0", "2 off @ 510.0"]);
        signals.failed(2, secs(520));
        assert_eq!(of_it(&mut signals, 520, 530), ["2 off @ 521.0"]);
        // What the centre sets since is the centre's.
        signals.act(2, Some(secs(10)), secs(600));
        assert_eq!(of_it(&mut signals, 600, 601), ["2 on @ 600.0"]);
        signals.set_by_centre(2, false);
        signals.failed(2, secs(602));
        assert!(of_it(&mut signals, 602, 700).is_empty());
    }

    #[test]
    fn a_warning_blinks_until_it_ends_or_is_cancelled() {
        let mut signals = home();
        signals.warn(2, secs(4), secs(0));
        assert_eq!(run(&mut signals, secs(0), secs(60)), ["2 on @ 0.0", "2 off @ 1.0", "2 on @ 2.0", "2 off @ 3.0"]);
        signals.warn(2, secs(4), secs(100));
        assert_eq!(run(&mut signals, secs(100), secs(100)), ["2 on @ 100.0"]);
        signals.cancelled();
        assert_eq!(run(&mut signals, secs(101), secs(200)), ["2 off @ 101.0"]);
        signals.warn(9, secs(4), secs(0));
    }
}
