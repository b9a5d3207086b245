//! A person is forgotten while everything works: nothing is left at the centre nor in a gateway's spool, also in that of one
//! that was away meanwhile.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking and says what it saw")]

use std::path::Path;

use carebed_contract::clock::{Clock as _, SystemClock};
use carebed_tests::process::until;
use carebed_tests::world::{BrokerKind, PATIENCE, Programs, World};
use serde_json::{Value, json};
use tokio::process::Command;

fn programs() -> Programs {
    Programs {
        centre: env!("CARGO_BIN_EXE_centre-under-test").into(),
        gateway: env!("CARGO_BIN_EXE_gateway-under-test").into(),
    }
}

/// In how many files of a folder a text stands, plain or under zstd.
fn holds(folder: &Path, text: &str) -> usize {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let stands_in = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let packed = |bytes: &[u8]| {
        let frames = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
        frames.into_iter().any(|(at, _)| {
            let mut plain = Vec::new();
            let frame = zstd::stream::read::Decoder::with_buffer(&bytes[at..]).map(|decoder| decoder.single_frame());
            // What is no frame, or is being written, holds what could be read of it.
            let _whole = frame.and_then(|mut frame| std::io::Read::read_to_end(&mut frame, &mut plain));
            stands_in(&plain)
        })
    };
    let files = std::fs::read_dir(folder).unwrap().filter_map(|file| std::fs::read(file.unwrap().path()).ok());
    files.filter(|bytes| stands_in(bytes) || packed(bytes)).count()
}

/// From now on a home's bed has another name: what bears the old one is of before.
async fn rename_bed(world: &World, index: usize) -> (String, String) {
    let home = &world.homes[index];
    let (old, new) = (format!("{}-bed", home.devices_name), format!("{}-next", home.devices_name));
    let text = std::fs::read_to_string(&home.home_file).unwrap();
    let heard = home.gateway.said().matches("changed files are in use").count();
    std::fs::write(&home.home_file, text.replace(&format!("\"{old}\""), &format!("\"{new}\""))).unwrap();
    let taken = until(PATIENCE, || async {
        (world.homes[index].gateway.said().matches("changed files are in use").count() > heard).then_some(())
    });
    assert!(taken.await.is_some(), "the changed home file was not taken up\n{}", world.said());
    (old, new)
}

async fn erase(world: &World, home: &str, bed: &str, until: &str) -> Value {
    let data = world.data();
    let mut command = Command::new(env!("CARGO_BIN_EXE_centre-under-test"));
    command.arg("erase").arg("--data").arg(&data);
    command.args(["--home", home, "--bed", bed, "--until", until, "--id", &format!("{home}-gone"), "--yes"]);
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{}", world.said());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until nothing of a bed is in a gateway's spool, and the gateway has said that it was ordered so.
async fn is_purged(world: &World, index: usize, bed: &str) {
    let home = &world.homes[index];
    let gone = until(PATIENCE, || async {
        (home.gateway.said().contains("the centre orders to forget") && holds(&home.spool, bed) == 0).then_some(())
    });
    assert!(gone.await.is_some(), "{bed} is in {} files of the spool\n{}", holds(&home.spool, bed), world.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_person_also_in_the_spool_of_a_gateway_that_was_away() {
    let mut world = World::start(&programs(), BrokerKind::Embedded, 2).await.unwrap();
    let rows = |bed: &str| format!("SELECT count(*) FROM observations WHERE bed_id = '{bed}'");

    // The second gateway goes away with rows that nobody has.
    let (there, away) = (world.homes[0].devices_name.clone(), world.homes[1].devices_name.clone());
    let away_bed = format!("{}-bed", world.homes[1].devices_name);
    world.home_network.set(|weather| weather.refuse = true);
    world.home_network.cut();
    world.homes[1].devices.press(carebed_simulator::home::Hold::UntilReset);
    let kept = until(PATIENCE, || async { (holds(&world.homes[1].spool, &away_bed) > 0).then_some(()) });
    assert!(kept.await.is_some(), "nothing of {away_bed} is in the spool");
    world.homes[1].gateway.kill().await;
    world.home_network.clear();

    // The first has told everything, and keeps the bytes until their segment is full.
    let (bed, next) = rename_bed(&world, 0).await;
    world.number(&rows(&next), |n| n > 0).await.unwrap();
    assert!(holds(&world.homes[0].spool, &bed) > 0, "a spool without {bed} shows nothing");
    assert!(world.numbers(&rows(&bed)).await.unwrap()[0] > 0);

    let now = SystemClock::new().now().to_string();
    for (home, bed) in [(&there, &bed), (&away, &away_bed)] {
        let report = erase(&world, home, bed, &now).await;
        assert_eq!(
            (
                &report["left"],
                &report["files_held"],
                &report["memory_forgotten"],
                report["gateways"].as_array().unwrap().len()
            ),
            (&json!(0), &json!(0), &json!(true), 1),
            "{report}"
        );
        assert!(report["rows"].as_u64().unwrap() > 0 && report["scanned"].as_u64().unwrap() > 0, "{report}");
    }
    is_purged(&world, 0, &bed).await;

    // The second comes back, its bed with another name; what it kept is told to nobody.
    let file = &world.homes[1].home_file;
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text.replace(&format!("\"{away_bed}\""), "\"other-bed\"")).unwrap();
    assert!(holds(&world.homes[1].spool, &away_bed) > 0);
    world.start_gateway(1, None).unwrap();
    is_purged(&world, 1, &away_bed).await;
    world.number(&rows("other-bed"), |n| n > 0).await.unwrap();
    // Of the one that had told everything nothing is missing; the other's spool began a new epoch with what was left of it.
    let gaps = "SELECT count(*) FROM gaps WHERE gateway_id = 'gw-home-1'";
    assert_eq!(world.numbers(gaps).await.unwrap(), [0], "{}", world.said());
    for (home, bed) in [(&there, &bed), (&away, &away_bed)] {
        assert_eq!(world.numbers(&rows(bed)).await.unwrap(), [0], "{bed} came back");
        let again = erase(&world, home, bed, &now).await;
        assert_eq!((&again["rows"], &again["left"]), (&json!(0), &json!(0)), "{again}");
        assert_eq!(holds(&world.data().join("lake/observations"), bed), 0);
    }
}
