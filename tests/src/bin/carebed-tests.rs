//! Long runs against real programs, each with a ledger: it exits with 1 when anything is lost, doubled or too late.
//!
//! `faults`: random faults. `drain`: three days of a home at once. `herd`: a thousand homes return at once. `flood`: ten times
//! what the centre commits. `dropped`: homes send more than mosquitto queues by default. `ingest`: values a second, beside another program.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use carebed_tests::world::{BrokerKind, Programs};
use carebed_tests::{faults, load};

const USAGE: &str = "usage: carebed-tests COMMAND [--broker embedded|mosquitto] [--FLAG N]...
  faults  [--n 30] [--seed 1] [--homes 2]
  drain   [--within 300]
  herd    [--homes 1000] [--within 600] [--memory 192]
  flood   [--homes 50] [--within 120] [--memory 192]
  dropped [--within 300]
  ingest  [--gateways 200] [--packs 1000] [--areas 2] [--other 50] [--memory 192] [--rate VALUES]
(seconds, MiB and values a second; with CAREBED_PYTHON set, ingest also runs benchmarks/ingest/peer.py, with so many packs of each gateway)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Arguments::read(&arguments).map(go) {
        Some(Ok(true)) => ExitCode::SUCCESS,
        Some(Ok(false)) => ExitCode::FAILURE,
        Some(Err(error)) => {
            tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
        None => {
            tell(USAGE);
            ExitCode::from(2)
        }
    }
}

/// A command and its numbers.
struct Arguments {
    command: String,
    broker: BrokerKind,
    numbers: BTreeMap<String, u64>,
}

impl Arguments {
    fn read(arguments: &[String]) -> Option<Self> {
        let (command, mut rest) = arguments.split_first()?;
        let known: &[&str] = match command.as_str() {
            "faults" => &["n", "seed", "homes"],
            "drain" | "dropped" => &["within"],
            "herd" | "flood" => &["homes", "within", "memory"],
            "ingest" => &["gateways", "packs", "areas", "other", "memory", "rate"],
            _ => return None,
        };
        let (mut broker, mut numbers) = (BrokerKind::Embedded, BTreeMap::new());
        while let [flag, value, tail @ ..] = rest {
            let flag = flag.strip_prefix("--")?;
            match (flag, value.as_str()) {
                ("broker", "embedded") => broker = BrokerKind::Embedded,
                ("broker", "mosquitto") => broker = BrokerKind::Mosquitto,
                _ if known.contains(&flag) => drop(numbers.insert(flag.to_owned(), value.parse().ok()?)),
                _ => return None,
            }
            rest = tail;
        }
        rest.is_empty().then(|| Self { command: command.clone(), broker, numbers })
    }

    fn number(&self, flag: &str, default: u64) -> u64 {
        self.numbers.get(flag).copied().unwrap_or(default)
    }

    fn count(&self, flag: &str, default: u64) -> anyhow::Result<usize> {
        Ok(usize::try_from(self.number(flag, default))?.max(1))
    }
}

fn go(arguments: Arguments) -> anyhow::Result<bool> {
    // The programs under test are built beside this one.
    let here = std::env::current_exe()?;
    let programs = Programs {
        centre: here.with_file_name("centre-under-test"),
        gateway: here.with_file_name("gateway-under-test"),
    };
    let broker = arguments.broker;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if arguments.command == "faults" {
        let (n, homes) = (arguments.count("n", 30)?, arguments.count("homes", 2)?);
        let plan = faults::Plan { seed: arguments.number("seed", 1), n, homes, broker };
        let outcome = runtime.block_on(faults::run(&programs, &plan))?;
        say(&format!("{plan:?}\n{outcome}"));
        return Ok(outcome.is_good());
    }
    if arguments.command == "ingest" {
        let plan = load::ingest::Plan {
            gateways: arguments.count("gateways", 200)?,
            packs: arguments.number("packs", 1_000),
            areas: arguments.count("areas", 2)?,
            memory_mib: arguments.count("memory", 192)?,
            rate: arguments.number("rate", 0),
            python: std::env::var_os("CAREBED_PYTHON").map(Into::into),
            packs_of_other: arguments.number("other", 50),
        };
        let shown = runtime.block_on(load::ingest::ingest(&programs, &plan))?;
        say(&format!("ingest {plan:?}\n{}", shown.text));
        return Ok(shown.is_good);
    }
    let (homes, within) = match arguments.command.as_str() {
        "drain" | "dropped" => (1, 300),
        "herd" => (1_000, 600),
        _ => (50, 120),
    };
    let plan = load::Plan {
        broker,
        homes: arguments.count("homes", homes)?,
        within: Duration::from_secs(arguments.number("within", within)),
        memory_mib: arguments.count("memory", 192)?,
    };
    let shown = runtime.block_on(async {
        match arguments.command.as_str() {
            "drain" => load::drain(&programs, &plan).await,
            "herd" => load::herd(&programs, &plan).await,
            "dropped" => load::dropped(&programs, &plan).await,
            _ => load::flood(&programs, &plan, say).await,
        }
    })?;
    say(&format!("{} {plan:?}\n{}", arguments.command, shown.text));
    Ok(shown.is_good)
}

#[expect(clippy::print_stdout, reason = "the result is this program's data")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "messages go to stderr")]
fn tell(text: &str) {
    eprintln!("{text}");
}
