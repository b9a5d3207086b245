//! The centre's configuration file. `deploy/carebed.toml` shows every setting with its default.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use carebed_contract::id::Area;
use carebed_contract::security::Security;
use carebed_device_profiles::document::{self, Fields, Mistakes};
use carebed_queries::postgres::Tls;
use toml::Spanned;

use crate::storage::Storage;

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What the centre needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept: the lake below `lake/`, alerts and registry in `centre.sqlite`.
    pub data: PathBuf,
    /// Where messages come from.
    pub broker: Broker,
    /// What is taken and how often it is committed.
    pub ingest: Ingest,
    /// When findings are looked for.
    pub detection: Detection,
    /// Where the lake is and how long it keeps what.
    pub storage: Storage,
    /// Where the pages are.
    pub console: Console,
    /// SQL for analysts' tools; none: it is not served.
    pub sql: Option<Sql>,
}

/// Where messages come from.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
pub struct Ingest {
    /// Areas this centre takes; empty: all.
    pub areas: Vec<Area>,
    /// Over how many connections the routine data of the areas comes; more than one only helps where `areas` are named.
    pub connections: usize,
    /// Memory for what was taken and is not committed, in MiB. When it is taken, gateways keep their data.
    pub memory_mib: usize,
    /// How long accepted routine rows may wait for their commit. Urgent ones do not wait.
    pub commit_every: Duration,
}

/// When findings are looked for.
#[derive(Debug, Clone)]
pub struct Detection {
    /// Pause between two rounds of all detections. Calls do not wait for a round.
    pub every: Duration,
    /// How far back episodes are rebuilt at start.
    pub rebuild: Duration,
}

/// Where the pages are.
#[derive(Debug, Clone)]
pub struct Console {
    /// Loopback only, until TLS and sign-in are configured.
    pub listen: SocketAddr,
}

/// SQL for analysts' tools, over the PostgreSQL wire protocol.
#[derive(Debug, Clone)]
pub struct Sql {
    /// Where; off loopback only with a certificate.
    pub listen: SocketAddr,
    /// The file of users that `carebed users` keeps.
    pub users: PathBuf,
    /// Certificate chain, PEM; with one, every connection has to use TLS.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Working memory of all statements together, in MiB; a statement that needs more fails.
    pub memory_mib: usize,
    /// Cores that questions may use.
    pub cores: usize,
    /// How long a statement may take, waiting for its turn included.
    pub time: Duration,
    /// Most rows of an answer.
    pub rows_max: usize,
    /// Connections at once; more are turned away.
    pub connections_max: usize,
    /// Statements at once; more wait.
    pub statements_max: usize,
}

impl Sql {
    /// Certificate and key, when both are set.
    #[must_use]
    pub fn tls(&self) -> Option<Tls> {
        let (certificate, key) = (self.certificate.clone()?, self.key.clone()?);
        Some(Tls { certificate, key })
    }

