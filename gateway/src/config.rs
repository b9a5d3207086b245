//! How the gateway runs: broker, spool, intervals. What is in the home stands in the home file ([`crate::home`]).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use carebed_contract::security::Security;
use carebed_device_profiles::document::{self, Fields, Mistakes};
use toml::Spanned;

use crate::link::LocalBroker;
use crate::spool::Limits;
use crate::stamp::ClockTrust;

/// Where the broker listens, and how the connection to it is secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Certificates and password.
    pub security: Security,
}

impl Broker {
    /// A broker on this machine, or one that is reached over something that is already secure.
    #[must_use]
    pub fn plain(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, security: Security::default() }
    }
}

/// The gateway's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to send to.
    pub broker: Broker,
    /// Where the spool lies.
    pub spool_directory: PathBuf,
    /// How large the spool may grow.
    pub spool: Limits,
    /// How long routine observations may wait to travel together. Product time.
    pub routine_every: Duration,
    /// How often the centre learns up to when the home's data is complete, though nothing happened. Product time.
    pub complete_every: Duration,
    /// How often the status is told, though nothing changed. Product time.
    pub status_every: Duration,
    /// After which time of sameness a value is told again; none: as each profile says. Product time.
    pub heartbeat: Option<Duration>,
    /// How many batches of a lane may be under way without a receipt.
    pub window: u64,
    /// How far the machine's clock is trusted.
    pub clock: ClockTrust,
    /// The broker that devices in the home speak to.
    pub devices_broker: LocalBroker,
}

impl Config {
    /// The defaults, for a broker and a spool directory.
    #[must_use]
    pub fn new(broker: Broker, spool_directory: PathBuf) -> Self {
        Self {
            broker,
            spool_directory,
            spool: Limits::default(),
            routine_every: Duration::from_secs(5),
            complete_every: Duration::from_secs(30),
            status_every: Duration::from_secs(300),
            heartbeat: None,
            window: 512,
            clock: ClockTrust::System,
            devices_broker: embedded_broker(),
        }
    }

    /// The broker that devices in the home speak to unless a configuration says otherwise: our own, on the ports that
    /// devices expect.
    #[must_use]
    pub fn default_devices_broker() -> LocalBroker {
        embedded_broker()
    }

    /// Reads a configuration file's text; `file` names it in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, Mistakes> {
        document::read(file, text, |fields| {
            let broker = fields.need_table("broker").and_then(|mut f| {
                let url = f.need("url");
                broker(f, url)
            });
            let spool = fields.need_table("spool").and_then(spool);
            let clock = fields.take("clock").and_then(|word| clock(fields, &word));
            let send = fields.table("send").map(Send::read).unwrap_or_default();
            let devices_broker = fields.table("devices").and_then(devices_broker);
            let (directory, limits) = spool?;
            let config = Self { spool: limits, ..Self::new(broker?, directory) };
            Some(Self {
                routine_every: send.routine_every.unwrap_or(config.routine_every),
                complete_every: send.complete_every.unwrap_or(config.complete_every),
                status_every: send.status_every.unwrap_or(config.status_every),
                heartbeat: send.heartbeat,
                window: send.window.unwrap_or(config.window),
                clock: clock.unwrap_or(config.clock),
                devices_broker: devices_broker.unwrap_or(config.devices_broker),
                ..config
            })
        })
    }
}

/// Our own broker on the ports that devices expect; this very program serves it.
fn embedded_broker() -> LocalBroker {
    LocalBroker::Embedded {
        program: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("carebed-gateway")),
        v4: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
        v5: SocketAddr::from((Ipv4Addr::LOCALHOST, 1885)),
    }
}

