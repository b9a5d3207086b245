//! Alerts over HTTP.

use std::time::Duration;

use carebed_alerts::alert::AlertId;
use reqwest::StatusCode;
use serde_json::json;

use crate::harness::{Centre, finding};

#[tokio::test]
async fn an_alert_is_worked_through() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let press = finding("call_for_help", 0);
    let id = AlertId::of(&press);
    assert_eq!(centre.findings(&[press]).await, 1);
    let (_, list) = centre.get("/api/v1/alerts?state=open").await;
    let alert = &list["alerts"][0];
    assert_eq!((&alert["id"], &alert["state"], &alert["priority"]), (&json!(id), &json!("open"), &json!("P1")));
    assert_eq!(alert["sentence"]["zh"], "22:00 按下呼叫按钮。");
    assert_eq!(alert["sentence"]["en"], "The call button was pressed at 22:00.");
    assert!(!list.to_string().contains("0797"), "the API knows beds, not people");
    for (step, body, state) in [
        ("acknowledge", json!({"by": "王芳"}), "acknowledged"),
        ("dispatch", json!({"by": "王芳"}), "dispatched"),
        ("arrive", json!({"by": "李强"}), "on_site"),
        ("resolve", json!({"by": "李强", "outcome": "verified", "note": "已扶起，无外伤"}), "resolved"),
        ("review", json!({"by": "站长"}), "reviewed"),
    ] {
        // Sooner than it is told again.
        centre.clock.advance(Duration::from_secs(50));
        let (status, alert) = centre.step(&id, step, body).await;
        assert_eq!((status, &alert["state"]), (StatusCode::OK, &json!(state)));
    }
    let (_, list) = centre.get("/api/v1/alerts").await;
    assert_eq!(list["alerts"], json!([]));
    let (_, list) = centre.get("/api/v1/alerts?state=resolved").await;
    assert_eq!(list["alerts"][0]["notes"], json!(["已扶起，无外伤"]));
    let (_, log) = centre.get(&format!("/api/v1/alerts/{id}/log")).await;
    let changes: Vec<_> = log.as_array().unwrap().iter().map(|t| t["change"].as_str().unwrap()).collect();
    assert_eq!(changes, ["raised", "acknowledged", "dispatched", "arrived", "resolved", "reviewed"]);
    centre.stop().await;
}

#[tokio::test]
async fn the_second_to_acknowledge_hears_who_was_first() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let press = finding("call_for_help", 0);
    let id = AlertId::of(&press);
    centre.findings(&[press]).await;
    centre.clock.advance(Duration::from_secs(65));
    assert_eq!(centre.step(&id, "acknowledge", json!({"by": "王芳"})).await.0, StatusCode::OK);
    let (status, body) = centre.step(&id, "acknowledge", json!({"by": "李强"})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let error = &body["error"];
    assert_eq!((&error["code"], &error["by"]), (&json!("already_done"), &json!("王芳")));
    assert_eq!(error["message"]["zh"], "该告警已确认：王芳，22:01:05。无需重复操作。");
    assert_eq!(error["message"]["en"], "This alert is already acknowledged: by 王芳 at 22:01:05. Nothing to do.");
    centre.stop().await;
}

#[tokio::test]
async fn bad_requests_are_answered_in_both_languages() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let press = finding("call_for_help", 0);
    let id = AlertId::of(&press);
    centre.findings(&[press]).await;
    let unknown = AlertId::of(&finding("call_for_help", 1));
    for (alert, step, body, status, code) in [
        (&unknown, "acknowledge", json!({"by": "王芳"}), 404, "unknown_alert"),
        (&id, "resolve", json!({"by": "王芳", "outcome": "verified"}), 409, "too_early"),
        (&id, "acknowledge", json!({"by": "  "}), 400, "no_operator"),
        (&id, "acknowledge", json!({"by": "王".repeat(41)}), 400, "no_operator"),
        (&id, "acknowledge", json!({"who": "王芳"}), 400, "bad_step"),
        (&id, "acknowledge", json!({"by": "王芳", "outcome": "test"}), 400, "outcome_too_early"),
        (&id, "resolve", json!({"by": "王芳"}), 400, "no_outcome"),
        (&id, "resolve", json!({"by": "王芳", "outcome": "recovered"}), 400, "not_an_outcome"),
        (&id, "resolve", json!({"by": "王芳", "outcome": "maybe"}), 400, "bad_step"),
        (&id, "forget", json!({"by": "王芳"}), 404, "not_found"),
    ] {
        let (got, answer) = centre.step(alert, step, body.clone()).await;
        assert_eq!((got.as_u16(), &answer["error"]["code"]), (status, &json!(code)), "{step} {body}");
        let message = &answer["error"]["message"];
        assert!(message["zh"].is_string() && message["en"].is_string(), "{answer}");
    }
    for (path, status) in [
        ("/api/v1/alerts/nonsense", 404),
        ("/api/v1/alerts?state=closed", 400),
        ("/nowhere", 404),
        ("/?lang=fr", 400),
        ("/api/v1/events?after=x", 400),
        ("/api/v1/alerts/nonsense/log", 404),
    ] {
        assert_eq!(centre.get(path).await.0.as_u16(), status, "{path}");
    }
    let long = centre.step(&id, "acknowledge", json!({"by": "王芳", "note": "x".repeat(20_000)})).await;
    assert_eq!(long.0, StatusCode::PAYLOAD_TOO_LARGE);
    centre.stop().await;
}

#[tokio::test]
async fn the_desks_timers_escalate() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let exit = finding("bed_exit_no_return", 0);
    let id = AlertId::of(&exit);
    let mut events = centre.events(None).await;
    centre.findings(&[exit]).await;
    assert_eq!(events.next_of("transition").await.data["alert"]["priority"], "P2");
    centre.clock.advance(Duration::from_secs(300));
    let event = events.next_of("transition").await;
    assert_eq!(
        (&event.data["transition"]["change"], &event.data["alert"]["priority"]),
        (&json!("escalated"), &json!("P1"))
    );
    centre.clock.advance(Duration::from_secs(300));
    assert_eq!(events.next_of("transition").await.data["transition"]["change"], "reminded");
    centre.step(&id, "acknowledge", json!({"by": "王芳"})).await;
    assert_eq!(events.next_of("transition").await.data["transition"]["change"], "acknowledged");
    centre.stop().await;
}
