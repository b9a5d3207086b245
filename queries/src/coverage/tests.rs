use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::detection::Source;
use crate::episodes::{Definitions, Episodes, Seen, Watch};
use crate::home::Interval;

const H: i64 = 3_600_000;

fn at(hour: i64) -> Timestamp {
    Timestamp::from_millis(hour * H)
}

fn episode(kind: &str, device: Option<&str>, from: i64, to: Option<i64>) -> Episode {
    Episode {
        subject: Arc::from("home/h1"),
        home: "h1".parse().unwrap(),
        bed: None,
        kind: Arc::from(kind),
        room: None,
        device: device.map(|device| device.parse().unwrap()),
        started_at: at(from),
        start_known_at: at(from),
        ended_at: to.map(at),
        end_known_at: to.map(at),
        revision: 0,
        attributes: None,
    }
}

fn sensor(device: &str, bed: Option<&str>, quantity: &str) -> Sensor {
    let bed = bed.map(|bed| bed.parse().unwrap());
    Sensor { device: device.parse().unwrap(), bed, quantity: Quantity::new(quantity).unwrap() }
}

fn meaning(name: &str) -> Meaning {
    Source::builtin().0.into_iter().find(|source| source.name == name).unwrap().meaning
}

fn finding(subject: Subject) -> Finding {
    Finding {
        detection: "d".to_owned(),
        subject,
        home: "h1".parse().unwrap(),
        area: "a1".parse().unwrap(),
        raised_at: at(3),
        cleared_at: None,
        evidence: serde_json::Map::new(),
    }
}

/// An interval from hour 2 to hour 6, entered in hour 4.
fn facts(kind: IntervalKind, bed: Option<&str>) -> HomeFacts {
    let bed = bed.map(|bed| bed.parse().unwrap());
    let interval = Interval { bed, kind, started_at: at(2), ended_at: at(6), entered_at: at(4) };
    let facts = HomeFacts::unregistered("h1".parse().unwrap(), "a1".parse().unwrap());
    HomeFacts { intervals: vec![interval], ..facts }
}

#[test]
fn the_matrix_of_what_keeps_what_quiet() {
    let home = || Subject::Home("h1".parse().unwrap());
    for (detection, kind, quiet) in [
        ("inactivity_cap", IntervalKind::Away, true),
        ("inactivity_cap", IntervalKind::Visit, true),
        ("inactivity_cap", IntervalKind::Hospital, true),
        ("inactivity_cap", IntervalKind::Maintenance, true),
        ("call_for_help", IntervalKind::Away, false),
        ("call_for_help", IntervalKind::Hospital, false),
        ("call_for_help", IntervalKind::Maintenance, false),
        ("hazard", IntervalKind::Visit, false),
        ("hazard", IntervalKind::Maintenance, false),
        ("device_health", IntervalKind::Visit, false),
        ("device_health", IntervalKind::Maintenance, true),
        ("away_too_long", IntervalKind::Away, false),
        ("away_too_long", IntervalKind::Hospital, true),
    ] {
        let coverage = Coverage::new(&[], [&facts(kind, None)], |_| vec![]);
        let reason = coverage.reason(&meaning(detection), &finding(home()), at(5));
        assert_eq!(reason, quiet.then_some(kind.into()), "{detection} {kind:?}");
    }
}

#[test]
fn an_explanation_counts_from_when_it_was_entered_and_always_ends() {
    let coverage = Coverage::new(&[], [&facts(IntervalKind::Away, None)], |_| vec![]);
    let reason =
        |hour| coverage.reason(&meaning("inactivity_cap"), &finding(Subject::Home("h1".parse().unwrap())), at(hour));
    assert_eq!([3, 4, 5, 6].map(reason), [None, Some(Reason::Away), Some(Reason::Away), None]);
    for kind in IntervalKind::ALL {
        assert!(kind.usual() <= kind.longest(), "{kind:?}");
    }
}

#[test]
fn what_is_said_of_one_bed_says_nothing_of_the_other() {
    let coverage = Coverage::new(&[], [&facts(IntervalKind::Hospital, Some("b1"))], |_| vec![]);
    let reason = |bed: &str| {
        coverage.reason(&meaning("bed_exit_no_return"), &finding(Subject::Bed(bed.parse().unwrap())), at(5))
    };
    assert_eq!((reason("b1"), reason("b2")), (Some(Reason::Hospital), None));
}

