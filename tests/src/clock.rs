//! The clock of one box under test: it shows what a test sets, in a file that is read at every look.

use std::path::{Path, PathBuf};
use std::time::Duration;

use carebed_contract::clock::{Clock, Sleep, SystemClock};
use carebed_contract::time::Timestamp;

/// The environment variable that names a box's clock file to `gateway-under-test`.
pub const CLOCK: &str = "CAREBED_TEST_CLOCK";

/// How far off a box's clock is, and whether anything keeps it right.
#[derive(Debug, Clone)]
pub struct ClockFile(PathBuf);

impl ClockFile {
    /// A clock that is right, and kept so.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = Self(path.to_owned());
        file.set(0, true)?;
        Ok(file)
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// From now on the clock is so many milliseconds ahead (behind, when negative), and somebody keeps it right or nobody
    /// does.
    pub fn set(&self, ahead_ms: i64, is_synchronised: bool) -> std::io::Result<()> {
        let next = self.0.with_extension("next");
        std::fs::write(&next, format!("{ahead_ms} {is_synchronised}"))?;
        // Whoever reads sees the one or the other.
        std::fs::rename(next, &self.0)
    }

    fn read(&self) -> Option<(i64, bool)> {
        let text = std::fs::read_to_string(&self.0).ok()?;
        let (ahead_ms, is_synchronised) = text.split_once(' ')?;
        Some((ahead_ms.parse().ok()?, is_synchronised.parse().ok()?))
    }
}

/// The box's clock.
#[derive(Debug)]
pub struct BoxClock {
    machine: SystemClock,
    file: ClockFile,
}

impl BoxClock {
    /// Goes by a file that [`ClockFile::create`] made.
    #[must_use]
    pub fn by(path: PathBuf) -> Self {
        Self { machine: SystemClock::new(), file: ClockFile(path) }
    }
}

impl Clock for BoxClock {
    fn now(&self) -> Timestamp {
        let ahead_ms = self.file.read().map_or(0, |(ahead_ms, _)| ahead_ms);
        Timestamp::from_millis(self.machine.now().millis().saturating_add(ahead_ms))
    }
    fn monotonic(&self) -> Duration {
        self.machine.monotonic()
    }
    fn is_synchronised(&self) -> Option<bool> {
        self.file.read().map(|(_, is_synchronised)| is_synchronised)
    }
    fn sleep(&self, duration: Duration) -> Sleep {
        self.machine.sleep(duration)
    }
}
