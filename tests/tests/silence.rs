//! A gateway that dies is an alert within half a minute; a restart of the centre tells nobody again; when it is heard again the alert is over.

use carebed_tests::process::until;
use carebed_tests::world::{BrokerKind, PATIENCE, Programs, World};

fn programs() -> Programs {
    Programs {
        centre: env!("CARGO_BIN_EXE_centre-under-test").into(),
        gateway: env!("CARGO_BIN_EXE_gateway-under-test").into(),
    }
}

/// How many alerts about a silent gateway are open; none when the centre does not answer.
async fn n_silent(world: &World) -> Option<usize> {
    let open = world.open_alerts().await?;
    Some(open.iter().filter(|alert| alert["detection"] == "gateway_silent").count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_is_told_soon_once_and_until_it_is_heard() {
    let mut world = World::start(&programs(), BrokerKind::Embedded, 1).await.unwrap();
    world.number("SELECT count(*) FROM observations", |n| n > 0).await.unwrap();
    world.homes[0].gateway.kill().await;
    let told = world.alerts("gateway_silent").await.unwrap();
    assert_eq!(told.len(), 1, "{told:#?}");

    world.centre.kill().await;
    world.centre.start(None).unwrap();
    let again = world.alerts("gateway_silent").await.unwrap();
    assert_eq!((again.len(), &again[0]["id"]), (1, &told[0]["id"]), "{}", world.said());
    assert_eq!(again[0]["repeats"], 0, "the restart told it again");

    world.start_gateway(0, None).unwrap();
    let over = until(PATIENCE, || async { n_silent(&world).await.filter(|n| *n == 0) }).await;
    assert!(over.is_some(), "the gateway is back and the alert is still open\n{}", world.said());
}
