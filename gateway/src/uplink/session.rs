//! Which batch to send next. Pure; knows numbers only, neither payloads nor sockets.
//!
//! Per lane at most a window of batches is under way without a receipt. Batches go out in order; a reconnect, a timer, or
//! a receipt that asks for less than was sent goes back to the first one without a receipt. The same receipt does so only
//! once, so a centre that repeats itself cannot keep a gateway sending; then the timer does, with growing pauses.

use std::time::Duration;

use carebed_contract::digest::Digest;
use carebed_contract::labels::Lane;
use tokio::time::Instant;

use super::backoff::Backoff;

/// How long to wait for a receipt of routine data: the centre commits every few seconds, so the shortest is a few of those.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));
/// How long to wait for a receipt of a call, which the centre commits at once.
const RETRY_CALL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));

/// What is under way in both lanes.
#[derive(Debug)]
pub struct Session {
    window: u64,
    connected: bool,
    urgent: Flow,
    routine: Flow,
}

#[derive(Debug)]
struct Flow {
    /// The first batch without a receipt.
    receipted: u64,
    /// The next batch to send.
    cursor: u64,
    /// The last receipt that made it go back.
    asked: Option<(u64, Digest)>,
    backoff: Backoff,
    retry_at: Option<Instant>,
}

impl Flow {
    fn new(base: u64, (shortest, longest): (Duration, Duration)) -> Self {
        let backoff = Backoff::new(shortest, longest);
        Self { receipted: base, cursor: base, asked: None, backoff, retry_at: None }
    }

    fn go_back(&mut self) {
        self.cursor = self.receipted;
        self.retry_at = None;
    }
}

impl Session {
    /// Not connected yet. `base` gives the lowest batch of each lane.
    #[must_use]
    pub fn new(window: u64, base: impl Fn(Lane) -> u64) -> Self {
        let (urgent, routine) = (Flow::new(base(Lane::Urgent), RETRY_CALL), Flow::new(base(Lane::Routine), RETRY));
        Self { window: window.max(1), connected: false, urgent, routine }
    }

    /// A new epoch: every number begins again.
    pub fn new_epoch(&mut self, base: impl Fn(Lane) -> u64) {
        *self = Self { connected: self.connected, ..Self::new(self.window, base) };
    }

    /// A new connection: what is without a receipt is sent again.
    pub fn connected(&mut self) {
        self.connected = true;
        self.urgent.go_back();
        self.routine.go_back();
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.connected = false;
        for flow in [&mut self.urgent, &mut self.routine] {
            flow.retry_at = None;
        }
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// The batch to send now, urgent ones first; `end` gives the number after the last batch of each lane.
    #[must_use]
    pub fn next(&self, end: impl Fn(Lane) -> u64) -> Option<(Lane, u64)> {
        if !self.connected {
            return None;
        }
        Lane::ALL.into_iter().find_map(|lane| {
            let flow = self.flow(lane);
            let may = flow.cursor < end(lane) && flow.cursor < flow.receipted.saturating_add(self.window);
            may.then_some((lane, flow.cursor))
        })
    }

    /// That batch was handed to the connection; `chance` is a number from 0 to 1 that spreads the timer.
    pub fn sent(&mut self, lane: Lane, seq: u64, now: Instant, chance: f64) {
        let flow = self.flow_mut(lane);
        flow.cursor = flow.cursor.max(seq.saturating_add(1));
        if flow.retry_at.is_none() {
            flow.retry_at = Some(now + flow.backoff.pause(chance));
        }
    }

    /// A receipt of our own batches: the centre wants `next`.
    pub fn receipted(&mut self, lane: Lane, next: u64, digest: Digest, now: Instant, chance: f64) {
        let flow = self.flow_mut(lane);
        if next > flow.receipted {
            flow.receipted = next;
            flow.cursor = flow.cursor.max(next);
            flow.backoff.reset();
            let under_way = flow.cursor > next;
            flow.retry_at = under_way.then(|| now + flow.backoff.pause(chance));
        } else {
            self.asked_for_less(lane, next, digest);
        }
    }

    /// A receipt that asks for what was sent before, or for what is gone: goes back, once per distinct receipt.
    pub fn asked_for_less(&mut self, lane: Lane, next: u64, digest: Digest) {
        let flow = self.flow_mut(lane);
        if flow.cursor > flow.receipted && flow.asked != Some((next, digest)) {
            flow.asked = Some((next, digest));
            flow.go_back();
        }
    }

    /// Batches below `base` are gone without a receipt.
    pub fn given_up(&mut self, lane: Lane, base: u64) {
        let flow = self.flow_mut(lane);
        flow.receipted = flow.receipted.max(base);
        flow.cursor = flow.cursor.max(base);
    }

    /// When [`Session::expire`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        [self.urgent.retry_at, self.routine.retry_at].into_iter().flatten().min()
    }

