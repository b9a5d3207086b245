use carebed_contract::inventory::{InventoryBed, InventoryDevice};
use carebed_contract::observation::Observation;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_772_403_300_250);

fn origin() -> Origin {
    Origin {
        area: Area::new("360702").unwrap(),
        gateway: GatewayId::new("gw-1").unwrap(),
        epoch: Epoch::new(7),
        lane: Lane::Routine,
        seq: 3,
        sealed: None,
        received: NOW,
        recorded: false,
    }
}

fn read(json: &str) -> Vec<Observation> {
    observations(json.as_bytes(), &origin(), &Rooms::default())
}

#[test]
fn units_follow_the_vocabulary() {
    for (given, unit, quality) in [
        (r#""n":"h1/b1/mat-1/heart_rate","v":72"#, "/min", "good"),
        (r#""n":"h1/b1/mat-1/heart_rate","u":"beat/min","v":72"#, "/min", "good"),
        (r#""n":"h1/b1/mat-1/heart_rate","u":"/min","v":72"#, "/min", "good"),
        (r#""n":"h1/b1/mat-1/heart_rate","u":"Hz","v":72"#, "Hz", "bad:unit"),
        (r#""n":"h1/b1/mat-1/heart_rate","v":400"#, "/min", "bad:range"),
        (r#""n":"h1/b1/mat-1/moon_phase","u":"deg","v":4"#, "deg", "uncertain:unknown_quantity"),
        (r#""n":"h1/b1/mat-1/moon_phase","v":4"#, "", "uncertain:unknown_quantity"),
        (r#""n":"h1/b1/mat-1/moon_phase","v":4,"q":"bad:stale""#, "", "bad:stale"),
    ] {
        let rows = read(&format!("[{{{given}}}]"));
        assert_eq!((&*rows[0].unit, &*rows[0].quality.to_string()), (unit, quality), "{given}");
    }
}

#[test]
fn times_are_believed_as_far_as_they_go() {
    let day = 86_400;
    for (time, clock, event_time, quality) in [
        ("1772403000.5".to_owned(), "synchronised", Timestamp::from_millis(1_772_403_000_500), "good"),
        ("-2".to_owned(), "synchronised", NOW - Duration::from_secs(2), "good"),
        ("-2".to_owned(), "unsynchronised", NOW - Duration::from_secs(2), "uncertain:clock"),
        ("-5000000000".to_owned(), "synchronised", NOW, "bad:time"),
        ((1_772_403_300 + day).to_string(), "synchronised", Timestamp::from_millis(1_772_489_700_000), "good"),
        (
            (1_772_403_301 + day).to_string(),
            "synchronised",
            Timestamp::from_millis(1_772_489_701_000),
            "uncertain:future",
        ),
    ] {
        let rows = read(&format!(r#"[{{"n":"h1/b1/mat-1/heart_rate","v":72,"t":{time},"ck":"{clock}"}}]"#));
        assert_eq!((rows[0].event_time, &*rows[0].quality.to_string()), (event_time, quality), "{time} {clock}");
        assert_eq!(rows[0].received_time, NOW);
    }
}

#[test]
fn rooms_come_from_the_inventory() {
    let room = |r: &str| Room::new(r).unwrap();
    let device = |id: &str, bed: Option<&str>, at: Option<&str>| InventoryDevice {
        id: DeviceId::new(id).unwrap(),
        bed: bed.map(|b| carebed_contract::id::BedId::new(b).unwrap()),
        room: at.map(room),
        profile: "p".into(),
        quantities: Vec::new(),
        actions: Vec::new(),
    };
    let inventory = Inventory {
        version: "1".into(),
        since: NOW,
        area: origin().area,
        gateway: origin().gateway,
        home: carebed_contract::id::HomeId::new("h1").unwrap(),
        time_zone: "Asia/Shanghai".into(),
        residents: 1,
        rooms: vec![room("bedroom"), room("hall")],
        beds: vec![InventoryBed { id: carebed_contract::id::BedId::new("b1").unwrap(), room: room("bedroom") }],
        devices: vec![device("mat-1", Some("b1"), None), device("door-1", None, Some("hall")), device("x", None, None)],
        withheld: Vec::new(),
    };
    let rooms = Rooms::of(&inventory);
    for (id, expected) in [("mat-1", Some("bedroom")), ("door-1", Some("hall")), ("x", None), ("unknown", None)] {
        assert_eq!(rooms.0.get(id).map(Room::as_str), expected, "{id}");
    }
}

#[test]
fn times_without_a_clock_are_as_good_as_what_the_gateway_learned() {
    let pack = br#"[{"n":"h1/b1/call-1/call_button","vb":true,"t":-2.5,"ck":"unsynchronised"}]"#;
    let (at, ago) = (NOW - Duration::from_secs(600), Duration::from_secs(90));
    for (sealed, before_now, clock, quality) in [
        (Some(SealedAt::Known(at)), 602_500, "corrected", "good"),
        (Some(SealedAt::Bounded(at)), 602_500, "unsynchronised", "uncertain:clock"),
        (Some(SealedAt::Before(ago)), 92_500, "unsynchronised", "uncertain:clock"),
        (None, 2_500, "unsynchronised", "uncertain:clock"),
    ] {
        let row = observations(pack, &Origin { sealed, ..origin() }, &Rooms::default()).remove(0);
        let told = (NOW.since(row.event_time).as_millis(), row.clock.as_str(), row.quality.to_string());
        assert_eq!(told, (before_now, clock, quality.to_owned()), "{sealed:?}");
    }
}

#[test]
fn a_recording_is_believed_however_old_it_is_and_a_gateway_is_not() {
    let json = br#"[{"n":"h1/b1/mat-1/heart_rate","v":72,"t":1300000000}]"#;
    let row = |recorded| observations(json, &Origin { recorded, ..origin() }, &Rooms::default()).remove(0);
    let (recording, gateway) = (row(true), row(false));
    assert_eq!((recording.event_time, recording.quality), (Timestamp::from_millis(1_300_000_000_000), Quality::Good));
    assert_eq!((gateway.event_time, gateway.quality), (NOW, Quality::Bad("time".into())));
}
