//! The gateway beside collectd's Modbus plugin and thingsboard-gateway, on the same simulated bus:
//!
//! ```text
//! apt-get install collectd-core mosquitto
//! python3 -m venv VENV && VENV/bin/pip install thingsboard-gateway pymodbus==3.9.2 pyserial pyserial-asyncio
//! cargo build --release -p carebed-gateway && cargo run --release -p carebed-gateway --example peers -- VENV [seconds]
//! ```
//!
//! One Modbus TCP server with ten units of twenty floating point values, each of which is another one every time it is
//! read. Each program reads all of them once a second and publishes them with QoS 1 to the same mosquitto: 200 values a
//! second. Counted are the values that reached the broker. The programs run one after the other, twice round, so that a
//! machine that is busy with other things is busy for all of them; CPU seconds are those of the process and its threads.
//!
//! What they do with a value differs: collectd publishes one message for each and forgets it; thingsboard-gateway keeps
//! them in memory until the broker has them; carebed-gateway writes every batch to disk, and keeps it until the centre has
//! it. collectd and thingsboard-gateway read each value with a request of its own, carebed-gateway reads blocks.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends where an assumption does")]

#[expect(dead_code, reason = "the other measurement uses the rest of it")]
mod side;

use std::fmt::Write as _;
use std::future::{Ready, ready};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::v5::Event;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use serde_json::{Value, json};
use side::{Process, centre, client, cpu, gateway_program, mosquitto, rss};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_modbus::prelude::{ExceptionCode, Request, Response};
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};

