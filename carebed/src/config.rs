//! The centre's configuration file. `deploy/carebed.toml` shows every setting with its default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carebed_contract::id::Area;
use carebed_contract::security::Security;
use carebed_queries::postgres::Tls;
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
    /// Where the lake is and how long it keeps what.
    #[serde(default)]
    pub storage: crate::storage::Storage,
    /// Where the pages are.
    #[serde(default)]
    pub console: Console,
    /// SQL for analysts' tools; none: it is not served.
    pub sql: Option<Sql>,
}

/// Where messages come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Broker {
    /// Host and port of an MQTT 5 broker; none: an embedded one is started on `listen`.
    pub address: Option<String>,
    /// PEM file of the authority that signed the broker's certificate; without it there is no TLS.
    pub ca: Option<PathBuf>,
    /// PEM file of the centre's own certificate, and below of its key.
    pub certificate: Option<PathBuf>,
    /// See above.
    pub key: Option<PathBuf>,
    /// The centre's user at the broker, and below the file whose first line is its password.
    pub user: Option<String>,
    /// See above.
    pub password_file: Option<PathBuf>,
    /// Where the embedded broker listens; loopback only, it has no access control.
    pub listen: SocketAddr,
}

/// What is taken and how often it is committed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// Areas this centre takes; empty: all.
    pub areas: Vec<Area>,
    /// Over how many connections the routine data of the areas comes; more than one only helps where `areas` are named.
    pub connections: usize,
    /// Memory for what was taken and is not committed, in MiB. When it is taken, gateways keep their data.
    pub memory_mib: usize,
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

/// SQL for analysts' tools, over the PostgreSQL wire protocol.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// Where; off loopback only with a certificate.
    #[serde(default = "sql_listen")]
    pub listen: SocketAddr,
    /// The file of users that `carebed users` keeps.
    pub users: PathBuf,
    /// Certificate chain, PEM; with one, every connection has to use TLS.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Working memory of all statements together, in MiB; a statement that needs more fails.
    #[serde(default = "sql_memory_mib")]
    pub memory_mib: usize,
    /// Cores that questions may use.
    #[serde(default = "sql_cores")]
    pub cores: usize,
    /// How long a statement may take, waiting for its turn included.
    #[serde(default = "sql_time", deserialize_with = "duration")]
    pub time: Duration,
    /// Most rows of an answer.
    #[serde(default = "sql_rows_max")]
    pub rows_max: usize,
    /// Connections at once; more are turned away.
    #[serde(default = "sql_connections_max")]
    pub connections_max: usize,
    /// Statements at once; more wait.
    #[serde(default = "sql_statements_max")]
    pub statements_max: usize,
}

fn sql_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5433))
}

fn sql_memory_mib() -> usize {
    1_024
}

fn sql_cores() -> usize {
    1
}

fn sql_time() -> Duration {
    Duration::from_secs(60)
}

fn sql_rows_max() -> usize {
    1_000_000
}

fn sql_connections_max() -> usize {
    32
}

fn sql_statements_max() -> usize {
    4
}

impl Sql {
    /// Certificate and key, when both are set.
    #[must_use]
    pub fn tls(&self) -> Option<Tls> {
        let (certificate, key) = (self.certificate.clone()?, self.key.clone()?);
        Some(Tls { certificate, key })
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.certificate.is_some() != self.key.is_some() {
            mistakes.push("sql.certificate and sql.key go together: set both or none".to_owned());
        }
        if self.tls().is_none() && !self.listen.ip().is_loopback() {
            mistakes.push(carebed_queries::postgres::Error::OffLoopback(self.listen).to_string());
        }
        let numbers = [
            ("memory_mib", self.memory_mib),
            ("cores", self.cores),
            ("rows_max", self.rows_max),
            ("connections_max", self.connections_max),
            ("statements_max", self.statements_max),
        ];
        let none = numbers.into_iter().filter(|(_, number)| *number == 0);
        mistakes.extend(none.map(|(name, _)| format!("sql.{name} must be at least 1")));
        mistakes
    }
}

