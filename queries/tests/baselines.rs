//! What is learnt of a home: from what was known then, from usual days only, from seven days on.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use carebed_queries::baselines::Source;
use carebed_queries::engine::{Asked, Engine, Inputs, Limits};
use carebed_queries::episodes::{Definitions, Episodes};
use carebed_queries::history::{Span, midnights};
use carebed_queries::home::{HomeFacts, Interval, IntervalKind};
use common::observation;

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

fn start() -> Timestamp {
    // Midnight in Shanghai.
    Timestamp::parse("2026-02-28T16:00:00Z").unwrap()
}

fn home() -> HomeFacts {
    HomeFacts::unregistered("h1".parse().unwrap(), "area-1".parse().unwrap())
}

/// Days of a regular life: up from 7 to 22 and never still for half an hour, at 2 in the night to the bathroom and back.
fn life(days: u32) -> Vec<Observation> {
    let mut made = Vec::new();
    for day in 0..days {
        let at = |minutes: u32| start() + DAY * day + MINUTE * minutes + Duration::from_secs(u64::from(day % 7) * 40);
        let mut seen = |device: &str, minutes: u32| {
            let row = observation("h1", "-", device, "motion_event", at(minutes), Some(1.0), "good");
            made.push(Observation { room: device.parse().ok(), ..row });
        };
        seen("bath", 120);
        seen("bedroom", 124);
        for minutes in (7 * 60..22 * 60).step_by(12) {
            seen(if minutes % 5 == 0 { "kitchen" } else { "lounge" }, minutes);
        }
        seen("bedroom", 22 * 60 + 5);
    }
    made
}

/// What a baseline says: (midnight, key, half hour) and (value, days).
type Learnt = BTreeMap<(i64, Option<String>, Option<i64>), (f64, i64)>;

/// `inactivity` by (midnight, room, half hour), for half hours of all nights up to `known_to`.
fn learn(
    rows: &[Observation],
    facts: &HomeFacts,
    known_to: Timestamp,
) -> BTreeMap<(i64, Option<String>, i64), (f64, i64)> {
    let learnt = learn_of("inactivity", rows, facts, known_to).into_iter();
    learnt.map(|((night, room, slot), value)| ((night, room, slot.unwrap()), value)).collect()
}

fn learn_of(name: &str, rows: &[Observation], facts: &HomeFacts, known_to: Timestamp) -> Learnt {
    // Every fourth half hour: all of them take four times as long.
    learn_at(name, rows, facts, known_to, 4)
}

/// For every so many half hours of each night.
fn learn_at(name: &str, rows: &[Observation], facts: &HomeFacts, known_to: Timestamp, every: usize) -> Learnt {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine = Engine::new(Limits::default()).unwrap();
    let (sources, refused) = Source::builtin();
    assert!(refused.is_empty(), "{refused:?}");
    let source = sources.into_iter().find(|source| source.written.name == name).unwrap();
    let baseline = runtime.block_on(engine.prepare_baseline(source)).unwrap();
    let mut episodes = Episodes::new(Arc::new(Definitions::learning().unwrap()));
    episodes.set_residents(&facts.home, facts.residents);
    for row in rows.iter().filter(|row| row.event_time <= known_to) {
        episodes.push(row);
    }
    episodes.advance(&facts.home, known_to);
    let nights: Vec<Timestamp> = midnights(Span { from: start(), to: known_to + MINUTE }, facts).collect();
    let of = |known_at: &Timestamp, slot| Asked { home: facts.home.clone(), known_at: *known_at, slot };
    let slots = |night: &Timestamp| (0..48).step_by(every).map(|slot| of(night, Some(slot))).collect::<Vec<_>>();
    let asked: Vec<Asked> = nights.iter().flat_map(|night| [vec![of(night, None)], slots(night)].concat()).collect();
    let inputs = Inputs::new(&episodes.all(), [(facts, Some(known_to))]).with_asked(&asked);
    let learnt = runtime.block_on(engine.learn(&baseline, &inputs, known_to)).unwrap();
    let column = |name: &str| learnt.column_by_name(name).unwrap();
    let (known, slots) =
        (column("known_at").as_primitive::<TimestampMillisecondType>(), column("slot").as_primitive::<Int64Type>());
    let (values, days) = (column("value").as_primitive::<Float64Type>(), column("n_days").as_primitive::<Int64Type>());
    let keys = column("key").as_string::<i32>();
    let row = |row: usize| {
        let key = keys.is_valid(row).then(|| keys.value(row).to_owned());
        let slot = slots.is_valid(row).then(|| slots.value(row));
        ((known.value(row), key, slot), (values.value(row), days.value(row)))
    };
    (0..learnt.num_rows()).map(row).collect()
}

fn night(number: u32) -> i64 {
    (start() + DAY * number).millis()
}

