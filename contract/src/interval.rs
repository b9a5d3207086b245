//! What people say about a stretch of a home's time: absences, visits, a stay in hospital, maintenance.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::BedId;
use crate::time::Timestamp;

/// What somebody said about a stretch of a home's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntervalKind {
    /// Nobody is at home.
    Away,
    /// Somebody from outside is there: a carer, a visitor.
    Visit,
    /// The person is in hospital.
    Hospital,
    /// Somebody works on the equipment.
    Maintenance,
}

impl IntervalKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Away, Self::Visit, Self::Hospital, Self::Maintenance];

    /// The word used in SQL and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Visit => "visit",
            Self::Hospital => "hospital",
            Self::Maintenance => "maintenance",
        }
    }

    /// How long it may last. Whoever does not say when it ends is taken to mean this, so that no suppression lasts for ever.
    #[must_use]
    pub const fn longest(self) -> Duration {
        let hours = match self {
            Self::Visit => 12,
            Self::Maintenance => 24,
            Self::Away => 24 * 30,
            Self::Hospital => 24 * 90,
        };
        Duration::from_secs(hours * 3_600)
    }

    /// How long it is taken to last when nobody says.
    #[must_use]
    pub const fn usual(self) -> Duration {
        let hours = match self {
            Self::Visit => 2,
            Self::Maintenance => 4,
            Self::Away => 24,
            Self::Hospital => 24 * 30,
        };
        Duration::from_secs(hours * 3_600)
    }
}

/// A stretch of a home's time, known since it was entered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// The bed whose person it is about; none for the whole home.
    #[serde(default)]
    pub bed: Option<BedId>,
    /// What was said.
    pub kind: IntervalKind,
    /// From here on.
    pub started_at: Timestamp,
    /// Up to here: there is always an end.
    pub ended_at: Timestamp,
    /// When it was entered: before, nobody knew.
    pub entered_at: Timestamp,
}

/// How it came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Another program said so.
    #[default]
    Api,
    /// An operator entered it on the page.
    Page,
    /// Somebody called the hotline.
    Hotline,
    /// It came with a list.
    Import,
}

impl Source {
    /// The word used in SQL and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Page => "page",
            Self::Hotline => "hotline",
            Self::Import => "import",
        }
    }
}
