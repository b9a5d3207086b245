//! The one vocabulary of quantities: `contract/quantities.toml`, compiled in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::Deserialize;

use crate::quality::Quality;
use crate::text::Text;
use crate::value::Value;

/// How the observations of a quantity are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Holds until the next observation: 1 on, 0 off.
    State,
    /// Something happened; there is no "off".
    Event,
    /// A reading.
    Measure,
    /// Only grows.
    Counter,
}

/// What an observation says about somebody being active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activity {
    /// Somebody did something in the home.
    Inside,
    /// Somebody moved an outer door, perhaps on the way out.
    Door,
}

/// What the vocabulary knows of one quantity.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Name as in the table.
    pub name: Arc<str>,
    /// How its observations are to be read.
    pub kind: Kind,
    /// What they say about activity, if anything.
    pub activity: Option<Activity>,
    /// Unit in the table (UCUM).
    pub ucum: Arc<str>,
    /// Unit in packs (SenML), where one is registered.
    pub senml: Option<Arc<str>>,
    /// Lowest believable value.
    pub low: Option<f64>,
    /// Highest believable value.
    pub high: Option<f64>,
    /// LOINC code where one exists.
    pub loinc: Option<Arc<str>>,
    /// What people call it.
    pub title: Text,
}

impl Definition {
    /// What the range says about a value: good, or `bad:range`.
    #[must_use]
    pub fn judge(&self, value: &Value) -> Quality {
        let Some(number) = value.number() else { return Quality::Good };
        let low = self.low.is_some_and(|low| number < low);
        let high = self.high.is_some_and(|high| number > high);
        if low || high || !number.is_finite() { Quality::Bad("range".into()) } else { Quality::Good }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    kind: Kind,
    activity: Option<Activity>,
    ucum: Arc<str>,
    senml: Option<Arc<str>>,
    low: Option<f64>,
    high: Option<f64>,
    loinc: Option<Arc<str>>,
    zh: String,
    en: String,
}

/// All quantities, by name.
pub fn vocabulary() -> &'static BTreeMap<Arc<str>, Definition> {
    static VOCABULARY: OnceLock<BTreeMap<Arc<str>, Definition>> = OnceLock::new();
    VOCABULARY.get_or_init(|| {
        let entries: BTreeMap<Arc<str>, Entry> =
            toml::from_str(include_str!("../quantities.toml")).expect("quantities.toml is checked by a test");
        entries
            .into_iter()
            .map(|(name, e)| {
                let definition = Definition {
                    name: Arc::clone(&name),
                    kind: e.kind,
                    activity: e.activity,
                    ucum: e.ucum,
                    senml: e.senml,
                    low: e.low,
                    high: e.high,
                    loinc: e.loinc,
                    title: Text::new(e.zh, e.en),
                };
                (name, definition)
            })
            .collect()
    })
}

/// A quantity's name. One that the vocabulary does not know still travels and is stored, with quality
/// `uncertain:unknown_quantity`: new firmware must not make old centres lose data.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(Arc<str>);

impl Quantity {
    /// Takes a name of lower-case letters, digits and `_`, starting with a letter, at most 64 long.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if let Some(known) = vocabulary().get(name) {
            return Some(Self(Arc::clone(&known.name)));
        }
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
        let holds_well = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        (starts_well && holds_well && name.len() <= crate::id::LENGTH_MAX).then(|| Self(Arc::from(name)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the vocabulary knows of it.
    #[must_use]
    pub fn definition(&self) -> Option<&'static Definition> {
        vocabulary().get(&*self.0)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quantity({})", self.0)
    }
}

impl serde::Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).ok_or_else(|| serde::de::Error::custom(format!("{name:?} is not a quantity name")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_reads_and_every_entry_is_whole() {
        assert!(vocabulary().len() > 30);
        for (name, d) in vocabulary() {
            assert!(Quantity::new(name).is_some(), "{name} is not a quantity name");
            assert!(!d.title.zh.is_empty() && !d.title.en.is_empty(), "{name} lacks a title");
            assert!(d.title.zh.chars().any(|c| c > '\u{2fff}'), "{name}: the zh title is not Chinese");
            if let (Some(low), Some(high)) = (d.low, d.high) {
                assert!(low < high, "{name}: range");
            }
        }
        assert_eq!(Quantity::new("heart_rate").unwrap().definition().unwrap().loinc.as_deref(), Some("8867-4"));
    }

    #[test]
    fn what_no_home_can_show_is_bad() {
        let heart = Quantity::new("heart_rate").unwrap().definition().unwrap();
        assert_eq!(heart.judge(&Value::Number(72.0)), Quality::Good);
        for impossible in [0.0, 300.0, f64::NAN, f64::INFINITY] {
            assert!(!heart.judge(&Value::Number(impossible)).is_usable(), "{impossible} passed");
        }
    }

    #[test]
    fn unknown_names_travel_but_nonsense_does_not() {
        assert!(Quantity::new("new_firmware_thing").is_some());
        for bad in ["", "Heart", "a-b", "a/b", "1a", "心率"] {
            assert!(Quantity::new(bad).is_none(), "{bad:?} was taken");
        }
    }
}