    fn read(mut f: Fields<'_>) -> Option<Self> {
        let written = f.take::<SocketAddr>("listen");
        let listen = written.as_ref().map_or(SocketAddr::from(([127, 0, 0, 1], 5433)), |at| *at.get_ref());
        let (certificate, key) = files_together(&mut f, "certificate", "key");
        let sql = Self {
            listen,
            users: f.need::<PathBuf>("users").map(Spanned::into_inner).unwrap_or_default(),
            memory_mib: number(&mut f, "memory_mib", 1_024, 16..=1 << 20),
            cores: number(&mut f, "cores", 1, 1..=1_024),
            time: duration(&mut f, "time", Duration::from_secs(60), Duration::from_millis(100)..=DAY),
            rows_max: number(&mut f, "rows_max", 1_000_000, 1..=1 << 32),
            connections_max: number(&mut f, "connections_max", 32, 1..=10_000),
            statements_max: number(&mut f, "statements_max", 4, 1..=1_000),
            certificate,
            key,
        };
        if sql.tls().is_none() && !listen.ip().is_loopback() {
            let span = written.map_or(f.span(), |at| at.span());
            f.tell(
                span,
                carebed_queries::postgres::Error::OffLoopback(listen).to_string(),
                "name certificate and key, or listen on 127.0.0.1",
            );
        }
        Some(sql)
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

    fn read(mut f: Fields<'_>) -> Self {
        let (certificate, key) = files_together(&mut f, "certificate", "key");
        let (user, password_file) = (f.take::<String>("user"), f.take::<PathBuf>("password_file"));
        if user.is_some() != password_file.is_some() {
            f.tell(f.span(), "user and password_file stand together", "give both, or neither");
        }
        let (address, listen) = (f.take::<String>("address"), f.take::<SocketAddr>("listen"));
        let broker = Self {
            address: address.as_ref().map(|address| address.get_ref().clone()),
            ca: f.take::<PathBuf>("ca").map(Spanned::into_inner),
            certificate,
            key,
            user: user.map(Spanned::into_inner),
            password_file: password_file.map(Spanned::into_inner),
            listen: listen.as_ref().map_or(Self::default().listen, |at| *at.get_ref()),
        };
        if let Some(address) = address {
            match host_and_port(address.get_ref()) {
                None => f.tell(
                    address.span(),
                    format!("{:?} is not host:port", address.get_ref()),
                    "write it as in \"broker.example.org:1883\"",
                ),
                Some((host, _)) if !broker.security().suffices_for(host) => f.tell(
                    address.span(),
                    format!("{host} is another machine: the connection must have TLS and say who connects"),
                    "name ca, with certificate and key or with user and password_file",
                ),
                Some(_) => {}
            }
        } else if !broker.listen.ip().is_loopback() {
            let span = listen.map_or(f.span(), |at| at.span());
            f.tell(
                span,
                "the embedded broker has no access control and listens on loopback only",
                "for a network run mosquitto or EMQX and name it as address",
            );
        }
        broker
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

impl Ingest {
    fn read(mut f: Fields<'_>) -> Self {
        let default = Self::default();
        let areas: Vec<Area> = f.take_or("areas", default.areas);
        let written = f.take::<usize>("connections");
        let connections = written.as_ref().map_or(default.connections, |n| *n.get_ref());
        if connections == 0 || connections > areas.len().max(1) {
            let span = written.map_or(f.span(), |n| n.span());
            let hint = "give 1, or at most as many as there are areas: a connection takes whole areas";
            f.tell(span, format!("connections is {connections}, and {} areas are named", areas.len()), hint);
        }
        Self {
            areas,
            connections,
            memory_mib: number(&mut f, "memory_mib", default.memory_mib, 16..=1 << 20),
            commit_every: duration(&mut f, "commit_every", default.commit_every, Duration::from_millis(10)..=HOUR),
        }
    }
}

impl Detection {
    fn read(mut f: Fields<'_>) -> Self {
        let default = Self::default();
        Self {
            every: duration(&mut f, "every", default.every, Duration::from_millis(100)..=Duration::from_secs(60)),
            rebuild: duration(&mut f, "rebuild", default.rebuild, DAY..=60 * DAY),
        }
    }
}

impl Console {
    fn read(mut f: Fields<'_>) -> Self {
        let listen = f.take::<SocketAddr>("listen");
        if let Some(listen) = listen.as_ref().filter(|listen| !listen.get_ref().ip().is_loopback()) {
            let message = carebed_console::Error::OffLoopback(*listen.get_ref()).to_string();
            f.tell(listen.span(), message, "listen on 127.0.0.1, and reach it through an SSH tunnel");
        }
        listen.map_or_else(Self::default, |listen| Self { listen: listen.into_inner() })
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
            storage: Storage::default(),
            console: Console::default(),
            sql: None,
        }
    }

    /// Reads a file; every mistake is told, with its line and column.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let place = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { place: place.clone(), source })?;
        Ok(Self::parse(&place, &text)?)
    }

    fn parse(place: &str, text: &str) -> Result<Self, Mistakes> {
        document::read(place, text, |f| {
            let data = f.need::<PathBuf>("data").map(Spanned::into_inner).unwrap_or_default();
            Some(Self {
                broker: f.table("broker").map(Broker::read).unwrap_or_default(),
                ingest: f.table("ingest").map(Ingest::read).unwrap_or_default(),
                detection: f.table("detection").map(Detection::read).unwrap_or_default(),
                storage: f.table("storage").map(Storage::read).unwrap_or_default(),
                console: f.table("console").map(Console::read).unwrap_or_default(),
                sql: f.table("sql").and_then(Sql::read),
                data,
            })
        })
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
    /// What it says is wrong: every mistake with its place.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

/// Splits `host:port`.
#[must_use]
pub fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let split = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    split.filter(|(host, _)| !host.is_empty() && !host.contains('/'))
}

/// A duration on the command line.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    document::duration(text)
        .ok_or_else(|| format!("{text:?} is not a duration; write it as 250ms, 2s, 5min, 12h or 3d"))
}

fn number(f: &mut Fields<'_>, key: &'static str, default: usize, bounds: RangeInclusive<usize>) -> usize {
    let Some(number) = f.take::<usize>(key) else { return default };
    if !bounds.contains(number.get_ref()) {
        let hint = format!("give {} to {}; {default} if left out", bounds.start(), bounds.end());
        f.tell(number.span(), format!("{key} is {}", number.get_ref()), hint);
    }
    number.into_inner()
}

pub(crate) fn duration(
    f: &mut Fields<'_>,
    key: &'static str,
    default: Duration,
    bounds: RangeInclusive<Duration>,
) -> Duration {
    f.take_duration_in(key, bounds).map_or(default, Spanned::into_inner)
}

/// Two files that are named together or not at all.
fn files_together(f: &mut Fields<'_>, one: &'static str, other: &'static str) -> (Option<PathBuf>, Option<PathBuf>) {
    let files = (f.take::<PathBuf>(one).map(Spanned::into_inner), f.take::<PathBuf>(other).map(Spanned::into_inner));
    if files.0.is_some() != files.1.is_some() {
        f.tell(f.span(), format!("{one} and {other} stand together"), "name both files, or neither");
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commented_example_shows_the_defaults() {
        let example = Config::parse("carebed.toml", include_str!("../../deploy/carebed.toml")).unwrap();
        let defaults = Config::at(example.data.clone());
        assert_eq!(format!("{example:?}"), format!("{defaults:?}"));
    }

    #[test]
    fn every_mistake_is_told_with_its_place_and_what_to_do() {
        let text = "data = \"d\"\n[brokr]\n[ingest]\ncommit_every = \"2 weeks\"\nconections = 2\n[detection]\nevery = \"30d\"\n\
                    [console]\nlisten = \"0.0.0.0:80\"\n[broker]\naddress = \"nonsense\"\nuser = \"u\"\n[sql]\ncores = 0\n\
                    [storage]\nurl = \"s3://bucket\"\nkeep = { heart_rat = \"90d\", vitals = \"0s\" }\n";
        let told = Config::parse("c.toml", text).unwrap_err().to_string();
        for part in [
            "c.toml:2:2: the file knows no \"brokr\"",
            "did you mean \"broker\"?",
            "c.toml:4:16: commit_every",
            "c.toml:5:1: [ingest] knows no \"conections\"",
            "c.toml:7:9: every is",
            "c.toml:9:10: refusing to listen",
            "c.toml:11:11: \"nonsense\" is not host:port",
            "user and password_file stand together",
            "c.toml:14:9: cores is 0",
            "[sql] lacks users",
            "c.toml:16:7: \"s3://bucket\"",
            "did you mean \"heart_rate\"?",
            "c.toml:17:38: vitals",
        ] {
            assert!(told.contains(part), "{part} is not told: {told}");
        }
        assert!(
            Config::parse("c.toml", "data = \"d\"\n[broker]\naddress = \"b:1883\"\n").is_err(),
            "another machine without TLS"
        );
    }
}