#[test]
fn what_is_said_of_one_of_two_people_says_nothing_of_the_home() {
    let interval = |bed: Option<&str>| facts(IntervalKind::Hospital, bed).intervals;
    let home = |residents, beds: &[&str], said: &[Option<&str>]| HomeFacts {
        residents,
        beds: beds.iter().map(|bed| bed.parse().unwrap()).collect(),
        intervals: said.iter().flat_map(|bed| interval(*bed)).collect(),
        ..facts(IntervalKind::Hospital, None)
    };
    for (facts, is_quiet) in [
        (home(1, &["b1"], &[Some("b1")]), true),
        (home(2, &["b1", "b2"], &[Some("b1")]), false),
        (home(2, &["b1", "b2"], &[Some("b1"), Some("b2")]), true),
        (home(2, &["b1", "b2"], &[Some("b1"), None]), true),
        // The other one has no bed that is monitored, or nobody said that there are two.
        (home(2, &["b1"], &[Some("b1")]), false),
        (home(1, &["b1", "b2"], &[Some("b1")]), false),
    ] {
        let coverage = Coverage::new(&[], [&facts], |_| vec![]);
        let reason = coverage.reason(&meaning("inactivity_cap"), &finding(Subject::Home("h1".parse().unwrap())), at(5));
        assert_eq!(reason, is_quiet.then_some(Reason::Hospital), "{facts:?}");
    }
}

#[test]
fn without_a_live_device_nothing_can_be_said_and_that_is_told() {
    let devices = vec![
        sensor("mat1", Some("b1"), "bed_occupancy"),
        sensor("mat2", Some("b2"), "bed_occupancy"),
        sensor("pir", None, "motion"),
    ];
    let silent = [episode("device_silent", Some("mat1"), 1, None), episode("device_silent", Some("pir"), 2, Some(4))];
    let coverage = Coverage::new(&silent, [], |_| devices.clone());
    let exit = meaning("bed_exit_no_return");
    let of = |bed: &str| coverage.reason(&exit, &finding(Subject::Bed(bed.parse().unwrap())), at(5));
    assert_eq!((of("b1"), of("b2")), (Some(Reason::NotEvaluable), None));
    // One of several that it can rest on is enough.
    let gaps =
        |detection: &str, hour| coverage.gaps(&"h1".parse().unwrap(), [(detection, &meaning(detection))], at(hour));
    assert_eq!(gaps("bed_exit_no_return", 5), []);
    let both = [episode("device_silent", Some("mat1"), 1, None), episode("device_silent", Some("mat2"), 3, None)];
    let coverage = Coverage::new(&both, [], |_| devices.clone());
    let gaps = coverage.gaps(&"h1".parse().unwrap(), [("bed_exit_no_return", &exit)], at(5));
    assert_eq!(gaps, [Gap { detection: "bed_exit_no_return".to_owned(), since: at(3) }]);
}

proptest! {
    /// Whatever is entered (each entry is as long as its kind may be, at most), whatever doors and buttons said: after the last of it has run
    /// out, nothing is quiet any more.
    #[test]
    fn suppression_always_ends(
        entered in prop::collection::vec((0usize..4, 0i64..200, 1u64..4_000, 0i64..300), 0..8),
        steps in prop::collection::vec((1u64..30_000, 0usize..5), 0..40),
    ) {
        let mut facts = HomeFacts::unregistered("h1".parse().unwrap(), "a1".parse().unwrap());
        for (kind, from, hours, after) in entered {
            let kind = IntervalKind::ALL[kind];
            let ended_at = at(from) + kind.longest().min(Duration::from_secs(hours * 3_600));
            facts.intervals.push(Interval { bed: None, kind, started_at: at(from), ended_at, entered_at: at(after) });
        }
        let mut episodes = Episodes::new(Arc::new(Definitions::builtin().unwrap()));
        let mut time = at(0);
        for (gap, what) in steps {
            time = time + Duration::from_secs(gap);
            let (device, quantity, value) = [
                ("leave", "leave_button", 1.0),
                ("door", "door_event", 1.0),
                ("mat", "bed_occupancy", 1.0),
                ("mat", "bed_occupancy", 0.0),
                ("pir", "motion_event", 1.0),
            ][what];
            let bed = (device == "mat").then(|| "b1".parse().unwrap());
            let (device, quantity) = (device.parse().unwrap(), Quantity::new(quantity).unwrap());
            episodes.push_seen(&facts.home, Seen { time, quantity, device, bed, room: None, value, watch: Watch::Unsaid });
        }
        let ends = facts.intervals.iter().map(|interval| interval.ended_at).fold(time, Timestamp::max);
        let later = ends + Duration::from_secs(24 * 3_600);
        episodes.advance(&facts.home, later);
        let coverage = Coverage::new(&episodes.all(), [&facts], |_| vec![]);
        for name in ["inactivity_cap", "night_door", "bed_exit_no_return", "device_health"] {
            let finding = finding(Subject::Home(facts.home.clone()));
            prop_assert_eq!(coverage.reason(&meaning(name), &finding, later), None, "{}", name);
        }
    }
}
