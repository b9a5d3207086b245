//! How homes and the console itself are shown.

use std::time::Duration;

use carebed_contract::clock::Clock as _;
use carebed_contract::id::{DeviceId, HomeId};
use carebed_contract::status::{DeviceStatus, GatewayState, Health, Status};
use serde_json::{Value, json};

use carebed_console::database::Database;
use carebed_console::registry::{Bed, Home, Kind, Registry};
use carebed_contract::text::Text;

use crate::harness::{Centre, finding, home, start};

#[tokio::test]
async fn homes_are_shown_with_the_age_of_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let (_, list) = centre.get("/api/v1/homes").await;
    assert_eq!((&list["homes"][0]["home"], &list["homes"][0]["last_heard_age_ms"]), (&json!("h1"), &Value::Null));
    let status = Status {
        state: GatewayState::Online,
        since: centre.clock.now(),
        home: HomeId::new("h1").unwrap(),
        software: "0.1.0".to_owned(),
        profiles: Default::default(),
        spool_batches: 0,
        spool_bytes: 0,
        clock: Default::default(),
        devices: vec![DeviceStatus {
            device: DeviceId::new("mat-1").unwrap(),
            health: Health::Silent,
            since: centre.clock.now(),
            last_good: None,
        }],
        troubles: Vec::new(),
    };
    assert!(centre.board.status(status.clone()));
    assert!(centre.board.heard(&status.home, centre.clock.now()));
    assert!(!centre.board.heard(&HomeId::new("h9").unwrap(), centre.clock.now()), "unregistered homes are not kept");
    centre.clock.advance(Duration::from_secs(42));
    let (_, list) = centre.get("/api/v1/homes").await;
    let shown = &list["homes"][0];
    assert_eq!((&shown["last_heard_age_ms"], &shown["status"]["state"]), (&json!(42_000), &json!("online")));
    assert_eq!(shown["area_name"]["zh"], "健康社区");
    assert!(!list.to_string().contains("桂"), "no names in the API");
    assert!(centre.text("/queue?lang=zh").await.contains("无应答设备 1"));
    centre.stop().await;
}

#[tokio::test]
async fn health_counts_open_alerts() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    centre.findings(&[finding("call_for_help", 0)]).await;
    let (status, health) = centre.get("/health").await;
    assert_eq!((status.as_u16(), &health["status"], &health["open_alerts"]), (200, &json!("ok"), &json!(1)));
    centre.stop().await;
}

#[tokio::test]
async fn the_registry_survives_and_refuses_what_contradicts_it() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let mut second = home("h2");
    second.gateway = home("h1").gateway;
    assert!(
        centre.registry.put_home(second, start()).await.unwrap_err().to_string().contains("already serves home h1")
    );
    let mut second = home("h2");
    second.beds = home("h1").beds;
    assert!(
        centre.registry.put_home(second, start()).await.unwrap_err().to_string().contains("already stands in home h1")
    );
    let mut second = home("h2");
    second.area = "nowhere".parse().unwrap();
    assert!(
        centre.registry.put_home(second, start()).await.unwrap_err().to_string().contains("register the area first")
    );
    let mut second = home("h2");
    second.time_zone = chrono_tz::Europe::London;
    second.beds[0].person = None;
    second.lamp = None;
    centre.registry.put_home(second.clone(), start()).await.unwrap();
    centre.stop().await;
    let centre = Centre::open(dir.path()).await;
    assert_eq!(*centre.registry.home(&second.id).unwrap(), second);
    assert_eq!(centre.registry.homes().len(), 2);
    centre.stop().await;
}

#[tokio::test]
async fn the_registry_remembers_since_when_and_until_when_under_a_pseudonym() {
    let dir = tempfile::tempdir().unwrap();
    let at = |hours: u64| start() + Duration::from_secs(3_600 * hours);
    let centre = Centre::open(dir.path()).await;
    let first = home("h1");
    let mut renamed = first.clone();
    renamed.beds[0].name = "南屋".to_owned();
    centre.registry.put_home(renamed.clone(), at(1)).await.unwrap();
    let mut empty = renamed.clone();
    empty.beds[0].person = None;
    centre.registry.put_home(empty, at(2)).await.unwrap();
    // The same person again, in another home.
    let mut second = home("h2");
    second.beds[0].person.clone_from(&first.beds[0].person);
    centre.registry.put_home(second, at(3)).await.unwrap();
    let told = centre.registry.registrations();
    centre.stop().await;
    let centre = Centre::open(dir.path()).await;
    let again: Vec<_> = centre.registry.registrations().into_iter().take(told.len()).collect();
    // The harness registers the first home anew, with its person.
    assert_eq!(again.iter().filter(|row| row.what.kind == Kind::Person).count(), 2);

    let persons: Vec<_> = told.iter().filter(|row| row.what.kind == Kind::Person).collect();
    let stays: Vec<_> = persons.iter().map(|row| (row.what.home.as_str(), row.valid_from, row.valid_to)).collect();
    assert_eq!(stays, [("h1", at(0), Some(at(2))), ("h2", at(3), None)]);
    assert_eq!(persons[0].what.id, persons[1].what.id, "one person");
    let name = &first.beds[0].person.as_ref().unwrap().name;
    assert!(persons[0].what.id.len() == 16 && !format!("{told:?}").contains(name.as_str()), "no names");
    let others = |kind| told.iter().filter(|row| row.what.kind == kind && row.what.home.as_str() == "h1").count();
    assert_eq!((others(Kind::Home), others(Kind::Gateway), others(Kind::Bed)), (1, 1, 1), "a new name changes nothing");
    centre.stop().await;
}

