//! What a detection found: one row that it returned.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Area, BedId, DeviceId, HomeId};
use crate::time::Timestamp;

/// The evidence name by which it is said that an absence, a visit or the like explains a finding. It is ignored for what
/// nothing suppresses.
pub const SUPPRESSED_BY: &str = "suppressed_by";

/// Whom or what a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A bed and its person.
    Bed(BedId),
    /// A whole home.
    Home(HomeId),
    /// A device in a home.
    Device {
        /// The home.
        home: HomeId,
        /// The device.
        device: DeviceId,
    },
    /// All homes of an area.
    Area(Area),
    /// A part of the service centre itself.
    Centre(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bed(bed) => write!(f, "bed/{bed}"),
            Self::Home(home) => write!(f, "home/{home}"),
            Self::Device { home, device } => write!(f, "device/{home}/{device}"),
            Self::Area(area) => write!(f, "area/{area}"),
            Self::Centre(part) => write!(f, "centre/{part}"),
        }
    }
}

/// How pressing an alert is (domain: P1 at once, P2 within five minutes, P3 in the same shift, P4 in the daily list).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// At once.
    P1,
    /// Within five minutes.
    P2,
    /// In the same shift.
    P3,
    /// Daily list.
    P4,
}

impl Priority {
    /// `P1` … `P4`
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P1 => "P1",
            Self::P2 => "P2",
            Self::P3 => "P3",
            Self::P4 => "P4",
        }
    }
}

/// About the person, or about the equipment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// About the person.
    Care,
    /// About the equipment.
    Technical,
}

/// One row a detection returned: from `raised_at` until `cleared_at` something was so that a person should know.
///
/// A detection returns the same finding again and again while it holds; (detection, subject, raised_at) names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The detection's name, e.g. `bed_exit_no_return`.
    pub detection: String,
    /// About whom.
    pub subject: Subject,
    /// The home it is in; for what is about an area, the first home concerned.
    pub home: HomeId,
    /// Where that home's gateway was enrolled.
    pub area: Area,
    /// When it could be said, in event time: never earlier than what it rests on could be known.
    pub raised_at: Timestamp,
    /// When it was over, or none while it holds.
    pub cleared_at: Option<Timestamp>,
    /// The numbers and times that the wording and the explanation use; a JSON object.
    pub evidence: serde_json::Map<String, serde_json::Value>,
}
