//! What processors spent, from `/proc`: a figure that holds on a loaded machine, too.

use std::path::Path;

/// Ticks of the counters in `/proc/*/stat` in a second: USER_HZ, which Linux gives every program as 100 (proc(5)).
const TICKS_A_SECOND: f64 = 100.0;

/// The threads that publish bear this name.
pub(super) const PUBLISHERS: &str = "publishers";

/// Seconds of processor that a run cost so far, by whom.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cpu {
    /// The broker's process.
    pub(super) broker: f64,
    /// The threads of this process that publish.
    pub(super) publishers: f64,
    /// The other threads of this process.
    pub(super) rest: f64,
}

impl Cpu {
    /// As of now.
    pub(super) fn now(broker: Option<u32>) -> Self {
        let mut cpu = Self { broker: broker.map_or(0.0, |id| spent(format!("/proc/{id}"))), ..Self::default() };
        for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let of = if name.starts_with(PUBLISHERS) { &mut cpu.publishers } else { &mut cpu.rest };
            *of += spent(task.path());
        }
        cpu
    }

    /// Since an earlier look.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            broker: self.broker - before.broker,
            publishers: self.publishers - before.publishers,
            rest: self.rest - before.rest,
        }
    }

    pub(super) fn total(self) -> f64 {
        self.broker + self.publishers + self.rest
    }
}

/// Seconds a process or thread has run, in user and kernel mode.
fn spent(place: impl AsRef<Path>) -> f64 {
    let stat = std::fs::read_to_string(place.as_ref().join("stat")).unwrap_or_default();
    // The name, in brackets, may hold anything; behind it the fields count from the third.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / TICKS_A_SECOND
}

/// How busy the machine is: the mean number of tasks of the last minute that ran or waited to.
pub(super) fn load() -> String {
    let said = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    said.split_whitespace().next().unwrap_or("?").to_owned()
}
