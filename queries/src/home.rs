//! What detections know about a home besides its observations.

use carebed_contract::finding::{Class, Priority};
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
    /// How its alerts went: the table `alert_times`. Those about the person that turned out to be so are nothing usual, and baselines learn
    /// nothing from them: in the table `intervals` they are of the kind `incident`.
    #[serde(default)]
    pub alerts: Vec<AlertTimes>,
    /// From when to when nothing that it observed arrived, and is lost: of a recording whose platform was down. (A gateway of ours keeps it.)
    #[serde(skip)]
    pub outages: Vec<(Timestamp, Timestamp)>,
}

/// How an alert went.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertTimes {
    /// Which detection found it.
    pub detection: String,
    /// The bed, where it was about one.
    pub bed: Option<BedId>,
    /// About the person, or about the equipment.
    pub class: Class,
    /// How pressing it was at first.
    pub priority: Priority,
    /// When the condition began, in event time.
    pub raised_at: Timestamp,
    /// When people were first told.
    pub rang_at: Option<Timestamp>,
    /// When an operator said that they see it.
    pub acknowledged_at: Option<Timestamp>,
    /// When a responder was sent.
    pub dispatched_at: Option<Timestamp>,
    /// When the responder was there.
    pub arrived_at: Option<Timestamp>,
    /// When it was done.
    pub resolved_at: Option<Timestamp>,
    /// What it turned out to be: the words of the analysts' view `alert_times`.
    pub outcome: Option<String>,
}

impl AlertTimes {
    /// When something last happened to it.
    #[must_use]
    pub fn last(&self) -> Timestamp {
        let steps = [self.rang_at, self.acknowledged_at, self.dispatched_at, self.arrived_at, self.resolved_at];
        steps.into_iter().flatten().fold(self.raised_at, Timestamp::max)
    }

    /// From when to when it really was so, and when that was said; none for what was not so, or is not known to have been.
    #[must_use]
    pub fn incident(&self) -> Option<[Timestamp; 3]> {
        let resolved = self.resolved_at.filter(|_| self.class == Class::Care)?;
        (self.outcome.as_deref() == Some("verified")).then(|| [self.raised_at, resolved.max(self.raised_at), resolved])
    }
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
            alerts: Vec::new(),
            outages: Vec::new(),
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
