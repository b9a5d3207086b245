use std::sync::Arc;
use std::time::Duration;

use carebed_contract::id::HomeId;
use carebed_contract::quantity::Quantity;
use carebed_contract::time::Timestamp;
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::parse(&format!("2026-03-01T{text}Z")).unwrap()
}

fn seen(time: Timestamp, device: &str, quantity: &str, bed: Option<&str>, value: f64) -> Seen {
    Seen {
        time,
        quantity: Quantity::new(quantity).unwrap(),
        device: device.parse().unwrap(),
        bed: bed.map(|bed| bed.parse().unwrap()),
        room: None,
        value,
        watch: Watch::Unsaid,
    }
}

fn home() -> HomeId {
    "h1".parse().unwrap()
}

fn none_yet() -> Episodes {
    Episodes::new(Arc::new(Definitions::builtin().unwrap()))
}

/// `kind start known..end known` of each row, times without the date.
fn told(episodes: &mut Episodes) -> Vec<String> {
    let time = |t: Timestamp| t.to_string()[11..19].to_owned();
    let end = |t: Option<Timestamp>| t.map_or("-".to_owned(), time);
    let line = |e: Episode| {
        let (start, known) = (time(e.started_at), time(e.start_known_at));
        let more = e.attributes.map_or(String::new(), |a| format!(" {a}"));
        format!("{} {start} {known}..{} {}{more}", e.kind, end(e.ended_at), end(e.end_known_at))
    };
    episodes.of(&home()).into_iter().map(line).collect()
}

/// Rows of (time, what, value); then complete to a time; then what is there.
fn check(rows: &[(&str, &str, f64)], complete_to: &str, expected: &[&str]) {
    let mut episodes = none_yet();
    for (time, what, value) in rows {
        let (device, quantity, bed) = match *what {
            "bed" => ("mat", "bed_occupancy", Some("b1")),
            "motion" => ("pir", "motion", None),
            "seen" => ("pir2", "motion_event", None),
            "door" => ("door", "door_open", None),
            "moved" => ("door2", "door_event", None),
            "call" => ("button", "call_button", Some("b1")),
            other => panic!("{other}?"),
        };
        episodes.push_seen(&home(), seen(at(time), device, quantity, bed, *value));
    }
    episodes.advance(&home(), at(complete_to));
    assert_eq!(told(&mut episodes), expected);
}

#[test]
fn a_bed_session_outlasts_short_gaps_and_its_end_is_known_later() {
    check(
        &[("10:00:00", "bed", 1.0), ("10:05:00", "bed", 0.0), ("10:05:59", "bed", 1.0), ("10:09:00", "bed", 0.0)],
        "10:10:00",
        &["in_bed 10:00:00 10:00:00..10:09:00 10:10:00"],
    );
    // One millisecond before the gap is over nothing is known.
    check(&[("10:00:00", "bed", 1.0), ("10:09:00", "bed", 0.0)], "10:09:59.999", &["in_bed 10:00:00 10:00:00..- -"]);
}

#[test]
fn only_who_had_settled_is_out_of_bed() {
    let in_bed = "in_bed 10:00:00 10:00:00..10:10:00 10:11:00";
    check(
        &[("10:00:00", "bed", 1.0), ("10:10:00", "bed", 0.0)],
        "10:11:00",
        &[in_bed, "out_of_bed 10:10:00 10:11:00..- - {\"confirmed\":false}"],
    );
    check(
        &[("10:00:00", "bed", 1.0), ("10:09:59", "bed", 0.0)],
        "10:12:00",
        &["in_bed 10:00:00 10:00:00..10:09:59 10:10:59"],
    );
    // Activity within five minutes confirms, later does not.
    for (seen, confirmed) in [("10:09:00", true), ("10:08:59", false), ("10:15:00", true), ("10:15:01", false)] {
        let row = format!("out_of_bed 10:10:00 10:11:00..- - {{\"confirmed\":{confirmed}}}");
        check(&[("10:00:00", "bed", 1.0), ("10:10:00", "bed", 0.0), (seen, "seen", 1.0)], "10:16:00", &[in_bed, &row]);
    }
}

