//! What is where in a home. JSON on `inventory`, retained; made from the home file.

use serde::{Deserialize, Serialize};

use crate::id::{Area, BedId, DeviceId, GatewayId, HomeId, Room};
use crate::quantity::Quantity;
use crate::time::Timestamp;

/// A home as its gateway describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Digest of the home file it was made from: a changed file is a new version.
    pub version: String,
    /// Since when the gateway uses this version.
    pub since: Timestamp,
    /// Where the gateway was enrolled.
    pub area: Area,
    /// The gateway.
    pub gateway: GatewayId,
    /// The home.
    pub home: HomeId,
    /// IANA time zone of the home's local days.
    pub time_zone: String,
    /// How many people live there; detections grow careful above one.
    pub residents: u8,
    /// Rooms.
    pub rooms: Vec<Room>,
    /// Beds and the room each stands in.
    pub beds: Vec<InventoryBed>,
    /// Devices, one per thing that observes or acts.
    pub devices: Vec<InventoryDevice>,
    /// Classes of quantities that the people of the home did not agree to send: their absence is no fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<String>,
}

/// A bed and its room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryBed {
    /// The bed.
    pub id: BedId,
    /// Where it stands.
    pub room: Room,
}

/// A device and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryDevice {
    /// The device.
    pub id: DeviceId,
    /// The bed it belongs to, or none for the whole home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bed: Option<BedId>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    /// The profile that says how it talks.
    pub profile: String,
    /// What it observes.
    pub quantities: Vec<Quantity>,
    /// What it can be told to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
}