#[test]
fn limits_are_short_by_day_and_long_where_the_home_sleeps() {
    let learnt = learn(&life(21), &home(), start() + DAY * 21);
    let limit = |room: Option<&str>, slot| learnt[&(night(20), room.map(str::to_owned), slot)].0;
    // At noon nothing ever lasts: the floor.
    assert_eq!(limit(None, 24), 120.0);
    // From 22:05 nobody stirs for four hours, from 2:04 for five: a limit lies well above.
    for (room, slot, lasts) in [(Some("bedroom"), 44, 235.0), (None, 44, 235.0), (Some("bedroom"), 4, 296.0)] {
        let minutes = limit(room, slot);
        assert!(minutes > 1.1 * lasts && minutes < 2.5 * lasts, "{room:?} at {slot}: {minutes}");
    }
    // Whoever goes to the bathroom at two does not stay there.
    assert!(limit(Some("bath"), 4) < limit(Some("bedroom"), 4));
    assert_eq!(learnt[&(night(20), None, 24)].1, 20);
}

#[test]
fn it_needs_seven_days_and_one_resident() {
    let learnt = learn(&life(9), &home(), start() + DAY * 9);
    let first = learnt.keys().map(|(night, ..)| *night).min();
    assert_eq!(first, Some(night(7)));
    assert!(learn(&life(9), &HomeFacts { residents: 2, ..home() }, start() + DAY * 9).is_empty());
}

#[test]
fn only_what_was_known_counts() {
    let mut rows = life(20);
    // From the fifteenth day on the person lies still from ten to four.
    rows.retain(|o| {
        o.event_time < start() + DAY * 15 || !(600..960).contains(&(o.event_time.since(start()).as_secs() / 60 % 1_440))
    });
    let learn = |facts: &HomeFacts, days: u32| {
        let learnt = learn_at("inactivity", &rows, facts, start() + DAY * days, 20).into_iter();
        learnt.map(|((night, room, slot), value)| ((night, room, slot.unwrap()), value)).collect()
    };
    let whole: BTreeMap<_, _> = learn(&home(), 20);
    for number in [10, 16] {
        let cut: BTreeMap<(i64, Option<String>, i64), (f64, i64)> = learn(&home(), number);
        assert!(cut.len() > 20, "{}", cut.len());
        for (key, value) in &cut {
            assert_eq!(whole.get(key), Some(value), "{key:?}");
        }
    }
    // Somebody says on the nineteenth day that a visitor was there: from then on those days teach nothing, before they did.
    let visit = Interval {
        bed: None,
        kind: IntervalKind::Visit,
        started_at: start() + DAY * 15,
        ended_at: start() + DAY * 19,
        entered_at: start() + DAY * 18 + MINUTE * 60,
    };
    let said = learn(&HomeFacts { intervals: vec![visit], ..home() }, 20);
    let noon = |learnt: &BTreeMap<(i64, Option<String>, i64), (f64, i64)>, number| learnt[&(night(number), None, 20)].0;
    assert_eq!(noon(&said, 18), noon(&whole, 18));
    assert!(noon(&said, 19) < noon(&whole, 19), "{} {}", noon(&said, 19), noon(&whole, 19));
}

/// Rows of one device, at minutes of days.
fn of_device(
    device: &str,
    bed: &str,
    quantity: &str,
    at: impl IntoIterator<Item = (u32, u32, f64)>,
) -> Vec<Observation> {
    let row = |(day, minute, value): (u32, u32, f64)| {
        let at = start() + DAY * day + MINUTE * minute;
        Observation { room: device.parse().ok(), ..observation("h1", bed, device, quantity, at, Some(value), "good") }
    };
    at.into_iter().map(row).collect()
}

fn sorted(rows: impl IntoIterator<Item = Vec<Observation>>) -> Vec<Observation> {
    let mut rows: Vec<_> = rows.into_iter().flatten().collect();
    rows.sort_by_key(|row| row.event_time);
    rows
}

/// In bed from 22:00 to 6:00, up for five minutes at one o'clock, and at two and three in every second night.
fn nights(days: u32) -> Vec<Observation> {
    let mut made = Vec::new();
    for day in 0..days {
        made.push((day, 22 * 60, 1.0));
        let exits = if day % 2 == 0 { 1 } else { 3 };
        for exit in 1..=exits {
            made.extend([(day + 1, exit * 60, 0.0), (day + 1, exit * 60 + 5, 1.0)]);
        }
        made.push((day + 1, 6 * 60, 0.0));
    }
    of_device("mat", "b1", "bed_occupancy", made)
}

fn hospital(from: u32, to: u32, entered: u32) -> HomeFacts {
    let interval = Interval {
        bed: None,
        kind: IntervalKind::Hospital,
        started_at: start() + DAY * from,
        ended_at: start() + DAY * to,
        entered_at: start() + DAY * entered,
    };
    HomeFacts { intervals: vec![interval], ..home() }
}

