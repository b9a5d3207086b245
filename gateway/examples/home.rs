//! What a gateway costs in a typical home, and how soon a press is on MQTT:
//!
//! ```text
//! cargo build --release -p carebed-gateway && cargo run --release -p carebed-gateway --example home
//! ```
//!
//! The program under test runs as a process of its own: ten input boards over Modbus TCP, one of them polled every 20 ms
//! (the call button's), nine every second, as in a home that reports by exception. This program plays the boards and the
//! centre, which gives a receipt for every batch; mosquitto stands between. A press is timed from the moment at which the
//! board's input changes until the centre's side has its batch.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends where an assumption does")]

#[expect(dead_code, reason = "the other measurement uses the rest of it")]
mod side;

use std::fmt::Write as _;
use std::future::{Ready, ready};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carebed_contract::labels::Lane;
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

#[tokio::main]
async fn main() {
    let program = gateway_program();
    let folder = tempfile::tempdir().unwrap();
    let mut boards = Vec::new();
    for _ in 0..BOARDS {
        boards.push(Board::start().await);
    }
    let broker = mosquitto(folder.path()).await;
    let (mut events, address) = (centre(broker.port).await, broker.port);
    let gateway = gateway(&program, folder.path(), &boards, address);
    let pid = gateway.0.id();
    wait(&mut events, Lane::Routine).await;
    sleep(Duration::from_secs(5)).await;

    let before = cpu(pid);
    sleep(QUIET).await;
    let used = cpu(pid) - before;
    let percent = 100.0 * used / QUIET.as_secs_f64();
    println!("a quiet home of {BOARDS} boards, one polled every 20 ms, watched for {} s", QUIET.as_secs());
    println!("  CPU  {percent:.2} % of a core");
    println!("  RSS  {:.1} MiB", rss(pid));

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
    tell(took);
    println!("  RSS  {:.1} MiB", rss(pid));
    println!(
        "and what a call waits for besides: 512 bytes written and synced by this program, on the same disk meanwhile"
    );
    tell(syncs);
}

fn tell(mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "small"
        )]
        let index = ((took.len() - 1) as f64 * share) as usize;
        took.get(index).unwrap().as_secs_f64() * 1e3
    };
    println!("  p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", at(0.5), at(0.9), at(0.99), at(1.0));
}

/// An input board; its first input is the call button.
#[derive(Clone)]
struct Board {
    address: std::net::SocketAddr,
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

fn gateway(program: &Path, folder: &Path, boards: &[Board], broker: u16) -> Process {
    let (config, home) = (folder.join("gateway.toml"), folder.join("home.toml"));
    let spool = folder.join("spool");
    std::fs::write(
        &config,
        format!(
            "[broker]\nurl = \"mqtt://127.0.0.1:{broker}\"\n[spool]\ndirectory = {:?}\n",
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
