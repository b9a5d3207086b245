//! `carebed-gateway run | check | read | profiles`. Data goes to stdout, everything else to stderr.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::config::Config;
use crate::home::HomeFile;
use crate::link;
use crate::run::Error;
use crate::spool::DirectoryError;
use anyhow::Context as _;
use carebed_contract::Shutdown;
use carebed_contract::clock::SystemClock;
use carebed_device_profiles::decoder::Decoder;
use carebed_device_profiles::document::Mistakes;
use carebed_device_profiles::shipped;
use clap::{Args, Parser, Subcommand};

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
    Run(Files),
    /// Check the files, and say everything that is wrong with them.
    Check(Files),
    /// Ask the devices of a home once, and print what they say.
    Read {
        /// The home file.
        #[arg(long, value_name = "FILE")]
        home: PathBuf,
    },
    /// List the devices that can be connected.
    Profiles,
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
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAREBED_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let done = match arguments.command {
        Command::Run(files) => run(&files),
        Command::Check(files) => check(&files),
        Command::Read { home } => read(&home),
        Command::Profiles => profiles(),
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

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().context("failed to start the runtime")
}

fn run(files: &Files) -> anyhow::Result<Exit> {
    let (config, home) = (config_file(&files.config)?, home_file(&files.home)?);
    runtime()?.block_on(async {
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .context("failed to listen for SIGTERM")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            stop.cancel();
        });
        crate::run(config, home, Arc::new(SystemClock::new()), shutdown).await?;
        Ok(Exit::Ok)
    })
}

fn check(files: &Files) -> anyhow::Result<Exit> {
    // Both files are read, so that one run tells the mistakes of both.
    let (config, home) = (config_file(&files.config), home_file(&files.home));
    if let (Err(error), Err(_)) = (&config, &home) {
        tell(error);
    }
    let (config, home) = match (config, home) {
        (Ok(config), Ok(home)) => (config, home),
        (_, Err(error)) | (Err(error), _) => return Err(error),
    };
    let (n_inputs, n_outputs) = home
        .boards
        .iter()
        .fold((0, 0), |(inputs, outputs), board| (inputs + board.inputs.len(), outputs + board.outputs.len()));
    print(&format!(
        "{}: broker {}:{}, spool {}\n{}: home {}, gateway {}, {} rooms, {} beds, {} boards, {n_inputs} inputs, {n_outputs} outputs\n",
        files.config.display(),
        config.broker.host,
        config.broker.port,
        config.spool_directory.display(),
        files.home.display(),
        home.home,
        home.gateway,
        home.rooms.len(),
        home.beds.len(),
        home.boards.len(),
    ))
}

fn read(home: &Path) -> anyhow::Result<Exit> {
    let home = home_file(home)?;
    let runtime = runtime()?;
    let mut exit = Exit::Ok;
    for board in &home.boards {
        let answers = match runtime.block_on(link::read_once(board)) {
            Ok(answers) => answers,
            Err(error) => {
                let (host, port) = &board.link;
                let hint = "check power, cable, address and unit";
                let _closed = writeln!(std::io::stderr(), "{} at {host}:{port}: {error}\n  hint: {hint}", board.id);
                exit = Exit::NoAnswer;
                continue;
            }
        };
        let decoder = Decoder::new(Arc::clone(&board.profile));
        let mut table = String::new();
        for (poll, data) in answers {
            let values = match decoder.decode(poll, &data) {
                Ok(values) => values,
                Err(reject) => {
                    let _closed = writeln!(std::io::stderr(), "{}: the answer cannot be used: {reject}", board.id);
                    exit = Exit::NoAnswer;
                    continue;
                }
            };
            for (index, value) in values {
                let name = board.profile.inputs.get(index).map_or("", |input| input.name.as_str());
                let raw = value.number().map_or_else(String::new, |number| number.to_string());
                let wired = board.inputs.iter().find(|wired| wired.input == index);
                let wired = wired.map_or_else(
                    || "-".to_owned(),
                    |wired| {
                        let inverted = if wired.invert { " (inverted)" } else { "" };
                        format!("{} {}{inverted}", wired.device, wired.quantity)
                    },
                );
                let _never = writeln!(table, "{:<12} {name:>3} {raw:>3}  {wired}", board.id);
            }
        }
        print(&table)?;
    }
    Ok(exit)
}

fn profiles() -> anyhow::Result<Exit> {
    let mut table = String::new();
    for shipped in shipped::all() {
        let about = &shipped.profile.identification;
        let tested = if about.tested_on_hardware { "tested on hardware" } else { "not tested on hardware" };
        let _never = writeln!(
            table,
            "{:<24} {} · {} (confidence {:?}, {tested})",
            shipped.profile.name, about.title.zh, about.title.en, about.confidence
        );
    }
    print(&table)
}

fn print(text: &str) -> anyhow::Result<Exit> {
    std::io::stdout().write_all(text.as_bytes()).context("failed to write to stdout")?;
    Ok(Exit::Ok)
}
