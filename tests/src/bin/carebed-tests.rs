//! `carebed-tests faults --n 1000 --seed 1 --broker mosquitto`: random faults against real programs, with a ledger.

use std::process::ExitCode;

use carebed_tests::faults::{Plan, run};
use carebed_tests::world::{BrokerKind, Programs};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(plan) = plan(&arguments) else {
        tell("usage: carebed-tests faults [--n N] [--seed S] [--homes H] [--broker embedded|mosquitto]");
        return ExitCode::from(2);
    };
    match go(&plan) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[String]) -> Option<Plan> {
    let (command, mut rest) = arguments.split_first()?;
    let mut plan = Plan { seed: 1, n: 30, homes: 2, broker: BrokerKind::Embedded };
    while let [flag, value, tail @ ..] = rest {
        match flag.as_str() {
            "--n" => plan.n = value.parse().ok()?,
            "--seed" => plan.seed = value.parse().ok()?,
            "--homes" => plan.homes = value.parse().ok().filter(|n| *n > 0)?,
            "--broker" if value == "embedded" => plan.broker = BrokerKind::Embedded,
            "--broker" if value == "mosquitto" => plan.broker = BrokerKind::Mosquitto,
            _ => return None,
        }
        rest = tail;
    }
    (command == "faults" && rest.is_empty()).then_some(plan)
}

fn go(plan: &Plan) -> anyhow::Result<bool> {
    // The programs under test are built beside this one.
    let here = std::env::current_exe()?;
    let programs = Programs {
        centre: here.with_file_name("centre-under-test"),
        gateway: here.with_file_name("gateway-under-test"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(run(&programs, plan))?;
    say(&format!("{plan:?}\n{outcome}"));
    Ok(outcome.is_good())
}

#[expect(clippy::print_stdout, reason = "the result is this program's data")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "messages go to stderr")]
fn tell(text: &str) {
    eprintln!("{text}");
}
