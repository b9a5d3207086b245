//! Absences, visits and the registry's names, as operators and programs enter them.

use std::time::Duration;

use carebed_contract::id::HomeId;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Centre, start};

async fn post(centre: &Centre, path: &str, body: Value) -> (StatusCode, Value) {
    let answer = centre.client.post(centre.url(path)).json(&body).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

#[tokio::test]
async fn an_absence_is_entered_shown_and_ended_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let entered =
        json!({"kind": "away", "hours": 48, "by": "小刘", "source": "hotline", "note": "女儿来电，接去过周末"});
    let (status, entry) = post(&centre, "/api/v1/homes/h1/intervals", entered).await;
    assert_eq!(status, StatusCode::CREATED, "{entry}");
    assert_eq!(
        (&entry["started_at"], &entry["ended_at"], &entry["entered_at"]),
        (
            &json!(start().millis()),
            &json!((start() + Duration::from_secs(48 * 3_600)).millis()),
            &json!(start().millis())
        )
    );
    let page = centre.text("/").await;
    assert!(page.contains("外出 至 03-03 22:00:00"), "the page does not show it");
    let (_, homes) = centre.get("/api/v1/homes").await;
    assert_eq!(homes["homes"][0]["intervals"][0]["source"], "hotline");
    centre.stop().await;

    let centre = Centre::open(dir.path()).await;
    let (_, list) = centre.get("/api/v1/homes/h1/intervals").await;
    assert_eq!(list[0]["note"], "女儿来电，接去过周末");
    centre.clock.advance(Duration::from_secs(3_600));
    let end = format!("/api/v1/intervals/{}/end", list[0]["id"]);
    let (status, ended) = post(&centre, &end, json!({"by": "小刘"})).await;
    assert_eq!((status, &ended["ended_at"]), (StatusCode::OK, &json!((start() + Duration::from_secs(3_600)).millis())));
    // It is over, and cannot be ended twice.
    assert_eq!(post(&centre, &end, json!({"by": "小刘"})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn operators_telephones_programs_and_imports_say_that_it_was_them() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    for source in ["page", "hotline", "api", "import"] {
        let said = json!({"kind": "hospital", "hours": 72, "by": "小刘", "source": source});
        let (status, entry) = post(&centre, "/api/v1/homes/h1/intervals", said).await;
        assert_eq!((status, &entry["source"]), (StatusCode::CREATED, &json!(source)));
    }
    // A program that does not say what it is, and one that claims to be something else.
    let (_, entry) = post(&centre, "/api/v1/homes/h1/intervals", json!({"kind": "visit", "by": "小刘"})).await;
    assert_eq!(entry["source"], "api");
    let (status, _) =
        post(&centre, "/api/v1/homes/h1/intervals", json!({"kind": "visit", "by": "小刘", "source": "rumour"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn no_entry_lasts_for_ever_and_nonsense_is_refused_in_both_languages() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let after = |seconds: u64| (start() + Duration::from_secs(seconds)).millis();
    for (body, code) in [
        (json!({"kind": "visit", "hours": 13, "by": "小刘"}), "bad_times"),
        (json!({"kind": "away", "until": after(0), "by": "小刘"}), "bad_times"),
        (json!({"kind": "hospital", "from": after(400 * 86_400), "by": "小刘"}), "bad_times"),
        (json!({"kind": "party", "by": "小刘"}), "bad_request"),
        (json!({"kind": "visit", "by": " "}), "no_operator"),
        (json!({"kind": "visit", "by": "小刘", "note": "长".repeat(501)}), "too_long"),
    ] {
        let (status, answer) = post(&centre, "/api/v1/homes/h1/intervals", body.clone()).await;
        assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(code)), "{body}");
        assert!(answer["error"]["message"]["zh"].is_string() && answer["error"]["message"]["en"].is_string());
    }
    let body = json!({"kind": "visit", "by": "小刘"});
    assert_eq!(post(&centre, "/api/v1/homes/h9/intervals", body.clone()).await.0, StatusCode::NOT_FOUND);
    // Nobody said when the visit ends: it does all the same.
    let (_, entry) = post(&centre, "/api/v1/homes/h1/intervals", body).await;
    assert_eq!(entry["ended_at"], json!(after(7_200)));
}

#[tokio::test]
async fn an_operator_enters_names_and_telephones() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let body = json!({"by": "小刘", "name": "建国路 12 号", "beds": [
        {"id": "b1", "name": "次卧床", "person": {"name": "赵秀兰", "phone": "0797-5550199", "address": "建国路 12 号 301"}}]});
    assert_eq!(post(&centre, "/api/v1/homes/h1", body).await.0, StatusCode::NO_CONTENT);
    let home = centre.registry.home(&HomeId::new("h1").unwrap()).unwrap();
    let person = home.beds[0].person.as_ref().unwrap();
    assert_eq!((home.name.as_str(), home.beds[0].name.as_str()), ("建国路 12 号", "次卧床"));
    assert_eq!((person.name.as_str(), person.phone.as_str()), ("赵秀兰", "0797-5550199"));
    // What is not named stays; an empty name means that nobody is registered there any more.
    let body = json!({"by": "小刘", "beds": [{"id": "b1", "person": {"name": ""}}]});
    assert_eq!(post(&centre, "/api/v1/homes/h1", body).await.0, StatusCode::NO_CONTENT);
    let home = centre.registry.home(&HomeId::new("h1").unwrap()).unwrap();
    assert_eq!((home.name.as_str(), home.beds[0].person.is_none()), ("建国路 12 号", true));
    let wrong = json!({"by": "小刘", "beds": [{"id": "b7"}]});
    assert_eq!(post(&centre, "/api/v1/homes/h1", wrong).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn operators_who_name_beds_at_once_lose_nothing_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let id = HomeId::new("h1").unwrap();
    let mut home = carebed_console::registry::Home::clone(&centre.registry.home(&id).unwrap());
    home.beds.push(carebed_console::registry::Bed {
        id: "b1-2".parse().unwrap(),
        name: "次卧".to_owned(),
        person: None,
    });
    centre.registry.put_home(home, start()).await.unwrap();
    for round in 0..30 {
        let phone = |bed: usize| format!("0797-{bed}{round:06}");
        let body = |id: &str, bed: usize| json!({"by": "小刘", "beds": [{"id": id, "person": {"name": format!("老人{bed}"), "phone": phone(bed)}}]});
        let (one, two) = tokio::join!(
            post(&centre, "/api/v1/homes/h1", body("b1", 1)),
            post(&centre, "/api/v1/homes/h1", body("b1-2", 2))
        );
        assert_eq!((one.0, two.0), (StatusCode::NO_CONTENT, StatusCode::NO_CONTENT));
        let home = centre.registry.home(&id).unwrap();
        let phones: Vec<_> = home.beds.iter().map(|bed| bed.person.as_ref().unwrap().phone.clone()).collect();
        assert_eq!(phones, [phone(1), phone(2)]);
    }
    // Of two beds the page asks which one is meant; a bed that is not there is refused.
    assert!(centre.text("/").await.contains(r#"<option value="b1-2">次卧 老人2</option>"#));
    let hospital = |bed: &str| json!({"kind": "hospital", "bed": bed, "by": "小刘"});
    let (status, answer) = post(&centre, "/api/v1/homes/h1/intervals", hospital("b7")).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("unknown_bed")));
    assert_eq!(post(&centre, "/api/v1/homes/h1/intervals", hospital("b1-2")).await.0, StatusCode::CREATED);
    assert!(centre.text("/").await.contains("次卧 住院 至"), "the page does not say whose stay it is");
    centre.stop().await;
}
