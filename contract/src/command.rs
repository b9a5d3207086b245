//! What the centre asks of a home, and what became of it. JSON on `command` and `result`.

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;
use crate::time::Timestamp;

/// Something to do in the home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Names the command in its result; the same id twice is done once.
    pub id: String,
    /// Which device.
    pub device: DeviceId,
    /// One of the actions its profile declares, e.g. `set`; or `warn`, which lets an output that can be set blink, so that
    /// who is there may move or press cancel before an alert is raised.
    pub action: String,
    /// What to set it to, e.g. `true`; for `warn` for how many seconds, 1 to 900.
    #[serde(default)]
    pub value: serde_json::Value,
    /// Not to be carried out from this time on: a lamp lit an hour late misleads.
    pub expires_at: Timestamp,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The device confirmed it.
    Done,
    /// It came too late.
    Expired,
    /// The profile or the home file does not allow it, or knows no such device or action.
    Refused,
    /// The device did not answer, or answered with an error.
    Failed,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// The command's id.
    pub id: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, when it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The gateway's time.
    pub at: Timestamp,
}
