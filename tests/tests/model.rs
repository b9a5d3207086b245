//! The delivery protocol, explored exhaustively: what is taken is committed once, or its absence is told; no lane
//! sticks; nothing is released before it is committed. And each promise is seen to break when a part is left out.

use carebed_tests::model::delivery::{
    BATCH_TWICE, Broken, Delivery, Faults, LOST, NEEDLESS, NEVER_ON_DISK, NOT_COMPLETE, NOT_EMPTY, OBSERVATION_TWICE,
    RELEASED_EARLY,
};
use carebed_tests::model::explore::{Explored, STICKS, explore};

/// More states than any of these worlds has: one that outgrows it fails its test.
const STATES_MAX: usize = 300_000;
const NONE: Faults = Faults {
    lose: 0,
    repeat: 0,
    gateway_crash: 0,
    centre_crash: 0,
    commit_fails: 0,
    overflow: 0,
    clone: 0,
    lost_tail: 0,
    restore: 0,
    disk: 0,
    damage: 0,
    handover: 0,
};

/// The whole protocol keeps every promise in this world; without each of these parts it breaks the one named.
#[expect(clippy::print_stdout, reason = "the size of each walk is what a reader of the test's output wants to know")]
fn check(world: &Delivery, parts: &[(Broken, &str)]) {
    let Explored { states, steps, exhausted, violation } = explore(world, STATES_MAX);
    println!("{world:?}: {states} states, {steps} steps");
    if let Some(violation) = violation {
        panic!("{}\n  {}", violation.promise, violation.path.join("\n  "));
    }
    assert!(exhausted, "not all states were visited");
    for (part, promise) in parts {
        let explored = explore(&Delivery { broken: Some(*part), ..world.clone() }, STATES_MAX);
        let Some(violation) = explored.violation else {
            panic!("{part:?} breaks nothing in {} states", explored.states);
        };
        println!("{part:?}: {} after {} states and {} steps", violation.promise, explored.states, violation.path.len());
        assert_eq!(violation.promise, *promise, "{part:?}\n  {}", violation.path.join("\n  "));
    }
}

/// Observations in the urgent and in the routine lane, and at most so many faults together.
fn world(urgent: u8, routine: u8, faults_max: u8, faults: Faults) -> Delivery {
    Delivery { observations: [urgent, routine], faults, faults_max, ..Delivery::default() }
}

#[test]
fn a_network_loses_repeats_and_reorders() {
    check(
        &world(0, 3, 2, Faults { lose: 2, repeat: 2, ..NONE }),
        &[(Broken::NeverGoesBack, NOT_EMPTY), (Broken::ReleaseOnPuback, RELEASED_EARLY)],
    );
}

#[test]
fn calls_overtake_and_completeness_waits_for_them() {
    check(&world(1, 1, 1, Faults { lose: 1, repeat: 1, ..NONE }), &[(Broken::ClaimsTooMuch, NOT_COMPLETE)]);
}

#[test]
fn power_goes_at_either_end_at_any_instant() {
    check(
        &world(0, 2, 1, Faults { gateway_crash: 1, centre_crash: 1, ..NONE }),
        &[
            (Broken::SendBeforeSync, NEVER_ON_DISK),
            (Broken::ReceiptBeforeCommit, RELEASED_EARLY),
            (Broken::MarksAfterRows, BATCH_TWICE),
        ],
    );
    check(&world(0, 1, 3, Faults { gateway_crash: 1, centre_crash: 1, lose: 1, repeat: 1, ..NONE }), &[]);
}

#[test]
fn a_commit_fails() {
    check(
        &world(0, 2, 2, Faults { commit_fails: 2, lose: 1, centre_crash: 1, ..NONE }),
        &[(Broken::NoRollBack, NOT_COMPLETE), (Broken::SameWatermark, NOT_COMPLETE)],
    );
}

#[test]
fn a_batch_cannot_be_decoded() {
    let undecodable = Delivery { undecodable: Some(0), ..world(0, 2, 2, Faults { lose: 1, centre_crash: 1, ..NONE }) };
    check(&undecodable, &[(Broken::RefusesUndecodable, STICKS)]);
}

#[test]
fn a_spool_overflows() {
    check(
        &world(0, 3, 2, Faults { overflow: 1, lose: 1, ..NONE }),
        &[(Broken::HidesBase, STICKS), (Broken::KeepsGapsToItself, NOT_COMPLETE)],
    );
}

#[test]
fn a_box_is_cloned() {
    check(
        &world(0, 2, 1, Faults { clone: 1, ..NONE }),
        &[(Broken::IgnoresForeignDigest, RELEASED_EARLY), (Broken::NoOrigins, OBSERVATION_TWICE)],
    );
}

#[test]
fn a_disk_loses_its_tail() {
    check(&world(0, 1, 2, Faults { lost_tail: 1, lose: 1, ..NONE }), &[]);
    check(
        &world(0, 2, 1, Faults { lost_tail: 1, ..NONE }),
        &[(Broken::IgnoresAhead, RELEASED_EARLY), (Broken::NoOrigins, OBSERVATION_TWICE)],
    );
}

#[test]
fn the_centre_is_restored_from_an_older_backup() {
    check(&world(0, 1, 2, Faults { restore: 1, lose: 1, ..NONE }), &[]);
    check(&world(0, 1, 1, Faults { restore: 1, gateway_crash: 1, ..NONE }), &[]);
    // No call comes for months, and still the one that was forgotten is missed.
    let quiet = Delivery { quiet_urgent_lane: true, ..world(1, 0, 1, Faults { restore: 1, ..NONE }) };
    check(&quiet, &[(Broken::HidesCalls, NOT_COMPLETE)]);
}

#[test]
fn a_disk_fails_and_may_come_back() {
    check(
        &world(0, 1, 1, Faults { disk: 1, ..NONE }),
        &[(Broken::NoOrigins, OBSERVATION_TWICE), (Broken::ForgetsEpochs, LOST), (Broken::NeverCloses, NEEDLESS)],
    );
    check(&world(1, 0, 1, Faults { disk: 1, ..NONE }), &[]);
}

#[test]
fn a_batch_on_the_disk_is_damaged() {
    check(&world(0, 2, 1, Faults { damage: 1, ..NONE }), &[(Broken::HidesBase, STICKS)]);
    check(&world(0, 1, 2, Faults { damage: 1, gateway_crash: 1, ..NONE }), &[]);
}

#[test]
fn a_shard_is_replaced_while_it_works() {
    check(&world(0, 2, 1, Faults { handover: 1, ..NONE }), &[(Broken::NoFence, BATCH_TWICE)]);
    check(&world(0, 1, 3, Faults { handover: 2, lose: 1, centre_crash: 1, ..NONE }), &[]);
}
