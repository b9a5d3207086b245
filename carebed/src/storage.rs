//! Where the lake is and how long it keeps what: the section `[storage]` of the configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use carebed_contract::quantity::{Quantity, vocabulary};
use carebed_pipeline::store::{Config as StoreConfig, Retention, UpkeepConfig};
use serde::Deserialize;
use url::Url;

use crate::config::{Config, parse_duration};

/// In the data folder: the URL of a lake that is elsewhere, for commands that are told the folder only.
const ELSEWHERE: &str = "lake.url";

/// Where the lake is and how long it keeps what.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// An object store, as in `s3://bucket/lake/`; none: the folder `lake` below the data.
    pub url: Option<String>,
    /// How long files that are replaced stay for programs that read the table by themselves.
    #[serde(deserialize_with = "crate::config::duration")]
    pub grace: Duration,
    /// How long observations are kept: by quantity, by class (`vitals`, `activity`), or `others`. What is not named is kept
    /// for ever.
    pub keep: BTreeMap<String, String>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { url: None, grace: Duration::from_secs(3_600), keep: BTreeMap::new() }
    }
}

impl Storage {
    /// How the lake is kept in order. Settings that are [mistakes](Self::mistakes) are passed over.
    #[must_use]
    pub fn upkeep(&self) -> UpkeepConfig {
        let keep = |name: &str| self.keep.get(name).and_then(|text| parse_duration(text).ok());
        let others = keep("others");
        let mut quantities = BTreeMap::new();
        for (name, definition) in vocabulary() {
            let class = if definition.loinc.is_some() {
                keep("vitals")
            } else if definition.activity.is_some() {
                keep("activity")
            } else {
                None
            };
            if let (Some(keep), Some(quantity)) = (keep(name).or(class), Quantity::new(name)) {
                quantities.insert(quantity, Some(keep));
            }
        }
        UpkeepConfig { retention: Retention { others, quantities }, grace: self.grace }
    }

    /// What reads well and cannot work.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if let Some(text) = &self.url
            && let Err(why) = lake_url(text)
        {
            mistakes.push(format!("storage.url: {why}"));
        }
        for (name, text) in &self.keep {
            if !["vitals", "activity", "others"].contains(&name.as_str()) && !vocabulary().contains_key(name.as_str()) {
                mistakes.push(format!("storage.keep: {name} is no quantity, and none of vitals, activity, others"));
            }
            mistakes.extend(parse_duration(text).err().map(|why| format!("storage.keep.{name}: {why}")));
        }
        mistakes
    }

    /// The lake to open, and a note in the data folder for commands when it is elsewhere.
    ///
    /// # Errors
    /// When the place cannot be named or the note not be written.
    pub fn store(&self, config: &Config) -> anyhow::Result<StoreConfig> {
        let note = config.data.join(ELSEWHERE);
        let Some(text) = &self.url else {
            drop(std::fs::remove_file(&note));
            return Ok(StoreConfig::local(&config.lake())?);
        };
        let url = lake_url(text).map_err(anyhow::Error::msg)?;
        std::fs::write(&note, url.as_str()).with_context(|| format!("failed to write {}", note.display()))?;
        Ok(StoreConfig::at(url))
    }
}

/// The lake of a data folder, for commands. None where there is none.
///
/// # Errors
/// When the note of a lake elsewhere cannot be read.
pub fn of_data(data: &Path) -> anyhow::Result<Option<StoreConfig>> {
    let note = data.join(ELSEWHERE);
    match std::fs::read_to_string(&note) {
        Ok(text) => Ok(Some(StoreConfig::at(lake_url(text.trim()).map_err(anyhow::Error::msg)?))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let lake = Config::at(data.to_owned()).lake();
            if lake.is_dir() { Ok(Some(StoreConfig::local(&lake)?)) } else { Ok(None) }
        }
        Err(error) => Err(error).with_context(|| format!("failed to read {}", note.display())),
    }
}

fn lake_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|why| format!("{text:?} is no URL ({why}); write it as s3://bucket/lake/"))?;
    if url.scheme() == "s3" && url.host_str().is_some() && url.path().ends_with('/') {
        Ok(url)
    } else {
        Err(format!("{text:?} is not s3://bucket/lake/ (with the last /); for a local folder leave it out"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(pairs: &[(&str, &str)]) -> Storage {
        let keep = pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Storage { keep, ..Storage::default() }
    }

    #[test]
    fn the_nearest_name_says_how_long() {
        let days = |n: u64| Some(Duration::from_secs(n * 86_400));
        let storage = keep(&[("vitals", "400d"), ("heart_rate", "90d"), ("activity", "30d"), ("others", "10d")]);
        assert_eq!(storage.mistakes(), [""; 0]);
        let retention = storage.upkeep().retention;
        assert_eq!(retention.others, days(10));
        for (name, expected) in [("heart_rate", 90), ("respiratory_rate", 400), ("bed_occupancy", 30)] {
            assert_eq!(retention.quantities[&Quantity::new(name).unwrap()], days(expected), "{name}");
        }
        assert!(keep(&[]).upkeep().retention.quantities.is_empty());
    }

    #[test]
    fn all_mistakes_are_told() {
        let storage =
            Storage { url: Some("s3://bucket".into()), ..keep(&[("heart_rat", "90d"), ("vitals", "2 weeks")]) };
        let told = storage.mistakes().join("\n");
        for part in ["storage.url", "heart_rat is no quantity", "storage.keep.vitals"] {
            assert!(told.contains(part), "{part} is not told: {told}");
        }
    }
}
