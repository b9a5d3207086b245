//! Where the lake is and how long it keeps what: the section `[storage]` of the configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use carebed_contract::quantity::{Quantity, vocabulary};
use carebed_device_profiles::document::{self, Fields, nearest};
use carebed_pipeline::store::{Config as StoreConfig, Retention, UpkeepConfig};
use toml::Spanned;
use url::Url;

use crate::config::{Config, DAY, duration};

/// In the data folder: the URL of a lake that is elsewhere, for commands that are told the folder only.
const ELSEWHERE: &str = "lake.url";
/// In the data folder: which lake this centre has written to.
const BEGUN: &str = "lake.begun";
/// What may be named in `keep` besides quantities.
const CLASSES: [&str; 3] = ["vitals", "activity", "others"];

/// Where the lake is and how long it keeps what.
#[derive(Debug, Clone)]
pub struct Storage {
    /// An object store, as in `s3://bucket/lake/`; none: the folder `lake` below the data.
    pub url: Option<String>,
    /// How long files that are replaced stay for programs that read the table by themselves.
    pub grace: Duration,
    /// How long observations are kept: by quantity, by class (`vitals`, `activity`), or `others`. What is not named is kept
    /// for ever.
    pub keep: BTreeMap<String, Duration>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { url: None, grace: Duration::from_secs(3_600), keep: BTreeMap::new() }
    }
}

impl Storage {
    /// Reads the table `[storage]`.
    pub(crate) fn read(mut f: Fields<'_>) -> Self {
        let default = Self::default();
        let url = f.take::<String>("url");
        if let Some(url) = &url
            && let Err(why) = lake_url(url.get_ref())
        {
            f.tell(url.span(), why, "for a local folder leave it out");
        }
        let grace = duration(&mut f, "grace", default.grace, Duration::from_secs(1)..=30 * DAY);
        let mut keep = BTreeMap::new();
        for (name, text) in
            f.take::<BTreeMap<String, Spanned<String>>>("keep").map(Spanned::into_inner).unwrap_or_default()
        {
            if !CLASSES.contains(&name.as_str()) && !vocabulary().contains_key(name.as_str()) {
                let known = CLASSES.into_iter().chain(vocabulary().keys().map(|name| &**name));
                let hint =
                    nearest(&name, known).map_or_else(|| CLASSES.join(", "), |near| format!("did you mean {near:?}?"));
                f.tell(text.span(), format!("{name} is no quantity and no class"), hint);
            }
            match document::duration(text.get_ref()) {
                Some(time) if time >= DAY => drop(keep.insert(name, time)),
                _ => f.tell(
                    text.span(),
                    format!("{name}: {:?} is not a day or longer", text.get_ref()),
                    "write it as in \"730d\"",
                ),
            }
        }
        Self { url: url.map(Spanned::into_inner), grace, keep }
    }

    /// How the lake is kept in order.
    #[must_use]
    pub fn upkeep(&self) -> UpkeepConfig {
        let keep = |name: &str| self.keep.get(name).copied();
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

    /// The lake to open, and a note in the data folder for commands when it is elsewhere.
    ///
    /// # Errors
    /// When the place cannot be named or the note not be written.
    pub fn store(&self, config: &Config) -> anyhow::Result<StoreConfig> {
        let note = config.data.join(ELSEWHERE);
        let store = if let Some(text) = &self.url {
            let url = lake_url(text).map_err(anyhow::Error::msg)?;
            std::fs::write(&note, url.as_str()).with_context(|| format!("failed to write {}", note.display()))?;
            StoreConfig::at(url)
        } else {
            drop(std::fs::remove_file(&note));
            StoreConfig::local(&config.lake())?
        };
        known(store, &config.data)
    }
}

/// The lake of a data folder, for commands. None where there is none.
///
/// # Errors
/// When a note about the lake cannot be read.
pub fn of_data(data: &Path) -> anyhow::Result<Option<StoreConfig>> {
    let store = match read(&data.join(ELSEWHERE))? {
        Some(text) => StoreConfig::at(lake_url(text.trim()).map_err(anyhow::Error::msg)?),
        None => {
            let lake = Config::at(data.to_owned()).lake();
            if !lake.is_dir() {
                return Ok(None);
            }
            StoreConfig::local(&lake)?
        }
    };
    known(store, data).map(Some)
}

/// Notes that a lake was opened for a data folder: from now on, if it is empty, its disk is not there.
///
/// # Errors
/// When the note cannot be written.
pub fn note_begun(store: &StoreConfig, data: &Path) -> anyhow::Result<()> {
    let note = data.join(BEGUN);
    // One that stands there is not written again: the disk may be full.
    if store.begun.is_some() {
        return Ok(());
    }
    std::fs::write(&note, name(store)).with_context(|| format!("failed to write {}", note.display()))
}

fn known(store: StoreConfig, data: &Path) -> anyhow::Result<StoreConfig> {
    let note = data.join(BEGUN);
    let is_begun = read(&note)?.is_some_and(|lake| lake.trim() == name(&store));
    Ok(StoreConfig { begun: is_begun.then_some(note), ..store })
}

/// A data folder may be moved with the lake in it.
fn name(store: &StoreConfig) -> &str {
    if store.lake.scheme() == "file" { "lake" } else { store.lake.as_str() }
}

fn read(note: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(note) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
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

    fn keep(pairs: &[(&str, u64)]) -> Storage {
        let keep = pairs.iter().map(|(name, days)| ((*name).to_owned(), Duration::from_secs(days * 86_400))).collect();
        Storage { keep, ..Storage::default() }
    }

    #[test]
    fn the_nearest_name_says_how_long() {
        let days = |n: u64| Some(Duration::from_secs(n * 86_400));
        let storage = keep(&[("vitals", 400), ("heart_rate", 90), ("activity", 30), ("others", 10)]);
        let retention = storage.upkeep().retention;
        assert_eq!(retention.others, days(10));
        for (name, expected) in [("heart_rate", 90), ("respiratory_rate", 400), ("bed_occupancy", 30)] {
            assert_eq!(retention.quantities[&Quantity::new(name).unwrap()], days(expected), "{name}");
        }
        assert!(keep(&[]).upkeep().retention.quantities.is_empty());
    }
}
