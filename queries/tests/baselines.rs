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

/// `inactivity` by (midnight, room, half hour), for all half hours of all nights up to `known_to`.
fn learn(
    rows: &[Observation],
    facts: &HomeFacts,
    known_to: Timestamp,
) -> BTreeMap<(i64, Option<String>, i64), (f64, i64)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let engine = Engine::new(Limits::default()).unwrap();
    let (baselines, refused) = runtime.block_on(engine.baselines());
    assert!(refused.is_empty(), "{refused:?}");
    let mut episodes = Episodes::new(Arc::new(Definitions::learning().unwrap()));
    episodes.set_residents(&facts.home, facts.residents);
    for row in rows.iter().filter(|row| row.event_time <= known_to) {
        episodes.push(row);
    }
    episodes.advance(&facts.home, known_to);
    let nights: Vec<Timestamp> = midnights(Span { from: start(), to: known_to + MINUTE }, facts).collect();
    let of = |known_at: &Timestamp, slot| Asked { home: facts.home.clone(), known_at: *known_at, slot };
    let slots = |night: &Timestamp| (0..48).map(|slot| of(night, Some(slot))).collect::<Vec<_>>();
    let asked: Vec<Asked> = nights.iter().flat_map(|night| [vec![of(night, None)], slots(night)].concat()).collect();
    let inputs = Inputs::new(&episodes.all(), [(facts, Some(known_to))]).with_asked(&asked);
    let baseline = baselines.iter().find(|baseline| baseline.name == "inactivity").unwrap();
    let learnt = runtime.block_on(engine.learn(baseline, &inputs, known_to)).unwrap();
    let column = |name: &str| learnt.column_by_name(name).unwrap();
    let (known, slots) =
        (column("known_at").as_primitive::<TimestampMillisecondType>(), column("slot").as_primitive::<Int64Type>());
    let (values, days) = (column("value").as_primitive::<Float64Type>(), column("n_days").as_primitive::<Int64Type>());
    let keys = column("key").as_string::<i32>();
    let row = |row: usize| {
        let key = keys.is_valid(row).then(|| keys.value(row).to_owned());
        ((known.value(row), key, slots.value(row)), (values.value(row), days.value(row)))
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
    let whole = learn(&rows, &home(), start() + DAY * 20);
    for number in [10, 16] {
        let cut = learn(&rows, &home(), start() + DAY * number);
        assert!(cut.len() > 300, "{}", cut.len());
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
    let said = learn(&rows, &HomeFacts { intervals: vec![visit], ..home() }, start() + DAY * 20);
    let noon = |learnt: &BTreeMap<(i64, Option<String>, i64), (f64, i64)>, number| learnt[&(night(number), None, 20)].0;
    assert_eq!(noon(&said, 18), noon(&whole, 18));
    assert!(noon(&said, 19) < noon(&whole, 19), "{} {}", noon(&said, 19), noon(&whole, 19));
}