#[test]
fn a_minute_back_in_bed_does_not_end_the_story() {
    check(
        &[("10:00:00", "bed", 1.0), ("10:30:00", "bed", 0.0), ("10:40:00", "bed", 1.0), ("10:41:00", "bed", 0.0)],
        "10:50:00",
        &[
            "in_bed 10:00:00 10:00:00..10:30:00 10:31:00",
            "in_bed 10:40:00 10:40:00..10:41:00 10:42:00",
            "out_of_bed 10:30:00 10:31:00..10:40:00 10:40:00 {\"confirmed\":false}",
            "out_of_bed 10:41:00 10:42:00..- - {\"confirmed\":false,\"drop_outs\":1}",
            "quiet 10:00:00 10:15:00..10:30:00 10:30:00",
        ],
    );
}

#[test]
fn away_begins_at_the_door_and_expires() {
    let leaving = [("08:00:00", "motion", 1.0), ("08:01:00", "door", 1.0), ("08:01:10", "door", 0.0)];
    let doors = "door_open 08:01:00 08:01:00..08:01:10 08:01:10";
    // The motion sensor lets go after the person has left: nobody is inside.
    let mut rows = leaving.to_vec();
    rows.push(("08:02:00", "motion", 0.0));
    check(&rows, "08:16:09", &[doors]);
    check(&rows, "08:16:10", &["away 08:01:10 08:16:10..- -", doors, "quiet 08:01:10 08:16:10..- -"]);
    rows.push(("09:00:00", "moved", 1.0));
    check(
        &rows,
        "09:01:00",
        &["away 08:01:10 08:16:10..09:00:00 09:00:00", doors, "quiet 08:01:10 08:16:10..09:00:00 09:00:00"],
    );
}

#[test]
fn a_call_is_there_before_anything_is_complete_and_a_heartbeat_is_no_press() {
    let mut episodes = none_yet();
    for (time, value) in [("10:00:00", 1.0), ("10:00:10", 1.0), ("10:00:20", 0.0), ("10:00:30", 0.0)] {
        episodes.push_seen(&home(), seen(at(time), "button", "call_button", Some("b1"), value));
    }
    assert_eq!(told(&mut episodes), ["call 10:00:00 10:00:00..10:00:20 10:00:20"]);
}

#[test]
fn a_call_that_comes_days_late_is_a_call_once() {
    let mut episodes = none_yet();
    for minute in 0..200 {
        let time = at("00:00:00") + Duration::from_secs(60 * minute);
        episodes.push_seen(&home(), seen(time, "pir", "motion_event", None, 1.0));
    }
    episodes.advance(&home(), at("12:00:00"));
    let late = || seen(at("00:30:30"), "button", "call_button", Some("b1"), 1.0);
    assert_eq!(episodes.push_seen(&home(), seen(at("00:30:30"), "x", "motion_event", None, 1.0)), Pushed::TooLate);
    assert_eq!(episodes.push_seen(&home(), late()), Pushed::TooLate);
    assert_eq!(episodes.push_seen(&home(), late()), Pushed::TooLate);
    let calls: Vec<_> = told(&mut episodes).into_iter().filter(|row| row.starts_with("call")).collect();
    assert_eq!(calls, ["call 00:30:30 00:30:30..00:30:30 00:30:30"]);
}

#[test]
fn late_data_is_a_revision() {
    let mut episodes = none_yet();
    for (time, value) in [("10:00:00", 1.0), ("10:30:00", 0.0)] {
        episodes.push_seen(&home(), seen(at(time), "mat", "bed_occupancy", Some("b1"), value));
    }
    episodes.advance(&home(), at("10:32:00"));
    assert_eq!(episodes.of(&home())[0].revision, 0);
    episodes.push_seen(&home(), seen(at("10:30:30"), "mat", "bed_occupancy", Some("b1"), 1.0));
    let rows = episodes.of(&home());
    assert!(rows.iter().all(|row| &*row.kind != "out_of_bed"), "the exit is refuted: {rows:?}");
    assert_eq!((rows[0].revision, rows[0].ended_at), (1, None));
}

