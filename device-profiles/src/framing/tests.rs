use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::hex::Hex;
use crate::reject::Reject;

fn hex(text: &str) -> Vec<u8> {
    Hex::parse(text).unwrap().0
}

fn blank(name: &str, start: &str, extent: Extent) -> Framing {
    Framing {
        name: name.to_owned(),
        start: hex(start),
        preamble: Vec::new(),
        extent,
        length_max: 64,
        fixed: Vec::new(),
        checks: Vec::new(),
        key: None,
        address: None,
        data_from: 0,
        data_after: 0,
        plus: 0,
        order: Order::Abcd,
    }
}

/// SIA DC-09: everything in text, the sum and the length as hex digits.
fn dc09() -> Framing {
    Framing {
        extent: Extent::Field { at: 5, width: Width::Hex4, order: Order::Abcd, add: 10, empty: None },
        length_max: 256,
        fixed: vec![(-1, vec![0x0D])],
        checks: vec![Check { kind: Checksum::Crc16ArcHex, at: 1, from: 9, to: -1, order: Order::Abcd }],
        data_from: 9,
        data_after: 1,
        ..blank("dc09", "0A", Extent::Fixed(1))
    }
}

/// MicRadar: length in the header, sum and mark at the end.
fn micradar() -> Framing {
    Framing {
        extent: Extent::Field { at: 4, width: Width::U16, order: Order::Abcd, add: 9, empty: None },
        fixed: vec![(-2, hex("54 43"))],
        checks: vec![Check { kind: Checksum::Sum8, at: -3, from: 0, to: -3, order: Order::Abcd }],
        key: Some((2, 2)),
        data_from: 6,
        data_after: 3,
        ..blank("micradar", "53 59", Extent::Fixed(1))
    }
}

/// TinyFrame: a sum of its own for the header; without data there is no data sum.
fn tinyframe() -> Framing {
    let not_xor = |at, from, to| Check { kind: Checksum::NotXor8, at, from, to, order: Order::Abcd };
    Framing {
        extent: Extent::Field { at: 3, width: Width::U16, order: Order::Abcd, add: 9, empty: Some(8) },
        length_max: 1033,
        checks: vec![not_xor(7, 0, 7), not_xor(-1, 8, -1)],
        key: Some((5, 2)),
        data_from: 8,
        data_after: 1,
        ..blank("tinyframe", "01", Extent::Fixed(1))
    }
}

/// DL/T 645: an address, and every data byte 0x33 too high.
fn dlt645() -> Framing {
    Framing {
        preamble: hex("FE FE FE FE"),
        extent: Extent::Field { at: 9, width: Width::U8, order: Order::Abcd, add: 12, empty: None },
        fixed: vec![(7, hex("68")), (-1, hex("16"))],
        checks: vec![Check { kind: Checksum::Sum8, at: -2, from: 0, to: -2, order: Order::Abcd }],
        key: Some((8, 1)),
        address: Some((1, 6)),
        data_from: 10,
        data_after: 2,
        plus: 0x33,
        ..blank("dlt645", "68", Extent::Fixed(1))
    }
}

fn frames(framings: &[Framing], bytes: &[u8]) -> Vec<Frame> {
    let mut scanner = Scanner::default();
    let mut seen = scanner.push(framings, bytes, Duration::ZERO);
    seen.extend(scanner.push(framings, &[], Duration::from_secs(2)));
    only_frames(seen)
}

fn only_frames(seen: Vec<Seen>) -> Vec<Frame> {
    let frame = |seen| match seen {
        Seen::Frame(frame) => Some(frame),
        Seen::Reject(_) => None,
    };
    seen.into_iter().filter_map(frame).collect()
}

