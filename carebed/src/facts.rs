//! What detections and analysts may know of a home: no names.
//!
//! Where a home needs other numbers than a detection's own, they stand in `params.toml` in the data folder; live
//! detection reads it at start, `sql` and `backtest` each time. `deploy/params.toml` is an example.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use carebed_console::database::Database;
use carebed_console::intervals::Intervals;
use carebed_console::log::Log;
use carebed_console::registry::{Home, Registry};
use carebed_contract::id::HomeId;
use carebed_contract::interval::Interval;
use carebed_contract::time::Timestamp;
use carebed_queries::home::{HomeFacts, Param};
use serde::Deserialize;

use crate::alert_times::Times;
use crate::config::Config;

/// Homes' own numbers for detections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params(BTreeMap<HomeId, Vec<Param>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    param: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    home: HomeId,
    detection: String,
    key: String,
    value: f64,
}

impl Params {
    /// Reads `params.toml` of a data folder; none when there is no such file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).with_context(|| format!("{} cannot be used", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
        }
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let file: File = toml::from_str(text)?;
        let mut params: BTreeMap<HomeId, Vec<Param>> = BTreeMap::new();
        for Entry { home, detection, key, value } in file.param {
            params.entry(home).or_default().push(Param { detection, key, value });
        }
        Ok(Self(params))
    }

    /// A registered home's facts.
    #[must_use]
    pub fn facts(&self, home: &Home) -> HomeFacts {
        HomeFacts {
            home: home.id.clone(),
            area: home.area.clone(),
            time_zone: home.time_zone,
            residents: home.residents,
            beds: home.beds.iter().map(|bed| bed.id.clone()).collect(),
            params: self.0.get(&home.id).cloned().unwrap_or_default(),
            intervals: Vec::new(),
            alerts: Vec::new(),
        }
    }
}

/// All homes that a data folder knows, also while the centre runs.
pub async fn of_data(config: &Config) -> anyhow::Result<Vec<HomeFacts>> {
    let params = Params::load(&config.params())?;
    if !config.database().exists() {
        return Ok(Vec::new());
    }
    let database = Database::open_read(&config.database()).await?;
    let registry = Registry::load(&database).await.context("failed to read the registry")?;
    // Whatever the time that is looked back over.
    let since = Timestamp::from_millis(0);
    let intervals = Intervals::load(&database, since).await.context("failed to read absences and visits")?;
    let log = Log::new(database).since(0).await.context("failed to read the alert log")?;
    let mut alerts = Times::of(&log).by_home();
    let facts = registry.homes().into_iter().map(|home| HomeFacts {
        intervals: intervals_of(&intervals, &home.id),
        alerts: alerts.remove(&home.id).unwrap_or_default(),
        ..params.facts(&home)
    });
    Ok(facts.collect())
}

/// What people said of a home.
#[must_use]
pub fn intervals_of(intervals: &Intervals, home: &HomeId) -> Vec<Interval> {
    intervals.of(home).into_iter().map(|entry| entry.interval).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_reads_and_a_wrong_key_is_told_with_its_line() {
        let example = Params::parse(include_str!("../../deploy/params.toml")).unwrap();
        assert_eq!(example.0.values().map(Vec::len).sum::<usize>(), 2);
        let wrong = "[[param]]\nhome = \"h1\"\ndetection = \"inactivity_cap\"\nkey = \"hours\"\nvaleu = 8\n";
        let error = Params::parse(wrong).unwrap_err().to_string();
        assert!(error.contains("line 5") && error.contains("value"), "{error}");
    }
}
