//! Who may not come in.

use std::sync::Arc;

use carebed_console::database::Database;
use carebed_console::registry::Registry;
use carebed_console::{Config, Console, Error};
use carebed_contract::clock::SystemClock;
use reqwest::header::HeaderMap;
use serde_json::json;

use crate::harness::{Centre, parts, policy};

async fn bind(listen: &str) -> Result<Console, Error> {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(&dir.path().join("console.sqlite")).await.unwrap();
    let registry = Registry::load(&database).await.unwrap();
    let config = Config { listen: listen.parse().unwrap(), policy: policy(), speed: 1 };
    let (actions, _) = tokio::sync::mpsc::channel(1);
    Console::bind(config, database, registry, actions, Arc::new(SystemClock::new())).await
}

#[tokio::test]
async fn nothing_listens_off_loopback() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.168.1.7:8080"] {
        let error = bind(listen).await.unwrap_err();
        assert!(matches!(error, Error::OffLoopback(_)));
        assert!(error.to_string().contains("TLS") && error.to_string().contains("ssh -L"), "{error}");
    }
    let first = bind("127.0.0.1:0").await.unwrap();
    let error = bind(&first.addr().to_string()).await.unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error}");
}

#[tokio::test]
async fn foreign_names_and_forged_forms_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let read = centre.client.get(centre.url("/")).header("host", "carebed.evil.example").send().await.unwrap();
    assert_eq!(read.status(), 403);
    let url = centre.url("/api/v1/alerts/0123456789abcdef01234567/acknowledge");
    let body = json!({"by": "王芳"});
    for (header, value, status, code) in [
        ("origin", "http://evil.example", 403, "foreign_origin"),
        ("sec-fetch-site", "cross-site", 403, "foreign_origin"),
        ("content-type", "text/plain", 415, "not_json"),
        ("host", "evil.example", 403, "foreign_host"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert(header, value.parse().unwrap());
        let answer = centre.client.post(&url).headers(headers).body(body.to_string()).send().await.unwrap();
        let (got, answer) = parts(answer).await;
        assert_eq!((got.as_u16(), &answer["error"]["code"]), (status, &json!(code)));
    }
    let own = centre.client.post(&url).header("origin", format!("http://{}", centre.addr)).json(&body);
    assert_eq!(own.send().await.unwrap().status(), 404, "our own page gets as far as the alert that is not there");
    let page = centre.client.get(centre.url("/")).send().await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self'") && policy.contains("frame-ancestors 'none'"));
    centre.stop().await;
}
