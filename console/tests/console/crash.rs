//! The process dies in the middle; the next one goes on.

use std::path::Path;
use std::process::Command;

use carebed_alerts::alert::AlertId;
use serde_json::json;

use crate::harness::{Centre, finding};

const DIR: &str = "CAREBED_CONSOLE_TEST_DIR";

/// Not a test of its own: what the killed process does. Without the variable it does nothing.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let mut centre = Centre::open(dir.as_ref()).await;
    let press = finding("call_for_help", 0);
    let id = AlertId::of(&press);
    centre.findings(&[press]).await;
    centre.desk.acknowledge(id, carebed_alerts::alert::OperatorId::new("王芳").unwrap()).await.unwrap();
    centre.action().await;
    centre.stop().await;
}

/// Runs the child over the files in `dir` and lets it die at `point`, the first time it comes there.
fn die_at(point: &str, dir: &Path) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(DIR, dir)
        .env("CAREBED_CRASH_AT", point)
        .output()
        .unwrap();
    assert!(!output.status.success(), "it did not die at {point}");
}

#[tokio::test]
async fn a_crash_loses_no_call_and_tells_it_at_most_once_more() {
    let press = finding("call_for_help", 0);
    let id = AlertId::of(&press);
    // Found again after the crash: new when it was not logged, known when it was.
    for (point, n_new) in [("console.before_log", 1), ("console.after_log", 0), ("console.after_told", 0)] {
        let dir = tempfile::tempdir().unwrap();
        die_at(point, dir.path());
        let mut centre = Centre::open(dir.path()).await;
        assert_eq!(centre.findings(std::slice::from_ref(&press)).await, n_new, "{point}");
        // Whoever saw nothing yet, or lost the connection, gets it under the same id and number, once.
        let mut events = centre.events(Some(0)).await;
        let event = events.next_of("transition").await;
        assert_eq!((event.id, &event.data["alert"]["id"]), (Some(1), &json!(id)), "{point}");
        centre.step(&id, "acknowledge", json!({"by": "王芳"})).await;
        assert_eq!(events.next_of("transition").await.id, Some(2), "{point}");
        let lamp = centre.action().await;
        assert_eq!(lamp.command.id, format!("lamp-{id}-2"), "{point}");
        centre.stop().await;
    }
}

#[tokio::test]
async fn an_acknowledgement_that_was_logged_lights_the_lamp_after_the_crash() {
    let press = finding("call_for_help", 0);
    let id = AlertId::of(&press);
    for (point, state) in
        [("console.before_log", "open"), ("console.after_log", "acknowledged"), ("console.after_told", "acknowledged")]
    {
        let dir = tempfile::tempdir().unwrap();
        let centre = Centre::open(dir.path()).await;
        centre.findings(std::slice::from_ref(&press)).await;
        centre.stop().await;
        die_at(point, dir.path());
        let mut centre = Centre::open(dir.path()).await;
        let (_, alert) = centre.get(&format!("/api/v1/alerts/{id}")).await;
        assert_eq!(alert["state"], state, "{point}");
        if state == "open" {
            assert!(centre.actions.try_recv().is_err());
        } else {
            assert_eq!(centre.action().await.command.id, format!("lamp-{id}-2"), "{point}");
        }
        centre.stop().await;
        // Told now: the next start is silent.
        let mut centre = Centre::open(dir.path()).await;
        centre.get("/health").await;
        assert!(centre.actions.try_recv().is_err(), "{point}");
        centre.stop().await;
    }
}
