//! The MQTT connection: a pipe and nothing more.
//!
//! rumqttc forgets what it accepted when a connection breaks, and a client that was once confused stays so; therefore
//! every connection is a new client with a clean start, and only receipts count. Nothing here waits for the spool, and
//! nothing that publishes waits for the network.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::Clock;
use carebed_contract::command::Command;
use carebed_contract::id::{Area, GatewayId};
use carebed_contract::labels::{Labels, Lane};
use carebed_contract::pack::{BYTES_MAX, Sealed};
use carebed_contract::receipt::Receipt;
use carebed_contract::security::{Credentials, SecurityError};
use carebed_contract::time::Timestamp;
use carebed_contract::topic::{Channel, Topic};
use carebed_contract::{Shutdown, crash};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{LastWill, Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backoff::Backoff;
use crate::config::Broker;

/// A dead broker is noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Pauses between connections, shortest and longest.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// The longest pause while a call waits; a call that comes during a pause ends it within the shortest.
const RECONNECT_FOR_A_CALL: Duration = Duration::from_secs(3);
/// How long each step of a probe may take.
const PROBE: Duration = Duration::from_secs(5);
/// Requests the client may hold: two of the largest windows and what goes beside them. One more is not taken; it is tried again later.
const REQUESTS_MAX: usize = 2_200;
/// Messages under way to the broker: as many.
const INFLIGHT_MAX: u16 = 2_200;
/// Room for topic and properties beside the largest payload.
const PACKET_MAX: u32 = (5 << 20) - 1;
const _: () = assert!(BYTES_MAX + (64 << 10) < PACKET_MAX as usize);

/// What comes from the connection.
#[derive(Debug)]
pub enum UplinkEvent {
    /// A connection is there, receipts and commands are subscribed.
    Connected(Publisher),
    /// The connection is gone.
    Disconnected,
    /// The centre has something.
    Receipt(Receipt),
    /// The centre wants something.
    Command(Command),
}

/// Publishes on one connection, without ever waiting.
#[derive(Debug, Clone)]
pub struct Publisher {
    client: AsyncClient,
    place: Place,
    sent: mpsc::UnboundedSender<Option<Lane>>,
}

#[derive(Debug, Clone)]
struct Place {
    area: Area,
    gateway: GatewayId,
}

impl Place {
    fn topic(&self, channel: Channel) -> String {
        Topic::new(self.area.clone(), self.gateway.clone(), channel).to_string()
    }
}

impl Publisher {
    /// Publishes a batch under its labels; false when the connection takes no more for now.
    #[must_use]
    pub fn batch(&self, labels: &Labels, sealed: Sealed) -> bool {
        let properties = PublishProperties {
            correlation_data: Some(labels.encode().into()),
            content_type: Some(sealed.content_type.as_str().to_owned()),
            ..PublishProperties::default()
        };
        self.publish(Channel::Batch(labels.lane), false, sealed.bytes, properties, Some(labels.lane))
    }

    /// Publishes JSON; false when the connection takes no more for now.
    #[must_use]
    pub fn json(&self, channel: Channel, retain: bool, value: &impl JsonText) -> bool {
        let properties = PublishProperties {
            content_type: Some("application/json".to_owned()),
            payload_format_indicator: Some(1),
            ..PublishProperties::default()
        };
        self.publish(channel, retain, value.json(), properties, None)
    }

    /// Says goodbye: the broker then keeps the last will to itself.
    pub fn disconnect(&self) {
        // A full queue means a dead connection: the last will is right then.
        let _unheard = self.client.try_disconnect();
    }

    fn publish(
        &self,
        channel: Channel,
        retain: bool,
        payload: Vec<u8>,
        properties: PublishProperties,
        lane: Option<Lane>,
    ) -> bool {
        let topic = self.place.topic(channel);
        let taken = self.client.try_publish_with_properties(topic, QoS::AtLeastOnce, retain, payload, properties);
        if taken.is_ok() {
            // Bounded by the client's own queue: one for each request it took. The receiver goes with the connection.
            let _gone = self.sent.send(lane);
        }
        taken.is_ok()
    }
}

/// Something of the contract that travels as JSON.
pub trait JsonText {
    /// The bytes.
    fn json(&self) -> Vec<u8>;
}

macro_rules! json_text {
    ($($kind:path),*) => {$(
        impl JsonText for $kind {
            fn json(&self) -> Vec<u8> {
                serde_json::to_vec(self).expect("types of the contract have text keys only")
            }
        }
    )*};
}
json_text!(
    carebed_contract::status::Status,
    carebed_contract::inventory::Inventory,
    carebed_contract::command::CommandResult
);

/// Makes the payload of the last will.
pub type Will = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// How to connect to a broker. Certificates are read for every connection: renewed ones need no restart.
fn options(
    broker: &Broker,
    client: &str,
    clock: &Arc<dyn Clock>,
    floor: Timestamp,
) -> Result<MqttOptions, SecurityError> {
    let Credentials { tls, login } = broker.security.load(Arc::clone(clock), floor)?;
    let host = broker.host.trim_start_matches('[').trim_end_matches(']');
    let mut options = MqttOptions::new(client, host, broker.port);
    let mut network = NetworkOptions::new();
    // Without it Nagle's algorithm and delayed acknowledgements hold small messages back for 40 ms.
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options.set_clean_start(true).set_keep_alive(KEEP_ALIVE);
    // The client keeps a place of 200 bytes for each that may be under way: 13 MiB for its default of 65,535.
    options.set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
    if let Some(tls) = tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    if let Some((user, password)) = login {
        options.set_credentials(user, password);
    }
    Ok(options)
}

/// Connects once under a client id of its own, and leaves: whether the broker lets this gateway in.
pub async fn probe(broker: &Broker, clock: &Arc<dyn Clock>, floor: Timestamp) -> Result<(), Ended> {
    let client = format!("carebed-doctor-{:08x}", rand::random::<u32>());
    let options = options(broker, &client, clock, floor).map_err(Ended::Security)?;
    let (client, mut eventloop) = AsyncClient::new(options, 1);
    loop {
        match tokio::time::timeout(PROBE, eventloop.poll()).await {
            Err(_) => return Err(Ended::Silent),
            Ok(Err(error)) => return Err(Ended::Connection(Box::new(error))),
            Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                let _full = client.try_disconnect();
                let _left = tokio::time::timeout(PROBE, eventloop.poll()).await;
                return Ok(());
            }
            Ok(Ok(_)) => {}
        }
    }
}

