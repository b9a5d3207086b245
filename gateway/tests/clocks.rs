//! A gateway whose clock is wrong, unset, stepped, or right only after the fact.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail where an assumption does")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::ManualClock;
use carebed_contract::labels::{Lane, SealedAt};
use carebed_contract::quality::Quality;
use carebed_contract::record::RecordTime;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::topic::Channel;
use carebed_gateway::config::{Broker, Config};
use carebed_gateway::home::HomeFile;
use support::{Board, Came, Centre, Seen, came};

/// 2027-01-15T08:00:00Z
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Running {
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<Result<(), carebed_gateway::Error>>,
}

impl Running {
    fn start(board: &Board, centre: &Centre, spool: &Path, clock: &Arc<ManualClock>) -> Self {
        let text = include_str!("../../deploy/gateway/home.toml");
        let text = text.replace("192.168.1.50:502", &board.address.to_string());
        let home = HomeFile::parse("home.toml", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let broker = Broker::plain(centre.address.ip().to_string(), centre.address.port());
        let shutdown = Shutdown::new();
        let clock: Arc<ManualClock> = Arc::clone(clock);
        let task = carebed_gateway::run(Config::new(broker, spool.to_owned()), home, clock, shutdown.clone());
        Self { shutdown, task: tokio::spawn(task) }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// A clock that shows 1970, which nothing keeps right.
fn unset() -> Arc<ManualClock> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(7_000)));
    clock.synchronise(Some(false));
    clock
}

async fn live(centre: &mut Centre) {
    centre.json(Channel::Status, |status| status["devices"][0]["health"] == "live").await;
}

/// The next routine batch with observations, while product time goes on.
async fn routine(centre: &mut Centre, clock: &ManualClock) -> Came {
    clock.advance(secs(6));
    centre.batch(Lane::Routine).await
}

