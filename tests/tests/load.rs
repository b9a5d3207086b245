//! The centre under load, small enough for every run. The large ones: `carebed-tests drain`, `herd` and `flood`.
#![expect(clippy::print_stdout, reason = "a test fails by panicking and says what it saw")]

use std::time::Duration;

use carebed_tests::load::{Plan, Shown, herd};
use carebed_tests::world::{BrokerKind, Programs};

fn programs() -> Programs {
    Programs {
        centre: env!("CARGO_BIN_EXE_centre-under-test").into(),
        gateway: env!("CARGO_BIN_EXE_gateway-under-test").into(),
    }
}

fn check(shown: &Shown) {
    println!("{}", shown.text);
    assert!(shown.is_good, "{}", shown.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn homes_that_return_at_once_are_all_taken_in() {
    let plan = Plan { broker: BrokerKind::Embedded, homes: 5, within: Duration::from_secs(150), memory_mib: 16 };
    check(&herd(&programs(), &plan).await.unwrap());
}