#[test]
fn forgetting_keeps_what_lasts_and_what_ended_since_it_began() {
    let mut episodes = none_yet();
    let bed = |time: &str, value| seen(at(time), "mat", "bed_occupancy", Some("b1"), value);
    for (time, value) in [("00:10:00", 1.0), ("00:12:00", 0.0), ("01:00:00", 1.0), ("02:00:00", 0.0)] {
        episodes.push_seen(&home(), bed(time, value));
    }
    for minute in 0..300 {
        let time = at("03:00:00") + Duration::from_secs(60 * minute);
        episodes.push_seen(&home(), seen(time, "pir", "motion_event", None, 1.0));
    }
    episodes.advance(&home(), at("08:00:00"));
    let kinds = |episodes: &mut Episodes| episodes.of(&home()).iter().map(|e| e.kind.to_string()).collect::<Vec<_>>();
    assert_eq!(kinds(&mut episodes), ["in_bed", "in_bed", "out_of_bed", "quiet", "quiet", "quiet"]);
    // Out of bed since 02:00: what was over before is gone.
    episodes.forget(&home(), at("07:00:00"));
    assert_eq!(kinds(&mut episodes), ["in_bed", "out_of_bed", "quiet", "quiet"]);
    episodes.push_seen(&home(), bed("08:10:00", 1.0));
    for minute in 0..100 {
        let time = at("08:11:00") + Duration::from_secs(60 * minute);
        episodes.push_seen(&home(), seen(time, "pir", "motion_event", None, 1.0));
    }
    episodes.advance(&home(), at("09:50:00"));
    episodes.forget(&home(), at("08:30:00"));
    assert_eq!(kinds(&mut episodes), ["in_bed", "out_of_bed"]);
}

/// A day or two of one home: steps of seconds, minutes and hours between whatever sensors may say.
fn streams() -> impl Strategy<Value = Vec<Seen>> {
    let gap = prop_oneof![3 => 0u64..90, 4 => 30u64..1_800, 1 => 1_800u64..30_000];
    let what = (0usize..8, any::<bool>());
    prop::collection::vec((gap, what), 1..250).prop_map(|steps| {
        let mut time = at("00:00:00");
        let mut made = Vec::new();
        for (gap, (what, on)) in steps {
            time = time + Duration::from_secs(gap);
            let on = f64::from(u8::from(on));
            made.push(match what {
                0 | 1 => seen(time, "mat", "bed_occupancy", Some("b1"), on),
                2 => seen(time, "mat2", "bed_occupancy", Some("b2"), on),
                3 => seen(time, "pir", "motion", None, on),
                4 => seen(time, "pir2", "motion_event", None, 1.0),
                5 => seen(time, "door", "door_open", None, on),
                6 => seen(time, "door2", "door_event", None, 1.0),
                _ => seen(time, "button", "call_button", Some("b1"), on),
            });
        }
        made
    })
}

fn unrevised(episodes: &mut Episodes) -> Vec<Episode> {
    episodes.of(&home()).into_iter().map(|e| Episode { revision: 0, ..e }).collect()
}

/// What event order makes of a stream.
fn whole(stream: &[Seen], complete_to: Timestamp) -> Vec<Episode> {
    let mut episodes = none_yet();
    let mut sorted = stream.to_vec();
    sorted.sort_by(Seen::order);
    for seen in sorted {
        episodes.push_seen(&home(), seen);
    }
    episodes.advance(&home(), complete_to);
    unrevised(&mut episodes)
}

