//! How a centre starts: without a broker of its operator's it starts its own, and keeps it; without its lake it does not start.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking and says what it saw")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use carebed::broker::free_port;
use carebed_tests::process::{Program, until};
use carebed_tests::world::PATIENCE;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions};

/// What a subscriber gets of its own message, or why it gets nothing.
async fn round_trip(client: &AsyncClient, connection: &mut EventLoop) -> Result<(), ConnectionError> {
    client.subscribe("there/and/back", QoS::AtLeastOnce).await.unwrap();
    loop {
        match connection.poll().await? {
            Event::Incoming(Packet::SubAck(_)) => {
                client.publish("there/and/back", QoS::AtLeastOnce, false, "a call").await.unwrap();
            }
            Event::Incoming(Packet::Publish(_)) => return Ok(()),
            _ => {}
        }
    }
}

fn connection(broker: SocketAddr) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new("somebody", broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(5));
    AsyncClient::new(options, 10)
}

/// The processes that a program has started.
fn children(id: u32) -> Vec<u32> {
    let of_thread = |path: std::path::PathBuf| std::fs::read_to_string(path.join("children")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap().map(|thread| thread.unwrap().path());
    threads
        .flat_map(|thread| of_thread(thread).split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// A centre whose data are in `folder`, with this broker, and where its page is.
fn centre(folder: &Path, broker: &str) -> (Program, String) {
    let console = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let (config, data) = (folder.join("carebed.toml"), folder.join("data"));
    let text = format!("data = {data:?}\n[broker]\n{broker}\n[console]\nlisten = \"{console}\"\n");
    std::fs::write(&config, text).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_centre-under-test"));
    let arguments = ["serve", "--config", &config.to_string_lossy()];
    (Program::new(program, &arguments, &folder.join("centre.log")), format!("http://{console}/"))
}

async fn opens(page: &str, centre: &Program) {
    let open = || async { reqwest::get(page).await.ok().filter(|answer| answer.status().is_success()) };
    until(PATIENCE, open).await.unwrap_or_else(|| panic!("the page does not answer: {}", centre.said()));
}

/// The disk of a lake was not mounted: a new lake would know nothing of what gateways have sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_is_gone_is_begun_anew_only_when_somebody_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (mut centre, page) = centre(folder.path(), "address = \"127.0.0.1:1\"");
    centre.start(None).unwrap();
    opens(&page, &centre).await;
    centre.kill().await;
    let (lake, elsewhere) = (folder.path().join("data/lake"), folder.path().join("elsewhere"));
    std::fs::rename(&lake, &elsewhere).unwrap();
    std::fs::create_dir(&lake).unwrap();

    centre.start(None).unwrap();
    let ended = centre.ended(PATIENCE).await;
    assert_eq!(ended.and_then(|status| status.code()), Some(1), "{}", centre.said());
    assert!(centre.said().contains("is empty") && centre.said().contains("remove"), "{}", centre.said());

    std::fs::remove_dir_all(&lake).unwrap();
    std::fs::rename(&elsewhere, &lake).unwrap();
    centre.start(None).unwrap();
    opens(&page, &centre).await;
    centre.kill().await;

    std::fs::remove_dir_all(&lake).unwrap();
    std::fs::remove_file(folder.path().join("data/lake.begun")).unwrap();
    centre.start(None).unwrap();
    opens(&page, &centre).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_broker_stays_and_is_started_again_when_it_dies() {
    let folder = tempfile::tempdir().unwrap();
    let broker = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let (mut centre, page) = centre(folder.path(), &format!("listen = \"{broker}\""));
    centre.start(None).unwrap();
    opens(&page, &centre).await;

    let (client, mut events) = connection(broker);
    let answered = tokio::time::timeout(PATIENCE, round_trip(&client, &mut events)).await;
    assert!(matches!(answered, Ok(Ok(()))), "{answered:?}: {}", centre.said());
    assert!(!centre.said().contains("is started again"), "{}", centre.said());

    let [child] = children(centre.id().unwrap())[..] else { panic!("one broker: {}", centre.said()) };
    let killed = std::process::Command::new("kill").args(["-9", &child.to_string()]).status().unwrap();
    assert!(killed.success());
    let again = until(PATIENCE, || async {
        let (client, mut events) = connection(broker);
        tokio::time::timeout(Duration::from_secs(5), round_trip(&client, &mut events)).await.ok()?.ok()
    });
    assert!(again.await.is_some(), "nobody started the broker again: {}", centre.said());
    assert_ne!(children(centre.id().unwrap()), [child]);
    assert!(centre.said().contains("is started again"), "{}", centre.said());
}
