use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn record(name: &str, time: RecordTime, value: Value) -> Record {
    Record {
        series: Series::parse(name).unwrap(),
        time,
        value,
        unit: None,
        quality: Quality::Good,
        clock: ClockQuality::Synchronised,
        gateway_time: None,
        monotonic: None,
    }
}

fn at(text: &str) -> RecordTime {
    RecordTime::At(Timestamp::parse(text).unwrap())
}

/// One of everything; its bytes are kept in `golden/` for ever.
fn sample() -> Pack {
    let mut heart = record("h1/b1/belt/heart_rate", at("2026-03-01T22:15:00.250Z"), Value::Number(61.5));
    heart.unit = Some("beat/min".into());
    heart.quality = Quality::Uncertain("movement".into());
    heart.gateway_time = Some(Timestamp::parse("2026-03-01T22:15:02Z").unwrap());
    let mut unset = record("h1/b1/call-1/call_button", RecordTime::BeforeReceive(Duration::ZERO), Value::Flag(true));
    unset.clock = ClockQuality::Unsynchronised;
    unset.monotonic = Some(Duration::from_millis(81_250));
    Pack {
        boot: Some(7),
        records: vec![
            record("h1/b1/mat/bed_occupancy", at("2026-03-01T22:14:00Z"), Value::Flag(true)),
            record("h1/b1/mat/bed_occupancy", at("2026-03-01T22:15:00Z"), Value::Flag(false)),
            heart,
            record("h1/-/door/door_open", at("2026-03-01T22:15:03Z"), Value::Missing),
            unset,
            record("h1/b1/strap/work_state", at("2026-03-01T22:15:04.001Z"), Value::Text("none_5min".into())),
        ],
    }
}

#[test]
fn what_was_sealed_once_is_read_for_ever() {
    let golden = include_bytes!("../../golden/pack-1.cbor");
    assert_eq!(Pack::decode("application/senml+cbor", golden).unwrap(), sample());
    assert_eq!(sample().encode().unwrap(), golden, "the encoding changed; keep the old file and add a new one");
}

#[test]
fn a_pack_published_by_hand_is_read() {
    let golden = include_bytes!("../../golden/pack-by-hand.json");
    let pack = Pack::decode("application/senml+json", golden).unwrap();
    assert_eq!(pack.records.len(), 3);
    assert_eq!(pack.records[0].time, RecordTime::BeforeReceive(Duration::ZERO));
    assert_eq!(pack.records[1].value, Value::Number(61.0));
    assert_eq!(pack.records[2].time, at("2026-03-01T22:15:00Z"));
}

#[test]
fn large_packs_are_compressed() {
    let records = (0..1000)
        .map(|i| {
            let time = Timestamp::parse("2026-03-01T22:00:00Z").unwrap() + Duration::from_secs(i);
            record("h1/b1/belt/heart_rate", RecordTime::At(time), Value::Number(60.0))
        })
        .collect();
    let pack = Pack { boot: None, records };
    let sealed = pack.seal().unwrap();
    assert_eq!(sealed.content_type, ContentType::CborZstd);
    assert!(sealed.bytes.len() < 4_000, "{} bytes for 1000 regular values", sealed.bytes.len());
    assert_eq!(Pack::decode(sealed.content_type.as_str(), &sealed.bytes).unwrap(), pack);
}

#[test]
fn a_bomb_does_not_fill_the_memory() {
    let bomb = zstd::bulk::compress(&vec![0u8; 64 << 20], 3).unwrap();
    assert!(matches!(Pack::decode("application/senml+cbor+zstd", &bomb), Err(DecodeError::Compression(_))));
}

#[test]
fn no_pack_carries_the_time_of_an_unset_clock() {
    let pack =
        Pack { boot: None, records: vec![record("h1/b1/m/motion", at("1970-01-01T00:05:00Z"), Value::Flag(true))] };
    assert!(matches!(pack.seal(), Err(SealError::UnsetClock { .. })));
}

#[test]
fn bad_json_names_what_is_wrong() {
    let cases = [
        (r#"{"n":"h1/b1/d/motion"}"#, "failed to read JSON"),
        (r#"[{"n":"h1/b1/motion","vb":true}]"#, "record 0: bad name"),
        (r#"[{"n":"h1/b1/d/motion"}]"#, "record 0: no value"),
        (r#"[{"n":"h1/b1/d/motion","v":1,"vb":true}]"#, "record 0: more than one value"),
        (r#"[{"n":"h1/b1/d/motion","v":1,"new_":1}]"#, "record 0: a label that must be understood"),
        (r#"[{"n":"h1/b1/d/motion","v":1,"t":1e300}]"#, "record 0: an impossible time"),
    ];
    for (json, expected) in cases {
        let error = Pack::decode("application/senml+json", json.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{json}: {error}");
    }
    assert!(Pack::decode("text/plain", b"on").is_err());
}

fn any_record() -> impl Strategy<Value = Record> {
    let time = prop_oneof![
        (300_000_000_000i64..4_000_000_000_000).prop_map(|ms| RecordTime::At(Timestamp::from_millis(ms))),
        (0u64..86_400_000).prop_map(|ms| RecordTime::BeforeReceive(Duration::from_millis(ms))),
    ];
    let value = prop_oneof![
        (-1.0e12f64..1.0e12).prop_map(Value::Number),
        any::<i32>().prop_map(|v| Value::Number(f64::from(v))),
        any::<bool>().prop_map(Value::Flag),
        "[a-z床]{1,12}".prop_map(Value::Text),
        Just(Value::Missing),
    ];
    let name = prop_oneof![Just("h1/b1/mat/bed_occupancy"), Just("h1/-/door/door_open"), Just("h2/b2/belt/heart_rate")];
    let quality = prop_oneof![Just("good"), Just("bad:range"), Just("uncertain:clock")];
    (
        name,
        time,
        value,
        quality,
        proptest::option::of(Just("beat/min".to_owned())),
        any::<bool>(),
        proptest::option::of(0i64..100_000),
    )
        .prop_map(|(name, time, value, quality, unit, corrected, offset)| {
            let mut r = record(name, time, value);
            r.quality = Quality::parse(quality);
            r.unit = unit;
            r.clock = if corrected { ClockQuality::Corrected } else { ClockQuality::Synchronised };
            r.gateway_time = match (time, offset) {
                (RecordTime::At(at), Some(offset)) if offset > 0 => Some(Timestamp::from_millis(at.millis() + offset)),
                _ => None,
            };
            r
        })
}

proptest! {
    #[test]
    fn what_is_sealed_is_read_back(records in proptest::collection::vec(any_record(), 0..60), boot in any::<Option<u64>>()) {
        let pack = Pack { boot: boot.filter(|_| !records.is_empty()), records };
        let sealed = pack.seal().unwrap();
        prop_assert_eq!(Pack::decode(sealed.content_type.as_str(), &sealed.bytes).unwrap(), pack);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for content_type in ["application/senml+cbor", "application/senml+cbor+zstd", "application/senml+json"] {
            let _decoded = Pack::decode(content_type, &bytes);
        }
        let _labels = crate::labels::Labels::decode(&bytes);
        let _receipt = crate::receipt::Receipt::decode(&bytes);
    }

    #[test]
    fn damaged_packs_never_panic(flip in 0usize..2000, byte in any::<u8>()) {
        let mut bytes = sample().encode().unwrap();
        let place = flip % bytes.len();
        bytes[place] = byte;
        let _decoded = Pack::decode("application/senml+cbor", &bytes);
    }
}
