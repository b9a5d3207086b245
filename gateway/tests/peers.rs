//! Programs that are not ours at the other end: servers by pymodbus and libmodbus, and mbpoll as a client of the simulator.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail where an assumption does")]

mod bench;
#[path = "../../tests/src/real.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest of it")]
mod real;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bench::{Bench, board_on, climate_on, no_broker, serial};
use carebed_gateway::link::Write;
use carebed_simulator::bus::line::PtyLine;
use carebed_simulator::bus::{Bus, Station};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;
use tokio_serial::{SerialPort as _, SerialStream};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers");

/// Two serial ports joined by a cable, at two paths.
struct Cable {
    ends: [PathBuf; 2],
    task: tokio::task::JoinHandle<()>,
}

impl Cable {
    fn new() -> Self {
        let (mut one, one_end) = SerialStream::pair().unwrap();
        let (mut two, two_end) = SerialStream::pair().unwrap();
        let ends = [&one_end, &two_end].map(|end| PathBuf::from(end.name().unwrap()));
        let task = tokio::spawn(async move {
            let _both = (one_end, two_end);
            let _ended = tokio::io::copy_bidirectional(&mut one, &mut two).await;
        });
        Self { ends, task }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a program and waits for the line by which it says that it serves.
async fn serve(program: &Path, arguments: &[&str]) -> (Child, String) {
    let mut command = tokio::process::Command::new(program);
    let mut child =
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    assert!(!line.is_empty(), "{} {arguments:?} said nothing", program.display());
    (child, line.trim().to_owned())
}

async fn asks_and_commands(link: &str, climate: bool) {
    let devices = if climate { [board_on(link, 1), climate_on(link, 2)].concat() } else { board_on(link, 1) };
    let mut bench = Bench::start(&devices, &no_broker());
    bench.hears(&["call-1 call_button 1 good"]).await;
    if climate {
        bench.hears(&["climate-2 temperature 21.5 good", "climate-2 humidity 48 good"]).await;
    }
    bench
        .links
        .write(Write { id: "w1".to_owned(), board: 0, output: 0, value: true, within: Duration::from_secs(5) })
        .unwrap();
    bench.hears(&["w1 done"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pymodbus_is_asked_over_every_link() {
    let Some(python) = real::python(&["pymodbus", "serial"]) else { return };
    let script = format!("{FOLDER}/server.py");
    for (mode, scheme) in [("tcp", "tcp"), ("rtu-tcp", "serial+tcp")] {
        let (_server, port) = serve(&python, &[&script, mode]).await;
        // The room sensor exists on serial lines only.
        asks_and_commands(&format!("{scheme}://127.0.0.1:{port}"), mode != "tcp").await;
    }
    let cable = Cable::new();
    let (_server, _) = serve(&python, &[&script, "rtu", &cable.ends[0].display().to_string()]).await;
    asks_and_commands(&serial(&cable.ends[1]), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libmodbus_is_asked_over_a_serial_line() {
    let Some(compiler) = real::program(&["cc", "gcc"], "gcc libmodbus-dev") else { return };
    if !Path::new("/usr/include/modbus/modbus.h").exists() {
        real::absent("libmodbus", "install the Debian package libmodbus-dev");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("server");
    let source = format!("{FOLDER}/server.c");
    let built =
        Command::new(compiler).args(["-o"]).arg(&program).args([&source, "-I/usr/include/modbus", "-lmodbus"]).status();
    assert!(built.unwrap().success());
    let cable = Cable::new();
    let (_server, _) = serve(&program, &[&cable.ends[0].display().to_string()]).await;
    asks_and_commands(&serial(&cable.ends[1]), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mbpoll_reads_the_simulated_bus() {
    let Some(mbpoll) = real::program(&["mbpoll"], "mbpoll") else { return };
    let folder = tempfile::tempdir().unwrap();
    let bus = Bus::new(vec![Station::climate(2, 30.5, 54.6)], 1);
    let line = PtyLine::plug(&folder.path().join("ttyBUS"), bus).unwrap();
    let mut command = tokio::process::Command::new(mbpoll);
    // Registers are counted from 1 there: -r 2 asks for address 1 on the wire.
    command.args(["-m", "rtu", "-a", "2", "-b", "9600", "-P", "none", "-t", "3", "-r", "2", "-c", "2", "-1"]);
    let output = command.arg(line.path()).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("305") && said.contains("546"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
