//! The prompt of `carebed sql`, in a terminal: completion, lines, mistakes, Ctrl-C, history.

use carebed_pipeline::store::{Config, Store};
use carebed_tests::{lake, real};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_analyst_sits_at_the_prompt() {
    let Some(python) = real::python(&["pty"]) else { return };
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(Config::local(&place.path().join("data/lake")).unwrap()).await.unwrap();
    lake::commit(&store, lake::hourly("home-1", "360702", 2_000)).await;
    drop(store);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/prompt.py");
    let output = Command::new(python)
        .args([script, env!("CARGO_BIN_EXE_centre-under-test")])
        .arg(place.path().join("data"))
        .env("XDG_STATE_HOME", place.path().join("state"))
        .env("TERM", "xterm")
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
