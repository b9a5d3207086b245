//! What detections know about a home besides its observations.

use carebed_contract::id::{Area, BedId, HomeId};
pub use carebed_contract::interval::{Interval, IntervalKind};
use carebed_contract::time::Timestamp;
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer};

/// Where a home lies when nobody has said.
pub const TIME_ZONE_DEFAULT: Tz = chrono_tz::Asia::Shanghai;

/// A home's facts, as the registry (or, for imports, a TOML file) gives them. No personal data.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HomeFacts {
    /// The home.
    pub home: HomeId,
    /// Where its gateway was enrolled.
    pub area: Area,
    /// IANA time zone of its local days.
    #[serde(default = "time_zone_default", deserialize_with = "time_zone")]
    pub time_zone: Tz,
    /// How many people live there.
    #[serde(default = "one")]
    pub residents: u8,
    /// Its monitored beds.
    #[serde(default)]
    pub beds: Vec<BedId>,
    /// Where detections are to use other numbers than their own.
    #[serde(default)]
    pub params: Vec<Param>,
    /// Absences, visits and the like that somebody said.
    #[serde(default)]
    pub intervals: Vec<Interval>,
    /// What really was the matter. It keeps nothing quiet, and it is nothing usual: baselines learn nothing from it. In the table `intervals`
    /// these are of the kind `incident`.
    #[serde(default)]
    pub incidents: Vec<Incident>,
}

/// An alert that turned out to be so.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// The bed, where it was about one.
    pub bed: Option<BedId>,
    /// When it was raised.
    pub started_at: Timestamp,
    /// When it was resolved.
    pub ended_at: Timestamp,
    /// When somebody said that it was so.
    pub entered_at: Timestamp,
}

/// A home's own number for a detection.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Param {
    /// The detection's name.
    pub detection: String,
    /// Which of its numbers, as its SQL calls it.
    pub key: String,
    /// The number.
    pub value: f64,
}

impl HomeFacts {
    /// A home that nobody has registered: a call from it must ring all the same.
    #[must_use]
    pub fn unregistered(home: HomeId, area: Area) -> Self {
        Self {
            home,
            area,
            time_zone: TIME_ZONE_DEFAULT,
            residents: 1,
            beds: Vec::new(),
            params: Vec::new(),
            intervals: Vec::new(),
            incidents: Vec::new(),
        }
    }
}

fn time_zone_default() -> Tz {
    TIME_ZONE_DEFAULT
}

fn one() -> u8 {
    1
}

fn time_zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse()
        .map_err(|_| serde::de::Error::custom(format!("{name:?} is not an IANA time zone, as in Asia/Shanghai")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_from_toml_with_defaults() {
        let facts: HomeFacts = toml::from_str("home = 'h1'\narea = '360702'").unwrap();
        assert_eq!(facts, HomeFacts::unregistered(HomeId::new("h1").unwrap(), Area::new("360702").unwrap()));
        let wrong = toml::from_str::<HomeFacts>("home = 'h1'\narea = '1'\ntime_zone = 'Mars/Base'").unwrap_err();
        assert!(wrong.to_string().contains("IANA"), "{wrong}");
    }
}