/// Published frames, and what they hold: framing, bytes, key, address, data.
#[test]
fn published_frames_are_found_and_built_again() {
    let cases: &[(Framing, &str, &str, Option<&str>, &str)] = &[
        (micradar(), "53 59 80 81 00 01 0F BD 54 43", "80 81", None, "0F"),
        (micradar(), "53 59 80 05 00 06 80 55 00 40 00 00 4C 54 43", "80 05", None, "80 55 00 40 00 00"),
        (tinyframe(), "01 00 00 00 01 0E 02 F3 01 FE", "0E 02", None, "01"),
        (tinyframe(), "01 00 00 00 00 0E 06 F6", "0E 06", None, ""),
        (tinyframe(), "01 00 00 00 04 0E 04 F0 00 00 20 40 9F", "0E 04", None, "00 00 20 40"),
        (dlt645(), "68 AA AA AA AA AA AA 68 13 00 DF 16", "13", Some("AAAAAAAAAAAA"), ""),
        (
            dlt645(),
            "68 08 02 02 41 22 00 68 91 0A 35 37 33 37 3B 35 35 74 55 33 51 16",
            "91",
            Some("002241020208"),
            "02 04 00 04 08 02 02 41 22 00",
        ),
    ];
    for (framing, bytes, key, address, data) in cases {
        let (raw, key, data) = (hex(bytes), hex(key), hex(data));
        let found = frames(std::slice::from_ref(framing), &raw);
        let address_text = address.map(str::to_owned);
        let expected =
            Frame { framing: 0, raw: raw.clone(), key: key.clone(), address: address_text, data: data.clone() };
        assert_eq!(found, [expected], "{bytes}");
        assert_eq!(framing.build(*address, &key, &data).unwrap(), raw, "{bytes}");
    }
}

