//! The command line: data on stdout, everything else on stderr, exit codes as in [`Exit`].

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{ConfigError, parse_duration};
use crate::exit::{Exit, Misuse};

/// The service centre of family care beds.
#[derive(Debug, Parser)]
#[command(name = "carebed", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the whole system at work: simulated homes, gateways, broker, centre and page, on a fast clock.
    Demo(DemoArguments),
    /// Runs the service centre.
    Serve {
        /// The configuration, e.g. deploy/carebed.toml.
        #[arg(long)]
        config: PathBuf,
    },
    /// Checks a configuration, the detections and the episodes without starting anything.
    Check {
        /// The configuration.
        #[arg(long)]
        config: PathBuf,
    },
    /// Runs read-only SQL over everything that was recorded; a prompt when no statement is given.
    Sql(SqlArguments),
    /// Prints a report that the programmes ask for; lists them when none is named.
    Report(ReportArguments),
    /// Brings recordings in.
    Import(ImportArguments),
    /// Merges small files, deletes observations whose time is over, and files that nobody needs.
    Maintain(crate::maintain::MaintainArguments),
    /// Forgets a person: a home or a bed, up to a time; for good, and proved by a scan.
    Erase(crate::erase::EraseArguments),
    /// Gives observations away: Parquet and JSON lines with counts and checksums, nightly vitals as FHIR.
    Export(crate::export::ExportArguments),
    /// Copies everything the centre keeps to a folder, also while it runs.
    Backup(crate::backup::BackupArguments),
    /// Makes a data folder of a backup.
    Restore(crate::backup::RestoreArguments),
    /// Runs detections over a span of history and counts their alerts per home-day.
    Backtest(BacktestArguments),
    /// How soon a detection of silence notices, and how often it is wrong, on recordings: false alerts per home-day beside mean hours.
    Evaluate(EvaluateArguments),
    /// Lives simulated nights with chattering mats and counts false alerts, falls and calls found.
    Nights(NightsArguments),
    /// Says why an alert is there: its sentence, its numbers, what was done, and the rows it rests on.
    Explain(ExplainArguments),
    /// Keeps the file of users who may ask over the PostgreSQL wire protocol.
    #[command(subcommand)]
    Users(UsersCommand),
    /// The embedded broker, started by carebed itself.
    #[command(hide = true)]
    Broker {
        /// A loopback address.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// The broker of a home's devices, started by the demo's gateways.
    #[command(hide = true)]
    HomeBroker {
        /// Where to listen to MQTT 3.1.1.
        #[arg(long)]
        v4: SocketAddr,
        /// Where to listen to MQTT 5.
        #[arg(long)]
        v5: SocketAddr,
    },
}

/// What to do with the file of users.
#[derive(Debug, Clone, Subcommand)]
pub enum UsersCommand {
    /// Lets someone in, or gives them a new password and other areas. The password is read from standard input.
    Add {
        /// The file, as `sql.users` names it; made when it is not there.
        #[arg(long)]
        file: PathBuf,
        /// What they sign in as.
        name: String,
        /// Areas they may read: all whose codes begin so, a district with its streets and communities. All when none is named.
        #[arg(long = "area")]
        areas: Vec<String>,
    },
    /// Lets someone in no more; the running centre knows it at the next connection.
    Remove {
        /// The file.
        #[arg(long)]
        file: PathBuf,
        /// Whom.
        name: String,
    },
    /// Says who may ask, and about which areas.
    List {
        /// The file.
        #[arg(long)]
        file: PathBuf,
    },
}

/// How the demo is to run.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArguments {
    /// Ends by itself after so long (real time); the exit code then says whether the expected alerts came.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub length: Option<Duration>,
    /// Where the page is; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Keeps the data here instead of in a folder that goes with the demo.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Seed of the residents' lives.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many times as fast as life.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub speed: u32,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For reading.
    Table,
    /// Comma separated, with a header.
    Csv,
    /// One JSON array.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// A Parquet file; of one answer.
    Parquet,
}

