//! Which batch to send next. Pure; knows numbers only, neither payloads nor sockets.
//!
//! Per lane at most a window of batches and bytes is under way without a receipt. Batches go out in order; a reconnect, a timer, or
//! a receipt that asks for less than was sent goes back to the first one without a receipt. The same receipt does so only
//! once, so a centre that repeats itself cannot keep a gateway sending; then the timer does, with growing pauses.

use std::collections::VecDeque;
use std::time::Duration;

use carebed_contract::digest::Digest;
use carebed_contract::labels::Lane;
use tokio::time::Instant;

use super::backoff::Backoff;

/// How long to wait for a receipt of routine data: the centre commits every few seconds, so the shortest is a few of those.
const RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));
/// How long to wait for a receipt of a call, which the centre commits at once.
const RETRY_CALL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));

/// Distinct receipts without progress that make a lane go back; of more, the timer takes care.
const ASKED_MAX: usize = 8;

/// How much of one lane may be under way without a receipt. At either bound the lane waits for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// So many batches.
    pub batches: u64,
    /// So many bytes of payload; a single batch may be larger.
    pub bytes: u64,
}

impl Window {
    /// So many batches, and 256 KiB: what the centre and the broker have to hold of one home at most. Batches of a typical
    /// home have 300 to 500 bytes, so that 512 of them fit: at one commit every two seconds, 26,000 batches (three days
    /// offline) need less than two minutes.
    #[must_use]
    pub const fn of(batches: u64) -> Self {
        Self { batches, bytes: 256 << 10 }
    }
}

/// What is under way in both lanes.
#[derive(Debug)]
pub struct Session {
    window: Window,
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
    /// Payload bytes of each batch under way, from `receipted` to `cursor`, and their sum.
    under_way: VecDeque<u64>,
    bytes: u64,
    /// The receipts that made it go back since the last progress.
    asked: Vec<(u64, Digest)>,
    backoff: Backoff,
    retry_at: Option<Instant>,
}

impl Flow {
    fn new(base: u64, (shortest, longest): (Duration, Duration)) -> Self {
        let backoff = Backoff::new(shortest, longest);
        let (under_way, asked) = (VecDeque::new(), Vec::new());
        Self { receipted: base, cursor: base, under_way, bytes: 0, asked, backoff, retry_at: None }
    }

    fn go_back(&mut self) {
        self.cursor = self.receipted;
        self.under_way.clear();
        self.bytes = 0;
        self.retry_at = None;
    }

    /// Batches below `next` are no longer under way.
    fn advance(&mut self, next: u64) {
        for _ in self.receipted..next.min(self.cursor) {
            self.bytes -= self.under_way.pop_front().unwrap_or(0);
        }
        self.receipted = self.receipted.max(next);
        self.cursor = self.cursor.max(next);
    }
}

