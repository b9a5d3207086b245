//! What the centre asks of a home, and what became of it. JSON on `command` and `result`.

use serde::{Deserialize, Serialize};

use crate::id::{BedId, DeviceId, HomeId};
use crate::record::{Record, RecordTime};
use crate::time::Timestamp;

/// The action by which a centre orders a gateway to forget what an erasure covers: the command's value is a [`Purge`], its
/// device [`SPOOL`].
pub const ACTION_PURGE: &str = "purge";
/// Stands for the gateway's own spool where a command names a device.
pub const SPOOL: &str = "spool";

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
    /// It was sent to the device, which did not say before the command expired that it did it. Nobody knows.
    Unconfirmed,
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

/// Whose observations a gateway is to take out of its spool: all that a home, or one bed in it, observed in a stretch of event
/// time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// The home.
    pub home: HomeId,
    /// The bed; none: the whole home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bed: Option<BedId>,
    /// From this event time on; none: from the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Up to this event time, without it.
    pub until: Timestamp,
}

impl Purge {
    /// Whether a record is to go. Of one without a time of its own nobody knows yet: it stays, and the centre judges it when it
    /// comes.
    #[must_use]
    pub fn covers(&self, record: &Record) -> bool {
        let RecordTime::At(at) = record.time else { return false };
        record.series.home == self.home
            && (self.bed.is_none() || record.series.bed == self.bed)
            && self.from.is_none_or(|from| from <= at)
            && at < self.until
    }
}
