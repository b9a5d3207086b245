//! Light homes: the gateway's own spool, delivery and connection, without devices. A thousand fit into one process.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock, SystemClock};
use carebed_contract::id::{Area, GatewayId};
use carebed_contract::inventory::Inventory;
use carebed_contract::labels::Lane;
use carebed_contract::quality::Quality;
use carebed_contract::record::{Record, RecordTime, Series};
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::topic::Channel;
use carebed_contract::value::Value;
use carebed_gateway::config::Config;
use carebed_gateway::spool::{Directory, Disk, Limits, Memory, Spool};
use carebed_gateway::uplink::delivery::Delivery;
use carebed_gateway::uplink::mqtt::{Mqtt, UplinkEvent};
use carebed_gateway::uplink::session::Window;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::AREA;

/// Batches offered between two looks at the connection.
const OFFERED_AT_ONCE: u64 = 4;

/// The series of a typical home: a mat with vitals, contacts and motion sensors.
const SERIES: [(&str, &str); 10] = [
    ("mat-1", "heart_rate"),
    ("mat-1", "respiratory_rate"),
    ("pir-bath", "motion"),
    ("mat-1", "heart_rate"),
    ("pir-living", "motion"),
    ("mat-1", "bed_occupancy"),
    ("mat-1", "heart_rate"),
    ("door", "door_open"),
    ("mat-1", "respiratory_rate"),
    ("fridge", "cabinet_open"),
];

/// How far one home has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Routine batches put into its spool.
    pub offered: u64,
    /// Batches, of either lane, for which there is no receipt.
    pub spooled: u64,
    /// Their bytes.
    pub spooled_bytes: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections lost.
    pub disconnections: u64,
    /// When the last call was receipted.
    pub calls_receipted: Option<Instant>,
    /// When nothing was left in the spool.
    pub emptied: Option<Instant>,
    /// Sentences for the status: what went wrong at the gateway's end.
    pub troubles: u64,
}

/// A light home.
#[derive(Debug)]
pub struct LightHome {
    id: String,
    gateway: GatewayId,
    area: Area,
    config: Config,
    records_per_batch: u64,
    /// Event time of its first record.
    start: Timestamp,
    /// Between two batches in event time.
    every: Duration,
    delivery: Delivery,
    progress: Arc<Mutex<Progress>>,
}

/// What all light homes of a run have in common.
#[derive(Debug, Clone)]
pub struct Kind {
    /// The broker.
    pub broker: std::net::SocketAddr,
    /// Records of a routine batch.
    pub records_per_batch: u64,
    /// Event time of the first record.
    pub start: Timestamp,
    /// Event time between two batches.
    pub every: Duration,
}

impl LightHome {
    /// A home whose spool lies in a directory, or in memory.
    pub fn new(kind: &Kind, number: usize, directory: Option<&Path>) -> anyhow::Result<Self> {
        let id = format!("light-{number}");
        let text = format!("[broker]\nurl = \"mqtt://{}\"\n[spool]\ndirectory = \"unused\"\n", kind.broker);
        let config = Config::parse("light home", &text).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
        let disk: Box<dyn Disk> = match directory {
            Some(directory) => Box::new(Directory::open(directory)?),
            None => Box::new(Memory::default()),
        };
        let spool = Spool::open(disk, Limits { bytes_max: 1 << 30, reserve_bytes: 0, ..config.spool })?.spool;
        Ok(Self {
            gateway: GatewayId::new(format!("gw-{id}"))?,
            id,
            area: Area::new(AREA)?,
            delivery: Delivery::new(spool, Window::of(config.window)),
            config,
            records_per_batch: kind.records_per_batch,
            start: kind.start,
            every: kind.every,
            progress: Arc::default(),
        })
    }

    /// Records of each of its routine batches.
    #[must_use]
    pub fn records_per_batch(&self) -> u64 {
        self.records_per_batch
    }

    /// How far it has come, also while it runs.
    #[must_use]
    pub fn progress(&self) -> Arc<Mutex<Progress>> {
        Arc::clone(&self.progress)
    }

    /// Puts the next routine batch into the spool.
    pub async fn offer(&mut self) -> anyhow::Result<()> {
        let number = note(&self.progress, |progress| {
            progress.offered += 1;
            progress.offered - 1
        });
        let from = self.start + self.every * u32::try_from(number).unwrap_or(u32::MAX);
        let step = self.every / u32::try_from(self.records_per_batch).unwrap_or(1).max(1);
        let record = |index: u64| {
            let (device, quantity) = SERIES.get(usize::try_from(index).unwrap_or(0) % SERIES.len()).copied()?;
            let value = match quantity {
                "heart_rate" => Value::Number(60.0 + ((number + index) % 20) as f64),
                "respiratory_rate" => Value::Number(14.0 + ((number + index) % 5) as f64),
                _ => Value::Flag(number.is_multiple_of(2)),
            };
            self.record(device, quantity, value, from + step * u32::try_from(index).ok()?)
        };
        let records: Vec<Record> = (0..self.records_per_batch).filter_map(record).collect();
        Ok(self.delivery.keep(Lane::Routine, records, from).await?)
    }