#[test]
fn exits_of_a_night_are_counted_from_fourteen_nights_on() {
    let rows = nights(24);
    let learnt = learn_of("night_exits", &rows, &home(), start() + DAY * 23);
    // The night that began on the first day is over at the second midnight after it; the one in which a midnight lies is not.
    let first = learnt.keys().map(|(night, ..)| *night).min();
    assert_eq!(first, Some(night(15)));
    let (value, n) = learnt[&(night(15), None, None)];
    assert_eq!(n, 14);
    // Seven nights of one exit and seven of three: 2 on the mean, and two standard deviations of 1.038.
    assert!((value - 4.075).abs() < 0.01, "{value}");
    // Nights in hospital teach nothing, as soon as that is entered.
    let said = learn_of("night_exits", &rows, &hospital(5, 8, 17), start() + DAY * 23);
    assert_eq!(said[&(night(16), None, None)], learnt[&(night(16), None, None)]);
    assert_eq!(said.get(&(night(17), None, None)), None, "fewer than fourteen are left");
}

#[test]
fn absences_are_as_long_as_they_usually_are() {
    let day = |day: u32| [(day, 600, 1.0), (day, if day == 4 { 1_200 } else { 900 }, 1.0)];
    let door = of_device("door", "-", "door_event", (0..25).flat_map(day));
    let inside =
        of_device("hall", "-", "motion_event", (0..25).map(|day| (day, if day == 4 { 1_201 } else { 901 }, 1.0)));
    let rows = sorted([door, inside]);
    let learnt = learn_of("absences", &rows, &home(), start() + DAY * 24);
    assert_eq!(learnt.keys().map(|(night, ..)| *night).min(), Some(night(10)));
    // The long one of the fifth day is nearly the 97th of a hundred; said to be a stay in hospital, it is none.
    let (with_long, n) = learnt[&(night(14), None, None)];
    assert!(with_long > 1.3 * 400.0 && with_long < 1.3 * 600.0 && n == 14, "{with_long} {n}");
    let said = learn_of("absences", &rows, &hospital(4, 5, 13), start() + DAY * 24);
    assert_eq!(said[&(night(12), None, None)], learnt[&(night(12), None, None)]);
    assert_eq!(said[&(night(14), None, None)], (1.3 * 300.0, 13));
}

#[test]
fn the_longest_stay_of_each_day_in_the_bathroom_counts() {
    // Twice a day for five and twenty minutes, and for fifteen at two in the night; on the eighth day for a hundred.
    let enters = |day: u32| [(day, 120, 1.0), (day, 480, 1.0), (day, 800, 1.0)];
    let bath = of_device("bathroom", "-", "motion_event", (0..16).flat_map(enters));
    let leaves = |day: u32| [(day, 135, 1.0), (day, 485, 1.0), (day, 800 + if day == 7 { 100 } else { 20 }, 1.0)];
    let lounge = of_device("lounge", "-", "motion_event", (0..16).flat_map(leaves));
    let learnt = learn_of("bathroom", &sorted([bath, lounge]), &home(), start() + DAY * 15);
    let limit = |number, part: &str| learnt.get(&(night(number), Some(part.to_owned()), None)).copied();
    assert_eq!(limit(6, "day"), None);
    // Not below an hour by day and half an hour at night.
    assert_eq!((limit(7, "day"), limit(7, "night")), (Some((60.0, 7)), Some((30.0, 7))));
    let (with_long, _) = limit(12, "day").unwrap();
    assert!(with_long > 60.0 && with_long < 130.0, "{with_long}");
    assert_eq!(limit(12, "night"), Some((30.0, 12)));
}

#[test]
fn a_heart_that_beats_faster_for_three_nights_of_five_has_changed() {
    let occupied = nights(30);
    let beats = (0..30).flat_map(|day| {
        let rate = if day >= 20 { 70.0 } else { 60.0 + f64::from(day % 3) };
        (0..20).map(move |n| if n < 8 { (day, 1_330 + n * 10, rate) } else { (day + 1, n * 15, rate) })
    });
    let rows = sorted([occupied, of_device("mat", "b1", "heart_rate", beats)]);
    let learnt = learn_of("drift", &rows, &home(), start() + DAY * 26);
    let changed: Vec<i64> =
        learnt.keys().filter(|(_, key, _)| key.as_deref() == Some("heart_rate")).map(|(night, ..)| *night).collect();
    // The nights that began on the days 20, 21 and 22 are over, and the third is behind the midnight of day 24.
    assert_eq!(changed, [night(24), night(25), night(26)]);
    let (lately, _) = learnt[&(night(24), Some("heart_rate".into()), None)];
    let (usual, n) = learnt[&(night(24), Some("heart_rate/usual".into()), None)];
    assert!((lately - 66.4).abs() < 0.5 && (usual - 61.0).abs() < 0.3 && n >= 14, "{lately} {usual} {n}");
    // The rest is as ever.
    assert!(learnt.keys().all(|(_, key, _)| !key.as_deref().is_some_and(|key| key.starts_with("sleep_hours"))));
}