impl Session {
    /// Not connected yet. `base` gives the lowest batch of each lane.
    #[must_use]
    pub fn new(window: Window, base: impl Fn(Lane) -> u64) -> Self {
        let (urgent, routine) = (Flow::new(base(Lane::Urgent), RETRY_CALL), Flow::new(base(Lane::Routine), RETRY));
        let window = Window { batches: window.batches.max(1), ..window };
        Self { window, connected: false, urgent, routine }
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
            let has_room = flow.cursor < flow.receipted.saturating_add(self.window.batches)
                && (flow.bytes < self.window.bytes || flow.cursor == flow.receipted);
            let may = flow.cursor < end(lane) && has_room;
            may.then_some((lane, flow.cursor))
        })
    }

    /// The next batch of a lane, of so many bytes, was handed to the connection; `chance` is a number from 0 to 1 that
    /// spreads the timer.
    pub fn sent(&mut self, lane: Lane, bytes: u64, now: Instant, chance: f64) {
        let flow = self.flow_mut(lane);
        flow.cursor += 1;
        flow.under_way.push_back(bytes);
        flow.bytes += bytes;
        if flow.retry_at.is_none() {
            flow.retry_at = Some(now + flow.backoff.pause(chance));
        }
    }

    /// A receipt of our own batches: the centre wants `next`.
    pub fn receipted(&mut self, lane: Lane, next: u64, digest: Digest, now: Instant, chance: f64) {
        let flow = self.flow_mut(lane);
        if next > flow.receipted {
            flow.advance(next);
            flow.asked.clear();
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
        let is_new = flow.asked.len() < ASKED_MAX && !flow.asked.contains(&(next, digest));
        if flow.cursor > flow.receipted && is_new {
            flow.asked.push((next, digest));
            flow.go_back();
        }
    }

    /// Batches below `base` are gone without a receipt.
    pub fn given_up(&mut self, lane: Lane, base: u64) {
        self.flow_mut(lane).advance(base);
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

    const BYTES: u64 = 100;

    fn batches(batches: u64) -> Window {
        Window { batches, bytes: u64::MAX }
    }

    /// Sends all that may be sent while the lanes end where `ends` says.
    fn drain(session: &mut Session, ends: [u64; 2], now: Instant) -> String {
        let mut sent = Vec::new();
        while let Some((lane, seq)) = session.next(|lane| ends[usize::from(lane.code())]) {
            sent.push(format!("{}{seq}", &lane.as_str()[..1]));
            session.sent(lane, BYTES, now, 0.5);
        }
        sent.join(" ")
    }

    fn digest(n: u8) -> Digest {
        Digest::of_bytes(&[n])
    }

    #[test]
    fn calls_go_first_and_the_window_holds() {
        let now = Instant::now();
        let mut session = Session::new(batches(3), |_| 0);
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
    fn the_window_is_bounded_in_bytes_too() {
        let now = Instant::now();
        let mut session = Session::new(Window { batches: 9, bytes: 2 * BYTES + 1 }, |_| 0);
        session.connected();
        assert_eq!(drain(&mut session, [0, 9], now), "r0 r1 r2");
        session.receipted(Lane::Routine, 1, digest(1), now, 0.5);
        assert_eq!(drain(&mut session, [0, 9], now), "r3");
        session.receipted(Lane::Routine, 4, digest(4), now, 0.5);
        assert_eq!(drain(&mut session, [0, 9], now), "r4 r5 r6");
        session.given_up(Lane::Routine, 6);
        assert_eq!(drain(&mut session, [0, 9], now), "r7 r8");
        session.connected();
        assert_eq!(drain(&mut session, [0, 9], now), "r6 r7 r8");
        let mut session = Session::new(Window { batches: 9, bytes: 1 }, |_| 0);
        session.connected();
        assert_eq!(drain(&mut session, [0, 9], now), "r0", "one batch may be larger than the window");
    }

    #[test]
    fn receipts_that_take_turns_do_not_keep_it_sending() {
        let now = Instant::now();
        let mut session = Session::new(batches(3), |_| 0);
        session.connected();
        drain(&mut session, [0, 9], now);
        session.receipted(Lane::Routine, 2, digest(2), now, 0.5);
        drain(&mut session, [0, 9], now);
        let sent = (0..20).map(|turn: u64| {
            session.receipted(Lane::Routine, turn % 2, digest(u8::try_from(turn % 2).unwrap()), now, 0.5);
            drain(&mut session, [0, 9], now)
        });
        let sent: Vec<String> = sent.filter(|sent| !sent.is_empty()).collect();
        assert_eq!(sent, ["r2 r3 r4", "r2 r3 r4"], "once for each of the two");
    }

    #[test]
    fn it_goes_back_once_per_distinct_receipt_and_then_by_the_timer() {
        let now = Instant::now();
        let mut session = Session::new(batches(3), |_| 0);
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
        let mut session = Session::new(batches(2), |_| 4);
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
            let mut session = Session::new(batches(4), |_| 0);
            session.connected();
            let (end, mut taken, mut losses) = (12_u64, 0_u64, losses.into_iter());
            for _ in 0..400 {
                while let Some((lane, seq)) = session.next(|lane| if lane == Lane::Routine { end } else { 0 }) {
                    session.sent(lane, BYTES, now, 0.0);
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
