//! The demo, as a newcomer runs it: the expected alerts come, and it ends cleanly by itself and on Ctrl-C.

use std::process::{Command, Stdio};
use std::time::Duration;

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centre-under-test"));
    command.args(["demo", "--listen", "127.0.0.1:0"]).args(arguments).stdin(Stdio::null());
    command
}

/// Most of two hours of product time on a clock that is twice as fast as the demo's own. Beside the alerts: what each kind of
/// device says arrives in the lake, and it lives.
#[test]
fn the_expected_alerts_come_and_every_device_is_in_the_lake() {
    let data = tempfile::tempdir().unwrap();
    let kept = data.path().display().to_string();
    let output = demo(&["--speed", "120", "--for", "50s", "--data", &kept]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in ["紧急呼叫 · Call for help", "夜间离床未归", "http://127.0.0.1:"] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }

    let asked = "SELECT device_id, quantity, count(*) AS n, count(DISTINCT value) AS different FROM observations \
                 WHERE quality NOT LIKE 'bad%' GROUP BY device_id, quantity";
    let lake = data.path().join("centre").display().to_string();
    let mut sql = Command::new(env!("CARGO_BIN_EXE_centre-under-test"));
    let answer =
        sql.args(["sql", "--data", &lake, "--format", "csv", "-c", asked]).stdin(Stdio::null()).output().unwrap();
    let table = String::from_utf8_lossy(&answer.stdout);
    assert!(answer.status.success(), "{table}\n{}", String::from_utf8_lossy(&answer.stderr));
    let told = |device: &str, quantity: &str| {
        let row = table.lines().find_map(|line| line.strip_prefix(&format!("{device},{quantity},")));
        row.and_then(|row| row.split_once(','))
            .map_or((0, 0), |(n, different)| (n.parse::<u32>().unwrap(), different.parse::<u32>().unwrap()))
    };
    // Device, what it says, and how many different values of it at least.
    let expected = [
        ("home-1-radar", "heart_rate", 3),
        ("home-1-radar", "respiratory_rate", 2),
        ("home-1-cord-2", "call_button", 1),
        ("home-1-climate", "temperature", 2),
        ("home-1-climate", "humidity", 2),
        ("home-1-meter", "power", 3),
        ("home-1-meter", "energy", 2),
        ("home-1-balcony", "door_open", 1),
        ("home-1-zigbee-pir", "motion", 1),
    ];
    for (device, quantity, different) in expected {
        assert!(told(device, quantity).1 >= different, "{device} {quantity}: {:?} in\n{table}", told(device, quantity));
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
