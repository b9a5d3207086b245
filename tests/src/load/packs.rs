//! Packs made beforehand, published for many gateways over one connection: so light that broker and centre have the processors.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use carebed_contract::digest::Digest;
use carebed_contract::id::{Area, GatewayId};
use carebed_contract::labels::{Epoch, Labels, Lane};
use carebed_contract::pack::Pack;
use carebed_contract::quality::Quality;
use carebed_contract::receipt::Receipt;
use carebed_contract::record::{Record, RecordTime, Series};
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::topic::{Channel, Topic};
use carebed_contract::value::Value;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::sync::watch;
use tokio::time::Instant;

/// Observations of a pack: sixteen polls of a mat with presence, heart rate and respiratory rate, and two of the device.
pub const VALUES: u64 = 50;
const POLLS: u64 = 16;
const POLL: Duration = Duration::from_secs(30);
/// Batches of a gateway under way without a receipt.
const WINDOW: usize = 48;
/// Publishes handed to the client between two looks at its socket.
const REQUESTS_MAX: usize = 256;
/// Without any receipt for so long, something is broken.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Until somebody takes them in, a first pack is sent again after so long.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Whoever keeps a pace looks so often whether more is due.
const PACE_EVERY: Duration = Duration::from_millis(5);
/// Without any receipt for so long, every gateway goes back.
const BACK_AFTER: Duration = Duration::from_secs(3);

/// At most so many packs a second, from the first receipt on; with 0 as many as are taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    packs_per_second: u64,
    began: Option<Instant>,
    handed: u64,
}

/// The gateways of one area and all they will send.
#[derive(Debug)]
pub struct Packs {
    area: Area,
    gateways: Vec<Sender>,
}

#[derive(Debug)]
struct Sender {
    topic: String,
    receipts: String,
    batches: Vec<Sealed>,
    sent: usize,
    receipted: usize,
}

#[derive(Debug)]
struct Sealed {
    labels: Bytes,
    content_type: &'static str,
    payload: Bytes,
}

impl Pace {
    /// So many packs a second.
    pub fn of(packs_per_second: u64) -> Self {
        Self { packs_per_second, ..Self::default() }
    }

    fn is_kept(&self) -> bool {
        self.packs_per_second > 0
    }

    fn allows(&self) -> bool {
        let Some(began) = self.began.filter(|_| self.is_kept()) else { return true };
        self.handed as f64 <= began.elapsed().as_secs_f64() * self.packs_per_second as f64
    }
}

impl Packs {
    /// So many gateways with so many packs each, from `start` on; `first` numbers the first of them.
    pub fn make(area: &Area, first: usize, gateways: usize, packs: u64, start: Timestamp) -> anyhow::Result<Self> {
        let gateways = (first..first + gateways).map(|number| Sender::make(area, number, packs, start));
        Ok(Self { area: area.clone(), gateways: gateways.collect::<anyhow::Result<_>>()? })
    }

