//! A broker that is in the home already, with a password, as installers meet it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail where an assumption does")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod bench;
#[path = "../../tests/src/real.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest of it")]
mod real;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bench::Bench;
use carebed_contract::security::Security;
use carebed_gateway::config::{Broker, Config};
use carebed_gateway::link::LocalBroker;
use rumqttc::{AsyncClient, MqttOptions, QoS};

const DOOR: &str = "[[device]]\nid = \"door-1\"\nprofile = \"zigbee2mqtt/aqara-door\"\nlink = \"mqtt\"\naddress = \"front\"\n\
                    [device.inputs.door_open]\nroom = \"bedroom\"\n";

struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Also: without the password the devices stay silent, and why is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_a_password_is_used() {
    let Some(mosquitto) = real::program(&["mosquitto"], "mosquitto") else { return };
    let Some(passwords) = real::program(&["mosquitto_passwd"], "mosquitto") else { return };
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = |name: &str| folder.path().join(name);
    let made = Command::new(passwords).args(["-b", "-c"]).arg(file("users")).args(["home", "sesame"]).status().unwrap();
    assert!(made.success());
    let users = file("users").display().to_string();
    let config = format!("listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\nuser root\n");
    std::fs::write(file("mosquitto.conf"), config).unwrap();
    std::fs::write(file("password"), "sesame\n").unwrap();
    let mut command = Command::new(mosquitto);
    command.arg("-c").arg(file("mosquitto.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _broker = Ends(command.spawn().unwrap());

    let mut options = MqttOptions::new("bridge", "127.0.0.1", port);
    options.set_credentials("home", "sesame");
    let (client, mut events) = AsyncClient::new(options, 16);
    tokio::spawn(async move {
        loop {
            if events.poll().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let speaking = async {
        loop {
            let said =
                client.publish("zigbee2mqtt/front", QoS::AtLeastOnce, false, "{\"contact\":false,\"battery\":90}");
            said.await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let login = Some(("home".to_owned(), file("password")));
    let security = Security { login, ..Security::default() };
    let with = LocalBroker::At(Broker { security, ..Broker::plain("127.0.0.1", port) });
    let mut known = Bench::start(DOOR, &with);
    let mut unknown = Bench::start(DOOR, &LocalBroker::At(Broker::plain("127.0.0.1", port)));
    tokio::select! {
        () = speaking => {}
        _ = known.hears(&["door-1 door_open 1 good"]) => {}
        _ = unknown.hears(&["door-1 door_open 1 good"]) => panic!("let in without a password"),
    }
}

#[test]
fn it_is_named_like_the_centre_s_and_held_to_the_same() {
    let config = |devices: &str| {
        let text = format!("[broker]\nurl = \"mqtt://127.0.0.1\"\n[spool]\ndirectory = \"s\"\n[devices]\n{devices}\n");
        Config::parse("gateway.toml", &text)
    };
    let read = config("broker = \"mqtt://localhost\"\nuser = \"home\"\npassword_file = \"pw\"").unwrap();
    let LocalBroker::At(broker) = read.devices_broker else { panic!("{:?}", read.devices_broker) };
    assert_eq!((broker.host.as_str(), broker.port), ("localhost", 1883));
    assert_eq!(broker.security.login, Some(("home".to_owned(), "pw".into())));
    let mistakes = config("broker = \"mqtt://192.0.2.7\"").unwrap_err().to_string();
    assert!(mistakes.contains("192.0.2.7 is another machine"), "{mistakes}");
}
