//! A Modbus client that is not ours polls simulated homes: it reads what the ledger says, and meets the faults it is
//! promised.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::{Clock, ManualClock};
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_simulator::fact::LabelKind;
use carebed_simulator::home::{CONNECTIONS_MAX, Hold, SimulatedHome, SimulatedHomeConfig};
use carebed_simulator::ledger::Shown;
use carebed_simulator::resident::State;
use tokio::time::timeout;
use tokio_modbus::ExceptionCode;
use tokio_modbus::client::{Context, Reader, Writer, tcp};
use tokio_modbus::slave::Slave;

const CALL: usize = 0;
const SOON: Duration = Duration::from_secs(10);

struct Bench {
    home: SimulatedHome,
    clock: Arc<ManualClock>,
    client: Context,
}

async fn bench(seed: u64) -> Bench {
    let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-03-02T23:00:00+08:00").expect("a time")));
    let id = HomeId::new("h1").expect("an id");
    let home = SimulatedHome::start(SimulatedHomeConfig::new(id, seed, Arc::clone(&clock) as Arc<dyn Clock>))
        .await
        .expect("a free port");
    let client = tcp::connect_slave(home.addr(), Slave(1)).await.expect("a connection");
    Bench { home, clock, client }
}

async fn poll(client: &mut Context) -> Vec<bool> {
    timeout(SOON, client.read_discrete_inputs(0, 8))
        .await
        .expect("an answer in time")
        .expect("an answer")
        .expect("no exception")
}

/// The newest level of each input that the ledger has.
fn last_shown(shown: &[Shown]) -> Vec<bool> {
    (0..8).map(|input| shown.iter().rfind(|s| s.input == input).is_some_and(|s| s.on)).collect()
}

#[tokio::test]
async fn a_client_reads_what_the_ledger_shows_through_a_day() {
    let Bench { home, clock, mut client } = bench(1).await;
    let mut polled = Vec::new();
    for _ in 0..24 * 60 {
        clock.advance(Duration::from_mins(1));
        let levels = poll(&mut client).await;
        assert_eq!(levels, last_shown(&home.truth().shown), "at {}", clock.now());
        polled.push((clock.now(), levels));
    }
    let truth = home.truth();
    assert!(truth.shown.len() > 200, "{} levels in a day", truth.shown.len());
    // What the ledger calls received was on the wire just then; what it calls unseen fell between two polls.
    for shown in &truth.shown {
        let seen = polled.iter().find(|(at, _)| Some(*at) == shown.answered);
        assert_eq!(seen.map(|(_, levels)| levels[shown.input]), shown.answered.map(|_| shown.on), "{shown:?}");
        let newer =
            truth.shown.iter().find(|s| s.input == shown.input && s.at > shown.at).map_or(Timestamp::MAX, |s| s.at);
        let was_polled = polled.iter().any(|(at, _)| (shown.at..newer).contains(at));
        assert_eq!(was_polled, shown.answered.is_some(), "{shown:?} until {newer}");
    }
    assert_eq!(home.counts().answered, 24 * 60);
}

#[tokio::test]
async fn a_cord_stays_pulled_until_a_client_has_read_it() {
    let Bench { home, clock, mut client } = bench(1).await;
    assert!(!poll(&mut client).await[CALL]);
    home.press(Hold::UntilPolled);
    clock.advance(Duration::from_hours(1));
    assert!(poll(&mut client).await[CALL]);
    // The answer may be lost on its way: only the next request shows that it came.
    drop(client);
    let mut client = tcp::connect_slave(home.addr(), Slave(1)).await.unwrap();
    assert!(poll(&mut client).await[CALL], "reset before anybody is known to have read it");
    assert!(!poll(&mut client).await[CALL], "still pulled after it was read");
    let calls: Vec<_> = home.truth().shown.into_iter().filter(|s| s.input == CALL).collect();
    assert_eq!(
        calls.iter().map(|s| (s.on, s.received.is_some())).collect::<Vec<_>>()[..2],
        [(false, true), (true, true)]
    );
    assert_eq!(home.truth().labels.iter().map(|label| label.kind).collect::<Vec<_>>(), [LabelKind::Press]);
}

#[tokio::test]
async fn other_buttons_stay_until_reset_or_for_their_time() {
    let Bench { home, clock, mut client } = bench(1).await;
    home.press(Hold::UntilReset);
    for _ in 0..3 {
        assert!(poll(&mut client).await[CALL]);
    }
    home.reset_call();
    assert!(!poll(&mut client).await[CALL]);
    home.press(Hold::For(Duration::from_millis(200)));
    clock.advance(Duration::from_millis(199));
    assert!(poll(&mut client).await[CALL]);
    clock.advance(Duration::from_millis(1));
    assert!(!poll(&mut client).await[CALL]);
    home.press(Hold::For(Duration::from_millis(200)));
    clock.advance(Duration::from_secs(1));
    assert!(!poll(&mut client).await[CALL]);
    let missed = home.truth().shown.into_iter().rfind(|s| s.input == CALL && s.on).unwrap();
    assert_eq!(missed.answered, None, "nobody asked in time: a momentary button is missed");
}

#[tokio::test]
async fn the_lamp_follows_the_coil() {
    let Bench { home, mut client, .. } = bench(1).await;
    let mut coils = home.coils();
    assert!(!coils.borrow_and_update()[0]);
    client.write_single_coil(0, true).await.unwrap().unwrap();
    timeout(SOON, coils.wait_for(|coils| coils[0])).await.expect("a lit lamp").unwrap();
    client.write_multiple_coils(0, &[false, true]).await.unwrap().unwrap();
    assert_eq!(client.read_coils(0, 8).await.unwrap().unwrap()[..3], [false, true, false]);
    assert_eq!(client.read_discrete_inputs(4, 8).await.unwrap(), Err(ExceptionCode::IllegalDataAddress));
    assert_eq!(client.read_input_registers(0, 1).await.unwrap(), Err(ExceptionCode::IllegalFunction));
    assert_eq!(home.counts().refused, 2);
    home.power_off().await;
    home.power_on().await.unwrap();
    assert_eq!(*home.coils().borrow(), [false; 8], "a board without power forgets its outputs");
}