/// A question.
#[derive(Debug, Clone, clap::Args)]
pub struct SqlArguments {
    /// The centre's data folder.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
    /// The statement; SELECT, EXPLAIN, SHOW or DESCRIBE. Without it and without a file: a prompt, or what comes on standard input.
    // A statement may begin with a comment.
    #[arg(short, long, allow_hyphen_values = true)]
    pub command: Option<String>,
    /// A file of statements, separated by semicolons.
    #[arg(short, long, conflicts_with = "command")]
    pub file: Option<PathBuf>,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Where the answer goes; standard output when absent.
    #[arg(short, long)]
    pub output: Option<PathBuf>,
}

/// A report.
#[derive(Debug, Clone, clap::Args)]
pub struct ReportArguments {
    /// The centre's data folder.
    #[arg(long, env = "CAREBED_DATA", default_value = ".")]
    pub data: PathBuf,
    /// Which; without it they are listed.
    pub name: Option<String>,
    /// A parameter's value, e.g. --set from=2026-05-01.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub values: Vec<String>,
    /// How the answer is written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Where the answer goes; standard output when absent.
    #[arg(short, long)]
    pub output: Option<PathBuf>,
}

/// Recordings to bring in.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArguments {
    /// The centre's data folder; made when it is not there.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
    /// What the sensors mean: tihm, ordonez, somnofy, or a TOML file.
    #[arg(long)]
    pub meaning: String,
    /// CSV files `ts_utc,sensor_id,kind,value`, gzipped or not; the name up to the first dot is the home's id.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// Nights to live.
#[derive(Debug, Clone, clap::Args)]
pub struct NightsArguments {
    /// Nights of each home.
    #[arg(long, default_value_t = 70)]
    pub nights: u32,
    /// Homes with each kind of mat.
    #[arg(long, default_value_t = 10)]
    pub homes: u32,
    /// Seed of the residents' lives.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A folder of changed detections, used in place of those of the same name.
    #[arg(long)]
    pub with: Option<PathBuf>,
    /// Each false alert and each fall that was found too late on a line of its own.
    #[arg(long)]
    pub list: bool,
}

/// An alert to explain.
#[derive(Debug, Clone, clap::Args)]
pub struct ExplainArguments {
    /// The alert's id, or as much of its beginning as no other has.
    pub alert: String,
    /// The centre's data folder.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
}

/// A span to look back over.
#[derive(Debug, Clone, clap::Args)]
pub struct BacktestArguments {
    /// The centre's data folder.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
    /// First day (UTC), e.g. 2026-03-01; all data when absent.
    #[arg(long)]
    pub from: Option<String>,
    /// Day after the last (UTC).
    #[arg(long)]
    pub to: Option<String>,
    /// Only these detections; all when absent.
    #[arg(long = "detection")]
    pub detections: Vec<String>,
    /// A CSV of spans (start,end) in which a recording's platform was down: nothing is said of them, and no home-day counted.
    #[arg(long)]
    pub outages: Option<PathBuf>,
    /// A folder of changed detections and baselines, used in place of those of the same name; what they find otherwise is listed.
    #[arg(long)]
    pub with: Option<PathBuf>,
    /// As it would have been told while the data came as it did, in the order and at the times at which the centre received it.
    #[arg(long, conflicts_with = "with")]
    pub as_received: bool,
    /// Draws one home's night, from local noon to noon: `h1/2026-03-01`.
    #[arg(long)]
    pub draw: Option<crate::backtest::Night>,
    /// Where that drawing goes.
    #[arg(long, default_value = "night.svg")]
    pub svg: PathBuf,
    /// How the answer is written: the table per detection and home, or one row per finding as csv or json.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// What to evaluate.
#[derive(Debug, Clone, clap::Args)]
pub struct EvaluateArguments {
    /// The centre's data folder.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
    /// The detection.
    #[arg(long, default_value = "inactivity")]
    pub detection: String,
    /// A folder of changed detections and baselines, used in place of those of the same name.
    #[arg(long)]
    pub with: Option<PathBuf>,
    /// A CSV of spans (start,end) in which the platform was down, left out for every home.
    #[arg(long)]
    pub outages: Option<PathBuf>,
    /// The whole trade-off, and not only where the detection stands.
    #[arg(long)]
    pub curve: bool,
    /// Draws the trade-off.
    #[arg(long)]
    pub svg: Option<PathBuf>,
    /// Whole days below which a home is left out; 28 when absent.
    #[arg(long)]
    pub days_min: Option<usize>,
    /// For the intervals by home.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Parses the command line, runs the command, prints a failure's whole chain once.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(match cli.command {
        Command::Serve { .. } => {
            "info,buoyant_kernel=warn,buoyant_kernel_engine=warn,deltalake_core=warn,datafusion=warn,sqlx=warn"
        }
        // rumqttd calls every client that leaves an error; what matters shows in the clients.
        Command::Broker { .. } | Command::HomeBroker { .. } => "off",
        _ => "warn",
    });
    match run(cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            complain(&format!("error: {error:#}"));
            let misused = error.is::<ConfigError>() || error.is::<Misuse>();
            if misused { Exit::Usage.into() } else { Exit::Failed.into() }
        }
    }
}