const UNITS: u8 = 10;
const VALUES: u16 = 20;
/// Every program is left alone for so long after its start.
const WARM_UP: Duration = Duration::from_secs(20);
const ROUNDS: usize = 2;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let venv = PathBuf::from(arguments.next().expect("name the virtual environment of thingsboard-gateway"));
    let seconds = Duration::from_secs(arguments.next().map_or(60, |seconds| seconds.parse().unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let (bus, broker) = (Bus::start().await, mosquitto(folder.path()).await);
    let delivered = Arc::new(AtomicU64::new(0));
    listen(broker.port, &delivered).await;
    let ports = (bus.port, broker.port);
    println!("{UNITS} units of {VALUES} values over Modbus TCP, each read once a second, for {} s", seconds.as_secs());
    println!("{:<42} {:>10} {:>10} {:>16} {:>8}", "", "requests", "values", "CPU s/10⁶ values", "RSS MiB");
    for _ in 0..ROUNDS {
        for program in [Program::Ours, Program::Collectd, Program::Thingsboard] {
            let folder = tempfile::tempdir_in(folder.path()).unwrap();
            let process = program.start(folder.path(), &venv, ports);
            sleep(WARM_UP).await;
            let counts =
                || (cpu(process.0.id()), bus.requests.load(Ordering::Relaxed), delivered.load(Ordering::Relaxed));
            let before = counts();
            sleep(seconds).await;
            let after = counts();
            let (requests, values) = (after.1 - before.1, after.2 - before.2);
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let cost = (after.0 - before.0) * 1e6 / values as f64;
            let name = program.version(&venv);
            println!("{name:<42} {requests:>10} {values:>10} {cost:>16.0} {:>8.1}", rss(process.0.id()));
        }
    }
}

#[derive(Clone, Copy)]
enum Program {
    Ours,
    Collectd,
    Thingsboard,
}

impl Program {
    fn version(self, venv: &Path) -> String {
        let said = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let line = |text: String, word: &str| {
            text.lines().find(|line| line.contains(word)).map(|line| line.trim().to_owned()).unwrap_or_default()
        };
        match self {
            Self::Ours => line(said(&gateway_program(), &["--version"]), "carebed"),
            Self::Collectd => {
                let version = line(said(Path::new("/usr/sbin/collectd"), &["-h"]), "://");
                version.split(',').next().unwrap_or_default().to_owned()
            }
            Self::Thingsboard => {
                let version = said(&venv.join("bin/pip"), &["show", "thingsboard-gateway"]);
                line(version, "Version").replace("Version:", "thingsboard-gateway")
            }
        }
    }

    fn start(self, folder: &Path, venv: &Path, (bus, broker): (u16, u16)) -> Process {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut command = match self {
            Self::Ours => {
                write("meter/profile.toml", profile());
                let spool = folder.join("spool").display().to_string();
                let config = format!("[broker]\nurl = \"mqtt://127.0.0.1:{broker}\"\n[spool]\ndirectory = {spool:?}\n");
                let (config, home) = (write("gateway.toml", config), write("home.toml", home(bus)));
                let mut command = Command::new(gateway_program());
                command.arg("run").arg("--config").arg(config).arg("--home").arg(home).env("CAREBED_LOG", "warn");
                command
            }
            Self::Collectd => {
                let config = write("collectd.conf", collectd(folder, bus, broker));
                let mut command = Command::new("/usr/sbin/collectd");
                command.arg("-f").arg("-C").arg(config);
                command
            }
            Self::Thingsboard => {
                write("config/tb_gateway.json", thingsboard(broker).to_string());
                write("config/modbus.json", thingsboard_bus(bus).to_string());
                std::fs::create_dir(folder.join("logs")).unwrap();
                let shipped = Command::new(venv.join("bin/python"))
                    .args(["-c", "import thingsboard_gateway as t; print(t.__path__[0])"])
                    .output()
                    .unwrap();
                let shipped = PathBuf::from(String::from_utf8(shipped.stdout).unwrap().trim()).join("config/logs.json");
                std::fs::copy(shipped, folder.join("config/logs.json")).unwrap();
                let mut command = Command::new(venv.join("bin/python"));
                command.args(["-c", "from thingsboard_gateway.tb_gateway import main; main()"]).current_dir(folder);
                command.env("TB_GW_CONFIG_DIR", format!("{}/", folder.join("config").display()));
                command
            }
        };
        Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

/// A device of its own, beside the home file: every value is told each time it is read, since it is another one.
fn profile() -> String {
    let mut text = format!(
        "[identification]\nvendor = \"bench\"\nmodel = \"meter\"\ntitle = {{ zh = \"仪表\", en = \"meter\" }}\nsource = \"bench\"\n\
         confidence = \"C\"\ntested_on_hardware = false\n[link]\nkinds = [\"modbus_tcp\"]\nunit = 1\n[report]\n\
         [[poll]]\nname = \"all\"\nfunction = \"read_input_registers\"\naddress = 0\ncount = {}\nevery = \"1s\"\n",
        2 * VALUES
    );
    for value in 0..VALUES {
        let register = 2 * value;
        let _whole = write!(text, "[input.v{value}]\npoll = \"all\"\nregister = {register}\ntype = \"f32\"\n");
    }
    text
}

fn home(bus: u16) -> String {
    let mut text =
        "[home]\nid = \"h1\"\narea = \"360702\"\n[gateway]\nid = \"g1\"\n[[room]]\nid = \"hall\"\n".to_owned();
    for unit in 1..=UNITS {
        let _whole = write!(
            text,
            "[[device]]\nid = \"meter-{unit}\"\nprofile = \"./meter\"\nlink = \"tcp://127.0.0.1:{bus}\"\nunit = {unit}\n"
        );
        for value in 0..VALUES {
            let _whole = write!(
                text,
                "[device.inputs.v{value}]\ndevice = \"m{unit}-{value}\"\nquantity = \"power\"\nroom = \"hall\"\n"
            );
        }
    }
    text
}

fn collectd(folder: &Path, bus: u16, broker: u16) -> String {
    let folder = folder.display();
    let mut text = format!(
        "Hostname \"bench\"\nFQDNLookup false\nBaseDir \"{folder}\"\nPIDFile \"{folder}/pid\"\nPluginDir \"/usr/lib/collectd\"\n\
         TypesDB \"/usr/share/collectd/types.db\"\nInterval 1\nLoadPlugin modbus\nLoadPlugin mqtt\n\
         <Plugin mqtt>\n<Publish \"b\">\nHost \"127.0.0.1\"\nPort {broker}\nPrefix \"collectd\"\nQoS 1\n</Publish>\n</Plugin>\n\
         <Plugin modbus>\n"
    );
    for value in 0..VALUES {
        let _whole = write!(
            text,
            "<Data \"v{value}\">\nRegisterBase {}\nRegisterType Float\nRegisterCmd ReadInput\nType gauge\nInstance \"v{value}\"\n</Data>\n",
            2 * value
        );
    }
    let _whole = write!(text, "<Host \"bus\">\nAddress \"127.0.0.1\"\nPort {bus}\nInterval 1\n");
    for unit in 1..=UNITS {
        let _whole = write!(text, "<Slave {unit}>\nInstance \"u{unit}\"\n");
        for value in 0..VALUES {
            let _whole = writeln!(text, "Collect \"v{value}\"");
        }
        text.push_str("</Slave>\n");
    }
    text + "</Host>\n</Plugin>\n"
}

fn thingsboard(broker: u16) -> Value {
    json!({
        "thingsboard": {
            "host": "127.0.0.1", "port": broker, "remoteShell": false, "remoteConfiguration": false,
            "statistics": { "enable": false }, "deviceFiltering": { "enable": false }, "qos": 1,
            "checkConnectorsConfigurationInSeconds": 3600,
            "security": { "type": "accessToken", "accessToken": "bench" },
            "reportStrategy": { "type": "ON_RECEIVED" }
        },
        "storage": { "type": "memory", "read_records_count": 100, "max_records_count": 100_000 },
        "grpc": { "enabled": false },
        "connectors": [{ "name": "bus", "type": "modbus", "configuration": "modbus.json" }]
    })
}

fn thingsboard_bus(bus: u16) -> Value {
    let values: Vec<Value> = (0..VALUES)
        .map(|value| {
            json!({ "tag": format!("v{value}"), "type": "32float", "functionCode": 4, "objectsCount": 2, "address": 2 * value })
        })
        .collect();
    let units: Vec<Value> = (1..=UNITS)
        .map(|unit| {
            json!({
                "host": "127.0.0.1", "port": bus, "type": "tcp", "method": "socket", "unitId": unit,
                "deviceName": format!("meter-{unit}"), "deviceType": "default", "timeout": 5, "byteOrder": "BIG",
                "wordOrder": "BIG", "retries": 1, "pollPeriod": 1000, "connectAttemptTimeMs": 1000,
                "connectAttemptCount": 5, "waitAfterFailedAttemptsMs": 1000,
                "attributes": [], "timeseries": values, "attributeUpdates": [], "rpc": []
            })
        })
        .collect();
    json!({ "logLevel": "ERROR", "name": "bus", "master": { "slaves": units } })
}

/// The devices: input registers hold floating point numbers that grow with every read.
#[derive(Clone)]
struct Bus {
    port: u16,
    requests: Arc<AtomicU64>,
}

impl tokio_modbus::server::Service for Bus {
    type Request = Request<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        let Request::ReadInputRegisters(_, count) = request else {
            return ready(Err(ExceptionCode::IllegalFunction));
        };
        let n_read = self.requests.fetch_add(1, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "any number will do")]
        let value = ((n_read % 100_000) as f32 * 0.25).to_be_bytes();
        let words = [u16::from_be_bytes([value[0], value[1]]), u16::from_be_bytes([value[2], value[3]])];
        ready(Ok(Response::ReadInputRegisters(words.into_iter().cycle().take(count.into()).collect())))
    }
}

impl Bus {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bus = Self { port: listener.local_addr().unwrap().port(), requests: Arc::default() };
        let service = bus.clone();
        tokio::spawn(async move {
            let accept = |stream: tokio::net::TcpStream, address| {
                let service = service.clone();
                let _slower_otherwise = stream.set_nodelay(true);
                async move { accept_tcp_connection(stream, address, move |_| Ok(Some(service.clone()))) }
            };
            Server::new(listener).serve(&accept, drop).await
        });
        bus
    }
}