#[tokio::test]
async fn it_is_known_which_device_belonged_to_which_bed_and_when() {
    let dir = tempfile::tempdir().unwrap();
    let at = |hours: u64| start() + Duration::from_secs(3_600 * hours);
    let centre = Centre::open(dir.path()).await;
    let first = home("h1");
    let bed = Some(first.beds[0].id.clone());
    let mat = |bed| ("mat".parse().unwrap(), bed);
    let door = ("door".parse().unwrap(), None);
    centre.registry.put_home(first.clone(), at(0)).await.unwrap();
    for (hours, devices) in
        [(1, vec![mat(bed.clone()), door.clone()]), (2, vec![mat(bed.clone()), door]), (3, vec![mat(None)])]
    {
        centre.registry.put_devices(&first.id, devices, at(hours)).await.unwrap();
        // What operators change of the home says nothing of its devices.
        centre.registry.put_home(Home { name: format!("家 {hours}"), ..first.clone() }, at(hours)).await.unwrap();
    }
    centre.registry.put_devices(&"nowhere".parse().unwrap(), vec![mat(None)], at(4)).await.unwrap();
    let told = centre.registry.registrations();
    centre.stop().await;
    let centre = Centre::open(dir.path()).await;
    assert!(told.iter().all(|row| centre.registry.registrations().contains(row)), "a restart remembers it");
    centre.stop().await;
    let devices = told.iter().filter(|row| row.what.kind == Kind::Device);
    let devices: Vec<_> =
        devices.map(|row| (row.what.id.as_str(), row.what.bed.clone(), row.valid_from, row.valid_to)).collect();
    let expected = [("door", None, at(1), Some(at(3))), ("mat", bed, at(1), Some(at(3))), ("mat", None, at(3), None)];
    assert_eq!(devices, expected);
}

#[tokio::test]
async fn a_bed_that_was_not_listed_for_a_while_has_its_person_again() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let first = home("h1");
    let mut as_told = Home { name: "h1".to_owned(), ..first.clone() };
    as_told.beds = vec![Bed { id: "b1-typo".parse().unwrap(), name: "b1-typo".to_owned(), person: None }];
    let (typed, right) = (as_told.clone(), Home { beds: nameless(&first.beds), ..as_told });
    centre.registry.install(typed, start(), start()).await.unwrap().unwrap();
    assert_eq!(centre.registry.home(&first.id).unwrap().beds[0].person, None);
    // Also across a restart, which registers nothing in a centre of one's own.
    let database = centre.registry.clone();
    let again = centre.registry.install(right.clone(), start(), start()).await.unwrap().unwrap();
    assert_eq!(*again.home, first, "name and telephone are lost");
    assert_eq!(database.install(right, start(), start()).await.unwrap(), None, "nothing has changed");
    centre.stop().await;
}

#[tokio::test]
async fn who_was_unlisted_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = home("h1");
    let database = Database::open(&dir.path().join("c.sqlite")).await.unwrap();
    let registry = Registry::load(&database).await.unwrap();
    registry.put_area(first.area.clone(), Text::new("街道", "street")).await.unwrap();
    registry.put_home(first.clone(), start()).await.unwrap();
    registry.put_home(Home { beds: Vec::new(), ..first.clone() }, start()).await.unwrap();
    let registry = Registry::load(&database).await.unwrap();
    let told = Home { beds: nameless(&first.beds), ..first.clone() };
    let installed = registry.install(told.clone(), start(), start()).await.unwrap().unwrap();
    assert_eq!(*installed.home, first);
    let left: Vec<_> = Registry::load(&database).await.unwrap().homes();
    assert_eq!(*left[0], first);
    // Who was taken out of a listed bed by an operator is not remembered.
    registry.put_home(told.clone(), start()).await.unwrap();
    registry.put_home(Home { beds: Vec::new(), ..first.clone() }, start()).await.unwrap();
    assert_eq!(*registry.install(told.clone(), start(), start()).await.unwrap().unwrap().home, told);
}

fn nameless(beds: &[Bed]) -> Vec<Bed> {
    beds.iter().map(|bed| Bed { person: None, name: bed.id.to_string(), ..bed.clone() }).collect()
}

#[tokio::test]
async fn a_box_or_a_bed_that_was_moved_is_taken_from_the_home_that_had_it() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::open(dir.path()).await;
    let at = |hours: u64| start() + Duration::from_secs(3_600 * hours);
    let first = home("h1");
    let moved = |beds| Home { gateway: first.gateway.clone(), beds, ..home("h2") };
    let installed = centre.registry.install(moved(nameless(&first.beds)), at(1), at(1)).await.unwrap().unwrap();
    assert_eq!(installed.robbed.iter().map(|home| home.id.as_str()).collect::<Vec<_>>(), ["h1"]);
    assert_eq!((&installed.robbed[0].gateway, installed.robbed[0].beds.len()), (&None, 0));
    assert_eq!(installed.home.beds[0].person, None, "nobody said who lies in it there");
    assert_eq!(centre.registry.served_by(first.gateway.as_ref().unwrap()).unwrap().as_str(), "h2");
    // What the broker still has of the gateway that was there before is older, and takes nothing back.
    let stale = Home { gateway: Some("g-old".parse().unwrap()), ..first.clone() };
    let error = centre.registry.install(stale, start(), at(2)).await.unwrap_err().to_string();
    assert!(error.contains("already stands in home h2"), "{error}");
    assert_eq!(centre.registry.homes().len(), 2);
    centre.stop().await;
}
