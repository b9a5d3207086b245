//! The centre's configuration file. `deploy/carebed.toml` shows every setting with its default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_contract::id::Area;
use serde::{Deserialize, Deserializer};

/// What the centre needs to know.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept: the lake below `lake/`, alerts and registry in `centre.sqlite`.
    pub data: PathBuf,
    /// Where messages come from.
    #[serde(default)]
    pub broker: Broker,
    /// What is taken and how often it is committed.
    #[serde(default)]
    pub ingest: Ingest,
    /// When findings are looked for.
    #[serde(default)]
    pub detection: Detection,
    /// Where the pages are.
    #[serde(default)]
    pub console: Console,
}

/// Where messages come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Broker {
    /// Host and port of an MQTT 5 broker; none: an embedded one is started on `listen`.
    pub address: Option<String>,
    /// Where the embedded broker listens; loopback only, it has no access control.
    pub listen: SocketAddr,
}

/// What is taken and how often it is committed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// Areas this centre takes; empty: all.
    pub areas: Vec<Area>,
    /// How long accepted routine rows may wait for their commit. Urgent ones do not wait.
    #[serde(deserialize_with = "duration")]
    pub commit_every: Duration,
}

/// When findings are looked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Detection {
    /// Pause between two rounds of all detections. Calls do not wait for a round.
    #[serde(deserialize_with = "duration")]
    pub every: Duration,
    /// How far back episodes are rebuilt at start.
    #[serde(deserialize_with = "duration")]
    pub rebuild: Duration,
}

/// Where the pages are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// Loopback only, until TLS and sign-in are configured.
    pub listen: SocketAddr,
}

impl Default for Broker {
    fn default() -> Self {
        Self { address: None, listen: SocketAddr::from(([127, 0, 0, 1], 1883)) }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self { areas: Vec::new(), commit_every: Duration::from_secs(2) }
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self { every: Duration::from_secs(2), rebuild: Duration::from_secs(3 * 24 * 3600) }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)) }
    }
}

impl Config {
    /// A configuration with nothing but a place for the data.
    #[must_use]
    pub fn at(data: PathBuf) -> Self {
        Self {
            data,
            broker: Broker::default(),
            ingest: Ingest::default(),
            detection: Detection::default(),
            console: Console::default(),
        }
    }

    /// Reads a file; a mistake is told with its line and column.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to read the configuration {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} cannot be used", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        if config.ingest.commit_every.is_zero() || config.detection.every.is_zero() {
            bail!("ingest.commit_every and detection.every must be longer than nothing, e.g. \"2s\"");
        }
        Ok(config)
    }

    /// The lake's folder.
    #[must_use]
    pub fn lake(&self) -> PathBuf {
        self.data.join("lake")
    }

    /// The database of alerts and registry.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data.join("centre.sqlite")
    }
}

/// Reads `250ms`, `2s`, `5m`, `12h` or `3d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{text:?} is not a duration; write it as 250ms, 2s, 5m, 12h or 3d")),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(millis))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a duration; write it as 250ms, 2s, 5m, 12h or 3d"))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commented_example_shows_the_defaults() {
        let example = Config::parse(include_str!("../../deploy/carebed.toml")).unwrap();
        let defaults = Config::at(example.data.clone());
        assert_eq!(format!("{example:?}"), format!("{defaults:?}"));
    }

    #[test]
    fn mistakes_name_their_line_and_column() {
        let error = format!("{:#}", Config::parse("data = \"d\"\n[ingest]\ncommit_evry = \"2s\"\n").unwrap_err());
        assert!(error.contains("line 3") && error.contains("commit_every"), "{error}");
        let error = format!("{:#}", Config::parse("data = \"d\"\n[ingest]\ncommit_every = \"2 weeks\"\n").unwrap_err());
        assert!(error.contains("line 3") && error.contains("250ms"), "{error}");
        assert!(Config::parse("data = \"d\"\n[detection]\nevery = \"0s\"\n").is_err());
    }

    #[test]
    fn durations_are_read() {
        for (text, millis) in [("250ms", 250), ("2s", 2_000), ("5m", 300_000), ("12h", 43_200_000), ("3d", 259_200_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for bad in ["", "s", "2", "2 weeks", "-1s", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was taken");
        }
    }
}