fn end_of(stream: &[Seen]) -> Timestamp {
    stream.last().map_or(at("00:00:00"), |seen| seen.time) + Duration::from_secs(40_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_order_of_arrival_gives_the_same_episodes(
        (stream, shuffled) in streams().prop_flat_map(|s| (Just(s.clone()), Just(s).prop_shuffle())),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let end = end_of(&stream);
        let mut episodes = none_yet();
        for seen in &shuffled {
            episodes.push_seen(&home(), seen.clone());
        }
        for repeat in repeats {
            let pushed = episodes.push_seen(&home(), repeat.get(&stream).clone());
            prop_assert_eq!(pushed, Pushed::Duplicate);
        }
        episodes.advance(&home(), end);
        prop_assert_eq!(unrevised(&mut episodes), whole(&stream, end));
    }

    #[test]
    fn what_comes_late_is_put_in_its_place(
        stream in streams(),
        delays in prop::collection::vec(0u64..3_500, 250),
        told_between in any::<bool>(),
    ) {
        let end = end_of(&stream);
        let mut arrivals: Vec<_> =
            stream.iter().zip(delays).map(|(seen, delay)| (seen.time + Duration::from_secs(delay), seen)).collect();
        arrivals.sort_by_key(|(arrival, _)| *arrival);
        let mut episodes = none_yet();
        for (arrival, seen) in arrivals {
            prop_assert_ne!(episodes.push_seen(&home(), seen.clone()), Pushed::TooLate);
            // The home claims to be complete up to now, which is not so.
            episodes.advance(&home(), arrival);
            if told_between {
                episodes.of(&home());
            }
        }
        episodes.advance(&home(), end);
        prop_assert_eq!(unrevised(&mut episodes), whole(&stream, end));
    }

    #[test]
    fn nothing_is_known_before_it_can_be_known(stream in streams(), cut in any::<prop::sample::Index>(), later in 0u64..4_000) {
        let cut = cut.get(&stream).time + Duration::from_secs(later);
        let known: Vec<Seen> = stream.iter().filter(|seen| seen.time <= cut).cloned().collect();
        let mut expected = whole(&stream, end_of(&stream));
        expected.retain(|e| e.start_known_at <= cut);
        for e in &mut expected {
            prop_assert!(e.start_known_at >= e.started_at);
            prop_assert!(e.end_known_at >= e.ended_at);
            // Whether an exit is confirmed is open for five minutes.
            let open = e.end_known_at.is_none_or(|known| known > cut);
            if open {
                (e.ended_at, e.end_known_at) = (None, None);
            }
            if open && e.started_at + Duration::from_secs(300) > cut {
                e.attributes = None;
            }
        }
        let mut found = whole(&known, cut);
        for e in &mut found {
            if e.ended_at.is_none() && e.started_at + Duration::from_secs(300) > cut {
                e.attributes = None;
            }
        }
        prop_assert_eq!(found, expected);
    }
}

/// A mat that dies under a person is no person in bed for ever, and nobody who got up.
#[test]
fn a_dead_mat_is_neither_in_bed_nor_an_exit() {
    check(
        &[("20:00:00", "bed", 1.0), ("21:00:00", "bed", f64::NAN), ("23:00:00", "bed", 1.0), ("23:30:00", "bed", 0.0)],
        "23:50:00",
        &[
            "device_silent 21:00:00 21:00:00..23:00:00 23:00:00",
            "in_bed 20:00:00 20:00:00..21:00:00 21:00:00",
            "in_bed 23:00:00 23:00:00..23:30:00 23:31:00",
            r#"out_of_bed 23:30:00 23:31:00..- - {"confirmed":false}"#,
            // Being heard again is no activity.
            "quiet 20:00:00 20:15:00..23:30:00 23:30:00",
            "quiet 23:30:00 23:45:00..- -",
        ],
    );
}

/// Devices of the home: `device quantity bed`, `-` for no bed.
fn devices(said: &[&str]) -> Vec<InventoryDevice> {
    let device = |line: &&str| {
        let words: Vec<_> = line.split(' ').collect();
        let bed = (words[2] != "-").then(|| words[2].parse().unwrap());
        let (id, quantities) = (words[0].parse().unwrap(), vec![Quantity::new(words[1]).unwrap()]);
        InventoryDevice { id, bed, room: None, profile: String::new(), quantities, actions: Vec::new() }
    };
    said.iter().map(device).collect()
}

#[test]
fn a_bed_whose_mat_was_taken_out_moved_or_withheld_is_not_taken_for_ever() {
    let cases: [(&str, &[&str], &[&str]); 5] = [
        ("as it was", &["mat bed_occupancy b1", "pir motion -"], &["in_bed 20:00:00 20:00:00..- -"]),
        ("replaced", &["mat-2 bed_occupancy b1", "pir motion -"], &["in_bed 20:00:00 20:00:00..21:00:00 21:00:00"]),
        ("moved", &["mat bed_occupancy b2", "pir motion -"], &["in_bed 20:00:00 20:00:00..21:00:00 21:00:00"]),
        ("withheld", &["mat heart_rate b1", "pir motion -"], &["in_bed 20:00:00 20:00:00..21:00:00 21:00:00"]),
        ("nothing left", &[], &["in_bed 20:00:00 20:00:00..21:00:00 21:00:00"]),
    ];
    for (case, left, expected) in cases {
        let mut episodes = none_yet();
        episodes.push_seen(&home(), seen(at("20:00:00"), "mat", "bed_occupancy", Some("b1"), 1.0));
        episodes.push_seen(&home(), seen(at("20:00:01"), "pir", "motion", None, 0.0));
        episodes.advance(&home(), at("20:30:00"));
        episodes.set_devices(&home(), &devices(left), at("21:00:00"));
        // Said again, as after every start: nothing is added.
        episodes.set_devices(&home(), &devices(left), at("21:00:00"));
        episodes.advance(&home(), at("22:00:00"));
        let of_beds: Vec<_> = told(&mut episodes).into_iter().filter(|row| !row.starts_with("quiet")).collect();
        assert_eq!(of_beds, expected, "{case}");
    }
}

#[test]
fn a_silent_device_that_was_taken_out_is_no_longer_silent_and_one_that_was_moved_still_is() {
    for (left, expected) in [
        (&["pir motion -"] as &[&str], "device_silent 20:10:00 20:10:00..21:00:00 21:00:00"),
        (&["mat bed_occupancy b2"], "device_silent 20:10:00 20:10:00..- -"),
    ] {
        let mut episodes = none_yet();
        episodes.push_seen(&home(), seen(at("20:00:00"), "mat", "bed_occupancy", Some("b1"), 1.0));
        episodes.push_seen(&home(), seen(at("20:10:00"), "mat", "bed_occupancy", Some("b1"), f64::NAN));
        episodes.advance(&home(), at("20:30:00"));
        episodes.set_devices(&home(), &devices(left), at("21:00:00"));
        episodes.advance(&home(), at("22:00:00"));
        let silent: Vec<_> = told(&mut episodes).into_iter().filter(|row| row.starts_with("device_silent")).collect();
        assert_eq!(silent, [expected]);
    }
}

#[test]
fn what_was_final_when_the_mat_was_taken_out_stays_as_it_was() {
    let mut episodes = none_yet();
    episodes.push_seen(&home(), seen(at("08:00:00"), "mat", "bed_occupancy", Some("b1"), 1.0));
    // As after a restart, from the lake: the home file is older than what is final.
    episodes.seal(&home(), at("20:00:00"));
    episodes.set_devices(&home(), &devices(&["mat-2 bed_occupancy b1"]), at("10:00:00"));
    episodes.advance(&home(), at("20:30:00"));
    let of_beds: Vec<_> = told(&mut episodes).into_iter().filter(|row| row.starts_with("in_bed")).collect();
    assert_eq!(of_beds, ["in_bed 08:00:00 08:00:00..20:00:00 20:00:00"]);
}

#[test]
fn nothing_of_a_power_cut_is_taken_for_silence() {
    let booted = |time: &str, what: &str, boot| {
        let (device, quantity, room) = match what {
            "seen" => ("pir", "motion_event", "living"),
            _ => ("mat", "bed_occupancy", "bedroom"),
        };
        let value = f64::from(u8::from(what != "empty"));
        let seen = seen(at(time), device, quantity, (device == "mat").then_some("b1"), value);
        Seen { room: Some(room.parse().unwrap()), watch: Watch::Boot(boot), ..seen }
    };
    let mut episodes = none_yet();
    for (time, what, boot) in
        [("08:00:00", "taken", 1), ("08:30:00", "empty", 1), ("08:31:00", "seen", 1), ("09:00:00", "empty", 1)]
    {
        episodes.push_seen(&home(), booted(time, what, boot));
    }
    episodes.advance(&home(), at("09:00:00"));
    // The power is away until the evening; a restart of the program alone takes seconds and changes nothing.
    for (time, what, boot) in [("21:00:00", "empty", 2), ("21:00:30", "empty", 3)] {
        episodes.push_seen(&home(), booted(time, what, boot));
    }
    episodes.advance(&home(), at("21:20:00"));
    assert_eq!(
        told(&mut episodes),
        [
            "in_bed 08:00:00 08:00:00..08:30:00 08:31:00",
            "out_of_bed 08:30:00 08:31:00..- - {\"confirmed\":true}",
            "quiet 08:00:00 08:15:00..08:30:00 08:30:00",
            "quiet 08:31:00 08:46:00..09:00:00 09:00:00",
            "quiet 21:00:00 21:15:00..- -",
            "room_stay 08:00:00 08:00:00..08:31:00 08:31:00",
            "room_stay 08:31:00 08:31:00..09:00:00 09:00:00",
            "unobserved 09:00:00 21:00:00..21:00:00 21:00:00",
        ]
    );
}

#[test]
fn a_button_at_the_door_says_at_once_that_the_home_is_empty_and_the_next_who_stirs_later_ends_it() {
    let leave = |time: &str| seen(at(time), "leave", "leave_button", None, 1.0);
    let moved = |time: &str| seen(at(time), "pir", "motion_event", None, 1.0);
    let mut episodes = none_yet();
    episodes.set_residents(&home(), 2);
    for row in [leave("10:00:00"), moved("10:05:00"), moved("15:00:00")] {
        episodes.push_seen(&home(), row);
    }
    episodes.advance(&home(), at("15:01:00"));
    let away: Vec<_> = told(&mut episodes).into_iter().filter(|row| row.starts_with("away")).collect();
    assert_eq!(away, ["away 10:00:00 10:00:00..15:00:00 15:00:00 {\"source\":\"button\"}"]);
}
