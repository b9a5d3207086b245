//! Exit codes, in one place.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// It failed; the message says where, why and what to do.
    Failed = 1,
    /// The command line or a configuration file is wrong (clap uses the same number).
    Usage = 2,
    /// It was done, but part of the input was refused and told.
    Refused = 3,
    /// The demo ran, but an alert it expected did not come.
    Missed = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
