//! What the sensors of a recording mean: a small TOML beside the command line.
//!
//! A recording says `ts_utc,sensor_id,kind,value` and nothing about what a sensor is. The meaning says, per sensor or
//! kind, which quantity its rows are, whether they belong to the bed or the home, and in which room. Rules are tried
//! in order; the first that matches decides.

use std::path::Path;

use carebed_contract::id::{Area, Room};
use carebed_contract::quantity::{Kind, Quantity};
use carebed_contract::value::Value;
use carebed_device_profiles::document::nearest;
use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::Deserialize;
use toml::Spanned;

use crate::exit::Misuse;

/// The meaning of the recordings of one dataset.
#[derive(Debug, Clone)]
pub struct Meaning {
    /// Area under which the homes are filed.
    pub area: Area,
    /// IANA time zone of the homes' local days.
    pub time_zone: chrono_tz::Tz,
    /// How many people live in each home.
    pub residents: u8,
    rules: Vec<Rule>,
}

/// What a row of a recording becomes.
#[derive(Debug, Clone)]
pub struct Rule {
    sensor: Option<String>,
    kind: Option<String>,
    /// The quantity.
    pub quantity: Quantity,
    /// Whether it belongs to the bed rather than to the whole home.
    pub bed: bool,
    /// The room of the sensor.
    pub room: Option<Room>,
}

/// All that is wrong with a meaning, with places.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("the meaning cannot be used")]
pub struct MeaningError {
    #[source_code]
    source_code: NamedSource<String>,
    #[related]
    mistakes: Vec<Mistake>,
}

/// One mistake and its place.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
struct Mistake {
    message: String,
    #[label("here")]
    at: SourceSpan,
    #[help]
    help: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    area: Spanned<String>,
    time_zone: Spanned<String>,
    #[serde(default = "one")]
    residents: u8,
    sensor: Vec<SensorEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SensorEntry {
    id: Option<String>,
    kind: Option<Spanned<String>>,
    quantity: Spanned<String>,
    #[serde(default)]
    bed: bool,
    room: Option<Spanned<String>>,
}

fn one() -> u8 {
    1
}

impl Meaning {
    /// Reads and checks a meaning; `name` is what messages call it.
    pub fn parse(name: &str, text: &str) -> Result<Self, Box<MeaningError>> {
        let mut mistakes = Vec::new();
        let checked = check(text, &mut mistakes);
        match checked {
            Some(meaning) if mistakes.is_empty() => Ok(meaning),
            _ => Err(Box::new(MeaningError { source_code: NamedSource::new(name, text.to_owned()), mistakes })),
        }
    }

    /// Reads and checks a file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("failed to read the meaning {}; give a file, or one of tihm, ordonez, somnofy", path.display())
        })?;
        Self::parse(&path.display().to_string(), &text)
            .map_err(|error| Misuse(format!("{:?}", miette::Report::new(*error))).into())
    }

    /// The rule for a row; none when the meaning does not name its sensor.
    #[must_use]
    pub fn rule(&self, sensor: &str, kind: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| {
            rule.sensor.as_deref().is_none_or(|s| s == sensor) && rule.kind.as_deref().is_none_or(|k| k == kind)
        })
    }
}

impl Rule {
    /// The value of a row as its quantity holds it; none when the text is not one.
    #[must_use]
    pub fn value(&self, text: &str) -> Option<Value> {
        let number: f64 = text.parse().ok().filter(|n: &f64| n.is_finite())?;
        match self.quantity.definition().map(|d| d.kind) {
            Some(Kind::State | Kind::Event) if number == 0.0 || number == 1.0 => Some(Value::Flag(number == 1.0)),
            Some(Kind::State | Kind::Event) => None,
            _ => Some(Value::Number(number)),
        }
    }
}

fn check(text: &str, mistakes: &mut Vec<Mistake>) -> Option<Meaning> {
    let mut note = |at: std::ops::Range<usize>, message: String, help: Option<String>| {
        mistakes.push(Mistake { message, at: at.into(), help });
    };
    let file: File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            note(error.span().unwrap_or(0..0), error.message().to_owned(), None);
            return None;
        }
    };
    let area = Area::new(file.area.get_ref()).map_err(|e| note(file.area.span(), e.to_string(), None)).ok();
    let time_zone = file.time_zone.get_ref().parse().ok();
    if time_zone.is_none() {
        note(
            file.time_zone.span(),
            format!("{:?} is not a time zone", file.time_zone.get_ref()),
            Some("use an IANA name such as Asia/Shanghai".to_owned()),
        );
    }
    let mut rules = Vec::new();
    for entry in file.sensor {
        let name = entry.quantity.get_ref();
        let quantity = Quantity::new(name).filter(|q| q.definition().is_some());
        if quantity.is_none() {
            let known = carebed_contract::quantity::vocabulary().keys().map(|name| &**name);
            let near = nearest(name, known).map(|near| format!("did you mean {near:?}?"));
            note(
                entry.quantity.span(),
                format!("{name:?} is not a quantity"),
                near.or_else(|| Some("the vocabulary is contract/quantities.toml".to_owned())),
            );
        }
        let room = entry
            .room
            .as_ref()
            .map(|room| Room::new(room.get_ref()).map_err(|e| note(room.span(), e.to_string(), None)).ok());
        if let Some(quantity) = quantity {
            rules.push(Rule {
                sensor: entry.id,
                kind: entry.kind.map(Spanned::into_inner),
                quantity,
                bed: entry.bed,
                room: room.flatten(),
            });
        }
    }
    Some(Meaning { area: area?, time_zone: time_zone?, residents: file.residents, rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_meanings_are_good() {
        for (name, text) in super::super::SHIPPED {
            Meaning::parse(name, text).unwrap_or_else(|e| panic!("{name}: {:?}", miette::Report::new(*e)));
        }
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let text = "area = \"a b\"\ntime_zone = \"Mars\"\n[[sensor]]\nkind = \"motion\"\nquantity = \"motoin\"\n";
        let error = format!("{:?}", miette::Report::new(*Meaning::parse("m.toml", text).unwrap_err()));
        for part in ["m.toml:1", "m.toml:2", "m.toml:5", "Mars", "did you mean \"motion\""] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        let unknown = Meaning::parse("m.toml", "area = \"a\"\ntime_zone = \"UTC\"\ncolour = 1\nsensor = []\n");
        assert!(format!("{:?}", miette::Report::new(*unknown.unwrap_err())).contains("m.toml:3"));
    }

    #[test]
    fn values_are_what_the_quantity_holds() {
        let meaning = Meaning::parse(
            "m",
            "area = \"a\"\ntime_zone = \"UTC\"\n[[sensor]]\nkind = \"door\"\nquantity = \"door_event\"\n[[sensor]]\nquantity = \"heart_rate\"\n",
        )
        .unwrap();
        let door = meaning.rule("front", "door").unwrap();
        assert_eq!(door.value("1"), Some(Value::Flag(true)));
        assert_eq!(door.value("2"), None);
        let heart = meaning.rule("belt", "heart").unwrap();
        assert_eq!(heart.value("61.5"), Some(Value::Number(61.5)));
        for bad in ["", "x", "NaN", "inf"] {
            assert_eq!(heart.value(bad), None, "{bad:?} was taken");
        }
    }
}
