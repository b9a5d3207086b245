//! What a gateway costs in a typical home, and how soon a press is on MQTT:
//!
//! ```text
//! cargo build --release -p carebed-gateway && cargo run --release -p carebed-gateway --example home
//! ```
//!
//! The program under test runs as a process of its own: ten input boards over Modbus TCP, one of them polled every 20 ms
//! (the call button's), nine every second, as in a home that reports by exception; a bed radar on a serial port that speaks
//! each second; and a Zigbee door contact through the gateway's own broker, which is a process beside it. This program plays
//! the devices and the centre, which gives a receipt for every batch; mosquitto stands between. A press is timed from the
//! moment at which the board's input changes until the centre's side has its batch.
//!
//! Ends with 1 when a bound is missed. The machine's load is told beside: on a busy machine nothing here is a figure.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement ends where an assumption does"
)]

#[expect(dead_code, reason = "the other measurement uses the rest of it")]
mod side;

use std::fmt::Write as _;
use std::future::{Ready, ready};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carebed_contract::labels::Lane;
use carebed_simulator::bus::line::PtyLine;
use carebed_simulator::fact::Fact;
use carebed_simulator::radar::BedRadar;
use carebed_simulator::zigbee::ZigbeeBridge;
use rand::RngExt as _;
use side::{Batch, Process, centre, cpu, gateway_program, mosquitto, rss};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_modbus::prelude::{ExceptionCode, Request, Response};
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};

const BOARDS: usize = 10;
const PRESSES: usize = 1_000;
/// How long the quiet home is watched.
const QUIET: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);
/// What is meant: percent of a core, MiB, and from a press to the centre's side of MQTT. Of the gateway's own process: homes
/// without devices that speak MQTT have no broker.
const CPU_MAX: f64 = 1.0;
const RSS_MAX: f64 = 15.0;
const PRESS_P99_MAX: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() -> ExitCode {
    let program = gateway_program();
    let folder = tempfile::tempdir().unwrap();
    let mut boards = Vec::new();
    for _ in 0..BOARDS {
        boards.push(Board::start().await);
    }
    let broker = mosquitto(folder.path()).await;
    let (mut events, address) = (centre(broker.port).await, broker.port);
    let radar = BedRadar::new(true, Duration::from_secs(1), 1);
    let radar = PtyLine::plug(&folder.path().join("ttyRADAR"), radar).unwrap();
    let home_broker = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let gateway = gateway(&program, folder.path(), &boards, address, radar.path(), home_broker);
    let pid = gateway.0.id();
    wait(&mut events, Lane::Routine).await;
    let door = ZigbeeBridge::start(home_broker[0], vec![("front".to_owned(), Fact::DoorOpen)]);
    sleep(Duration::from_secs(5)).await;
    let child = child(pid);

    let before = [pid, child].map(cpu);
    let until = Instant::now() + QUIET;
    let mut open = false;
    while Instant::now() < until {
        sleep(Duration::from_secs(10).min(until - Instant::now())).await;
        open = !open;
        door.show(Fact::DoorOpen, open);
    }
    let now = [pid, child].map(cpu);
    let percent = |at: usize| 100.0 * (now[at] - before[at]) / QUIET.as_secs_f64();
    let (own, brokers) = (percent(0), percent(1));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "a quiet home: {BOARDS} boards, one polled every 20 ms, a radar on a serial port, a door over MQTT; {} s, load {}",
        QUIET.as_secs(),
        load.split(' ').next().unwrap()
    );
    println!("  CPU  {own:.2} % of a core, with its broker for the home {:.2} %", own + brokers);
    println!("  RSS  {:.1} MiB, its broker besides {:.1} MiB", rss(pid), rss(child));

    let (mut took, mut syncs) = (Vec::new(), Vec::new());
    let mut file = std::fs::File::create(folder.path().join("control")).unwrap();
    for _ in 0..PRESSES {
        let pause = rand::rng().random_range(30..90);
        sleep(Duration::from_millis(pause)).await;
        while events.try_recv().is_ok() {}
        let began = Instant::now();
        file.write_all(&[0; 512]).unwrap();
        file.sync_data().unwrap();
        syncs.push(began.elapsed());
        let board = boards.first().unwrap();
        let pressed = Instant::now();
        board.pressed.fetch_not(Ordering::SeqCst);
        wait(&mut events, Lane::Urgent).await;
        took.push(pressed.elapsed());
    }
    println!("{PRESSES} presses and releases, from the input to the centre's side of the broker");
    let p99 = tell(took);
    let most = rss(pid);
    println!("  RSS  {most:.1} MiB");
    println!(
        "and what a call waits for besides: 512 bytes written and synced by this program, on the same disk meanwhile"
    );
    tell(syncs);
    let missed = [("CPU", own > CPU_MAX), ("memory", most > RSS_MAX), ("the way of a press", p99 > PRESS_P99_MAX)];
    let missed: Vec<&str> = missed.into_iter().filter(|(_, is_missed)| *is_missed).map(|(what, _)| what).collect();
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("MISSED: {}", missed.join(", "));
    ExitCode::FAILURE
}