fn devices_broker(mut f: Fields<'_>) -> Option<LocalBroker> {
    let url: Spanned<String> = f.take("broker")?;
    let (v4, v5) = (f.take::<SocketAddr>("listen"), f.take::<SocketAddr>("listen_v5"));
    if url.get_ref() == "embedded" {
        let LocalBroker::Embedded { program, v4: usual_v4, v5: usual_v5 } = embedded_broker() else { return None };
        let v4 = v4.map_or(usual_v4, Spanned::into_inner);
        let v5 = v5.map_or(usual_v5, Spanned::into_inner);
        return Some(LocalBroker::Embedded { program, v4, v5 });
    }
    for listen in v4.iter().chain(&v5) {
        f.tell(
            listen.span(),
            "only the broker of our own listens where it is told",
            "leave it out, or write broker = \"embedded\"",
        );
    }
    broker(f, Some(url)).map(LocalBroker::At)
}

/// The table `[send]`, before defaults.
#[derive(Default)]
struct Send {
    routine_every: Option<Duration>,
    complete_every: Option<Duration>,
    status_every: Option<Duration>,
    heartbeat: Option<Duration>,
    window: Option<u64>,
}

impl Send {
    fn read(mut f: Fields<'_>) -> Self {
        let window: Option<Spanned<u64>> = f.take("window");
        if let Some(window) = window.as_ref().filter(|window| !(1..=1024).contains(window.get_ref())) {
            f.tell(window.span(), "window is not between 1 and 1024", "leave it out for the default of 512");
        }
        Self {
            routine_every: f.take_duration("routine_every"),
            complete_every: f.take_duration("complete_every"),
            status_every: f.take_duration("status_every"),
            heartbeat: f.take_duration("heartbeat"),
            window: window.map(Spanned::into_inner),
        }
    }
}

/// The broker of a URL, with what secures the connection to it.
fn broker(mut f: Fields<'_>, url: Option<Spanned<String>>) -> Option<Broker> {
    let path = |f: &mut Fields<'_>, key| f.take::<PathBuf>(key).map(Spanned::into_inner);
    let (ca, certificate, key) = (path(&mut f, "ca"), path(&mut f, "certificate"), path(&mut f, "key"));
    let (user, password_file) = (f.take::<String>("user").map(Spanned::into_inner), path(&mut f, "password_file"));
    if certificate.is_some() != key.is_some() {
        f.tell(f.span(), "certificate and key stand together", "name both files, or neither");
    }
    if user.is_some() != password_file.is_some() {
        f.tell(f.span(), "user and password_file stand together", "give both, or neither");
    }
    let security = Security { ca, identity: certificate.zip(key), login: user.zip(password_file) };
    let url = url?;
    let secure = url.get_ref().strip_prefix("mqtts://");
    let address = secure.or_else(|| url.get_ref().strip_prefix("mqtt://"));
    let default_port = if secure.is_some() { 8883 } else { 1883 };
    let Some((host, port)) = address.and_then(|address| host_and_port(address, Some(default_port))) else {
        let message = format!("{:?} is neither mqtts://host:port nor mqtt://host:port", url.get_ref());
        f.tell(url.span(), message, "write the broker's address as in \"mqtts://broker.example.org:8883\"");
        return None;
    };
    if secure.is_some() != security.ca.is_some() {
        f.tell(
            url.span(),
            "mqtts:// and ca stand together",
            "for TLS write mqtts:// and name the authority's file as ca; without TLS leave both out",
        );
    } else if !security.suffices_for(&host) {
        f.tell(
            url.span(),
            format!("{host} is another machine: the connection must have TLS and say who connects"),
            "write mqtts:// and name ca, with certificate and key or with user and password_file; see carebed-gateway enroll",
        );
    }
    Some(Broker { host, port, security })
}

/// Splits `host:port`, also with an IPv6 address in brackets.
pub(crate) fn host_and_port(address: &str, default_port: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
        _ => (address, None),
    };
    let plain = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c));
    Some((host.to_owned(), port.or(default_port)?)).filter(|_| plain)
}

