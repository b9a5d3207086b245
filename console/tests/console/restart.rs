//! What a restart and a slow home side do to those who are told.

use std::time::Duration;

use carebed_alerts::alert::AlertId;
use carebed_contract::finding::Finding;
use serde_json::json;

use crate::harness::{Centre, finding, start};

#[tokio::test]
async fn a_clean_restart_goes_on_and_tells_nobody_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::open(dir.path()).await;
    let press = finding("call_for_help", 0);
    let id = AlertId::of(&press);
    centre.findings(std::slice::from_ref(&press)).await;
    centre.step(&id, "acknowledge", json!({"by": "王芳"})).await;
    centre.action().await;
    // The lamp command is noted as taken before the next request is served.
    let (_, before) = centre.get(&format!("/api/v1/alerts/{id}")).await;
    centre.stop().await;

    let mut centre = Centre::open(dir.path()).await;
    let (_, after) = centre.get(&format!("/api/v1/alerts/{id}")).await;
    assert_eq!(after, before);
    let mut events = centre.events(None).await;
    assert_eq!(centre.findings(&[press]).await, 0, "the same finding again is nothing new");
    centre.step(&id, "dispatch", json!({"by": "王芳"})).await;
    assert_eq!(events.next_of("transition").await.id, Some(3), "1 and 2 were told before");
    assert!(centre.actions.try_recv().is_err(), "the lamp was asked for once");
    // A page that was open all the time goes on where it was.
    assert_eq!(centre.events(Some(1)).await.next_of("transition").await.id, Some(2));
    centre.stop().await;
}

#[tokio::test]
async fn the_lamp_burns_while_somebody_is_at_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::open(dir.path()).await;
    let (press, exit) = (finding("call_for_help", 0), finding("bed_exit_no_return", 0));
    let technical = finding("gateway_offline", 0);
    let ids = [&press, &exit, &technical].map(AlertId::of);
    centre.findings(&[press, exit, technical]).await;
    for id in [&ids[2], &ids[0], &ids[1]] {
        centre.step(id, "acknowledge", json!({"by": "王芳"})).await;
    }
    let action = centre.action().await;
    assert_eq!((action.home.as_str(), action.gateway.as_str(), action.area.as_str()), ("h1", "g1", "a1"));
    let command = action.command;
    assert_eq!((command.device.as_str(), command.action.as_str(), command.value), ("lamp-1", "set", json!(true)));
    assert_eq!(command.expires_at, start() + Duration::from_secs(300));
    assert!(command.id.starts_with(&format!("lamp-{}", ids[0])), "a technical alert lights no lamp");
    assert_eq!(centre.action().await.command.value, json!(true));
    let done = json!({"by": "王芳", "outcome": "verified"});
    centre.step(&ids[0], "resolve", done.clone()).await;
    centre.step(&ids[1], "resolve", done).await;
    let off = centre.action().await.command;
    assert!(off.id.starts_with(&format!("lamp-{}", ids[1])), "it burns until the last is resolved");
    assert_eq!(off.value, json!(false));
    centre.stop().await;
}

/// Before anybody is told that nobody moves, the home may give a sign: the lamp blinks, and goes out when it does.
#[tokio::test]
async fn the_home_is_warned_before_people_are_told_of_inactivity() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::open(dir.path()).await;
    let quiet = finding("inactivity_cap", 0);
    let id = AlertId::of(&quiet);
    centre.findings(std::slice::from_ref(&quiet)).await;
    let warning = centre.action().await.command;
    assert_eq!((warning.device.as_str(), warning.action.as_str(), warning.value), ("lamp-1", "warn", json!(300)));
    assert_eq!(centre.get(&format!("/api/v1/alerts/{id}")).await.1["state"], "waiting");
    // Somebody moves, or presses cancel: the finding is over, and nobody is told.
    let over = Finding { cleared_at: Some(start() + Duration::from_secs(60)), ..quiet };
    centre.clock.advance(Duration::from_secs(60));
    centre.findings(&[over]).await;
    let dark = centre.action().await.command;
    assert_eq!((dark.action.as_str(), dark.value), ("set", json!(false)));
    assert_eq!(centre.get(&format!("/api/v1/alerts/{id}")).await.1["state"], "resolved");
    centre.stop().await;
}