#[tokio::test]
async fn a_silent_board_accepts_and_does_not_answer() {
    let Bench { home, mut client, .. } = bench(1).await;
    home.silent(true);
    assert!(timeout(Duration::from_millis(100), client.read_discrete_inputs(0, 8)).await.is_err());
    let mut fresh = tcp::connect_slave(home.addr(), Slave(1)).await.unwrap();
    assert!(timeout(Duration::from_millis(100), fresh.read_discrete_inputs(0, 8)).await.is_err());
    home.silent(false);
    let mut fresh = tcp::connect_slave(home.addr(), Slave(1)).await.unwrap();
    poll(&mut fresh).await;
    let mut other_unit = tcp::connect_slave(home.addr(), Slave(2)).await.unwrap();
    assert!(timeout(Duration::from_millis(100), other_unit.read_discrete_inputs(0, 8)).await.is_err());
    assert_eq!(home.counts().ignored, 3);
}

#[tokio::test]
async fn a_slow_board_tells_what_was_when_it_was_asked() {
    let Bench { home, mut client, .. } = bench(1).await;
    home.slow(Duration::from_millis(300));
    let before = home.counts().answered;
    let (levels, ()) = tokio::join!(poll(&mut client), async {
        // Counted when the board has read its inputs; the answer is still held back.
        while home.counts().answered == before {
            tokio::task::yield_now().await;
        }
        home.press(Hold::UntilReset);
    });
    assert!(!levels[CALL]);
    home.slow(Duration::ZERO);
    assert!(poll(&mut client).await[CALL]);
}

#[tokio::test]
async fn garbage_is_never_taken_for_an_answer() {
    let Bench { home, .. } = bench(1).await;
    home.garbage(true);
    let before = home.truth();
    for _ in 0..40 {
        let mut client = tcp::connect_slave(home.addr(), Slave(1)).await.unwrap();
        let answer = timeout(Duration::from_millis(20), client.read_discrete_inputs(0, 8)).await;
        assert!(!matches!(answer, Ok(Ok(Ok(ref levels))) if levels.len() == 8), "garbage read as {answer:?}");
    }
    assert_eq!(home.counts().garbled, 40);
    assert_eq!(home.truth(), before, "the ledger took garbage for an answer");
}

#[tokio::test]
async fn a_board_without_power_is_gone_and_comes_back_on_its_port() {
    let Bench { home, clock, mut client } = bench(1).await;
    poll(&mut client).await;
    home.power_off().await;
    assert!(
        timeout(SOON, client.read_discrete_inputs(0, 8)).await.unwrap().is_err(),
        "the connection outlived the board"
    );
    let refused = tcp::connect(home.addr()).await.map(drop).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    clock.advance(Duration::from_hours(9));
    home.power_on().await.unwrap();
    home.power_on().await.unwrap();
    let mut client = tcp::connect_slave(home.addr(), Slave(1)).await.unwrap();
    assert_eq!(poll(&mut client).await, last_shown(&home.truth().shown), "life went on without the board");
}

#[tokio::test]
async fn two_boards_cannot_have_one_port() {
    let Bench { home, clock, .. } = bench(1).await;
    let config = SimulatedHomeConfig::new(HomeId::new("h2").unwrap(), 2, clock as Arc<dyn Clock>);
    let error =
        SimulatedHome::start(SimulatedHomeConfig { listen: home.addr(), ..config }).await.map(drop).unwrap_err();
    assert!(error.to_string().contains(&home.addr().to_string()), "{error}");
}

#[tokio::test]
async fn one_client_too_many_is_sent_away_and_the_others_are_served() {
    let Bench { home, mut client, .. } = bench(1).await;
    poll(&mut client).await;
    let mut clients = Vec::new();
    for _ in 1..CONNECTIONS_MAX {
        let mut client = tcp::connect_slave(home.addr(), Slave(1)).await.unwrap();
        poll(&mut client).await;
        clients.push(client);
    }
    let mut one_too_many = tcp::connect_slave(home.addr(), Slave(1)).await.unwrap();
    assert!(timeout(SOON, one_too_many.read_discrete_inputs(0, 8)).await.unwrap().is_err());
    poll(&mut client).await;
}

#[tokio::test]
async fn a_person_is_ordered_about_through_the_home() {
    let Bench { home, clock, mut client } = bench(1).await;
    clock.advance(Duration::from_hours(2));
    assert!(home.state().on_bed(), "{:?}", home.state());
    home.stay_out();
    clock.advance(Duration::from_mins(3));
    assert!(!home.state().on_bed());
    let levels = poll(&mut client).await;
    assert!(!levels[2], "the mat still feels somebody: {levels:?}");
    home.carry_on();
    clock.advance(Duration::from_mins(3));
    assert!(home.state().on_bed());
    home.fall(carebed_simulator::fact::Room::Living);
    clock.advance(Duration::from_mins(5));
    assert!(matches!(home.state(), State::Fallen(_)));
    home.carry_on();
    home.leave_home(Duration::from_mins(40));
    clock.advance(Duration::from_mins(20));
    assert_eq!(home.state(), State::Away);
    let kinds: Vec<_> = home.truth().labels.iter().map(|label| label.kind).collect();
    assert_eq!(kinds.len(), 5, "{kinds:?}");
}
