//! Devices that speak MQTT to a broker in the home: Zigbee2MQTT, Tasmota, ESPHome and their like.
//!
//! The broker is one that is there already, or our own ([`broker`]). The connection of this task is its probe for MQTT 3.1.1,
//! [`probe`] the one for MQTT 5: when either cannot be had for a while, our own broker is started again.

pub(crate) mod broker;
mod confirming;
mod probe;

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
use self::confirming::{Awaited, Confirming};
use super::line::Reopen;
use super::{LinkEvent, NotConfirmed, Silence, Write, told};
use crate::config::Broker;
use crate::home::Board;
use crate::stamp::Sample;

/// A dead broker is noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Our own broker is started again when one of its listeners cannot be reached for so long.
const PROBE_FAILS_AFTER: Duration = Duration::from_secs(10);
/// The longest that a listener for MQTT 5 may be dead before the next attempt: where its port is another program's, starting
/// again helps nobody, and takes MQTT 3.1.1 from the devices for a moment.
const PROBE_FAILS_AFTER_MAX: Duration = Duration::from_secs(3_600);
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
    fn mqtt_5(&self) -> Option<SocketAddr> {
        match self {
            Self::At(_) => None,
            Self::Embedded { v5, .. } => Some(*v5),
        }
    }

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
    /// Commands of the messages that the client has and has not written, in order; none: no command waits for it.
    queued: VecDeque<Option<String>>,
    /// The same of those that were written and not acknowledged, by packet.
    under_way: VecDeque<(u16, Option<String>)>,
    /// Commands whose devices say when they are done.
    confirming: Confirming,
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
    let mut link = Link {
        devices: boards.iter().map(device).collect(),
        events,
        clock,
        failed: None,
        why: String::new(),
        queued: VecDeque::new(),
        under_way: VecDeque::new(),
        confirming: Confirming::default(),
    };
    let mut embedded = None;
    let mut reopen = Reopen::new();
    // The MQTT 5 listener, once it was found dead.
    let mut dead = None;
    let mut patience = PROBE_FAILS_AFTER;
    loop {
        if let LocalBroker::Embedded { program, v4, v5 } = broker {
            if link.failed.is_some_and(|(_, since)| since.elapsed() > PROBE_FAILS_AFTER) {
                dead = Some(("MQTT 3.1.1", *v4));
                link.failed = link.failed.map(|(cycles, _)| (cycles, Instant::now()));
            }
            let gone = embedded.as_mut().is_none_or(Embedded::has_ended);
            if gone || dead.is_some() {
                if let Some((protocol, listener)) = dead.take() {
                    let what =
                        format!("the home's broker did not answer {protocol} on {listener}; it was started again");
                    if link.events.send(LinkEvent::Trouble(what)).await.is_err() {
                        return;
                    }
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
        let place = broker.place();
        let session = tokio::select! {
            session = link.session(&place, &mut writes, &mut reopen) => session,
            (listener, answered) = probed(broker.mqtt_5(), patience) => {
                dead = Some(("MQTT 5", listener));
                patience = if answered { PROBE_FAILS_AFTER } else { (patience * 4).min(PROBE_FAILS_AFTER_MAX) };
                Ok(())
            }
        };
        if session.is_err() || link.broken().await.is_err() {
            return;
        }
        reopen.wait().await;
    }
}

/// Ends when a listener is dead, and says whether it ever answered; without one, never.
async fn probed(listener: Option<SocketAddr>, patience: Duration) -> (SocketAddr, bool) {
    match listener {
        Some(listener) => (listener, probe::until_dead(listener, patience).await),
        None => std::future::pending().await,
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
        let mut look = Instant::now() + LOOK_EVERY;
        loop {
            tokio::select! {
                biased;
                write = writes.recv() => self.write(&client, write.ok_or(Over)?).await?,
                event = poll(&mut events) => match event {
                    Err(error) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "no connection to the home's broker");
                        self.why = told(&error);
                        return Ok(());
                    }
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        reopen.worked();
                        self.connected(&client);
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => self.heard(&publish).await?,
                    Ok(Event::Outgoing(Outgoing::Publish(id))) => {
                        self.under_way.extend(self.queued.pop_front().map(|command| (id, command)));
                    }
                    Ok(Event::Incoming(Packet::PubAck(ack))) => {
                        let at = self.under_way.iter().position(|(id, _)| *id == ack.pkid);
                        if let Some((_, Some(id))) = at.and_then(|at| self.under_way.remove(at)) {
                            let why = "the broker has it, and the device does not say what it does".to_owned();
                            self.written(id, Err(NotConfirmed::Sent(why))).await?;
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

    fn connected(&mut self, client: &AsyncClient) {
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
                    self.queued.push_back(None);
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
                // What the broker had kept is from before the command.
                let news = if publish.retain { &[][..] } else { &decoded.points };
                let done = self.confirming.heard(device.index, news);
                let event = LinkEvent::Heard { board: device.index, sample, result: Ok(decoded) };
                self.events.send(event).await.map_err(|_| Over)?;
                for id in done {
                    let event = LinkEvent::Written { id, result: Ok(()), sample };
                    self.events.send(event).await.map_err(|_| Over)?;
                }
            }
        }
        Ok(())
    }

    /// Tells devices that have been quiet for longer than their profile allows, and commands that nobody confirmed.
    async fn look(&mut self) -> Result<(), Over> {
        for id in self.confirming.over(self.clock.monotonic()) {
            let why = "the device did not say so before the command expired".to_owned();
            self.written(id, Err(NotConfirmed::Sent(why))).await?;
        }
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

    /// Without a broker nothing is heard of any device, nor what became of commands.
    async fn broken(&mut self) -> Result<(), Over> {
        let why = || "the connection to the broker broke".to_owned();
        for id in std::mem::take(&mut self.queued).into_iter().flatten() {
            self.written(id, Err(NotConfirmed::Failed(why()))).await?;
        }
        let under_way = std::mem::take(&mut self.under_way).into_iter().filter_map(|(_, id)| id);
        for id in under_way.chain(self.confirming.take()) {
            self.written(id, Err(NotConfirmed::Sent(why()))).await?;
        }
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

    async fn write(&mut self, client: &AsyncClient, write: Write) -> Result<(), Over> {
        let Write { id, board, output, value, within } = write;
        let device = self.devices.iter().find(|device| device.index == board);
        let known = device.and_then(|device| device.board.profile.outputs.get(output));
        let confirmed_by = known.and_then(|output| output.confirmed_by);
        let done = match device.zip(known.and_then(|output| output.send(value))) {
            _ if !self.confirming.has_room() => Err("too many commands wait to be confirmed".to_owned()),
            Some((device, send)) => publish(client, &device.board, send),
            None => Err("the output cannot be set so".to_owned()),
        };
        // What the home shows by itself has no id, and nobody waits for its result.
        match (done, confirmed_by) {
            (Ok(()), Some(input)) if !id.is_empty() => {
                let until = self.clock.monotonic() + within;
                self.confirming.add(Awaited { id, board, input, value, until });
                self.queued.push_back(None);
                Ok(())
            }
            (Ok(()), _) => {
                self.queued.push_back(Some(id).filter(|id| !id.is_empty()));
                Ok(())
            }
            (Err(why), _) if id.is_empty() => {
                let event = LinkEvent::NotShown { board, output, why: NotConfirmed::Failed(why) };
                self.events.send(event).await.map_err(|_| Over)
            }
            (Err(why), _) => self.written(id, Err(NotConfirmed::Failed(why))).await,
        }
    }

    async fn written(&self, id: String, result: Result<(), NotConfirmed>) -> Result<(), Over> {
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