    /// Goes back in lanes that have waited too long for a receipt.
    pub fn expire(&mut self, now: Instant) {
        for flow in [&mut self.urgent, &mut self.routine] {
            if flow.retry_at.is_some_and(|at| at <= now) {
                flow.go_back();
            }
        }
    }

    fn flow(&self, lane: Lane) -> &Flow {
        match lane {
            Lane::Urgent => &self.urgent,
            Lane::Routine => &self.routine,
        }
    }

    fn flow_mut(&mut self, lane: Lane) -> &mut Flow {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Routine => &mut self.routine,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sends all that may be sent while the lanes end where `ends` says.
    fn drain(session: &mut Session, ends: [u64; 2], now: Instant) -> String {
        let mut sent = Vec::new();
        while let Some((lane, seq)) = session.next(|lane| ends[usize::from(lane.code())]) {
            sent.push(format!("{}{seq}", &lane.as_str()[..1]));
            session.sent(lane, seq, now, 0.5);
        }
        sent.join(" ")
    }

    fn digest(n: u8) -> Digest {
        Digest::of_bytes(&[n])
    }

    #[test]
    fn calls_go_first_and_the_window_holds() {
        let now = Instant::now();
        let mut session = Session::new(3, |_| 0);
        assert_eq!(drain(&mut session, [9, 9], now), "", "nothing before a connection");
        session.connected();
        assert_eq!(drain(&mut session, [1, 9], now), "u0 r0 r1 r2");
        assert_eq!(drain(&mut session, [2, 9], now), "u1");
        session.receipted(Lane::Routine, 2, digest(2), now, 0.5);
        assert_eq!(drain(&mut session, [2, 9], now), "r3 r4");
        session.disconnected();
        assert_eq!(drain(&mut session, [9, 9], now), "");
        session.connected();
        assert_eq!(drain(&mut session, [2, 9], now), "u0 u1 r2 r3 r4", "all without a receipt again");
    }

    #[test]
    fn it_goes_back_once_per_distinct_receipt_and_then_by_the_timer() {
        let now = Instant::now();
        let mut session = Session::new(3, |_| 0);
        session.connected();
        drain(&mut session, [0, 9], now);
        session.receipted(Lane::Routine, 0, Digest::ORIGIN, now, 0.5);
        assert_eq!(drain(&mut session, [0, 9], now), "r0 r1 r2");
        session.receipted(Lane::Routine, 0, Digest::ORIGIN, now, 0.5);
        assert_eq!(drain(&mut session, [0, 9], now), "", "the same receipt again");
        let due = session.due().unwrap();
        assert!(due > now + RETRY.0 && due <= now + RETRY.1);
        session.expire(due);
        assert_eq!(drain(&mut session, [0, 9], due), "r0 r1 r2");
        assert!(session.due().unwrap() > due + RETRY.0 * 2, "pauses grow");
        session.receipted(Lane::Routine, 3, digest(3), due, 0.0);
        assert_eq!(session.due(), None, "nothing under way");
        drain(&mut session, [1, 9], due);
        assert!(session.due().unwrap() <= due + RETRY_CALL.1, "a call is sent again sooner");
    }

    #[test]
    fn what_was_given_up_is_not_sent_and_a_new_epoch_begins_at_its_base() {
        let now = Instant::now();
        let mut session = Session::new(2, |_| 4);
        session.connected();
        session.given_up(Lane::Routine, 7);
        assert_eq!(drain(&mut session, [4, 9], now), "r7 r8");
        session.new_epoch(|_| 0);
        assert_eq!(drain(&mut session, [1, 1], now), "u0 r0");
    }

    proptest! {
        /// A centre that takes only the next batch, over a connection that loses and repeats, gets all of them.
        #[test]
        fn everything_arrives_in_order(losses in proptest::collection::vec(any::<(bool, bool)>(), 0..60)) {
            let mut now = Instant::now();
            let mut session = Session::new(4, |_| 0);
            session.connected();
            let (end, mut taken, mut losses) = (12_u64, 0_u64, losses.into_iter());
            for _ in 0..400 {
                while let Some((lane, seq)) = session.next(|lane| if lane == Lane::Routine { end } else { 0 }) {
                    session.sent(lane, seq, now, 0.0);
                    prop_assert!(seq < taken + 4, "beyond the window");
                    let (batch_lost, receipt_lost) = losses.next().unwrap_or_default();
                    if batch_lost {
                        continue;
                    }
                    if seq == taken {
                        taken += 1;
                    }
                    if !receipt_lost {
                        let digest = if taken == 0 { Digest::ORIGIN } else { Digest::of_bytes(&taken.to_be_bytes()) };
                        session.receipted(Lane::Routine, taken, digest, now, 0.0);
                    }
                }
                if let Some(due) = session.due() {
                    now = due;
                    session.expire(now);
                }
            }
            prop_assert_eq!(taken, end);
        }
    }
}
