//! The whole gateway between a real Modbus TCP server and a scripted centre.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail where an assumption does")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock as _, SystemClock};
use carebed_contract::labels::Lane;
use carebed_contract::record::RecordTime;
use carebed_contract::topic::Channel;
use carebed_gateway::config::{Broker, Config};
use carebed_gateway::home::HomeFile;
use carebed_gateway::link::address::Address;
use carebed_gateway::stamp::ClockTrust;
use carebed_gateway::{Error, run};
use support::{Board, Centre, Seen};
use tokio::task::JoinHandle;

/// A gateway that runs, and how to stop it.
struct Running {
    shutdown: Shutdown,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn start(board: &Board, centre: &Centre, spool: &Path, change: impl FnOnce(&mut Config)) -> Running {
    let mut home = HomeFile::parse("home.toml", include_str!("../../deploy/gateway/home.toml")).unwrap();
    for wired in &mut home.boards {
        wired.link = Address::ModbusTcp((board.address.ip().to_string(), board.address.port()));
    }
    let broker = Broker::plain(centre.address.ip().to_string(), centre.address.port());
    let mut config = Config::new(broker, spool.to_owned());
    (config.routine_every, config.complete_every) = (Duration::from_millis(50), Duration::from_millis(300));
    config.clock = ClockTrust::Trusted;
    change(&mut config);
    let shutdown = Shutdown::new();
    let task = tokio::spawn(run(config, home, Arc::new(SystemClock::new()), shutdown.clone()));
    Running { shutdown, task }
}

async fn centre() -> Centre {
    Centre::start("360702", "gw-h1").await
}

const START: [&str; 4] =
    ["call-1 Some(0.0) good", "mat-1 Some(0.0) good", "door-1 Some(1.0) good", "pir-1 Some(0.0) good"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_press_goes_out_at_once_and_stays_until_the_centre_has_it() {
    let (board, mut centre, spool) = (Board::start().await, centre().await, tempfile::tempdir().unwrap());
    let gateway = start(&board, &centre, spool.path(), |_| {});
    let Seen::Connected(will) = centre.next().await else { panic!("no connection first") };
    assert!(will.retain && String::from_utf8_lossy(&will.message).contains(r#""state":"lost""#));
    let inventory = centre.json(Channel::Inventory, |_| true).await;
    assert_eq!(inventory["home"], "h1");
    centre.json(Channel::Status, |status| status["devices"][0]["health"] == "live").await;
    let states = centre.batch(Lane::Routine).await;
    assert_eq!(states.rows(), START);
    assert_eq!((states.labels.seq, states.labels.base), (0, 0));

    board.set(|terminals| terminals.inputs = 1);
    let press = centre.batch(Lane::Urgent).await;
    assert_eq!((press.rows(), press.labels.seq), (vec!["call-1 Some(1.0) good".to_owned()], 0));
    let RecordTime::At(pressed) = press.pack.records[0].time else { panic!("no time") };
    assert!(SystemClock::new().now().since(pressed) < Duration::from_secs(2));

    // While the centre does not have the call, nothing is complete beyond it.
    let later = centre.wait(Channel::Batch(Lane::Routine), |publish| {
        Some(support::came(publish)).filter(|came| came.labels.complete_to >= pressed)
    });
    let later = later.await;
    assert_eq!(later.labels.complete_to, pressed);

    // Neither a broken connection nor a restart loses it; it comes as it was.
    centre.cut();
    let again = centre.batch(Lane::Urgent).await;
    assert_eq!((again.labels.epoch, again.labels.seq, again.digest), (press.labels.epoch, 0, press.digest));
    gateway.stop().await;
    let stopped = centre.json(Channel::Status, |status| status["state"] == "stopped").await;
    assert!(stopped["spool_batches"].as_u64().unwrap() > 0);
    let gateway = start(&board, &centre, spool.path(), |_| {});
    let again = centre.batch(Lane::Urgent).await;
    assert_eq!((again.labels.epoch, again.labels.seq, again.digest), (press.labels.epoch, 0, press.digest));
    // The button is still pressed at the start: that waits in the spool already and is not told twice.
    centre.receipt(&again);

    // With the receipt it is gone, and completeness goes on.
    centre
        .wait(Channel::Batch(Lane::Routine), |publish| {
            Some(()).filter(|()| {
                support::came(publish).labels.complete_to > later.labels.complete_to + Duration::from_millis(500)
            })
        })
        .await;
    centre.cut();
    board.set(|terminals| terminals.inputs = 0);
    let release = centre.batch(Lane::Urgent).await;
    assert_eq!((release.labels.seq, release.labels.base, release.labels.prev), (1, 1, press.digest));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_centre_lights_the_lamp() {
    let (board, mut centre, spool) = (Board::start().await, centre().await, tempfile::tempdir().unwrap());
    let gateway = start(&board, &centre, spool.path(), |_| {});
    assert_eq!(centre.batch(Lane::Routine).await.rows(), START);
    let light = |id: &str, device: &str| {
        let expires = SystemClock::new().now() + Duration::from_secs(60);
        let command =
            serde_json::json!({ "id": id, "device": device, "action": "set", "value": true, "expires_at": expires });
        command.to_string().into_bytes()
    };
    centre.send(Channel::Command, b"{ not a command".to_vec());
    centre.send(Channel::Command, light("c1", "lamp-1"));
    let result = centre.json(Channel::Result, |_| true).await;
    assert_eq!((&result["id"], &result["outcome"]), (&"c1".into(), &"done".into()));
    assert_eq!(board.terminals.lock().unwrap().coils, 1);
    assert_eq!(centre.batch(Lane::Routine).await.rows(), ["lamp-1 Some(1.0) good"]);

    // The same again is answered, not done again.
    board.set(|terminals| terminals.coils = 0);
    centre.send(Channel::Command, light("c1", "lamp-1"));
    assert_eq!(centre.json(Channel::Result, |_| true).await, result);
    assert_eq!(board.terminals.lock().unwrap().coils, 0);
    centre.send(Channel::Command, light("c2", "door-1"));
    assert_eq!(centre.json(Channel::Result, |_| true).await["outcome"], "refused");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_board_that_answers_nonsense_gives_no_value_and_is_told_as_silent() {
    let (board, mut centre, spool) = (Board::start().await, centre().await, tempfile::tempdir().unwrap());
    let gateway = start(&board, &centre, spool.path(), |_| {});
    assert_eq!(centre.batch(Lane::Routine).await.rows(), START);
    // Sixteen inputs, one of them a press: an answer to another question.
    board.set(|terminals| (terminals.inputs, terminals.answers_with) = (0xFF, Some(16)));
    centre.json(Channel::Status, |status| status["devices"][0]["health"] == "silent").await;
    let silent = centre.batch(Lane::Routine).await;
    assert_eq!(silent.rows()[0], "call-1 None bad:no_answer");
    assert_eq!(silent.rows().len(), 4);
    board.set(|terminals| (terminals.inputs, terminals.answers_with) = (0, None));
    assert_eq!(centre.batch(Lane::Routine).await.rows(), START);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_centre_with_other_batches_makes_a_new_epoch() {
    let (board, mut centre, spool) = (Board::start().await, centre().await, tempfile::tempdir().unwrap());
    centre.gives_receipts = false;
    let gateway = start(&board, &centre, spool.path(), |_| {});
    let mut states = centre.batch(Lane::Routine).await;
    let epoch = states.labels.epoch;
    states.digest = carebed_contract::digest::Digest::of_bytes(b"another box");
    centre.receipt(&states);
    let again = centre.batch(Lane::Routine).await;
    assert!(again.labels.epoch != epoch && again.labels.seq == 0 && again.rows() == START);
    let told = |status: &serde_json::Value| status["troubles"][0].as_str().is_some_and(|t| t.contains("new epoch"));
    // The new epoch goes out first, then the status that tells of it.
    centre.json(Channel::Status, told).await;
    gateway.stop().await;
    while !matches!(centre.next().await, Seen::Disconnected { goodbye: true }) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_gateway_on_the_same_spool_is_refused() {
    let (board, mut centre, spool) = (Board::start().await, centre().await, tempfile::tempdir().unwrap());
    let gateway = start(&board, &centre, spool.path(), |_| {});
    centre.json(Channel::Inventory, |_| true).await;
    let second = start(&board, &centre, spool.path(), |_| {});
    let error = second.task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("in use by process"), "{error}");
    gateway.stop().await;
}

/// A disk that cannot even be opened does not silence a call, and the centre is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_starts_without_its_disk() {
    let (board, mut centre, folder) = (Board::start().await, centre().await, tempfile::tempdir().unwrap());
    let no_folder = folder.path().join("a-file");
    std::fs::write(&no_folder, "not a folder").unwrap();
    let gateway = start(&board, &centre, &no_folder.join("spool"), |_| {});
    let told = centre.json(Channel::Status, |status| !status["troubles"].as_array().unwrap().is_empty()).await;
    assert!(told["troubles"][0].as_str().unwrap().contains("memory"), "{told}");
    board.set(|terminals| terminals.inputs = 1);
    let press = centre.batch(Lane::Urgent).await;
    assert_eq!(press.rows(), ["call-1 Some(1.0) good"]);
    gateway.stop().await;
}