fn run(command: Command) -> anyhow::Result<Exit> {
    if let Command::Broker { listen } = command {
        crate::broker::serve(listen)?;
        return Ok(Exit::Done);
    }
    if let Command::HomeBroker { v4, v5 } = command {
        carebed_gateway::link::serve_broker(v4, v5)?;
        return Ok(Exit::Done);
    }
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    if matches!(command, Command::Sql(_) | Command::Report(_)) {
        threads.thread_stack_size(carebed_queries::sql::STACK_BYTES);
    }
    let runtime = threads.enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Demo(arguments) => crate::demo::run(arguments).await,
            Command::Serve { config } => crate::serve::run(&config).await,
            Command::Check { config } => crate::check::run(&config).await,
            Command::Sql(arguments) => crate::sql::run(arguments).await,
            Command::Report(arguments) => crate::sql::report(arguments).await,
            Command::Import(arguments) => crate::import::run(arguments).await,
            Command::Maintain(arguments) => crate::maintain::run(arguments).await,
            Command::Erase(arguments) => crate::erase::run(arguments).await,
            Command::Export(arguments) => crate::export::run(arguments).await,
            Command::Backup(arguments) => crate::backup::run(arguments).await,
            Command::Restore(arguments) => crate::backup::restore(arguments).await,
            Command::Backtest(arguments) => crate::backtest::run(arguments).await,
            Command::Evaluate(arguments) => crate::evaluate::run(arguments).await,
            Command::Nights(arguments) => crate::nights::run(arguments).await,
            Command::Explain(arguments) => crate::explain::run(arguments).await,
            Command::Users(command) => crate::users::run(command),
            Command::Broker { .. } | Command::HomeBroker { .. } => {
                unreachable!("served above, before a runtime exists")
            }
        }
    })
}

/// `CAREBED_LOG` overrides, as in `CAREBED_LOG=debug`.
fn log_to_stderr(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAREBED_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would panic over a log that cannot be written, as on a full disk.
        .log_internal_errors(false)
        .init();
}

/// Says something that is not data: to stderr.
pub fn complain(line: &str) {
    // The macro would panic where nobody can read it, as on a full disk: the exit code still tells.
    let _unread = writeln!(std::io::stderr(), "{line}");
}

/// Says something that is data: to stdout. Ends the program in order when nobody reads on, as behind `| head`.
pub fn say(line: &str) {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            complain(&format!("error: failed to write the answer: {error}"));
            std::process::exit(1);
        }
    }
}