fn times(came: &Came) -> Vec<RecordTime> {
    came.pack.records.iter().map(|record| record.time).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_boots_in_1970_learns_the_time_from_a_receipt_and_then_from_a_time_server() {
    let (board, mut centre, spool) =
        (Board::start().await, Centre::start("360702", "gw-h1").await, tempfile::tempdir().unwrap());
    let clock = unset();
    let gateway = Running::start(&board, &centre, spool.path(), &clock);

    // It asks for a receipt, since only that can tell it the time; nobody gives one yet.
    let (mut asks, mut is_live) = (false, false);
    while !(asks && is_live) {
        let Seen::Published(publish) = centre.next().await else { continue };
        if publish.topic.ends_with(b"/urgent") {
            asks |= came(&publish).pack.records.is_empty();
        }
        is_live |=
            publish.topic.ends_with(b"/status") && String::from_utf8_lossy(&publish.payload).contains("\"live\"");
    }
    // States are sealed after 6 s and wait. A call goes at once, without a time of its own.
    clock.advance(secs(6));
    board.set(|terminals| terminals.inputs = 1);
    let press = centre.batch(Lane::Urgent).await;
    assert_eq!(times(&press), [RecordTime::BeforeReceive(Duration::ZERO)]);
    assert_eq!(
        (press.pack.records[0].clock, &press.pack.records[0].quality),
        (ClockQuality::Unsynchronised, &Quality::Good)
    );
    assert_eq!(press.labels.sealed, Some(SealedAt::Before(Duration::ZERO)));

    // A minute later it is still not received, and says so when it sends it again.
    clock.advance(secs(60));
    centre.cut();
    let again = centre.wait(Channel::Batch(Lane::Urgent), |publish| {
        Some(came(publish)).filter(|came| came.labels.seq == press.labels.seq)
    });
    let again = again.await;
    assert_eq!((again.labels.sealed, again.digest), (Some(SealedAt::Before(secs(60))), press.digest));

    // The receipt tells the time. What waited goes, each with the moment of its sealing.
    centre.receipt_at(&again, NOW);
    let states = centre.batch(Lane::Routine).await;
    assert!(times(&states).iter().all(|time| matches!(time, RecordTime::BeforeReceive(_))), "{:?}", states.pack);
    let Some(SealedAt::Known(sealed)) = states.labels.sealed else { panic!("{:?}", states.labels) };
    assert!((60..=70).contains(&NOW.since(sealed).as_secs()), "{sealed}");

    // From now on times are absolute, carried on by the monotonic clock; the wall clock still shows 1970.
    board.set(|terminals| terminals.inputs = 0b11);
    centre.json(Channel::Status, |status| status["clock"] == "corrected").await;
    let mat = loop {
        let batch = routine_any(&mut centre, &clock).await;
        if batch.rows().iter().any(|row| row == "mat-1 Some(1.0) good") {
            break batch;
        }
    };
    let RecordTime::At(lain) = mat.pack.records[0].time else { panic!("{:?}", mat.pack) };
    assert!(lain.since(NOW) < secs(1800) && mat.pack.records[0].clock == ClockQuality::Corrected, "{lain}");
    assert!(mat.labels.sealed.is_none() && mat.labels.complete_to <= lain + secs(120));

    // A time server is reached at last: an hour later than the centre thinks.
    let hour_on = NOW + secs(3600);
    clock.step_wall(hour_on);
    clock.synchronise(Some(true));
    clock.advance(secs(2));
    board.set(|terminals| terminals.inputs = 0b01);
    centre.json(Channel::Status, |status| status["clock"] == "synchronised").await;
    let risen = loop {
        let batch = routine_any(&mut centre, &clock).await;
        if batch.rows().iter().any(|row| row == "mat-1 Some(0.0) good") {
            break batch;
        }
    };
    let RecordTime::At(risen) = risen.pack.records[0].time else { panic!("{risen:?}") };
    assert!(risen >= hour_on && risen.since(hour_on) < secs(1800), "{risen}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completeness_follows_a_clock_that_steps_back() {
    let (board, mut centre, spool) =
        (Board::start().await, Centre::start("360702", "gw-h1").await, tempfile::tempdir().unwrap());
    let clock = Arc::new(ManualClock::new(NOW + secs(86_400)));
    let gateway = Running::start(&board, &centre, spool.path(), &clock);
    live(&mut centre).await;
    let ahead = loop {
        let batch = routine_any(&mut centre, &clock).await;
        if batch.labels.complete_to > NOW {
            break batch;
        }
    };
    assert!(ahead.labels.complete_to > NOW + secs(86_000));
    // It was a day ahead. What is told from now on is not bound by what was told then.
    clock.step_wall(NOW);
    let back = loop {
        let batch = routine_any(&mut centre, &clock).await;
        if batch.labels.complete_to < NOW + secs(86_000) {
            break batch;
        }
    };
    assert!(back.labels.complete_to < NOW + secs(3600), "{}", back.labels.complete_to);
    let on = loop {
        let batch = routine_any(&mut centre, &clock).await;
        if batch.labels.complete_to > back.labels.complete_to {
            break batch;
        }
    };
    assert!(on.labels.complete_to.since(back.labels.complete_to) < secs(3600));
    gateway.stop().await;
}

/// The next routine batch, empty or not, while product time goes on.
async fn routine_any(centre: &mut Centre, clock: &ManualClock) -> Came {
    let heard = centre.wait(Channel::Batch(Lane::Routine), |publish| Some(came(publish)));
    tokio::pin!(heard);
    loop {
        // Whatever the gateway waits for now is due; what it begins to wait for after this is due at the next turn.
        clock.advance(secs(31));
        tokio::select! {
            came = &mut heard => return came,
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_that_never_knew_the_time_lies_between_its_neighbours() {
    let (board, mut centre, spool) =
        (Board::start().await, Centre::start("360702", "gw-h1").await, tempfile::tempdir().unwrap());
    // A first life knows the time and leaves completeness behind.
    let clock = Arc::new(ManualClock::new(NOW));
    let first = Running::start(&board, &centre, spool.path(), &clock);
    live(&mut centre).await;
    routine(&mut centre, &clock).await;
    let known = routine_any(&mut centre, &clock).await.labels.complete_to;
    first.stop().await;

    // A second never does, and the power goes.
    let clock = unset();
    let second = Running::start(&board, &centre, spool.path(), &clock);
    centre
        .json(Channel::Status, |status| status["clock"] == "unsynchronised" && status["devices"][0]["health"] == "live")
        .await;
    clock.advance(secs(600));
    second.stop().await;

    // A third knows it from the start: two hours after the first.
    let clock = Arc::new(ManualClock::new(NOW + secs(7_200)));
    let third = Running::start(&board, &centre, spool.path(), &clock);
    let between = centre
        .wait(Channel::Batch(Lane::Routine), |publish| Some(came(publish)).filter(|came| came.labels.sealed.is_some()));
    let between = between.await;
    let Some(SealedAt::Bounded(sealed)) = between.labels.sealed else { panic!("{:?}", between.labels) };
    assert!(sealed > known && sealed < NOW + secs(7_200), "{sealed} after {known}");
    assert!(between.pack.records.iter().all(|record| record.clock == ClockQuality::Unsynchronised));
    third.stop().await;
}
