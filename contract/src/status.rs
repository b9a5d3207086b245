//! How a gateway is. JSON on `status`, retained, and the last will.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, HomeId};
use crate::time::{ClockQuality, Timestamp};

/// Whether the gateway is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayState {
    /// Connected and working.
    Online,
    /// Said goodbye.
    Stopped,
    /// The broker lost it (the last will).
    Lost,
}

/// How one device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Nothing heard yet.
    Unknown,
    /// Answers.
    Live,
    /// Has not answered for several cycles and several seconds.
    Silent,
}

/// One device's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Which.
    pub device: DeviceId,
    /// How.
    pub health: Health,
    /// Since when.
    pub since: Timestamp,
    /// When it last gave a good value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<Timestamp>,
}

/// A gateway's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether it is there.
    pub state: GatewayState,
    /// Since when.
    pub since: Timestamp,
    /// The home it serves.
    pub home: HomeId,
    /// Version of the program.
    pub software: String,
    /// Profile name → digest of its file.
    #[serde(default)]
    pub profiles: BTreeMap<String, String>,
    /// Batches not yet receipted.
    #[serde(default)]
    pub spool_batches: u64,
    /// Bytes the spool takes on disk.
    #[serde(default)]
    pub spool_bytes: u64,
    /// How far its clock can be trusted.
    #[serde(default)]
    pub clock: ClockQuality,
    /// Its devices.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
    /// What an installer should know: failed disk, new epoch, and the like; short English sentences.
    #[serde(default)]
    pub troubles: Vec<String>,
}
