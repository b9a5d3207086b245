//! The demo, as a newcomer runs it: the expected alerts come, and it ends cleanly by itself and on Ctrl-C.

use std::process::{Command, Stdio};
use std::time::Duration;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centre-under-test"));
    command.args(["demo", "--listen", "127.0.0.1:0"]).args(arguments).stdin(Stdio::null());
    command
}

/// An hour of product time on a clock that is twice as fast as the demo's own.
#[test]
fn the_expected_alerts_come() {
    let output = demo(&["--speed", "120", "--for", "50s"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in ["紧急呼叫 · Call for help", "夜间离床未归", "http://127.0.0.1:"] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
}

#[test]
fn a_demo_that_is_too_short_says_what_did_not_come() {
    let output = demo(&["--for", "1s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&output.stderr).contains("call_for_help"));
}

#[test]
fn an_interrupt_ends_it_cleanly() {
    let mut child = demo(&[]).stdout(Stdio::null()).spawn().unwrap();
    // The broker's child process is there once the demo is up; asking earlier would only test the start.
    let id = child.id().to_string();
    let begun = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
        carebed_tests::process::until(Duration::from_secs(60), || async {
            Command::new("pgrep").args(["-P", &id]).output().ok().filter(|o| !o.stdout.is_empty())
        }),
    );
    assert!(begun.is_some(), "the demo did not start its broker");
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let asked = tokio::time::Instant::now();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(20), "it took {:?} to stop", asked.elapsed());
}