#[test]
fn who_went_out_every_day_and_does_not_any_more_is_told() {
    let out = of_device("door", "-", "door_event", (0..25).flat_map(|day| [(day, 600, 1.0), (day, 660, 1.0)]));
    let inside = of_device("hall", "-", "motion_event", (0..32).map(|day| (day, 661, 1.0)));
    let learnt = learn_of("drift", &sorted([out, inside]), &home(), start() + DAY * 31);
    let told: Vec<i64> =
        learnt.keys().filter(|(_, key, _)| key.as_deref() == Some("days_indoors")).map(|(night, ..)| *night).collect();
    // Home since 11:00 of the day 24: more than two days at the midnight of day 27.
    assert_eq!(told.first(), Some(&night(27)));
    let (days, _) = learnt[&(night(27), Some("days_indoors".into()), None)];
    assert!((days - 2.54).abs() < 0.05, "{days}");
}

#[test]
fn between_which_rates_the_nights_lie_is_learnt_of_seven_usual_ones() {
    let rate = |day: u32, n: u32| match (day, n % 2) {
        // Ill from the eleventh night on.
        (10.., 0) => 80.0,
        (10.., _) => 84.0,
        (_, 0) => 58.0,
        (_, _) => 62.0,
    };
    let at = |day: u32, n: u32| if n < 60 { (day, 1_330 + n) } else { (day + 1, n) };
    let beats = (0..16).flat_map(|day| {
        (0..240).map(move |n| {
            let (day_of, minute) = at(day, n);
            (day_of, minute, rate(day, n))
        })
    });
    let rows = sorted([nights(16), of_device("mat", "b1", "heart_rate", beats)]);
    let limits = |learnt: &Learnt, number| {
        let limit = |key: &str| learnt.get(&(night(number), Some(format!("heart_rate/{key}")), None)).copied();
        limit("low").zip(limit("high"))
    };
    let learnt = learn_of("vitals", &rows, &home(), start() + DAY * 15);
    // The seventh night ends on the eighth day, and the midnight after it lies in the next.
    assert_eq!(limits(&learnt, 7), None);
    let (low, high) = limits(&learnt, 8).unwrap();
    assert!((low.0 - 56.0).abs() < 0.2 && (high.0 - 64.0).abs() < 0.2 && high.1 >= 7, "{low:?} {high:?}");
    // Three nights of illness make it wider, unless somebody has said by then that they were not usual.
    let (_, ill) = limits(&learnt, 14).unwrap();
    assert!(ill.0 > 75.0, "{ill:?}");
    let said = learn_of("vitals", &rows, &hospital(10, 15, 13), start() + DAY * 15);
    assert_eq!(limits(&said, 12), limits(&learnt, 12));
    let (_, well) = limits(&said, 14).unwrap();
    assert!((well.0 - 64.0).abs() < 0.2, "{well:?}");
}

#[test]
fn how_often_a_home_crosses_the_limits_of_water_is_learnt_of_a_month() {
    // By day, from 7 to 22, a tenth of a cubic metre; on two of thirty-five days seven times as much.
    let mut reading = 100.0;
    let mut rows = Vec::new();
    for step in 0..35 * 48u32 {
        let at = start() + MINUTE * 30 * step;
        rows.push(observation("h1", "-", "meter", "water_volume", at, Some(reading), "good"));
        let of_day = if [10, 20].contains(&(step / 48)) { 0.7 } else { 0.1 };
        reading += if (14..44).contains(&(step % 48)) { of_day / 30.0 } else { 0.0 };
    }
    let learnt = learn_of("water", &rows, &home(), start() + DAY * 35);
    let share = |number: u32, key: &str| learnt.get(&(night(number), Some(key.to_owned()), None)).copied();
    assert_eq!(share(27, "water_raised"), None, "four weeks are needed");
    assert_eq!(share(28, "water_raised"), Some((2.0 / 28.0, 28)));
    assert_eq!(share(34, "water_high"), Some((0.0, 34)));
    // A mechanic was there the second time.
    let interval = Interval {
        bed: None,
        kind: IntervalKind::Maintenance,
        started_at: start() + DAY * 20,
        ended_at: start() + DAY * 21,
        entered_at: start() + DAY * 20,
    };
    let learnt = learn_of("water", &rows, &HomeFacts { intervals: vec![interval], ..home() }, start() + DAY * 35);
    assert_eq!(learnt[&(night(34), Some("water_raised".to_owned()), None)], (1.0 / 33.0, 33));
}