    /// Puts a call into the spool.
    pub async fn call(&mut self, at: Timestamp) -> anyhow::Result<()> {
        let record = self.record("cord", "call_button", Value::Flag(true), at).context("a call is a record")?;
        Ok(self.delivery.keep(Lane::Urgent, vec![record], Timestamp::MIN).await?)
    }

    fn record(&self, device: &str, quantity: &str, value: Value, at: Timestamp) -> Option<Record> {
        let bed = if device == "mat-1" { format!("{}-bed", self.id) } else { "-".to_owned() };
        Some(Record {
            series: Series::parse(&format!("{}/{bed}/{}-{device}/{quantity}", self.id, self.id)).ok()?,
            time: RecordTime::At(at),
            value,
            unit: None,
            quality: Quality::Good,
            clock: ClockQuality::Synchronised,
            gateway_time: None,
            monotonic: None,
        })
    }

    fn inventory(&self) -> anyhow::Result<Inventory> {
        let (id, now) = (&self.id, SystemClock::new().now());
        Ok(serde_json::from_value(serde_json::json!({
            "version": "1", "since": now.millis(), "area": AREA, "gateway": self.gateway.as_str(), "home": id,
            "time_zone": "Asia/Shanghai", "residents": 1, "rooms": ["bedroom"],
            "beds": [{"id": format!("{id}-bed"), "room": "bedroom"}],
            "devices": [{"id": format!("{id}-mat-1"), "bed": format!("{id}-bed"), "profile": "light", "quantities": ["bed_occupancy"]}],
        }))?)
    }

    /// Works as a gateway does until told to stop; offers a batch whenever `allowed` is above what it has offered.
    pub async fn run(mut self, mut allowed: watch::Receiver<u64>, stop: Shutdown) -> anyhow::Result<()> {
        let (events_in, mut events) = mpsc::channel(256);
        let place = (self.area.clone(), self.gateway.clone());
        let will = Arc::new(Vec::<u8>::new);
        let clock: (Arc<dyn Clock>, _) = (Arc::new(SystemClock::new()), Timestamp::MIN);
        let waits = self.delivery.call_waits();
        let mqtt = Mqtt::new(self.config.broker.clone(), place, will, events_in, waits, clock);
        let uplink = tokio::spawn(mqtt.run(stop.clone()));
        let inventory = self.inventory()?;
        let mut calls = self.delivery.call_waits();
        loop {
            let behind = *allowed.borrow_and_update() > note(&self.progress, |progress| progress.offered);
            let due = self.delivery.due();
            tokio::select! {
                () = stop.cancelled() => break,
                event = events.recv() => match event {
                    Some(UplinkEvent::Connected(publisher)) => {
                        let _unheard = publisher.json(Channel::Inventory, true, &inventory);
                        self.delivery.connected(publisher);
                        note(&self.progress, |progress| progress.connections += 1);
                        self.delivery.pump().await?;
                    }
                    Some(UplinkEvent::Disconnected) => {
                        self.delivery.disconnected();
                        note(&self.progress, |progress| progress.disconnections += 1);
                    }
                    Some(UplinkEvent::Receipt(receipt)) => self.delivery.receipt(receipt).await?,
                    Some(UplinkEvent::Command(_)) => {}
                    None => break,
                },
                () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                    self.delivery.pump().await?;
                }
                () = std::future::ready(()), if behind => {
                    for _ in 0..OFFERED_AT_ONCE {
                        self.offer().await?;
                    }
                    self.delivery.pump().await?;
                }
                _ = allowed.changed(), if !behind => {}
            }
            let (spooled, spooled_bytes) = self.delivery.depth();
            let (call_waits, troubles) = (*calls.borrow_and_update(), self.delivery.take_troubles().len());
            note(&self.progress, |progress| {
                (progress.spooled, progress.spooled_bytes) = (spooled, spooled_bytes);
                progress.troubles += troubles as u64;
                if !call_waits {
                    progress.calls_receipted.get_or_insert_with(Instant::now);
                }
                if spooled == 0 {
                    progress.emptied.get_or_insert_with(Instant::now);
                }
            });
        }
        uplink.abort();
        Ok(())
    }
}

/// Looks at a progress or changes it.
pub fn note<T>(progress: &Mutex<Progress>, act: impl FnOnce(&mut Progress) -> T) -> T {
    act(&mut progress.lock().unwrap_or_else(PoisonError::into_inner))
}
