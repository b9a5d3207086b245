//! Against a real broker on loopback: what is sent is told, committed and receipted.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use carebed_contract::clock::SystemClock;
use carebed_contract::digest::Digest;
use carebed_contract::labels::{Epoch, Labels};
use carebed_contract::receipt::Receipt;
use carebed_contract::time::Timestamp;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, MqttOptions};
use tokio::time::timeout;

use super::*;

/// Far beyond what anything here takes; a test that hangs ends.
const LIMIT: Duration = Duration::from_secs(12);

/// A broker on a thread of its own. It cannot be stopped, so it ends with the test program.
fn broker() -> u16 {
    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let connections = rumqttd::ConnectionSettings {
        connection_timeout_ms: 5_000,
        max_payload_size: 6 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = rumqttd::ServerSettings {
        name: "test".into(),
        listen: SocketAddr::from(([127, 0, 0, 1], free.port())),
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    let config = rumqttd::Config {
        router: rumqttd::RouterConfig {
            max_connections: 100,
            max_outgoing_packet_count: 200,
            max_segment_size: 10 << 20,
            max_segment_count: 4,
            ..Default::default()
        },
        v5: Some(HashMap::from([("test".to_owned(), server)])),
        ..Default::default()
    };
    std::thread::spawn(move || {
        let _runs_until_the_end = rumqttd::Broker::new(config).start();
    });
    free.port()
}

/// A gateway's end of the wire.
struct Gateway {
    client: AsyncClient,
    incoming: mpsc::UnboundedReceiver<Publish>,
}

fn topic(channel: Channel) -> Topic {
    Topic::new("360702".parse().unwrap(), "gw-1".parse().unwrap(), channel)
}

async fn gateway(port: u16) -> Gateway {
    let mut options = MqttOptions::new("gw-1", "127.0.0.1", port);
    options.set_max_packet_size(Some(PACKET));
    let (client, mut polling) = AsyncClient::new(options, 16);
    let (publishes, incoming) = mpsc::unbounded_channel();
    let (ready, is_ready) = tokio::sync::oneshot::channel::<()>();
    let mut ready = Some(ready);
    let subscriber = client.clone();
    tokio::spawn(async move {
        loop {
            match polling.poll().await {
                Ok(rumqttc::v5::Event::Incoming(Packet::ConnAck(_))) => {
                    for channel in [Channel::Receipt, Channel::Command] {
                        subscriber.try_subscribe(topic(channel).to_string(), QoS::AtLeastOnce).unwrap();
                    }
                }
                Ok(rumqttc::v5::Event::Incoming(Packet::SubAck(_))) => drop(ready.take()),
                Ok(rumqttc::v5::Event::Incoming(Packet::Publish(publish))) => {
                    if publishes.send(publish).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                // The broker's thread may still be on its way to its port.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let _subscribed = timeout(LIMIT, is_ready).await.unwrap();
    Gateway { client, incoming }
}

const PACKET: u32 = 5 << 20;
const CALL: &[u8] = br#"[{"n":"h1/b1/call-1/call_button","vb":true}]"#;

impl Gateway {
    async fn send(&self, labels: &Labels) {
        let properties = PublishProperties {
            correlation_data: Some(Bytes::from(labels.encode())),
            content_type: Some("application/senml+json".to_owned()),
            ..PublishProperties::default()
        };
        let to = topic(Channel::Batch(labels.lane)).to_string();
        self.client.publish_with_properties(to, QoS::AtLeastOnce, false, CALL, properties).await.unwrap();
    }

    async fn next(&mut self) -> Publish {
        timeout(LIMIT, self.incoming.recv()).await.expect("nothing came").unwrap()
    }

    /// Sends until a receipt comes: the centre may not have subscribed yet, and a spool sends again too.
    async fn receipted(&mut self, labels: &Labels) -> Receipt {
        for _ in 0..100 {
            self.send(labels).await;
            if let Ok(Some(publish)) = timeout(Duration::from_millis(300), self.incoming.recv()).await {
                return Receipt::decode(&publish.payload).unwrap();
            }
        }
        panic!("no receipt came");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_on_the_wire_is_told_committed_and_receipted_and_a_command_goes_back() {
    let lake = tempfile::tempdir().unwrap();
    let store = Store::open(crate::store::Config::local(lake.path()).unwrap()).await.unwrap();
    let port = broker();
    let (urgent, mut told) = mpsc::channel(64);
    // Nobody takes what gateways say of themselves: calls go by all the same.
    let (signs, mut untaken) = mpsc::channel(1);
    let (routine, mut told_later) = mpsc::channel(64);
    let events = Events { urgent, signs, routine };
    let (command, commands) = mpsc::channel(4);
    let shutdown = Shutdown::new();
    let config = Config { commit_every: Duration::from_millis(100), ..Config::new("127.0.0.1", port) };
    let clock = Arc::new(SystemClock::new());
    let running = tokio::spawn(run(config, store.clone(), events, commands, clock, shutdown.clone()));

    let mut gateway = gateway(port).await;
    // As after an outage: last wills of many homes, more than all queues on their way hold.
    for n in 0..1_000 {
        let lost = format!(r#"{{"state":"lost","since":0,"home":"h{n}","software":""}}"#);
        let to = Topic::new("360702".parse().unwrap(), format!("gw-{n}").parse().unwrap(), Channel::Status);
        gateway.client.publish(to.to_string(), QoS::AtLeastOnce, true, lost).await.unwrap();
    }
    let epoch = Epoch::random();
    let labels = |lane, seq, prev| Labels::of(epoch, lane, seq, prev);
    let first = labels(Lane::Urgent, 0, Digest::ORIGIN);
    let receipt = gateway.receipted(&first).await;
    let digest = Digest::of_batch(epoch, Lane::Urgent, 0, Digest::ORIGIN, "application/senml+json", CALL);
    assert_eq!((receipt.epoch, receipt.lane, receipt.next, receipt.digest), (epoch, Lane::Urgent, 1, digest));
    let event = timeout(LIMIT, told.recv()).await.unwrap().unwrap();
    assert!(matches!(&event, Event::Accepted { rows, .. } if rows.len() == 1), "{event:?}");

    let receipt = gateway.receipted(&labels(Lane::Routine, 0, Digest::ORIGIN)).await;
    // It may be a late repetition of the first one's.
    assert_eq!(receipt.next, 1);
    let event = timeout(LIMIT, told_later.recv()).await.unwrap().unwrap();
    assert!(matches!(&event, Event::Accepted { rows, .. } if rows.len() == 1), "{event:?}");

    let lamp = Command {
        id: "c-1".into(),
        device: "lamp-1".parse().unwrap(),
        action: "set".into(),
        value: true.into(),
        expires_at: Timestamp::MAX,
    };
    command.send((topic(Channel::Command), lamp.clone())).await.unwrap();
    let came = loop {
        let publish = gateway.next().await;
        if publish.topic == topic(Channel::Command).to_string() {
            break serde_json::from_slice::<Command>(&publish.payload).unwrap();
        }
    };
    assert_eq!(came, lamp);

    tokio::spawn(async move { while untaken.recv().await.is_some() {} });
    shutdown.cancel();
    timeout(LIMIT, running).await.unwrap().unwrap().unwrap();
    let rows: u64 = store.view().observations.files.iter().filter_map(|file| file.rows).sum();
    assert_eq!(rows, 2, "each batch once, however often it was sent");
}

/// Every so many messages it is looked for something else; none is lost there.
#[tokio::test]
async fn whatever_is_taken_off_a_queue_is_taken_in() {
    let lake = tempfile::tempdir().unwrap();
    let store = Store::open(crate::store::Config::local(lake.path()).unwrap()).await.unwrap();
    let ((_, urgent), (_, signs)) = (mpsc::channel(1), mpsc::channel(1));
    let (waiting, routine) = mpsc::channel(QUEUE_MAX);
    let (events, _told) = mpsc::channel(1);
    let feed = || Feed::new(events.clone());
    let mut ingesting = Loop {
        commit_every: LIMIT,
        ingest: Ingest::new(store).await.unwrap(),
        urgent,
        signs,
        routine,
        rows_early: usize::MAX,
        calls: feed(),
        news: feed(),
        rest: feed(),
        clock: Arc::new(SystemClock::new()),
        outbox: Arc::default(),
    };
    let (json, mut prev) = ("application/senml+json", Digest::ORIGIN);
    let n = 3 * DRAIN_MAX;
    for seq in 0..n as u64 {
        let labels = Labels::of(Epoch::new(1), Lane::Routine, seq, prev);
        prev = Digest::of_batch(labels.epoch, labels.lane, seq, prev, json, CALL);
        let to = topic(Channel::Batch(Lane::Routine));
        waiting.try_send(Message::read(to, Some(&labels.encode()), json.to_owned(), Bytes::from(CALL))).unwrap();
    }
    while let Ok(message) = ingesting.routine.try_recv() {
        ingesting.take(message);
    }
    assert_eq!(ingesting.ingest.rows(), n);
}

/// After an outage receipts wait for more homes than the client takes requests. There is room to subscribe all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_subscribes_before_it_sends_what_waits() {
    let outbox = Arc::new(Outbox::default());
    let receipt = Receipt {
        epoch: Epoch::new(1),
        lane: Lane::Routine,
        next: 1,
        digest: Digest::ORIGIN,
        centre_time: Timestamp::from_millis(1),
    };
    outbox.put((0..5_000).map(|home| {
        let gateway = format!("gw-{home}").parse().unwrap();
        (Topic { gateway, ..topic(Channel::Receipt) }, receipt)
    }));
    let (_commands, commands) = mpsc::channel(1);
    let (taken, mut queue) = intake(Memory::new(1 << 20));
    let port = broker();
    let wire = Shutdown::new();
    let connection = Connection {
        host: "127.0.0.1".to_owned(),
        port,
        client_id: "centre".to_owned(),
        security: Security::default(),
        clock: Arc::new(SystemClock::new()),
        filters: filters(&[], &[Channel::Batch(Lane::Urgent)]),
        shutdown: wire.clone(),
    };
    let wired = tokio::spawn(connection.run(taken, Some((outbox, commands))));

    let gateway = gateway(port).await;
    let labels = Labels::of(Epoch::new(1), Lane::Urgent, 0, Digest::ORIGIN);
    let heard = async {
        loop {
            gateway.send(&labels).await;
            if let Ok(message) = timeout(Duration::from_millis(300), queue.recv()).await {
                break message;
            }
        }
    };
    let message = timeout(LIMIT, heard).await.expect("it never subscribes").unwrap();
    assert_eq!(message.topic, topic(Channel::Batch(Lane::Urgent)));
    wire.cancel();
    wired.await.unwrap();
}
