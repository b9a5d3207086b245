//! `cargo bench -p carebed-gateway --bench bus [-- seconds]`: how often healthy devices on one 9600 baud bus are still read while others are dead.
//!
//! A simulated bus with the times of a real wire: 9600 baud, ten bits to a byte, devices that answer after 20 ms. Each
//! device is asked once a second. For every number of dead devices the healthy ones' answers are counted, beside the same
//! bus with nobody dead. Runs that begin together share the machine, so that ratios compare like with like.
#![expect(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark says what it measured, and fails where an assumption does"
)]

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock, SystemClock};
use carebed_gateway::config::Broker;
use carebed_gateway::home::HomeFile;
use carebed_gateway::link::{LinkEvent, Links, LocalBroker};
use carebed_simulator::bus::line::TcpLine;
use carebed_simulator::bus::{Bus, Station};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

const DEVICES: u8 = 10;
/// What happens in this time after the start is counted apart: the dead stand in front of the others, and each of them costs
/// a time-out before the others are asked for the first time.
const SETTLE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() {
    let seconds = std::env::args().skip(1).find_map(|n| n.parse().ok()).unwrap_or(60);
    let length = Duration::from_secs(seconds);
    let start = |dies| (0..DEVICES).map(move |n_dead| tokio::spawn(run(n_dead, dies, length))).collect::<Vec<_>>();
    let (from_the_start, later) = (start(false), start(true));
    println!("{DEVICES} devices on one 9600 baud bus, each asked once a second; {SETTLE:?} and then {seconds} s");
    println!(
        "                            slowest healthy device, of the healthy bus   {SETTLE:?} after   {SETTLE:?} after"
    );
    println!(
        "dead  healthy answers/s   dead from the start   died while it ran      the start      they died   probes of each/min"
    );
    let mut whole = None;
    let mut worst: f64 = 1.0;
    for (run, dying) in from_the_start.into_iter().zip(later) {
        let (run, dying) = (run.await.expect("a run ends"), dying.await.expect("a run ends"));
        let [whole, whole_dying] = *whole.get_or_insert([(run.slowest, run.first), (dying.slowest, dying.first)]);
        let of = |run: &Run, whole: (f64, f64)| (run.slowest / whole.0, run.first / whole.1);
        let ((kept, first), (kept_dying, first_dying)) = (of(&run, whole), of(&dying, whole_dying));
        worst = worst.min(kept).min(kept_dying);
        println!(
            "{:>4}  {:>17.3}  {:>18.1} %  {:>16.1} %  {:>12.1} %  {:>12.1} %  {:>18.1}",
            run.n_dead,
            run.rate,
            100.0 * kept,
            100.0 * kept_dying,
            100.0 * first,
            100.0 * first_dying,
            run.probes
        );
    }
    println!("worst: {:.1} %", 100.0 * worst);
    if worst < 0.95 {
        std::process::exit(1);
    }
}

struct Run {
    n_dead: u8,
    /// Answers a second of a healthy device: the mean, and of the slowest one.
    rate: f64,
    slowest: f64,
    /// Of the slowest one before that.
    first: f64,
    probes: f64,
}

/// `dies`: they answer for a while before they are dead.
async fn run(n_dead: u8, dies: bool, length: Duration) -> Run {
    let stations = (1..=DEVICES).map(|unit| {
        let mut station = Station::climate(unit, 21.5, 48.0);
        station.manners.delay = Duration::from_millis(20);
        station.manners.silent = unit <= n_dead && !dies;
        station
    });
    let line = TcpLine::start(Bus::new(stations.collect(), 1)).await.expect("a free port");
    let device = |unit| {
        format!(
            "[[device]]\nid = \"climate-{unit}\"\nprofile = \"xy/md02\"\nlink = \"serial+tcp://{}\"\nunit = {unit}\nevery = \"1s\"\n\
             [device.inputs.temperature]\nroom = \"bedroom\"\n",
            line.address()
        )
    };
    let devices: String = (1..=DEVICES).map(device).collect();
    let text = format!(
        "[home]\nid = \"h1\"\narea = \"360702\"\n[gateway]\nid = \"g1\"\n[[room]]\nid = \"bedroom\"\n{devices}"
    );
    let home = HomeFile::parse("home.toml", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let boards: Vec<_> = home.boards.into_iter().map(Arc::new).collect();
    let (sender, mut events) = mpsc::channel(256);
    let (clock, stop): (Arc<dyn Clock>, _) = (Arc::new(SystemClock::new()), Shutdown::new());
    let broker = LocalBroker::At(Broker::plain("127.0.0.1", 1));
    let _links = Links::start(&boards, &broker, &sender, &clock, &stop);
    if dies {
        let healthy_until = Instant::now() + SETTLE;
        while let Ok(Some(_)) = timeout_at(healthy_until, events.recv()).await {}
        for unit in 1..=n_dead {
            line.speaker().station(unit).expect("it is on the bus").manners.silent = true;
        }
    }
    let from = Instant::now() + SETTLE;
    let none = vec![0_u32; usize::from(DEVICES)];
    let (mut first, mut answers, mut failures) = (none.clone(), none, 0_u32);
    while let Ok(Some(event)) = timeout_at(from + length, events.recv()).await {
        let LinkEvent::Polled { board, result, .. } = event else { continue };
        match (result, Instant::now() > from) {
            (Ok(_), true) => answers[board] += 1,
            (Ok(_), false) => first[board] += 1,
            (Err(_), true) => failures += 1,
            (Err(_), false) => {}
        }
    }
    stop.cancel();
    let healthy = &answers[usize::from(n_dead)..];
    let slowest = |answers: &[u32]| f64::from(answers[usize::from(n_dead)..].iter().copied().min().unwrap_or(0));
    let seconds = length.as_secs_f64();
    Run {
        n_dead,
        rate: f64::from(healthy.iter().sum::<u32>()) / f64::from(DEVICES - n_dead) / seconds,
        slowest: slowest(&answers) / seconds,
        first: slowest(&first) / SETTLE.as_secs_f64(),
        probes: f64::from(failures) / f64::from(n_dead.max(1)) / seconds * 60.0,
    }
}
