//! Devices that speak MQTT to a broker in the home: Zigbee2MQTT, Tasmota, ESPHome and their like.
//!
//! The broker is one that is there already, or our own ([`broker`]). The connection of this task is its probe: when it
//! cannot be had for a while, our own broker is started again.

pub(crate) mod broker;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::Clock;
use carebed_contract::security::Credentials;
use carebed_contract::time::Timestamp;
use carebed_device_profiles::decoder::Decoder;
use carebed_device_profiles::documents::PAYLOAD_LENGTH_MAX;
use carebed_device_profiles::profile::{Send, Transmission};
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet, Publish, QoS, SubscribeFilter,
    TlsConfiguration, Transport,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::broker::Embedded;
use super::line::Reopen;
use super::{LinkEvent, Silence, Write, told};
use crate::config::Broker;
use crate::home::Board;
use crate::stamp::Sample;

/// A dead broker is noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Our own broker is started again when it cannot be reached for so long.
const PROBE_FAILS_AFTER: Duration = Duration::from_secs(15);
/// Requests the client may hold. One more is refused: a broker in the home takes them at once or not at all.
const REQUESTS_MAX: usize = 256;
/// How often it is looked whether a device has been quiet for too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The broker in the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalBroker {
    /// One that is there already.
    At(Broker),
    /// Our own, started when a device needs it.
    Embedded {
        /// The program that serves when it is called with `home-broker`.
        program: PathBuf,
        /// Where it listens to MQTT 3.1.1, which most devices speak.
        v4: SocketAddr,
        /// Where it listens to MQTT 5.
        v5: SocketAddr,
    },
}

impl LocalBroker {
    fn place(&self) -> Broker {
        match self {
            Self::At(broker) => broker.clone(),
            Self::Embedded { v4, .. } => Broker::plain(v4.ip().to_string(), v4.port()),
        }
    }
}

/// One device.
struct Device {
    /// Index in the home file.
    index: usize,
    board: Arc<Board>,
    decoder: Decoder,
    /// Topic of each message that has one, with the message's index.
    topics: Vec<(String, usize)>,
    /// When it was heard last, or hope began.
    last: Instant,
    silent_told: Option<Instant>,
}

/// Nobody takes events any more.
struct Over;

struct Link {
    devices: Vec<Device>,
    events: mpsc::Sender<LinkEvent>,
    clock: Arc<dyn Clock>,
    /// How often connecting failed in a row, and since when.
    failed: Option<(u32, Instant)>,
    /// Why the last connection broke.
    why: String,
}

/// Listens until nobody takes events any more.
pub(super) async fn run(
    broker: &LocalBroker,
    boards: &[(usize, Arc<Board>)],
    mut writes: mpsc::Receiver<Write>,
    events: mpsc::Sender<LinkEvent>,
    clock: Arc<dyn Clock>,
) {
    let device = |(index, board): &(usize, Arc<Board>)| {
        let decoder = Decoder::at(Arc::clone(&board.profile), board.address.as_deref());
        let topics = (0..board.profile.messages.len()).filter_map(|m| Some((decoder.topic(m)?, m))).collect();
        Device { index: *index, board: Arc::clone(board), decoder, topics, last: Instant::now(), silent_told: None }
    };
    let mut link =
        Link { devices: boards.iter().map(device).collect(), events, clock, failed: None, why: String::new() };
    let mut embedded = None;
    let mut reopen = Reopen::new();
    loop {
        if let LocalBroker::Embedded { program, v4, v5 } = broker {
            let failing = link.failed.is_some_and(|(_, since)| since.elapsed() > PROBE_FAILS_AFTER);
            let gone = embedded.as_mut().is_none_or(Embedded::has_ended);
            if gone || failing {
                if failing {
                    tracing::warn!("the broker of the home does not answer; starting it again");
                    link.failed = link.failed.map(|(cycles, _)| (cycles, Instant::now()));
                }
                // The old one goes first: it holds the ports.
                drop(embedded.take());
                embedded = Embedded::start(program, *v4, *v5)
                    .inspect_err(|error| {
                        tracing::error!(error = error as &dyn std::error::Error, "no broker in the home")
                    })
                    .ok();
            }
        }
        reopen.tried();
        let session = link.session(&broker.place(), &mut writes, &mut reopen).await;
        if session.is_err() || link.broken().await.is_err() {
            return;
        }
        reopen.wait().await;
    }
}