impl Broker {
    /// How connections to it are secured.
    #[must_use]
    pub fn security(&self) -> Security {
        Security {
            ca: self.ca.clone(),
            identity: self.certificate.clone().zip(self.key.clone()),
            login: self.user.clone().zip(self.password_file.clone()),
        }
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.certificate.is_some() != self.key.is_some() {
            mistakes.push("broker.certificate and broker.key stand together: name both files, or neither".to_owned());
        }
        if self.user.is_some() != self.password_file.is_some() {
            mistakes.push("broker.user and broker.password_file stand together: give both, or neither".to_owned());
        }
        match self.address.as_deref().map(host_and_port) {
            Some(Err(mistake)) => mistakes.push(mistake),
            Some(Ok((host, _))) if !self.security().suffices_for(host) => mistakes.push(format!(
                "broker.address: {host} is another machine: the connection must have TLS and say who connects; name \
                 broker.ca, with broker.certificate and broker.key or with broker.user and broker.password_file"
            )),
            None if !self.listen.ip().is_loopback() => {
                mistakes.push(crate::broker::BrokerError::NotLoopback(self.listen).to_string());
            }
            _ => {}
        }
        mistakes
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            address: None,
            ca: None,
            certificate: None,
            key: None,
            user: None,
            password_file: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 1883)),
        }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        let memory_mib = carebed_pipeline::mqtt::MEMORY >> 20;
        Self { areas: Vec::new(), connections: 1, memory_mib, commit_every: Duration::from_secs(2) }
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
            storage: crate::storage::Storage::default(),
            console: Console::default(),
            sql: None,
        }
    }

    /// Reads a file; a mistake is told with its line and column.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { place: place(), source })?;
        Self::parse(&text).map_err(|message| ConfigError::Mistakes { place: place(), message })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        let mistakes = config.mistakes();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes.join("\n")) }
    }

    /// What reads well and cannot work.
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (name, duration) in
            [("ingest.commit_every", self.ingest.commit_every), ("detection.every", self.detection.every)]
        {
            if duration.is_zero() {
                mistakes.push(format!("{name} must be longer than nothing, e.g. \"2s\""));
            }
        }
        if self.ingest.connections > self.ingest.areas.len().max(1) {
            mistakes.push("ingest.connections is larger than the number of ingest.areas: name the areas, since a connection takes whole areas".to_owned());
        }
        if self.ingest.connections == 0 {
            mistakes.push("ingest.connections must be at least 1".to_owned());
        }
        if !(16..=1 << 20).contains(&self.ingest.memory_mib) {
            mistakes.push("ingest.memory_mib must be between 16 and 1048576; 192 suits a thousand homes".to_owned());
        }
        mistakes.extend(self.sql.iter().flat_map(Sql::mistakes));
        mistakes.extend(self.storage.mistakes());
        mistakes.extend(self.broker.mistakes());
        if !self.console.listen.ip().is_loopback() {
            mistakes.push(carebed_console::Error::OffLoopback(self.console.listen).to_string());
        }
        mistakes
    }

    /// The lake's folder.
    #[must_use]
    pub fn lake(&self) -> PathBuf {
        self.data.join("lake")
    }

    /// Homes' own numbers for detections.
    #[must_use]
    pub fn params(&self) -> PathBuf {
        self.data.join("params.toml")
    }

    /// The database of alerts and registry.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data.join("centre.sqlite")
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("failed to read the configuration {place}")]
    Read {
        /// The file.
        place: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What it says is wrong.
    #[error("{place} cannot be used:\n{message}")]
    Mistakes {
        /// The file.
        place: String,
        /// What is wrong, with lines and columns where it is the writing.
        message: String,
    },
}

/// Splits `host:port`.
pub fn host_and_port(address: &str) -> Result<(&str, u16), String> {
    let split = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    split
        .filter(|(host, _)| !host.is_empty() && !host.contains('/'))
        .ok_or_else(|| format!("broker.address {address:?} is not host:port, as in \"broker.example.org:1883\""))
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

pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
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
        let error = Config::parse("data = \"d\"\n[ingest]\ncommit_evry = \"2s\"\n").unwrap_err();
        assert!(error.contains("line 3") && error.contains("commit_every"), "{error}");
        let error = Config::parse("data = \"d\"\n[ingest]\ncommit_every = \"2 weeks\"\n").unwrap_err();
        assert!(error.contains("line 3") && error.contains("250ms"), "{error}");
        let impossible = "data = \"d\"\n[detection]\nevery = \"0s\"\n[broker]\naddress = \"nonsense\"\n[console]\nlisten = \"0.0.0.0:80\"\n";
        let all = Config::parse(impossible).unwrap_err();
        for part in ["detection.every", "broker.address", "0.0.0.0:80"] {
            assert!(all.contains(part), "{part} is not told: {all}");
        }
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
