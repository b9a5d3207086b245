//! The event stream.

use carebed_alerts::alert::AlertId;
use carebed_contract::clock::Clock as _;
use serde_json::json;

use crate::harness::{Centre, finding};

#[tokio::test]
async fn a_call_reaches_an_open_stream() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let mut events = centre.events(None).await;
    let clock = events.next_of("clock").await;
    assert_eq!((&clock.data["now"], &clock.data["speed"]), (&json!(centre.clock.now()), &json!(1)));
    let press = finding("call_for_help", 0);
    centre.findings(std::slice::from_ref(&press)).await;
    let event = events.next_of("transition").await;
    assert_eq!((event.id, &event.data["transition"]["change"]), (Some(1), &json!("raised")));
    assert_eq!(event.data["alert"]["id"], json!(AlertId::of(&press)));
    centre.stop().await;
    assert!(events.next().await.is_none(), "a stop ends the stream");
}

#[tokio::test]
async fn a_stream_goes_on_behind_the_last_event() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let press = finding("call_for_help", 0);
    let id = AlertId::of(&press);
    centre.findings(&[press]).await;
    for step in ["acknowledge", "dispatch"] {
        centre.step(&id, step, json!({"by": "王芳"})).await;
    }
    // Numbers 1, 2 and 3 are past.
    let mut events = centre.events(Some(1)).await;
    assert_eq!(events.next_of("transition").await.id, Some(2));
    assert_eq!(events.next_of("transition").await.id, Some(3));
    centre.step(&id, "arrive", json!({"by": "王芳"})).await;
    assert_eq!(events.next_of("transition").await.id, Some(4));
    // A page that was never here gets only what comes; one with a number that we never gave has to reload.
    let mut fresh = centre.events(None).await;
    let mut foreign = centre.events(Some(99)).await;
    assert_eq!(foreign.next().await.unwrap().kind, "reload");
    centre.step(&id, "resolve", json!({"by": "王芳", "outcome": "test"})).await;
    assert_eq!(fresh.next_of("transition").await.id, Some(5));
    assert_eq!(foreign.next_of("transition").await.id, Some(5));
    centre.stop().await;
}

#[tokio::test]
async fn too_many_streams_are_refused_and_room_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(centre.events(None).await);
    }
    assert_eq!(centre.get("/api/v1/events").await.0.as_u16(), 503);
    drop(open);
    // The server notices a closed stream when it writes the next heartbeat at the latest.
    let again = async {
        while centre.client.get(centre.url("/api/v1/events")).send().await.unwrap().status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), again).await.unwrap();
    centre.stop().await;
}