fn spool(mut f: Fields<'_>) -> Option<(PathBuf, Limits)> {
    let directory: Option<Spanned<PathBuf>> = f.need("directory");
    let bytes: Option<Spanned<u64>> = f.take("bytes_max");
    let mut limits = Limits::default();
    if let Some(bytes) = bytes {
        if *bytes.get_ref() < 1 << 20 {
            f.tell(bytes.span(), "bytes_max is below 1 MiB", "give the spool at least 1048576 bytes");
        }
        limits.bytes_max = bytes.into_inner();
        limits.segment_bytes = (limits.bytes_max / 16).clamp(4 << 10, 1 << 20);
    }
    Some((directory?.into_inner(), limits))
}

fn clock(fields: &Fields<'_>, word: &Spanned<String>) -> Option<ClockTrust> {
    match word.get_ref().as_str() {
        "trusted" => Some(ClockTrust::Trusted),
        "system" => Some(ClockTrust::System),
        other => {
            let hint = document::advise(other, ["system", "trusted"]);
            fields.tell(word.span(), format!("clock: {other:?} is unknown"), hint);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_all_at_once() {
        let text = "clock = \"sytem\"\n[broker]\nurl = \"http://x\"\n[spool]\ndirectory = \"s\"\nbytes_max = 10\n\
                    [send]\nwindow = 0\nroutine_evry = \"5s\"\n";
        let mistakes = Config::parse("gateway.toml", text).unwrap_err();
        let rows: Vec<_> = mistakes.list.iter().map(|m| format!("{}:{} {}", m.line, m.column, m.message)).collect();
        assert_eq!(
            rows,
            [
                "1:9 clock: \"sytem\" is unknown",
                "3:7 \"http://x\" is neither mqtts://host:port nor mqtt://host:port",
                "6:13 bytes_max is below 1 MiB",
                "8:10 window is not between 1 and 1024",
                "9:1 [send] knows no \"routine_evry\"",
            ]
        );
    }

    #[test]
    fn the_example_holds_the_defaults() {
        let text = include_str!("../../deploy/gateway/gateway.toml");
        let config = Config::parse("gateway.toml", text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let broker = Broker::plain("127.0.0.1", 1883);
        let mut defaults = Config::new(broker, PathBuf::from("/var/lib/carebed-gateway/spool"));
        defaults.heartbeat = Some(Duration::from_secs(600));
        assert_eq!(config, defaults);
    }

    #[test]
    fn another_machine_is_reached_securely_or_not_at_all() {
        let check = |lines: &str| {
            let text = format!("[broker]\n{lines}\n[spool]\ndirectory = \"s\"\n");
            let told = Config::parse("gateway.toml", &text).map(|config| config.broker);
            told.map_err(|mistakes| mistakes.list.into_iter().map(|m| m.message).collect::<Vec<_>>())
        };
        let refused = check("url = \"mqtt://broker.example.org\"").unwrap_err();
        assert_eq!(
            refused,
            ["broker.example.org is another machine: the connection must have TLS and say who connects"]
        );
        assert_eq!(check("url = \"mqtts://b\"").unwrap_err(), ["mqtts:// and ca stand together"]);
        assert_eq!(check("url = \"mqtts://b\"\nca = \"ca.pem\"").unwrap_err().len(), 1, "as nobody");
        let half = check("url = \"mqtts://b\"\nca = \"ca.pem\"\nuser = \"gw\"\nkey = \"k\"").unwrap_err();
        assert_eq!(half[..2], ["certificate and key stand together", "user and password_file stand together"]);
        let secure = check("url = \"mqtts://b\"\nca = \"ca.pem\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"").unwrap();
        assert_eq!((secure.port, secure.security.identity), (8883, Some(("c.pem".into(), "k.pem".into()))));
    }

    #[test]
    fn addresses() {
        let cases = [
            ("127.0.0.1:1883", Some(("127.0.0.1", 1883))),
            ("[::1]:502", Some(("[::1]", 502))),
            ("board-1.local", Some(("board-1.local", 9))),
            ("", None),
            (":1", None),
            ("a:b", None),
            ("a b:1", None),
            ("a:70000", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host_and_port(text, Some(9)), expected.map(|(host, port)| (host.to_owned(), port)), "{text:?}");
        }
    }
}
