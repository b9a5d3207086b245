//! Exit codes, in one place.

use std::process::ExitCode;

/// What was asked for cannot be: a mistake on the command line or in a file that it names.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(pub(crate) String);

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
