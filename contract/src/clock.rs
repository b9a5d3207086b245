//! Product time: flush, escalate, retain, detect. Wire time (connect, keep-alive) is tokio's own.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;

use crate::time::Timestamp;

/// A wait that ends at a product time.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where product code gets its time from.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall time. It may be wrong and may step; never schedule by it on a gateway.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
    /// Whether something keeps the wall time right; none when nobody here can say.
    fn is_synchronised(&self) -> Option<bool>;
    /// Waits for a product duration.
    fn sleep(&self, duration: Duration) -> Sleep;
    /// Waits until a wall time has come. Returns at once when it is past.
    fn sleep_until(&self, at: Timestamp) -> Sleep {
        self.sleep(at.since(self.now()))
    }
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: tokio::time::Instant,
}

impl SystemClock {
    /// Starts counting monotonic time now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

/// The one place that reads the machine's wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock that all others are told to use")]
fn machine_now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(0) + since
}

/// The kernel's word: clear once NTP, chrony or the like steers the clock, and again set after hours without them. A time
/// restored from a file (fake-hwclock) or read from a cheap clock chip does not count.
#[cfg(target_os = "linux")]
fn machine_is_synchronised() -> Option<bool> {
    /// adjtimex(2): `TIME_ERROR`, also for `STA_UNSYNC`.
    const TIME_ERROR: i32 = 5;
    let mut ask = rtime_clock::adjtime::Timex::new();
    rtime_clock::adjtime::adjtimex(&mut ask).ok().map(|state| state != TIME_ERROR)
}

#[cfg(not(target_os = "linux"))]
fn machine_is_synchronised() -> Option<bool> {
    None
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        machine_now()
    }
    fn is_synchronised(&self) -> Option<bool> {
        machine_is_synchronised()
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that starts at a chosen time and runs `speed` times as fast as the machine's: an evening in a minute.
#[derive(Debug)]
pub struct ScaledClock {
    start: tokio::time::Instant,
    epoch: Timestamp,
    speed: u32,
}

impl ScaledClock {
    /// Runs from `epoch`; a `speed` of 0 is taken as 1.
    #[must_use]
    pub fn new(epoch: Timestamp, speed: u32) -> Self {
        Self { start: tokio::time::Instant::now(), epoch, speed: speed.max(1) }
    }

    /// How many product seconds pass in a real one.
    #[must_use]
    pub fn speed(&self) -> u32 {
        self.speed
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.monotonic()
    }
    fn is_synchronised(&self) -> Option<bool> {
        Some(true)
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed() * self.speed
    }
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration / self.speed))
    }
}

/// A clock that a test moves by hand.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<(Timestamp, Duration)>,
    synchronised: watch::Sender<Option<bool>>,
}

impl ManualClock {
    /// Stands at `now` until moved.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { now: watch::Sender::new((now, Duration::ZERO)), synchronised: watch::Sender::new(Some(true)) }
    }

    /// Moves wall and monotonic time forward together.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|(wall, monotonic)| {
            *wall = *wall + by;
            *monotonic += by;
        });
    }

    /// Steps the wall clock alone, as NTP does.
    pub fn step_wall(&self, to: Timestamp) {
        self.now.send_modify(|(wall, _)| *wall = to);
    }

    /// What [`Clock::is_synchronised`] says from now on.
    pub fn synchronise(&self, word: Option<bool>) {
        self.synchronised.send_replace(word);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.now.borrow().0
    }
    fn is_synchronised(&self) -> Option<bool> {
        *self.synchronised.borrow()
    }
    fn monotonic(&self) -> Duration {
        self.now.borrow().1
    }
    fn sleep(&self, duration: Duration) -> Sleep {
        let mut seen = self.now.subscribe();
        let until = self.monotonic() + duration;
        Box::pin(async move {
            // An error means that the clock is gone: nobody is left to wait for.
            let _gone = seen.wait_for(|(_, monotonic)| *monotonic >= until).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_moved() {
        let clock = ManualClock::new(Timestamp::from_millis(1_000));
        let sleep = clock.sleep_until(Timestamp::from_millis(61_000));
        clock.advance(Duration::from_secs(60));
        sleep.await;
        assert_eq!(clock.now(), Timestamp::from_millis(61_000));
        clock.step_wall(Timestamp::from_millis(5));
        assert_eq!((clock.now().millis(), clock.monotonic()), (5, Duration::from_secs(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_scaled_clock_runs_faster() {
        let clock = ScaledClock::new(Timestamp::from_millis(0), 60);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(120_000));
    }
}
