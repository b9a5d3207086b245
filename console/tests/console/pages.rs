//! The operator's page.

use std::time::Duration;

use carebed_alerts::alert::AlertId;
use carebed_contract::finding::{Finding, Subject};
use serde_json::json;

use crate::harness::{Centre, finding};

#[tokio::test]
async fn the_queue_is_shown_in_both_languages() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    assert!(centre.text("/").await.contains("目前没有待处理的告警"));
    let press = finding("call_for_help", 0);
    let id = AlertId::of(&press);
    centre.findings(&[finding("bed_exit_no_return", 0), press]).await;
    let page = centre.text("/").await;
    for part in [
        "<html lang=\"zh-CN\">",
        "一键呼叫",
        "22:00 按下呼叫按钮。",
        "紧急 · 立即处置",
        "1 号住户 · 主卧床",
        "陈&#60;桂&#62;英",
        "0797-5550101",
        "中心启动后尚未收到数据",
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    let first = page.find("card P1").unwrap();
    assert!(first < page.find("card P2").unwrap(), "the most pressing comes first");
    let page = centre.text("/?lang=en").await;
    for part in ["<html lang=\"en\">", "Call for help", "pressed at 22:00", "URGENT"] {
        assert!(page.contains(part), "{part} is missing");
    }
    centre.clock.advance(Duration::from_secs(60));
    centre.step(&id, "acknowledge", json!({"by": "王芳"})).await;
    let queue = centre.text("/queue?lang=zh").await;
    assert!(queue.contains("22:01:00 已确认 王芳") && queue.contains("data-step=\"dispatch\""));
    centre.stop().await;
}

#[tokio::test]
async fn more_new_alerts_than_one_person_can_see_to_are_told_as_a_flood() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let of_bed = |number: u32| Finding {
        subject: Subject::Bed(format!("b{number}").parse().unwrap()),
        ..finding("bed_exit_no_return", 0)
    };
    let findings: Vec<Finding> = (1..=11).map(of_bed).collect();
    centre.findings(&findings[..10]).await;
    assert!(!centre.text("/").await.contains("告警高峰"));
    centre.clock.advance(Duration::from_secs(60));
    centre.findings(&findings).await;
    assert!(centre.text("/queue?lang=zh").await.contains("告警高峰：近 10 分钟新告警 11"));
    assert!(centre.text("/queue?lang=en").await.contains("new within 10 minutes: 11"));
    // Ten minutes after the first ten only one is new.
    centre.clock.advance(Duration::from_secs(540));
    assert!(!centre.text("/").await.contains("告警高峰"));
    centre.stop().await;
}

#[tokio::test]
async fn the_language_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let chosen = centre.client.get(centre.url("/?lang=en")).send().await.unwrap();
    assert!(chosen.headers()["set-cookie"].to_str().unwrap().starts_with("lang=en;"));
    let later = centre.client.get(centre.url("/queue")).header("cookie", "a=b; lang=en").send().await.unwrap();
    assert!(later.text().await.unwrap().contains("No alerts to act on"));
    centre.stop().await;
}

#[tokio::test]
async fn assets_are_compiled_in_and_nothing_is_fetched_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    for (file, kind) in [("console.js", "text/javascript"), ("console.css", "text/css"), ("icon.svg", "image/svg+xml")]
    {
        let answer = centre.client.get(centre.url(&format!("/static/{file}"))).send().await.unwrap();
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(kind));
        let text = answer.text().await.unwrap().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("http://") && !text.contains("https://"), "{file} names another site");
    }
    assert_eq!(centre.client.get(centre.url("/static/other")).send().await.unwrap().status(), 404);
    centre.stop().await;
}
