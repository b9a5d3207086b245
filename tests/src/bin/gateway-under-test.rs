//! The gateway's program, built with the tests so that they can start, kill and restart the real thing, and set its clock.

use std::sync::Arc;

use carebed_tests::clock::{BoxClock, CLOCK};

fn main() -> std::process::ExitCode {
    match std::env::var_os(CLOCK) {
        Some(file) => carebed_gateway::main_with(Arc::new(BoxClock::by(file.into()))),
        None => carebed_gateway::main(),
    }
}