impl Link {
    /// One connection, until it breaks.
    async fn session(
        &mut self,
        broker: &Broker,
        writes: &mut mpsc::Receiver<Write>,
        reopen: &mut Reopen,
    ) -> Result<(), Over> {
        let Credentials { tls, login } = match broker.security.load(Arc::clone(&self.clock), Timestamp::RELEASED) {
            Ok(credentials) => credentials,
            Err(error) => {
                self.why = told(&error);
                return Ok(());
            }
        };
        let host = broker.host.trim_start_matches('[').trim_end_matches(']');
        let mut options = MqttOptions::new(format!("carebed-{:08x}", rand::random::<u32>()), host, broker.port);
        if let Some(tls) = tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
        }
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        options.set_keep_alive(KEEP_ALIVE).set_clean_session(true);
        options.set_max_packet_size(PAYLOAD_LENGTH_MAX + 1_024, PAYLOAD_LENGTH_MAX);
        let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let mut sent: VecDeque<Option<String>> = VecDeque::new();
        let mut under_way: VecDeque<(u16, Option<String>)> = VecDeque::new();
        let mut look = Instant::now() + LOOK_EVERY;
        loop {
            tokio::select! {
                biased;
                write = writes.recv() => self.write(&client, write.ok_or(Over)?, &mut sent).await?,
                event = poll(&mut events) => match event {
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "no connection to the home's broker");
                        self.why = told(&error);
                        let ids = sent.into_iter().chain(under_way.into_iter().map(|(_, id)| id)).flatten();
                        for id in ids {
                            self.written(id, Err("the connection to the broker broke".to_owned())).await?;
                        }
                        return Ok(());
                    }
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        reopen.worked();
                        self.connected(&client, &mut sent);
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => self.heard(&publish).await?,
                    Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                        under_way.extend(sent.pop_front().map(|command| (id, command)));
                    }
                    Ok(Event::Incoming(Packet::PubAck(ack))) => {
                        let at = under_way.iter().position(|(id, _)| *id == ack.pkid);
                        if let Some((_, Some(id))) = at.and_then(|at| under_way.remove(at)) {
                            self.written(id, Ok(())).await?;
                        }
                    }
                    Ok(_) => {}
                },
                () = sleep_until(look) => {
                    look = Instant::now() + LOOK_EVERY;
                    self.look().await?;
                }
            }
        }
    }

    fn connected(&mut self, client: &AsyncClient, sent: &mut VecDeque<Option<String>>) {
        tracing::info!("connected to the home's broker");
        self.failed = None;
        let now = Instant::now();
        let topics = self.devices.iter().flat_map(|device| &device.topics);
        let filters: Vec<SubscribeFilter> =
            topics.map(|(topic, _)| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce)).collect();
        // The queue of a new client is empty, and home files are bounded.
        let _taken = client.try_subscribe_many(filters);
        for device in &mut self.devices {
            device.last = now;
            let queries = device.board.profile.messages.iter().filter_map(|message| message.query.as_ref());
            for send in queries.chain(device.board.profile.startup.iter().filter_map(|step| step.send.as_ref())) {
                if publish(client, &device.board, send).is_ok() {
                    sent.push_back(None);
                }
            }
        }
    }

    async fn heard(&mut self, publish: &Publish) -> Result<(), Over> {
        for device in &mut self.devices {
            let messages = device.topics.iter().filter(|(topic, _)| *topic == publish.topic);
            for message in messages.map(|(_, message)| *message).collect::<Vec<_>>() {
                let decoded = device.decoder.payload(message, &publish.payload, publish.retain);
                if !decoded.messages.is_empty() || decoded.available.is_some() {
                    (device.last, device.silent_told) = (Instant::now(), None);
                }
                let sample = Sample::take(&*self.clock);
                let event = LinkEvent::Heard { board: device.index, sample, result: Ok(decoded) };
                self.events.send(event).await.map_err(|_| Over)?;
            }
        }
        Ok(())
    }

    /// Tells devices that have been quiet for longer than their profile allows.
    async fn look(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        for device in &mut self.devices {
            let Some(silent_after) = device.board.profile.report.silent_after else { continue };
            let since = device.silent_told.map_or(device.last, |told| told.max(device.last));
            if now >= since + silent_after {
                device.silent_told = Some(now);
                let lasted = now - device.last;
                let silence = Silence { cycles: u32::MAX, lasted, why: format!("nothing heard for {lasted:.0?}") };
                let sample = Sample::take(&*self.clock);
                let event = LinkEvent::Heard { board: device.index, sample, result: Err(silence) };
                self.events.send(event).await.map_err(|_| Over)?;
            }
        }
        Ok(())
    }

    /// Without a broker nothing is heard of any device.
    async fn broken(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        let (cycles, since) = self.failed.unwrap_or((0, now));
        self.failed = Some((cycles.saturating_add(1), since));
        let why = format!("no connection to the home's broker: {}", self.why);
        let silence = Silence { cycles: cycles.saturating_add(1), lasted: now - since, why };
        for device in &self.devices {
            let sample = Sample::take(&*self.clock);
            let event = LinkEvent::Heard { board: device.index, sample, result: Err(silence.clone()) };
            self.events.send(event).await.map_err(|_| Over)?;
        }
        Ok(())
    }

    async fn write(
        &mut self,
        client: &AsyncClient,
        write: Write,
        sent: &mut VecDeque<Option<String>>,
    ) -> Result<(), Over> {
        let device = self.devices.iter().find(|device| device.index == write.board);
        let output = device.and_then(|device| device.board.profile.outputs.get(write.output));
        let send = output.and_then(|output| output.send(write.value));
        let done = match device.zip(send) {
            Some((device, send)) => publish(client, &device.board, send),
            None => Err("the output cannot be set so".to_owned()),
        };
        match done {
            Ok(()) => {
                sent.push_back(Some(write.id));
                Ok(())
            }
            Err(why) => self.written(write.id, Err(why)).await,
        }
    }

    /// A command counts as done when the broker has taken it: devices confirm by their next state, if at all.
    async fn written(&self, id: String, result: Result<(), String>) -> Result<(), Over> {
        let event = LinkEvent::Written { id, result, sample: Sample::take(&*self.clock) };
        self.events.send(event).await.map_err(|_| Over)
    }
}

async fn poll(events: &mut EventLoop) -> Result<Event, rumqttc::ConnectionError> {
    events.poll().await
}

fn publish(client: &AsyncClient, board: &Board, send: &Send) -> Result<(), String> {
    match send.encode(&board.profile, board.address.as_deref()) {
        Ok(Transmission::Publish { topic, payload }) => client
            .try_publish(topic, QoS::AtLeastOnce, false, payload)
            .map_err(|_| "the broker does not take it".to_owned()),
        Ok(_) => Err("it does not go over MQTT".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