/// Counts the values that reach the broker, of whatever program, and says to each what its server would say.
async fn listen(broker: u16, delivered: &Arc<AtomicU64>) {
    let (mut batches, ours) = (centre(broker).await, Arc::clone(delivered));
    tokio::spawn(async move {
        while let Some(batch) = batches.recv().await {
            ours.fetch_add(batch.n_records as u64, Ordering::Relaxed);
        }
    });
    let (client, mut events) = client("listener", broker);
    for topic in ["collectd/#", "v1/gateway/telemetry", "v1/devices/me/rpc/request/+"] {
        client.try_subscribe(topic, QoS::AtLeastOnce).unwrap();
    }
    let theirs = Arc::clone(delivered);
    tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            let Event::Incoming(Packet::Publish(publish)) = event else { continue };
            let topic = String::from_utf8_lossy(&publish.topic).into_owned();
            if let Some(id) = topic.strip_prefix("v1/devices/me/rpc/request/") {
                // Without this answer thingsboard-gateway publishes nothing.
                let none = json!({ "messages": "", "telemetryMessages": "", "telemetryDataPoints": "" });
                let limits = json!({ "maxPayloadSize": 65_536, "maxInflightMessages": 0, "rateLimits": none, "gatewayRateLimits": none });
                let answer = format!("v1/devices/me/rpc/response/{id}");
                client.try_publish(answer, QoS::AtLeastOnce, false, limits.to_string()).unwrap();
                continue;
            }
            let n_values = if topic.starts_with("collectd/") { 1 } else { telemetry(&publish.payload) };
            theirs.fetch_add(n_values, Ordering::Relaxed);
        }
    });
}

/// How many values a telemetry message holds: `{device: [{ts, values: {…}}, …]}`.
fn telemetry(payload: &[u8]) -> u64 {
    let message: Value = serde_json::from_slice(payload).unwrap_or_default();
    let devices = message.as_object().into_iter().flat_map(|devices| devices.values());
    let rows = devices.filter_map(Value::as_array).flatten();
    rows.filter_map(|row| row.get("values").and_then(Value::as_object)).map(|values| values.len() as u64).sum()
}