    /// Publishes until everything is receipted; `receipted` counts packs. What is published before anybody listens is lost, so the
    /// first pack goes out alone, again and again, until it has its receipt.
    pub async fn publish(
        mut self,
        broker: SocketAddr,
        mut pace: Pace,
        receipted: watch::Sender<u64>,
    ) -> anyhow::Result<()> {
        let mut options = MqttOptions::new(format!("packs-{}", self.area), broker.ip().to_string(), broker.port());
        options.set_clean_start(true).set_keep_alive(Duration::from_secs(30)).set_max_packet_size(Some(1 << 20));
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut polling) = AsyncClient::new(options, REQUESTS_MAX);
        let (mut next, mut open, mut heard, began) = (0, false, None, Instant::now());
        while self.gateways.iter().any(|gateway| gateway.receipted < gateway.batches.len()) {
            while open
                && pace.allows()
                && let Some(index) = self.ready(next, heard.is_some())
            {
                let Some(sender) = self.gateways.get_mut(index) else { break };
                let Some(batch) = sender.batches.get(sender.sent) else { break };
                let properties = PublishProperties {
                    correlation_data: Some(batch.labels.clone()),
                    content_type: Some(batch.content_type.to_owned()),
                    ..PublishProperties::default()
                };
                let payload = batch.payload.clone();
                let (topic, qos) = (sender.topic.clone(), QoS::AtLeastOnce);
                if client.try_publish_with_properties(topic, qos, false, payload, properties).is_err() {
                    break;
                }
                sender.sent += 1;
                pace.handed += 1;
                next = index + 1;
            }
            // Only an open connection may be looked away from: one that is being made would begin anew.
            let wait = match (open, heard) {
                (true, Some(_)) if pace.is_kept() => PACE_EVERY,
                (true, _) => AGAIN_AFTER,
                (false, _) => SILENCE_MAX,
            };
            let event = tokio::time::timeout(wait, polling.poll()).await;
            let silent = heard.unwrap_or(began).elapsed();
            if silent > SILENCE_MAX {
                bail!("no receipt for {SILENCE_MAX:?}");
            }
            let Ok(event) = event else {
                // A broker may lose what it acknowledged: as gateways do, each goes back to its first without a receipt.
                if heard.is_none() || silent > BACK_AFTER {
                    self.gateways.iter_mut().for_each(|sender| sender.sent = sender.receipted);
                }
                continue;
            };
            let event = event?;
            match event {
                Event::Incoming(Packet::ConnAck(_)) => {
                    let filter = Topic::filter(Some(&self.area), Channel::Receipt);
                    client.try_subscribe_many([Filter::new(filter, QoS::AtLeastOnce)])?;
                }
                Event::Incoming(Packet::SubAck(_)) => open = true,
                Event::Incoming(Packet::Publish(publish)) => {
                    let Some(sender) = self.gateways.iter_mut().find(|s| s.receipts.as_bytes() == &*publish.topic)
                    else {
                        continue;
                    };
                    let told = usize::try_from(Receipt::decode(&publish.payload)?.next)?;
                    if told > sender.batches.len() {
                        bail!("a receipt for {told} batches of {}", sender.batches.len());
                    }
                    let more = told.saturating_sub(sender.receipted);
                    heard = heard.filter(|_| more == 0).or_else(|| Some(Instant::now()));
                    pace.began.get_or_insert_with(Instant::now);
                    sender.receipted += more;
                    // The first may have been sent again meanwhile.
                    sender.sent = sender.sent.max(sender.receipted);
                    receipted.send_modify(|packs| *packs += more as u64);
                }
                Event::Incoming(Packet::Disconnect(reason)) => bail!("the broker ends the connection: {reason:?}"),
                _ => {}
            }
        }
        Ok(())
    }

    /// The next gateway that may send, from `from` on; before anybody was heard, the first pack of the first.
    fn ready(&self, from: usize, is_heard: bool) -> Option<usize> {
        if !is_heard {
            return self.gateways.first().filter(|first| first.sent == 0).map(|_| 0);
        }
        let n = self.gateways.len();
        let may = |s: &Sender| s.sent < s.batches.len() && s.sent.saturating_sub(s.receipted) < WINDOW;
        (from..from + n).map(|i| i % n).find(|i| self.gateways.get(*i).is_some_and(may))
    }
}

impl Sender {
    fn make(area: &Area, number: usize, packs: u64, start: Timestamp) -> anyhow::Result<Self> {
        let gateway = GatewayId::new(format!("gw-{number:05}"))?;
        let topic = |channel| Topic::new(area.clone(), gateway.clone(), channel).to_string();
        let mut chance = StdRng::seed_from_u64(number as u64);
        let epoch = Epoch::new(chance.random());
        let mut prev = Digest::ORIGIN;
        let mut batches = Vec::new();
        for seq in 0..packs {
            let sealed = pack(number, seq, start, &mut chance)?.seal()?;
            let labels = Labels::of(epoch, Lane::Routine, seq, prev).encode().into();
            let content_type = sealed.content_type.as_str();
            prev = Digest::of_batch(epoch, Lane::Routine, seq, prev, content_type, &sealed.bytes);
            batches.push(Sealed { labels, content_type, payload: sealed.bytes.into() });
        }
        let (topic, receipts) = (topic(Channel::Batch(Lane::Routine)), topic(Channel::Receipt));
        Ok(Self { topic, receipts, batches, sent: 0, receipted: 0 })
    }
}

fn pack(number: usize, seq: u64, start: Timestamp, chance: &mut StdRng) -> anyhow::Result<Pack> {
    let series = |quantity| Series::parse(&format!("home-{number:05}/bed-{number:05}/mat-1/{quantity}"));
    let first = seq * POLLS;
    let times: Vec<Timestamp> = (first..first + POLLS)
        .map(|poll| {
            start
                + POLL * u32::try_from(poll).unwrap_or(u32::MAX)
                + Duration::from_millis(chance.random_range(0..1_000))
        })
        .collect();
    let mut records = Vec::new();
    let mut put = |quantity, time, value| -> anyhow::Result<()> {
        records.push(Record {
            series: series(quantity)?,
            time: RecordTime::At(time),
            value: Value::Number(value),
            unit: None,
            quality: Quality::Good,
            clock: ClockQuality::Synchronised,
            gateway_time: None,
            monotonic: None,
        });
        Ok(())
    };
    for (quantity, base) in [("bed_occupancy", 0), ("heart_rate", 62), ("respiratory_rate", 14)] {
        for time in &times {
            put(quantity, *time, f64::from(base + chance.random_range(0..2)))?;
        }
    }
    let last = times.last().copied().unwrap_or(start);
    put("battery", last, 97.0)?;
    put("signal", last, -61.0)?;
    Ok(Pack { boot: Some(7), records })
}
