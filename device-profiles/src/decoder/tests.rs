use super::*;
use crate::shipped;

#[test]
fn bits_become_inputs_and_other_lengths_nothing() {
    let mut decoder = Decoder::new(shipped::find("waveshare/modbus-di8").unwrap());
    let mut on = |data: &[u8]| -> Vec<usize> {
        let points = decoder.answer(0, data).points;
        assert_eq!(points.len(), 8);
        points.into_iter().filter(|p| p.value == Value::Flag(true)).map(|p| p.input + 1).collect()
    };
    assert_eq!(on(&[0x20]), [6]);
    assert_eq!(on(&[0x81]), [1, 8]);
    for (poll, wrong) in [(0, &[][..]), (0, &[0, 0]), (7, &[0]), (7, &[])] {
        let decoded = decoder.answer(poll, wrong);
        assert!(decoded.points.is_empty() && matches!(decoded.rejects[..], [Reject::Length { .. }]), "{wrong:?}");
    }
}

fn point(profile: &str, message: &str, payload: &str) -> String {
    let profile = shipped::find(profile).unwrap();
    let index = profile.messages.iter().position(|m| m.name == message).unwrap();
    let decoded = Decoder::at(Arc::clone(&profile), Some("a")).payload(index, payload.as_bytes(), false);
    crate::capture::describe(&profile, &decoded)
}

#[test]
fn a_measure_is_a_number_and_a_state_is_on_or_off() {
    for (profile, message, payload, expected) in [
        ("esphome/bed-node", "temperature", "21.5", "temperature=21.5"),
        ("esphome/bed-node", "temperature", "inf", "temperature=?not_a_number"),
        ("esphome/bed-node", "temperature", "true", "temperature=?not_a_number"),
        ("zigbee2mqtt/aqara-motion", "state", r#"{"illuminance":true}"#, "illuminance=?not_a_number"),
        ("zigbee2mqtt/aqara-motion", "state", r#"{"illuminance":"7"}"#, "illuminance=7"),
        ("zigbee2mqtt/aqara-motion", "state", r#"{"illuminance":[1]}"#, "illuminance=?not_a_value"),
        ("zigbee2mqtt/aqara-motion", "state", r#"[{"illuminance":1}]"#, "state"),
    ] {
        assert_eq!(point(profile, message, payload), expected, "{payload}");
    }
    let long = format!("{{\"illuminance\":\"{}\"}}", "9".repeat(70_000));
    assert_eq!(point("zigbee2mqtt/aqara-motion", "state", &long), "reject payload");
}

/// What shows that the device itself is there: not what a broker kept, nor what a bridge says of it.
#[test]
fn only_the_device_itself_shows_that_it_is_alive() {
    let mut decoder = Decoder::at(shipped::find("zigbee2mqtt/aqara-door").unwrap(), Some("door"));
    for (message, payload, retained, alive) in [
        (0, r#"{"battery":100}"#, false, true),
        (0, r#"{"contact":true}"#, true, false),
        (1, r#"{"state":"online"}"#, false, false),
        (0, "{", false, false),
    ] {
        assert_eq!(decoder.payload(message, payload.as_bytes(), retained).alive, alive, "{payload}");
    }
    let mut counters = Decoder::new(shipped::find("wirenboard/wb-mcm8").unwrap());
    let decoded = counters.answer(1, &[0; 16]);
    assert!(decoded.points.is_empty() && decoded.alive && !counters.answer(1, &[0; 15]).alive);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that are often nearly frames of the profile: pieces of its captures among noise.
    fn stream(captures: &'static [(&'static str, &'static str)]) -> impl Strategy<Value = Vec<u8>> {
        let frames: Vec<Vec<u8>> = captures
            .iter()
            .flat_map(|(_, text)| text.lines())
            .filter_map(|line| line.strip_prefix("< "))
            .filter_map(|line| crate::hex::Hex::parse(line).map(|hex| hex.0))
            .collect();
        let piece = prop_oneof![
            3 => prop::sample::select(frames),
            1 => prop::collection::vec(any::<u8>(), 0..24),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    fn framed() -> Vec<&'static shipped::Shipped> {
        shipped::all().iter().filter(|shipped| !shipped.profile.framings.is_empty()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// For every shipped device that speaks in frames: cut anywhere, the same points come out.
        #[test]
        fn cutting_the_stream_changes_no_point(
            (which, bytes) in (0..framed().len()).prop_flat_map(|which| (Just(which), stream(framed()[which].captures))),
            cuts in prop::collection::vec(1_usize..30, 0..60),
        ) {
            let profile = &framed()[which].profile;
            let points = |pieces: Vec<&[u8]>| {
                let mut decoder = Decoder::new(Arc::clone(profile));
                let mut points = Vec::new();
                for piece in pieces {
                    points.extend(decoder.push(piece, Duration::ZERO).points);
                }
                points.extend(decoder.push(&[], Duration::from_secs(2)).points);
                points
            };
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(points(pieces), points(vec![&bytes]));
        }

        /// Whatever comes by whatever way: nothing panics, and what is bad is no number.
        #[test]
        fn any_bytes_give_points_or_rejects(bytes in prop::collection::vec(any::<u8>(), 0..300), retained in any::<bool>()) {
            for shipped in shipped::all() {
                let mut decoder = Decoder::new(Arc::clone(&shipped.profile));
                let mut decoded = vec![decoder.push(&bytes, Duration::ZERO), decoder.push(&[], Duration::from_secs(9))];
                for poll in 0..=shipped.profile.polls.len() {
                    decoded.push(decoder.answer(poll, &bytes));
                    let length = shipped.profile.polls.get(poll).map_or(0, |p| p.function.answer_length(p.count));
                    decoded.push(decoder.answer(poll, bytes.get(..length).unwrap_or(&[])));
                }
                for message in 0..=shipped.profile.messages.len() {
                    decoded.push(decoder.payload(message, &bytes, retained));
                }
                for point in decoded.iter().flat_map(|decoded| &decoded.points) {
                    prop_assert!(point.quality.is_usable() || point.value == Value::Missing, "{:?}", point);
                    prop_assert!(point.value.number().is_none_or(f64::is_finite), "{:?}", point);
                }
            }
        }
    }
}
