//! Thirty random faults with our own broker, sixteen with mosquitto: nothing lost, nothing twice. More on demand: `carebed-tests faults --n 1000`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it saw")]

use carebed_tests::faults::{Plan, run};
use carebed_tests::world::{BrokerKind, Programs};

async fn check(broker: BrokerKind, n: usize, seed: u64) {
    let programs = Programs {
        centre: env!("CARGO_BIN_EXE_centre-under-test").into(),
        gateway: env!("CARGO_BIN_EXE_gateway-under-test").into(),
    };
    let plan = Plan { seed, n, homes: 2, broker };
    let outcome = run(&programs, &plan).await.unwrap();
    println!("{plan:?}\n{outcome}");
    assert!(outcome.is_good(), "{outcome}");
    assert!(outcome.taken > 10, "the harness hardly moved a contact: {outcome}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_embedded_broker() {
    check(BrokerKind::Embedded, 30, 11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mosquitto() {
    if carebed_tests::real::program(&["mosquitto"], "mosquitto").is_some() {
        check(BrokerKind::Mosquitto, 16, 12).await;
    }
}
