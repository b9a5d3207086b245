//! How the gateway runs: broker, spool, intervals. What is in the home stands in the home file ([`crate::home`]).

use std::path::PathBuf;
use std::time::Duration;

use carebed_device_profiles::document::{self, Fields, Mistakes};
use toml::Spanned;

use crate::spool::Limits;
use crate::stamp::ClockTrust;

/// Where the broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
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
        }
    }

    /// Reads a configuration file's text; `file` names it in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, Mistakes> {
        document::read(file, text, |fields| {
            let broker = fields.need_table("broker").and_then(|mut f| f.need("url").and_then(|url| broker(&f, &url)));
            let spool = fields.need_table("spool").and_then(spool);
            let clock = fields.take("clock").and_then(|word| clock(fields, &word));
            let send = fields.table("send").map(Send::read).unwrap_or_default();
            let (directory, limits) = spool?;
            let config = Self { spool: limits, ..Self::new(broker?, directory) };
            Some(Self {
                routine_every: send.routine_every.unwrap_or(config.routine_every),
                complete_every: send.complete_every.unwrap_or(config.complete_every),
                status_every: send.status_every.unwrap_or(config.status_every),
                heartbeat: send.heartbeat,
                window: send.window.unwrap_or(config.window),
                clock: clock.unwrap_or(config.clock),
                ..config
            })
        })
    }
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

fn broker(fields: &Fields<'_>, url: &Spanned<String>) -> Option<Broker> {
    let broker = url.get_ref().strip_prefix("mqtt://").and_then(|address| host_and_port(address, Some(1883)));
    if broker.is_none() {
        let message = format!("url: {:?} is not mqtt://host:port", url.get_ref());
        fields.tell(url.span(), message, "write the broker's address as in \"mqtt://127.0.0.1:1883\"");
    }
    broker.map(|(host, port)| Broker { host, port })
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
                "3:7 url: \"http://x\" is not mqtt://host:port",
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
        let broker = Broker { host: "127.0.0.1".to_owned(), port: 1883 };
        let mut defaults = Config::new(broker, PathBuf::from("/var/lib/carebed-gateway/spool"));
        defaults.heartbeat = Some(Duration::from_secs(600));
        assert_eq!(config, defaults);
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
