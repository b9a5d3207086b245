//! What measurements of a gateway need at its other side: a broker, a centre that gives receipts, and what a process costs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use carebed_contract::clock::{Clock as _, SystemClock};
use carebed_contract::digest::Digest;
use carebed_contract::labels::{Labels, Lane};
use carebed_contract::pack::Pack;
use carebed_contract::receipt::Receipt;
use carebed_contract::topic::{Channel, Topic};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// The release build of the gateway, beside this program.
pub(crate) fn gateway_program() -> PathBuf {
    let program = std::env::current_exe().unwrap().parent().unwrap().join("../carebed-gateway");
    assert!(program.is_file(), "{} is absent: cargo build --release -p carebed-gateway", program.display());
    program
}

/// A process that ends with this program.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// mosquitto on a free port of loopback.
pub(crate) struct Broker {
    pub(crate) port: u16,
    _process: Process,
}

pub(crate) async fn mosquitto(folder: &Path) -> Broker {
    let found = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto"].map(PathBuf::from).into_iter().find(|p| p.is_file());
    let program = found.expect("mosquitto is absent; install the Debian package mosquitto");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = folder.join("mosquitto.conf");
    std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"))
        .unwrap();
    let process = Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        sleep(Duration::from_millis(20)).await;
    }
    Broker { port, _process: Process(process) }
}

/// A batch of the gateway: its lane, and how many observations it held.
pub(crate) struct Batch {
    pub(crate) lane: Lane,
    pub(crate) n_records: usize,
}

/// The centre's side: hears batches and gives receipts.
pub(crate) async fn centre(port: u16) -> mpsc::UnboundedReceiver<Batch> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (client, mut eventloop) = client("centre", port);
    for lane in Lane::ALL {
        client.try_subscribe(Topic::filter(None, Channel::Batch(lane)), QoS::AtLeastOnce).unwrap();
    }
    tokio::spawn(async move {
        while let Ok(event) = eventloop.poll().await {
            let Event::Incoming(Packet::Publish(publish)) = event else { continue };
            let (answer, receipt, batch) = receive(publish);
            client.try_publish(answer, QoS::AtLeastOnce, false, receipt).unwrap();
            if sender.send(batch).is_err() {
                return;
            }
        }
    });
    receiver
}

pub(crate) fn client(name: &str, port: u16) -> (AsyncClient, rumqttc::v5::EventLoop) {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    let mut network = rumqttc::NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options.set_max_packet_size(Some(5 << 20));
    AsyncClient::new(options, 1_000)
}

fn receive(publish: Publish) -> (String, Vec<u8>, Batch) {
    let topic = Topic::parse(std::str::from_utf8(&publish.topic).unwrap()).unwrap();
    let properties = publish.properties.unwrap();
    let content_type = properties.content_type.unwrap();
    let labels = Labels::decode(&properties.correlation_data.unwrap()).unwrap();
    let Labels { epoch, lane, seq, prev, .. } = labels;
    let digest = Digest::of_batch(epoch, lane, seq, prev, &content_type, &publish.payload);
    let receipt = Receipt { epoch, lane, next: seq + 1, digest, centre_time: SystemClock::new().now() };
    let answer = Topic { channel: Channel::Receipt, ..topic };
    let n_records = Pack::decode(&content_type, &publish.payload).unwrap().records.len();
    (answer.to_string(), receipt.encode(), Batch { lane, n_records })
}

/// CPU seconds of a process so far.
pub(crate) fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u32 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    // USER_HZ is 100 on every Linux of the last decades.
    f64::from(ticks) / 100.0
}

/// Memory of a process, in MiB.
pub(crate) fn rss(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
