//! `doctor`: what keeps this box from its work; for each thing a finding, its cause and the next step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::{Clock, SystemClock};
use carebed_contract::time::Timestamp;
use rustix::fs::Access;

use super::{Exit, Files, config_file, home_file, print, runtime};
use crate::config::Config;
use crate::home::Board;
use crate::link::address::Address;
use crate::link::reading::{self, Reading};
use crate::spool::{Directory, DirectoryError};
use crate::stamp::ClockTrust;
use crate::uplink::mqtt::{Ended, probe};

/// A device that does not answer within this is silent for the doctor, too.
const DEVICE_PATIENCE: Duration = Duration::from_secs(10);
/// Free space below this is told: the spool may need it.
const SPACE_FACTOR: u64 = 2;

/// What was found about one thing.
struct Finding {
    about: String,
    /// What is, when it is as it should be; else what is wrong and what to do next.
    state: Result<String, (String, String)>,
}

impl Finding {
    fn good(about: impl Into<String>, what: impl Into<String>) -> Self {
        Self { about: about.into(), state: Ok(what.into()) }
    }

    fn wrong(about: impl Into<String>, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { about: about.into(), state: Err((what.into(), next.into())) }
    }
}

pub(super) fn doctor(files: &Files) -> anyhow::Result<Exit> {
    let (config, home) = (config_file(&files.config)?, home_file(&files.home)?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = runtime()?;
    let mut findings = vec![
        Finding::good("files", format!("{} and {} can be used", files.config.display(), files.home.display())),
        about_clock(&config, &*clock),
    ];
    let (spool, is_running) = about_spool(&config);
    findings.extend(spool);
    findings.push(runtime.block_on(about_broker(&config, &clock)));
    let boards: Vec<Arc<Board>> = home.boards.into_iter().map(Arc::new).collect();
    let paths: BTreeSet<&Path> = boards.iter().filter_map(|board| port(board)).collect();
    let ports: BTreeMap<&Path, Finding> = paths.into_iter().map(|path| (path, about_port(path, is_running))).collect();
    // Not beside a running gateway: two who ask on one line hear each other's answers.
    let hinders =
        |board: &Board| port(board).and_then(|path| ports.get(path)).filter(|port| is_running || port.state.is_err());
    let (hindered, asked): (Vec<_>, Vec<_>) = boards.iter().cloned().partition(|board| hinders(board).is_some());
    let readings = runtime.block_on(reading::read(&asked, &config.devices_broker, &clock, DEVICE_PATIENCE));
    let mut devices: Vec<Finding> =
        asked.iter().zip(&readings).map(|(board, reading)| about_board(board, reading)).collect();
    devices.extend(hindered.iter().map(|board| match hinders(board).map(|port| &port.state) {
        Some(Err(_)) => Finding::wrong(named(board), "not asked: its port cannot be used", "see the port above"),
        _ => Finding::good(
            named(board),
            "not asked: its port is held by the running gateway, whose status tells how it is",
        ),
    }));
    findings.extend(ports.into_values());
    findings.extend(devices);

    let mut page = String::new();
    let mut exit = Exit::Ok;
    for Finding { about, state } in &findings {
        let _never = match state {
            Ok(what) => writeln!(page, "ok    {about}: {what}"),
            Err((what, next)) => {
                exit = Exit::Findings;
                writeln!(page, "WRONG {about}: {what}\n      next: {next}")
            }
        };
    }
    print(&page)?;
    Ok(exit)
}

fn about_clock(config: &Config, clock: &dyn Clock) -> Finding {
    let now = clock.now();
    match (config.clock, clock.is_synchronised()) {
        (ClockTrust::Trusted, _) => Finding::good("clock", format!("{now}, trusted as the configuration says")),
        (ClockTrust::System, Some(true)) => Finding::good("clock", format!("{now}, kept right by a time server")),
        (ClockTrust::System, None) if now >= Timestamp::RELEASED => {
            Finding::good("clock", format!("{now}; the system cannot say whether something keeps it right"))
        }
        (ClockTrust::System, _) => Finding::wrong(
            "clock",
            format!("{now}, but nothing keeps it right; observations wait for the centre's receipts to learn the time"),
            "let a time server be reached (UDP 123), and start systemd-timesyncd, chrony or ntpd; `timedatectl` shows how it goes",
        ),
    }
}

/// What is to be said of the spool, and whether a running gateway has it.
fn about_spool(config: &Config) -> (Vec<Finding>, bool) {
    let directory = &config.spool_directory;
    let place = directory.display().to_string();
    let opened = Directory::open(directory);
    let is_running = matches!(opened, Err(DirectoryError::InUse { .. }));
    let mut findings = vec![match opened {
        Ok(_) => Finding::good("spool", format!("{place} can be written")),
        Err(DirectoryError::InUse { .. }) => {
            Finding::good("spool", format!("{place} is in use by the running gateway"))
        }
        Err(error) => Finding::wrong(
            "spool",
            with_causes(&error),
            format!("give the directory to the user that runs the gateway: chown carebed-gateway {place}"),
        ),
    }];
    if let Some(free) = free_bytes(directory) {
        let needed = config.spool.bytes_max * SPACE_FACTOR;
        let (free_mib, needed_mib) = (free >> 20, needed >> 20);
        findings.push(if free >= needed {
            Finding::good("disk", format!("{free_mib} MiB free"))
        } else {
            let what = format!("{free_mib} MiB free, the spool may need {needed_mib}");
            Finding::wrong("disk", what, "make room, or lower bytes_max in [spool]")
        });
    }
    (findings, is_running)
}

/// The serial port of this box that a board hangs on.
fn port(board: &Board) -> Option<&Path> {
    match &board.link {
        Address::Serial { path, .. } => Some(path),
        _ => None,
    }
}

/// Whether a port is there and this user may use it, without opening it: that alone makes some adapters reset a device.
fn about_port(path: &Path, is_running: bool) -> Finding {
    let about = format!("port {}", path.display());
    let absent = "plug the adapter in, or name it as it is: ls -l /dev/serial/by-id";
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Finding::wrong(about, "it is not there", absent),
        Err(error) => Finding::wrong(about, error.to_string(), absent),
        Ok(file) if !file.file_type().is_char_device() => Finding::wrong(about, "it is no serial port", absent),
        Ok(_) => match rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK) {
            Ok(()) if is_running => Finding::good(about, "held by the running gateway"),
            Ok(()) => Finding::good(about, "there, and this user may use it"),
            Err(error) => {
                let next = "let the gateway's user use the port: usermod -aG dialout carebed-gateway";
                Finding::wrong(about, format!("this user may not read and write it: {error}"), next)
            }
        },
    }
}

fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

async fn about_broker(config: &Config, clock: &Arc<dyn Clock>) -> Finding {
    let broker = &config.broker;
    let about = format!("broker {}:{}", broker.host, broker.port);
    let secured = if broker.security.ca.is_some() { "over TLS" } else { "without TLS" };
    match probe(broker, clock, Timestamp::RELEASED).await {
        Ok(()) => Finding::good(about, format!("lets this gateway in, {secured}")),
        Err(error) => {
            let what = with_causes(&error);
            let next = match &error {
                Ended::Security(_) => {
                    "put the files there, or correct their paths in [broker]; carebed-gateway enroll makes key and request"
                }
                Ended::Silent => "something takes the connection and is no MQTT broker; check host and port",
                Ended::Connection(_) => next_step(&what),
            };
            Finding::wrong(about, what, next)
        }
    }
}

/// What to do about a connection that failed; the libraries tell the cause in words only.
fn next_step(what: &str) -> &'static str {
    let has = |word: &str| what.contains(word);
    if has("UnknownIssuer") || has("BadSignature") {
        "the broker's certificate is signed by another authority: take the ca.pem of the centre this gateway belongs to"
    } else if has("NotValidForName") || has("not valid for name") {
        "the broker's certificate names other hosts: write the host as the certificate does, or issue it anew"
    } else if has("Expired") || has("expired") {
        "the broker's certificate has expired, or this box's clock is ahead: issue it anew, or set the clock"
    } else if has("CertificateRequired") || has("BadCertificate") || has("UnknownCA") || has("certificate required") {
        "the broker does not take this gateway's certificate: name certificate and key of its own in [broker]"
    } else if has("NotAuthorized") || has("BadUserNamePassword") || has("not authorized") {
        "the broker knows neither user nor password: check both, and its access rules"
    } else if has("refused") {
        "the broker does not run, or listens on another port or address only"
    } else if has("lookup") || has("resolve") || has("Name or service") {
        "the name is not known here: check it, and the box's DNS server"
    } else {
        "check cable, router and firewall between this box and the broker"
    }
}

fn named(board: &Board) -> String {
    format!("device {} at {}", board.id, board.link)
}

fn about_board(board: &Board, reading: &Reading) -> Finding {
    let about = named(board);
    let n_values = reading.points.len();
    match &reading.failure {
        _ if reading.is_whole => Finding::good(about, format!("answers ({n_values} values)")),
        Some(what) => {
            let next = if what.contains("ermission denied") {
                "let the gateway's user use the port: usermod -aG dialout carebed-gateway"
            } else if what.contains("No such file") {
                "the adapter is not plugged in, or has another name: ls -l /dev/serial/by-id"
            } else {
                "check power, cable, address, unit and speed; a running gateway may hold the port; carebed-gateway scan looks for devices"
            };
            Finding::wrong(about, what, next)
        }
        None if n_values > 0 || board.link == Address::Broker => {
            let seconds = DEVICE_PATIENCE.as_secs();
            let what = format!("{n_values} values within {seconds} s; it speaks when it has something to say");
            Finding::good(about, what)
        }
        None => {
            let what = format!("nothing within {} s", DEVICE_PATIENCE.as_secs());
            Finding::wrong(about, what, "check power, cable and address")
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
