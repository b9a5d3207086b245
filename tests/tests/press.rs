//! A press of a call button survives the death of every program at every step, as one alert and one row.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking and says what it saw")]

use std::time::Duration;

use carebed_simulator::home::Hold;
use carebed_tests::process::until;
use carebed_tests::world::{BrokerKind, PATIENCE, Programs, World};

fn programs() -> Programs {
    Programs {
        centre: env!("CARGO_BIN_EXE_centre-under-test").into(),
        gateway: env!("CARGO_BIN_EXE_gateway-under-test").into(),
    }
}

async fn world() -> World {
    World::start(&programs(), BrokerKind::Embedded, 1).await.unwrap()
}

const PRESSES: &str =
    "SELECT count(*) FROM observations WHERE quantity = 'call_button' AND value = 1 AND lane = 'urgent'";
const REPEATED: &str = "SELECT count(*) - count(DISTINCT gateway_id || coalesce(CAST(boot AS VARCHAR), '') || device_id || quantity || CAST(event_time AS VARCHAR)) FROM observations";

/// One alert, one row, nothing twice.
async fn check(world: &World) {
    let alerts = world.alerts("call_for_help").await.unwrap();
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    assert_eq!(world.number(PRESSES, |n| n > 0).await.unwrap(), 1, "{}", world.said());
    assert_eq!(world.numbers(REPEATED).await.unwrap(), [0]);
}

fn press(world: &World) {
    world.homes[0].devices.press(Hold::UntilReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_dies() {
    let world = world().await;
    press(&world);
    check(&world).await;
}

async fn gateway_dies_at(point: &str) {
    let mut world = world().await;
    world.homes[0].gateway.kill().await;
    press(&world);
    world.start_gateway(0, Some(point)).unwrap();
    let status = world.homes[0].gateway.ended(PATIENCE).await;
    assert!(status.is_some_and(|s| !s.success()), "the gateway never reached {point}\n{}", world.said());
    world.start_gateway(0, None).unwrap();
    check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_dies_before_the_press_is_on_disk() {
    gateway_dies_at("gateway.before_spool_sync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_dies_when_the_press_is_on_disk_and_not_sent() {
    gateway_dies_at("gateway.after_spool_sync").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_dies_when_the_press_is_sent() {
    gateway_dies_at("gateway.after_publish").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_dies_with_the_receipt_in_hand() {
    gateway_dies_at("gateway.before_release").await;
}

async fn centre_dies_at(point: &str) {
    let mut world = world().await;
    world.centre.kill().await;
    press(&world);
    world.centre.start(Some(point)).unwrap();
    let status = world.centre.ended(PATIENCE).await;
    assert!(status.is_some_and(|s| !s.success()), "the centre never reached {point}\n{}", world.said());
    world.centre.start(None).unwrap();
    check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn centre_dies_when_the_press_is_accepted() {
    centre_dies_at("centre.after_accept").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn centre_dies_when_the_file_is_written() {
    centre_dies_at("centre.after_parquet").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn centre_dies_when_the_watermark_is_written() {
    centre_dies_at("centre.after_watermark").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn centre_dies_when_the_press_is_committed_and_not_receipted() {
    centre_dies_at("centre.after_commit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn centre_dies_when_the_receipt_is_sent() {
    centre_dies_at("centre.after_receipt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn centre_dies_before_the_alert_is_logged() {
    centre_dies_at("console.before_log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn centre_dies_when_the_alert_is_logged_and_not_told() {
    centre_dies_at("console.after_log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn centre_dies_when_the_alert_is_told() {
    centre_dies_at("console.after_told").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_is_dead_when_the_button_is_pressed() {
    let mut world = world().await;
    world.broker.kill().await;
    press(&world);
    let shown = until(PATIENCE, || async {
        world.homes[0].devices.truth().shown.iter().any(|s| s.input == 0 && s.on && s.received.is_some()).then_some(())
    });
    shown.await.expect("the gateway polls on without a broker");
    world.broker.restart().await.unwrap();
    check(&world).await;
}

/// The row is in the table, the gateway does not know it, and the broker forgets both.
#[tokio::test(flavor = "multi_thread")]
async fn broker_dies_when_the_press_is_committed_and_not_receipted() {
    let mut world = world().await;
    world.home_network.set(|w| w.stall_down = true);
    press(&world);
    world.number(PRESSES, |n| n == 1).await.unwrap();
    world.broker.kill().await;
    world.home_network.cut();
    world.home_network.clear();
    world.broker.restart().await.unwrap();
    // A second press proves that the lane goes on behind the first.
    world.homes[0].devices.reset_call();
    world
        .number("SELECT count(*) FROM observations WHERE quantity = 'call_button' AND value = 0", |n| n >= 2)
        .await
        .unwrap();
    check(&world).await;
}

/// mosquitto acknowledges what it later drops: nothing may rest on it.
#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_is_killed_between_press_and_receipt() {
    if carebed_tests::real::program(&["mosquitto"], "mosquitto").is_none() {
        return;
    }
    let mut world = World::start(&programs(), BrokerKind::Mosquitto, 1).await.unwrap();
    world.home_network.set(|w| w.delay = Duration::from_millis(200));
    press(&world);
    world.broker.kill().await;
    world.home_network.clear();
    world.broker.restart().await.unwrap();
    check(&world).await;
}
