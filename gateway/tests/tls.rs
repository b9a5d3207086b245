//! The connection to a real broker over TLS, with the shipped configuration of mosquitto and the shipped issuer of
//! certificates; and from a box that does not know what time it is.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail where an assumption does")]

#[path = "../../tests/src/real.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest of it")]
mod real;
#[expect(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock, ManualClock};
use carebed_contract::security::Security;
use carebed_contract::time::Timestamp;
use carebed_gateway::config::{Broker, Config};
use carebed_gateway::home::HomeFile;
use carebed_gateway::uplink::mqtt::probe;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use rumqttc::{TlsConfiguration, Transport};
use support::Board;
use tempfile::TempDir;

/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(15);
/// Long before every certificate.
const BOOT_IN_1970: Timestamp = Timestamp::from_millis(7_000);
/// 2055-01-01: long after every certificate, also the authority's.
const FAR_AHEAD: Timestamp = Timestamp::from_millis(2_682_374_400_000);

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

/// Mosquitto as shipped, on a port of its own and with certificates of its own.
struct Secured {
    folder: TempDir,
    port: u16,
    mosquitto: Child,
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _gone = self.mosquitto.kill();
        let _reaped = self.mosquitto.wait();
    }
}

impl Secured {
    async fn start() -> Option<Self> {
        let mosquitto = real::program(&["mosquitto"], "mosquitto")?;
        real::program(&["openssl"], "openssl")?;
        let folder = tempfile::tempdir().unwrap();
        let tls = folder.path().join("tls");
        issue(&tls, &["authority"]);
        issue(&tls, &["broker", "localhost", "127.0.0.1"]);
        issue(&tls, &["centre"]);
        issue(&tls, &["gateway", "360702", "gw-h1"]);
        issue(&tls, &["gateway", "360702", "gw-other"]);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = std::fs::read_to_string(shipped("mosquitto/mosquitto.conf")).unwrap();
        let config = config
            .replace("listener 8883", &format!("listener {port} 127.0.0.1"))
            .replace("/etc/mosquitto/tls", &tls.display().to_string())
            .replace("/etc/mosquitto/acl", &shipped("mosquitto/acl").display().to_string())
            .replace("log_dest syslog", "log_dest stderr");
        // Mosquitto drops to this user and would not read what belongs to root alone.
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(&file, format!("{config}\nuser root\n")).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mosquitto = Command::new(mosquitto).arg("-c").arg(&file).stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let secured = Self { folder, port, mosquitto };
        let answers = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.expect("mosquitto does not answer");
        Some(secured)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("tls").join(name)
    }

    fn broker(&self, who: &str) -> Broker {
        let identity = Some((self.file(&format!("{who}.pem")), self.file(&format!("{who}.key"))));
        let security = Security { ca: Some(self.file("ca.pem")), identity, login: None };
        Broker { host: "127.0.0.1".to_owned(), port: self.port, security }
    }
}

fn issue(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new(shipped("tls/issue"));
    let done = command.arg(folder).args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn clock(now: Timestamp, word: bool) -> Arc<dyn Clock> {
    let clock = ManualClock::new(now);
    clock.synchronise(Some(word));
    Arc::new(clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_connect_and_when() {
    let Some(secured) = Secured::start().await else { return };
    let good = secured.broker("gw-h1");
    let now = carebed_contract::clock::SystemClock::new().now();
    let try_it = async |broker: &Broker, clock: Arc<dyn Clock>| {
        let told = probe(broker, &clock, Timestamp::MIN).await;
        told.map_err(|error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        })
    };
    assert_eq!(try_it(&good, clock(now, true)).await, Ok(()));
    assert_eq!(try_it(&good, clock(BOOT_IN_1970, false)).await, Ok(()), "a box in 1970 that knows it does not know");
    let expired = try_it(&good, clock(FAR_AHEAD, true)).await.unwrap_err();
    assert!(expired.to_lowercase().contains("expired"), "{expired}");
    let early = try_it(&good, clock(BOOT_IN_1970, true)).await.unwrap_err();
    assert!(early.to_lowercase().contains("not valid yet"), "{early}");

    let elsewhere = tempfile::tempdir().unwrap();
    issue(elsewhere.path(), &["authority"]);
    let mut foreign = good.clone();
    foreign.security.ca = Some(elsewhere.path().join("ca.pem"));
    let refused = try_it(&foreign, clock(now, true)).await.unwrap_err();
    // An authority of the same name and another key.
    assert!(refused.contains("BadSignature") || refused.contains("UnknownIssuer"), "{refused}");
    let mut nobody = good.clone();
    nobody.security.identity = None;
    assert!(try_it(&nobody, clock(now, true)).await.is_err(), "without a certificate of its own");
    let mut misnamed = good.clone();
    misnamed.host = "localhost.localdomain".to_owned();
    let _refused_or_unknown = try_it(&misnamed, clock(now, true)).await.unwrap_err();
}

/// Waits for what a client with this identity is sent on a topic.
async fn hear(broker: &Broker, topic: &str, want: impl Fn(&[u8]) -> bool + Sync + Send) {
    let clock: Arc<dyn Clock> = Arc::new(carebed_contract::clock::SystemClock::new());
    // This machine may have no time server, so the certificates are judged by now.
    let credentials = broker.security.load(Arc::clone(&clock), clock.now()).unwrap();
    let mut options = MqttOptions::new("listener", &broker.host, broker.port);
    options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(credentials.tls.unwrap())));
    let (client, mut eventloop) = AsyncClient::new(options, 8);
    client.try_subscribe(topic, QoS::AtLeastOnce).unwrap();
    let heard = async {
        loop {
            if let Event::Incoming(Packet::Publish(publish)) = eventloop.poll().await.unwrap()
                && want(&publish.payload)
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("nothing is heard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_in_1970_reaches_its_centre_and_nobody_speaks_for_another() {
    let Some(secured) = Secured::start().await else { return };
    let board = Board::start().await;
    let start = |who: &str, spool: &TempDir| {
        let text = include_str!("../../deploy/gateway/home.toml");
        let text = text.replace("192.168.1.50:502", &board.address.to_string());
        let home = HomeFile::parse("home.toml", &text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let shutdown = Shutdown::new();
        let config = Config::new(secured.broker(who), spool.path().to_owned());
        tokio::spawn(carebed_gateway::run(config, home, clock(BOOT_IN_1970, false), shutdown.clone()));
        shutdown
    };
    let status = "carebed/v1/360702/gw-h1/status";
    let centre = secured.broker("centre");
    let is_online = |payload: &[u8]| String::from_utf8_lossy(payload).contains("\"online\"");
    // A box with another's certificate may connect, and may say nothing in the name of this gateway.
    let spools = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let impostor = start("gw-other", &spools[0]);
    let online = hear(&centre, status, is_online);
    let early = tokio::time::timeout(Duration::from_secs(2), online).await;
    assert!(early.is_err(), "it spoke for another");
    impostor.cancel();
    let own = start("gw-h1", &spools[1]);
    hear(&centre, status, is_online).await;
    own.cancel();
}