/// Why there is no connection, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Certificates or password cannot be used.
    #[error(transparent)]
    Security(SecurityError),
    /// The connection could not be made, or ended.
    #[error(transparent)]
    Connection(Box<ConnectionError>),
    /// The broker does not answer.
    #[error("the broker does not answer within {PROBE:?}")]
    Silent,
}

/// Connects, and connects again, for as long as the gateway runs.
pub struct Mqtt {
    broker: Broker,
    place: Place,
    will: Will,
    events: mpsc::Sender<UplinkEvent>,
    call_waits: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
    floor: Timestamp,
}

impl Mqtt {
    /// For one gateway. `call_waits` says whether a call is to be sent: then pauses between connections are short.
    /// Certificates are judged by the clock while something keeps it right, else by the floor.
    #[must_use]
    pub fn new(
        broker: Broker,
        (area, gateway): (Area, GatewayId),
        will: Will,
        events: mpsc::Sender<UplinkEvent>,
        call_waits: watch::Receiver<bool>,
        (clock, floor): (Arc<dyn Clock>, Timestamp),
    ) -> Self {
        Self { broker, place: Place { area, gateway }, will, events, call_waits, clock, floor }
    }

    /// Runs until `stop` is cancelled while there is no connection, or until the broker has taken [`Publisher::disconnect`].
    pub async fn run(mut self, stop: Shutdown) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        let mut told = false;
        loop {
            let begun = Instant::now();
            let (receipted, end) = self.connection(&stop).await;
            let Err(error) = end else { return };
            if backoff.ended(begun.elapsed(), receipted) {
                told = false;
            }
            if self.events.send(UplinkEvent::Disconnected).await.is_err() || stop.is_cancelled() {
                return;
            }
            if !told {
                // Once per outage; an offline night is one line.
                let Broker { host, port, .. } = &self.broker;
                tracing::warn!(%host, port, error = &error as &dyn std::error::Error, "no connection to the broker");
                told = true;
            }
            tokio::select! {
                () = self.pause(backoff.pause(rand::random())) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Waits before the next connection; not for long while a call waits.
    async fn pause(&mut self, pause: Duration) {
        let jitter: f64 = rand::random();
        let call_waits = *self.call_waits.borrow_and_update();
        if call_waits {
            return tokio::time::sleep(pause.min(RECONNECT_FOR_A_CALL.mul_f64(jitter))).await;
        }
        let call = tokio::time::timeout(pause, self.call_waits.wait_for(|waits| *waits)).await.is_ok();
        if call {
            tokio::time::sleep(RECONNECT.0.mul_f64(jitter)).await;
        }
    }

    /// One connection: whether a receipt came over it, and how it ended.
    async fn connection(&self, stop: &Shutdown) -> (bool, Result<(), Ended>) {
        let options = match self.options() {
            Ok(options) => options,
            Err(error) => return (false, Err(Ended::Security(error))),
        };
        let (client, mut eventloop) = AsyncClient::new(options, REQUESTS_MAX);
        let (sent, mut order) = mpsc::unbounded_channel();
        let mut publisher = Some(Publisher { client, place: self.place.clone(), sent });
        let (mut receipted, mut leaving) = (false, false);
        loop {
            let event = tokio::select! {
                event = eventloop.poll() => event,
                () = stop.cancelled(), if publisher.is_some() => return (receipted, Ok(())),
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    if let Some(publisher) = publisher.take() {
                        let channels = [Channel::Receipt, Channel::Command];
                        for topic in channels.map(|channel| self.place.topic(channel)) {
                            // The queue of a new client is empty.
                            let _full = publisher.client.try_subscribe(topic, QoS::AtLeastOnce);
                        }
                        tracing::info!(host = %self.broker.host, port = self.broker.port, "connected to the broker");
                        if self.events.send(UplinkEvent::Connected(publisher)).await.is_err() {
                            return (receipted, Ok(()));
                        }
                    }
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let event = self.read(&publish);
                    receipted |= matches!(event, Some(UplinkEvent::Receipt(_)));
                    if let Some(event) = event
                        && self.events.send(event).await.is_err()
                    {
                        return (receipted, Ok(()));
                    }
                }
                Ok(Event::Outgoing(Outgoing::Publish(_))) => {
                    if order.try_recv() == Ok(Some(Lane::Urgent)) {
                        crash::point("gateway.after_publish");
                    }
                }
                // The broker closes then. Closing first would lose the goodbye behind acknowledgements not yet read.
                Ok(Event::Outgoing(Outgoing::Disconnect)) => leaving = true,
                Ok(_) => {}
                Err(_) if leaving => return (receipted, Ok(())),
                Err(error) => return (receipted, Err(Ended::Connection(Box::new(error)))),
            }
        }
    }

    fn options(&self) -> Result<MqttOptions, SecurityError> {
        let mut options = options(&self.broker, self.place.gateway.as_str(), &self.clock, self.floor)?;
        let will = LastWill::new(self.place.topic(Channel::Status), (self.will)(), QoS::AtLeastOnce, true, None);
        options.set_last_will(will).set_max_packet_size(Some(PACKET_MAX));
        Ok(options)
    }

    fn read(&self, publish: &Publish) -> Option<UplinkEvent> {
        let topic = std::str::from_utf8(&publish.topic).ok().and_then(Topic::parse)?;
        let read = match topic.channel {
            Channel::Receipt => Receipt::decode(&publish.payload).map(UplinkEvent::Receipt).map_err(|e| e.to_string()),
            Channel::Command => {
                serde_json::from_slice(&publish.payload).map(UplinkEvent::Command).map_err(|e| e.to_string())
            }
            _ => return None,
        };
        match read {
            Ok(event) => Some(event),
            Err(error) => {
                tracing::warn!(%topic, %error, "a message of the centre could not be read; it is passed over");
                None
            }
        }
    }
}