/// The gateway's own broker.
fn child(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().expect("the gateway has started no broker").parse().unwrap()
}

/// Tells how long it took, and returns the 99th percentile.
fn tell(mut took: Vec<Duration>) -> Duration {
    took.sort();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "small"
        )]
        let index = ((took.len() - 1) as f64 * share) as usize;
        *took.get(index).unwrap()
    };
    let ms = |share| at(share).as_secs_f64() * 1e3;
    println!("  p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", ms(0.5), ms(0.9), ms(0.99), ms(1.0));
    at(0.99)
}

/// An input board; its first input is the call button.
#[derive(Clone)]
struct Board {
    address: SocketAddr,
    pressed: Arc<AtomicBool>,
}

impl tokio_modbus::server::Service for Board {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        ready(match request {
            Request::ReadDiscreteInputs(_, count) => {
                let pressed = self.pressed.load(Ordering::SeqCst);
                Ok(Response::ReadDiscreteInputs((0..count).map(|input| input == 0 && pressed).collect()))
            }
            Request::WriteSingleCoil(coil, value) => Ok(Response::WriteSingleCoil(coil, value)),
            _ => Err(ExceptionCode::IllegalFunction),
        })
    }
}

impl Board {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let board = Self { address: listener.local_addr().unwrap(), pressed: Arc::default() };
        let service = board.clone();
        tokio::spawn(async move {
            let accept = |stream: tokio::net::TcpStream, address| {
                let service = service.clone();
                let _slower_otherwise = stream.set_nodelay(true);
                async move { accept_tcp_connection(stream, address, move |_| Ok(Some(service.clone()))) }
            };
            Server::new(listener).serve(&accept, drop).await
        });
        board
    }
}

fn gateway(
    program: &Path,
    folder: &Path,
    boards: &[Board],
    broker: u16,
    radar: &Path,
    [v4, v5]: [SocketAddr; 2],
) -> Process {
    let (config, home) = (folder.join("gateway.toml"), folder.join("home.toml"));
    let spool = folder.join("spool");
    std::fs::write(
        &config,
        format!(
            "[broker]\nurl = \"mqtt://127.0.0.1:{broker}\"\n[spool]\ndirectory = {:?}\n\
             [devices]\nbroker = \"embedded\"\nlisten = \"{v4}\"\nlisten_v5 = \"{v5}\"\n",
            spool.display().to_string()
        ),
    )
    .unwrap();
    let mut text = "[home]\nid = \"h1\"\narea = \"360702\"\n[gateway]\nid = \"gw-h1\"\n[[room]]\nid = \"bedroom\"\n\
                    [[bed]]\nid = \"b1\"\nroom = \"bedroom\"\n"
        .to_owned();
    for (number, board) in boards.iter().enumerate() {
        let (every, quantity) = if number == 0 { ("20ms", "call_button") } else { ("1s", "motion") };
        let _whole = write!(
            text,
            "[[device]]\nid = \"board-{number}\"\nprofile = \"waveshare/modbus-di8\"\nlink = \"tcp://{}\"\nevery = \"{every}\"\n\
             [device.inputs.1]\ndevice = \"input-{number}\"\nquantity = \"{quantity}\"\nbed = \"b1\"\n",
            board.address
        );
    }
    let _whole = write!(
        text,
        "[[device]]\nid = \"radar\"\nprofile = \"micradar/r60abd1\"\nlink = \"serial:{}\"\n\
         [device.inputs.heart_rate]\nbed = \"b1\"\n[device.inputs.respiratory_rate]\nbed = \"b1\"\n\
         [[device]]\nid = \"door\"\nprofile = \"zigbee2mqtt/aqara-door\"\nlink = \"mqtt\"\naddress = \"front\"\n\
         [device.inputs.door_open]\nroom = \"bedroom\"\n",
        radar.display()
    );
    std::fs::write(&home, text).unwrap();
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(config).arg("--home").arg(home);
    Process(command.env("CAREBED_LOG", "warn").spawn().unwrap())
}

async fn wait(events: &mut mpsc::UnboundedReceiver<Batch>, lane: Lane) {
    let wanted = async {
        while let Some(batch) = events.recv().await {
            if batch.lane == lane {
                return;
            }
        }
    };
    timeout(PATIENCE, wanted).await.expect("the gateway says nothing");
}
