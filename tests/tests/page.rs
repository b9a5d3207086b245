//! An operator at a real browser: a call reaches the open page, acknowledging it lights the lamp in the home.
use std::process::Stdio;

use carebed_simulator::home::Hold;
use carebed_tests::world::{BrokerKind, PATIENCE, Programs, World};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_reaches_the_open_page_and_its_acknowledgement_reaches_the_home() {
    let Some(python) = carebed_tests::real::python(&["playwright"]) else { return };
    let Some(chromium) = carebed_tests::real::program(&["chromium"], "chromium") else { return };
    let programs = Programs {
        centre: env!("CARGO_BIN_EXE_centre-under-test").into(),
        gateway: env!("CARGO_BIN_EXE_gateway-under-test").into(),
    };
    let mut world = World::start(&programs, BrokerKind::Embedded, 1).await.unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/at_the_desk.py");
    let mut operator = Command::new(python)
        .arg(script)
        .arg(world.page())
        .args(std::env::var_os("CAREBED_PICTURES"))
        .env("CHROMIUM", chromium)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut tell = operator.stdin.take().unwrap();
    let mut says = BufReader::new(operator.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(PATIENCE, says.next_line()).await;
        line.ok().and_then(Result::ok).flatten().unwrap_or_else(|| "nothing more".to_owned())
    };

    assert_eq!(next().await, "open");
    let mut lamp = world.homes[0].devices.coils();
    assert!(!lamp.borrow()[0], "the lamp is dark before anybody helps");
    world.homes[0].devices.press(Hold::UntilPolled);
    assert_eq!(next().await, "alert");
    assert_eq!(next().await, "acknowledged");
    let lit = tokio::time::timeout(PATIENCE, lamp.wait_for(|coils| coils[0])).await;
    assert!(lit.is_ok_and(|l| l.is_ok()), "the lamp stayed dark\n{}", world.said());
    assert_eq!(next().await, "english");
    world.centre.kill().await;
    tell.write_all(b"the centre is gone\n").await.unwrap();
    assert_eq!(next().await, "lost");
    let ended = tokio::time::timeout(PATIENCE, operator.wait()).await.unwrap().unwrap();
    assert!(ended.success());
}