#[test]
fn sia_dc09_is_a_framing_like_any_other() {
    for (line, good) in [
        (r##"CE110032"SIA-DCS"9876R579BDFL789ABC#12345A[#12345A|NFA129]"##, true),
        (r##"CA2F0038"NULL"0000L0#7890[#0000|0000 00 000]_22:13:29,12-29-2022"##, true),
        (r##"1908002B"SIA-DCS"0000L0#3080[#3080|Nti19:44/id1/ri4/RP]"##, false),
    ] {
        let bytes = format!("\n{line}\r").into_bytes();
        let found = frames(&[dc09()], &bytes);
        assert_eq!(found.len(), usize::from(good), "{line}");
        if let Some(frame) = found.first() {
            assert_eq!(dc09().build(None, &[], &frame.data).unwrap(), bytes);
        }
    }
}

#[test]
fn text_lines_are_frames() {
    let lines = Framing { data_after: 1, ..blank("line", "", Extent::Until(vec![b'\n'])) };
    let found = frames(std::slice::from_ref(&lines), b"{\"e\":1}\n{\"e\":0}\nrest");
    let data: Vec<&[u8]> = found.iter().map(|frame| &frame.data[..]).collect();
    assert_eq!(data, [b"{\"e\":1}", b"{\"e\":0}"]);
    assert_eq!(lines.build(None, &[], b"ok").unwrap(), b"ok\n");
}

#[test]
fn broken_frames_are_rejected_with_the_reason_and_cost_only_themselves() {
    let good = "53 59 80 01 00 01 01 2F 54 43";
    let cases = [
        ("53 59 80 01 00 01 01 2E 54 43", Reject::Checksum),
        ("53 59 80 01 00 01 01 2F 54 44", Reject::Fixed(8)),
        ("53 59 80 01 7F FF", Reject::Oversize(0x7FFF + 9)),
        ("00 11 22", Reject::Noise(3)),
    ];
    for (bad, expected) in cases {
        let mut scanner = Scanner::default();
        let seen = scanner.push(&[micradar()], &hex(&format!("{bad} {good}")), Duration::ZERO);
        assert_eq!(seen.first(), Some(&Seen::Reject(expected)), "{bad}");
        assert_eq!(only_frames(seen).len(), 1, "{bad}");
    }
    // The end mark inside of the data is data: energy 0x54 0x43.
    assert_eq!(frames(&[micradar()], &hex("53 59 80 04 00 02 54 43 C9 54 43")).len(), 1);
}

#[test]
fn a_frame_that_was_cut_off_does_not_hold_up_what_follows() {
    let mut scanner = Scanner::default();
    let framings = [micradar()];
    let at = Duration::from_millis;
    // A header that promises 64 bytes, and a good frame inside of what it promised.
    let bytes = hex("53 59 80 01 00 37 53 59 80 01 00 01 01 2F 54 43");
    assert_eq!(scanner.push(&framings, &bytes, at(0)), []);
    assert!(scanner.is_waiting());
    assert_eq!(scanner.push(&framings, &[], at(999)), []);
    let seen = scanner.push(&framings, &[], at(1_000));
    assert_eq!(seen.first(), Some(&Seen::Reject(Reject::Short(16))));
    assert_eq!(only_frames(seen).len(), 1);
    assert!(!scanner.is_waiting());
}

#[test]
fn what_does_not_fit_a_frame_cannot_be_built() {
    assert!(matches!(dlt645().build(Some("12 4"), &[0x11], &[]), Err(BuildError::Address(_))));
    assert!(matches!(dlt645().build(None, &[0x11], &[]), Err(BuildError::Address(_))));
    assert!(matches!(micradar().build(None, &[1], &[]), Err(BuildError::Key { .. })));
    assert!(matches!(micradar().build(None, &[1, 2], &[0; 60]), Err(BuildError::Length(69))));
}

fn any_framing() -> impl Strategy<Value = Framing> {
    prop_oneof![Just(micradar()), Just(tinyframe()), Just(dlt645()), Just(dc09())]
}

fn sample(framing: &Framing, data: &[u8]) -> Vec<u8> {
    let key = vec![0x81; framing.key.map_or(0, |(_, length)| length)];
    framing.build(Some("123456"), &key, data).unwrap()
}

proptest! {
    /// However the stream is cut, the same frames come out.
    #[test]
    fn cutting_changes_nothing(
        framing in any_framing(),
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..12), prop::collection::vec(any::<u8>(), 0..40)), 1..5),
        cuts in prop::collection::vec(1_usize..20, 0..40),
    ) {
        let mut stream = Vec::new();
        for (noise, data) in &pieces {
            stream.extend_from_slice(noise);
            stream.extend(sample(&framing, data));
        }
        let framings = [framing];
        let whole = frames(&framings, &stream);
        let mut scanner = Scanner::default();
        let (mut rest, mut seen) = (&stream[..], Vec::new());
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            seen.extend(scanner.push(&framings, piece, Duration::ZERO));
            rest = after;
        }
        seen.extend(scanner.push(&framings, rest, Duration::ZERO));
        seen.extend(scanner.push(&framings, &[], Duration::from_secs(2)));
        prop_assert_eq!(only_frames(seen), whole);
    }

    /// Noise in front of a frame costs at most itself, whether it looks like a header or not.
    #[test]
    fn the_good_frame_is_found_after_noise(framing in any_framing(), noise in prop::collection::vec(any::<u8>(), 0..80), data in prop::collection::vec(any::<u8>(), 1..40)) {
        let good = sample(&framing, &data);
        let framings = [framing];
        // Noise that holds or completes a whole good frame is none.
        let stream = [noise.clone(), good.clone()].concat();
        let first = frames(&framings, &stream).first().map(|frame| frame.raw.clone());
        let noisy = frames(&framings, &noise).is_empty();
        prop_assume!(noisy && first.as_ref().is_none_or(|raw| !noise.windows(raw.len().min(4)).any(|w| raw.starts_with(w))));
        prop_assert_eq!(first, Some(good));
    }

    /// One flipped bit anywhere in a frame that a sum protects: no frame of the same bytes, and never a panic.
    #[test]
    fn a_flipped_bit_is_found(framing in any_framing(), data in prop::collection::vec(any::<u8>(), 1..40), bit in any::<prop::sample::Index>()) {
        let mut frame = sample(&framing, &data);
        let bit = bit.index(frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(frames(&[framing], &frame).iter().all(|found| found.raw != frame), "{:02X?}", frame);
    }

    /// Whatever comes, nothing panics and nothing is kept beyond the bound.
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let framings = [micradar(), tinyframe(), dlt645(), dc09()];
        let mut scanner = Scanner::default();
        for (index, piece) in bytes.chunks(7).enumerate() {
            scanner.push(&framings, piece, Duration::from_millis(index as u64 * 300));
            prop_assert!(scanner.buffer_length() <= FRAME_LENGTH_MAX);
        }
    }

    #[test]
    fn orders_are_their_own_inverse(bytes in prop::collection::vec(any::<u8>(), 1..5)) {
        prop_assume!(bytes.len() != 3);
        for order in Order::ALL {
            prop_assert_eq!(order.sorted(&order.sorted(&bytes)), bytes.clone());
        }
    }
}
