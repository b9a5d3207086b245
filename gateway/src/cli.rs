//! `carebed-gateway run | check | doctor | enroll | scan | read | decode | profiles | replay`. Data goes to stdout, everything else to stderr.

mod check;
mod decode;
mod doctor;
mod enroll;
mod profiles;
mod read;
mod replay;
mod run;
mod scan;

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use carebed_contract::clock::{Clock, SystemClock};
use carebed_device_profiles::document::Mistakes;
use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::home::HomeFile;
use crate::run::Error;
use crate::spool::DirectoryError;

/// Exit codes, the same numbers as the centre's; clap's own for wrong arguments is 2.
#[derive(Clone, Copy)]
enum Exit {
    /// As asked.
    Ok = 0,
    /// Something failed that is none of the below.
    Failed = 1,
    /// The configuration or the home file has mistakes.
    Mistakes = 2,
    /// The spool is in use by another process.
    InUse = 4,
    /// A device did not answer.
    NoAnswer = 5,
    /// The doctor found something wrong.
    Findings = 6,
}

/// The program in each home: devices to the service centre, nothing lost.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run until told to stop (Ctrl-C or SIGTERM).
    Run(run::Arguments),
    /// Check the files, and say everything that is wrong with them.
    Check(Files),
    /// Look for what keeps this box from its work: clock, disk, broker, certificates, devices; each with the next step.
    Doctor(Files),
    /// Make this gateway's key and the request for its certificate.
    Enroll(enroll::Arguments),
    /// Ask the devices of a home once, and print what they say.
    Read(read::Arguments),
    /// Look for devices on a serial port, a serial server or a Modbus TCP host: at which speed, parity and unit they answer.
    Scan(scan::Arguments),
    /// Show what bytes, registers or a payload say: in every type and word order, or as a profile reads them.
    Decode(decode::Arguments),
    /// List, show and check the devices that can be connected.
    #[command(subcommand)]
    Profiles(profiles::Command),
    /// The broker for devices in the home, started by the gateway itself.
    #[command(hide = true)]
    HomeBroker {
        /// Where to listen to MQTT 3.1.1.
        #[arg(long)]
        v4: SocketAddr,
        /// Where to listen to MQTT 5.
        #[arg(long)]
        v5: SocketAddr,
    },
    /// Replay captures against their profiles, and show what each exchange means.
    Replay(replay::Arguments),
}

#[derive(Args)]
struct Files {
    /// Broker, spool, intervals.
    #[arg(long, value_name = "FILE", default_value = "/etc/carebed-gateway/gateway.toml")]
    config: PathBuf,
    /// What is in the home.
    #[arg(long, value_name = "FILE", default_value = "/etc/carebed-gateway/home.toml")]
    home: PathBuf,
}

/// Parses the command line, runs the command, tells a failure once.
pub fn main() -> ExitCode {
    main_with(Arc::new(SystemClock::new()))
}

/// As [`main`]; a running gateway goes by another clock than the machine's. For tests of boxes whose clock is wrong.
pub fn main_with(clock: Arc<dyn Clock>) -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAREBED_LOG");
    // rumqttd calls every client that leaves an error; what matters shows in the clients.
    let default = if matches!(arguments.command, Command::HomeBroker { .. }) { "off" } else { "info" };
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would panic over a log that cannot be written, as on a full disk.
        .log_internal_errors(false)
        .init();
    let done = match arguments.command {
        Command::Run(arguments) => run::run(arguments, clock),
        Command::Check(files) => check::check(&files),
        Command::Doctor(files) => doctor::doctor(&files),
        Command::Enroll(arguments) => enroll::enroll(&arguments),
        Command::Read(arguments) => read::read(arguments),
        Command::Scan(arguments) => scan::scan(arguments),
        Command::Decode(arguments) => decode::decode(&arguments),
        Command::Profiles(command) => profiles::profiles(&command),
        Command::HomeBroker { v4, v5 } => crate::link::serve_broker(v4, v5).map(|()| Exit::Ok).map_err(Into::into),
        Command::Replay(arguments) => replay::replay(&arguments),
    };
    let exit = done.unwrap_or_else(|error| tell(&error));
    ExitCode::from(exit as u8)
}

/// Prints an error with its causes once, and chooses the exit code.
fn tell(error: &anyhow::Error) -> Exit {
    let mut text = String::new();
    let exit = match error.downcast_ref::<Mistakes>() {
        Some(mistakes) => {
            let _never = write!(text, "{mistakes}");
            Exit::Mistakes
        }
        None => {
            let _never = write!(text, "error: {error:#}");
            match error.downcast_ref::<Error>() {
                Some(Error::Directory(DirectoryError::InUse { .. })) => Exit::InUse,
                _ => Exit::Failed,
            }
        }
    };
    let _closed = writeln!(std::io::stderr(), "{text}");
    exit
}

fn text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

fn home_file(path: &Path) -> anyhow::Result<HomeFile> {
    Ok(HomeFile::parse(&path.display().to_string(), &text(path)?)?)
}

fn config_file(path: &Path) -> anyhow::Result<Config> {
    Ok(Config::parse(&path.display().to_string(), &text(path)?)?)
}

/// One thread: a home's work is small, and handing each answer from one thread to another would cost more than the answer.
/// Files are written on threads of their own.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start the runtime")
}

fn print(text: &str) -> anyhow::Result<Exit> {
    std::io::stdout().write_all(text.as_bytes()).context("failed to write to stdout")?;
    Ok(Exit::Ok)
}
