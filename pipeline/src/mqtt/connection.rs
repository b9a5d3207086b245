//! One connection to the broker, made again whenever it ends.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::command::Command;
use carebed_contract::security::{Credentials, Security};
use carebed_contract::time::Timestamp;
use carebed_contract::topic::Topic;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, MqttOptions};
use rumqttc::{NetworkOptions, TlsConfiguration, Transport};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Intake;
use super::backoff::Backoff;
use super::outbox::Outbox;
use crate::message::{Message, with_causes};

/// Largest packet taken, in bytes: a pack's limit and its surroundings. The broker is told and keeps larger ones.
const PACKET_MAX: u32 = 5 << 20;
/// Requests between the tasks here and the client.
const REQUESTS_MAX: usize = 64;
/// Receipts and commands under way to the broker; beyond it they wait.
const INFLIGHT_MAX: u16 = 4_096;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What goes out on a connection.
pub(super) type Outgoing = (Arc<Outbox>, mpsc::Receiver<(Topic, Command)>);

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) client_id: String,
    pub(super) security: Security,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) filters: Vec<String>,
    pub(super) shutdown: Shutdown,
}

impl Connection {
    /// Connects again and again until shut down. What comes is decoded here: the largest pack takes a fraction of a second, far
    /// below the keep-alive, and handing each small one to another thread would cost more than decoding it.
    pub(super) async fn run(self, intake: Intake, mut outgoing: Option<Outgoing>) {
        let mut backoff = Backoff::new();
        let shutdown = self.shutdown.clone();
        while !shutdown.is_cancelled() {
            let began = Instant::now();
            let ended = tokio::select! {
                ended = self.once(&intake, outgoing.as_mut()) => ended,
                () = shutdown.cancelled() => return,
            };
            let wait = backoff.next(began.elapsed(), rand::random());
            tracing::warn!(broker = %self.host, port = self.port, client = %self.client_id, reason = %ended, ?wait, "no connection to the broker");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One connection, from a new clean client to its end.
    async fn once(&self, intake: &Intake, outgoing: Option<&mut Outgoing>) -> Ended {
        let mut options = MqttOptions::new(&self.client_id, &self.host, self.port);
        options.set_clean_start(true).set_keep_alive(KEEP_ALIVE).set_max_packet_size(Some(PACKET_MAX));
        // The client keeps a place of 200 bytes for each that may be under way: 13 MiB for its default of 65,535.
        options.set_outgoing_inflight_upper_limit(INFLIGHT_MAX);
        // Read for every connection: renewed certificates need no restart.
        let Credentials { tls, login } = match self.security.load(Arc::clone(&self.clock), Timestamp::RELEASED) {
            Ok(credentials) => credentials,
            Err(error) => return Ended::Security(with_causes(&error)),
        };
        if let Some(tls) = tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
        }
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut polling) = AsyncClient::new(options, REQUESTS_MAX);

        let send = send(&client, outgoing);
        tokio::pin!(send);
        // Before, what goes out stays where it is: it would fill the client's queue, and there would be no room to subscribe.
        let mut subscribes = false;
        loop {
            // Never await the client on the way to the next poll: its requests are only taken by polling.
            let event = tokio::select! {
                event = polling.poll() => event,
                ended = &mut send, if subscribes => return ended,
            };
            match event {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    tracing::info!(broker = %self.host, port = self.port, client = %self.client_id, "connected to the broker");
                    let filters = self.filters.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
                    if client.try_subscribe_many(filters).is_err() {
                        return Ended::Subscribe("the client does not take the filters".to_owned());
                    }
                    subscribes = true;
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    let refused = answer.return_codes.iter().find(|c| !matches!(c, SubscribeReasonCode::Success(_)));
                    if let Some(code) = refused {
                        return Ended::Subscribe(format!("{code:?}"));
                    }
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let Some(mut message) = message(publish) else { continue };
                    message.share = intake.memory.share(message.weight()).await;
                    if intake.messages.send(message).await.is_err() {
                        return Ended::NobodyIngests;
                    }
                }
                Ok(_) => {}
                Err(error) => return Ended::Connection(Box::new(error)),
            }
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Security(String),
    #[error("{0}")]
    Connection(Box<ConnectionError>),
    #[error("the broker refused a subscription ({0}): check its access rules for this user")]
    Subscribe(String),
    #[error("ingest has stopped")]
    NobodyIngests,
}

fn message(publish: Publish) -> Option<Message> {
    let topic = Topic::parse(std::str::from_utf8(&publish.topic).ok()?)?;
    let properties = publish.properties.unwrap_or_default();
    let content_type = properties.content_type.unwrap_or_default();
    Some(Message::read(topic, properties.correlation_data.as_deref(), content_type, publish.payload))
}

/// Sends receipts and commands for as long as the connection lives. A receipt that is lost with it is asked for again; a
/// command that is lost has an expiry and a result that does not come.
async fn send(client: &AsyncClient, outgoing: Option<&mut Outgoing>) -> Ended {
    let Some((outbox, commands)) = outgoing else { return std::future::pending().await };
    let mut open = true;
    loop {
        tokio::select! {
            (topic, receipt) = outbox.take() => {
                let sent = client.publish(topic.to_string(), QoS::AtLeastOnce, false, receipt.encode()).await;
                outbox.sent();
                if sent.is_ok() {
                    super::receipt_sent();
                }
            }
            command = commands.recv(), if open => match command {
                Some((topic, command)) => {
                    let payload = serde_json::to_vec(&command).unwrap_or_default();
                    if client.publish(topic.to_string(), QoS::AtLeastOnce, false, payload).await.is_err() {
                        tracing::warn!(%topic, command = command.id, "lost a command with its connection");
                    }
                }
                None => open = false,
            },
        }
    }
}
