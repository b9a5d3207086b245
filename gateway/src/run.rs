//! The gateway as a whole: events in, observations and results out.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::command::Command;
use carebed_contract::labels::Lane;
use carebed_contract::pack::Pack;
use carebed_contract::quality::Quality;
use carebed_contract::record::Record;
use carebed_contract::status::GatewayState;
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::topic::Channel;
use carebed_contract::value::Value;
use tokio::sync::mpsc;

use crate::command::{Commands, Decision};
use crate::config::Config;
use crate::device::{Device, Heard, Told};
use crate::gather::Gather;
use crate::home::HomeFile;
use crate::link::{LinkEvent, Links};
use crate::spool::{Directory, DirectoryError, Memory, Opened, Spool, SpoolError};
use crate::stamp::{Observed, Sample, Stamper};
use crate::status::{Now, StatusBoard};
use crate::uplink::delivery::Delivery;
use crate::uplink::keeper::{KeeperError, MEMORY_LIMITS};
use crate::uplink::mqtt::{JsonText as _, Mqtt, UplinkEvent};
use crate::uplink::session::Window;

/// Events that may wait for the gateway; then links and connection wait, too.
const EVENTS_MAX: usize = 256;
/// Batches of the urgent lane that are read at start to know what was told; of more, older states are told again.
const WAITING_CALLS_MAX: u64 = 64;
/// Batches that saying goodbye brings into the spool: more than the memory for gathered observations holds.
const GOODBYE_BATCHES_MAX: usize = 64;
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a gateway cannot run, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No directory for the spool.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The spool cannot be opened.
    #[error("failed to open the spool")]
    Spool(#[from] SpoolError),
    /// There is nowhere left to keep observations.
    #[error("failed to keep observations")]
    Keeper(#[from] KeeperError),
}

/// Runs one gateway until `shutdown` is cancelled; then what is gathered is brought into the spool and the centre told.
pub async fn run(config: Config, home: HomeFile, clock: Arc<dyn Clock>, shutdown: Shutdown) -> Result<(), Error> {
    let Config { spool_directory, spool: limits, .. } = config.clone();
    let opened = tokio::task::spawn_blocking(move || -> Result<Opened, Error> {
        let opened = Directory::open(&spool_directory)
            .map_err(Error::from)
            .and_then(|directory| Ok(Spool::open(Box::new(directory), limits)?));
        match opened {
            Err(in_use @ Error::Directory(DirectoryError::InUse { .. })) => Err(in_use),
            // A disk that refuses must not silence a call: what is taken now lives in memory, and that is told.
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the spool cannot be used; going on in memory"
                );
                let mut opened = Spool::open(Box::new(Memory::default()), MEMORY_LIMITS)?;
                opened.damage.push(format!("{error}; observations are kept in memory only until the disk is mended"));
                Ok(opened)
            }
            opened => opened,
        }
    });
    let Opened { spool, damage } = opened.await.map_err(|_| KeeperError::CutOff)??;

    let start = Sample::take(&*clock);
    let boards: Vec<_> = home.boards.iter().cloned().map(Arc::new).collect();
    let status = StatusBoard::new(&home, start.wall);
    let (link_sender, mut link_events) = mpsc::channel(EVENTS_MAX);
    let (uplink_sender, mut uplink_events) = mpsc::channel(EVENTS_MAX);
    let will = {
        let (clock, status) = (Arc::clone(&clock), StatusBoard::new(&home, start.wall));
        Arc::new(move || status.lost(clock.now()).json())
    };
    let device = |board: &Arc<_>| Device::new(&home.home, Arc::clone(board), config.heartbeat, start.wall);
    let mut devices: Vec<Device> = boards.iter().map(device).collect();
    for record in waiting_calls(&spool) {
        devices.iter_mut().for_each(|device| device.recall(&record, start));
    }
    let stamper = Stamper::new(config.clock, spool.floor());
    let delivery = Delivery::new(spool, Window::of(config.window));
    let place = (home.area.clone(), home.gateway.clone());
    let mqtt = Mqtt::new(config.broker.clone(), place, will, uplink_sender, delivery.call_waits());
    let stop_uplink = Shutdown::new();
    let mut uplink = tokio::spawn(mqtt.run(stop_uplink.clone()));
    let stop_links = shutdown.child_token();
    let links = Links::start(&boards, &link_sender, &clock, &stop_links);
    drop(link_sender);

    let polled = boards.iter().map(|board| vec![None; board.profile.polls.len()]).collect();
    let mut gateway = Gateway {
        stamper,
        delivery,
        devices,
        polled,
        gather: Gather::new(config.routine_every, config.complete_every, start.monotonic),
        commands: Commands::default(),
        links,
        status,
        status_due: start.monotonic,
        tell_status: false,
        synchronised: false,
        config,
        home,
        clock: Arc::clone(&clock),
    };
    for what in damage {
        gateway.trouble(format!("{what}; what could be read goes on under a new epoch"));
    }

    loop {
        let now = Sample::take(&*clock);
        let batch_due = gateway.gather.due_in(&gateway.stamper, now);
        let status_due = gateway.status_due.saturating_sub(now.monotonic);
        let retry_due = gateway.delivery.due();
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(event) = uplink_events.recv() => gateway.on_uplink(event).await?,
            Some(event) = link_events.recv() => gateway.on_link(event).await?,
            () = product_timer(&*clock, batch_due) => gateway.close_batch().await?,
            () = product_timer(&*clock, Some(status_due)) => gateway.tell_status = true,
            () = wire_timer(retry_due) => gateway.delivery.pump().await?,
        }
        gateway.tell();
    }

    stop_links.cancel();
    while let Ok(event) = link_events.try_recv() {
        gateway.on_link(event).await?;
    }
    gateway.goodbye().await?;
    stop_uplink.cancel();
    // A broker that does not take the goodbye in time tells the last will instead.
    if tokio::time::timeout(GOODBYE, &mut uplink).await.is_err() {
        uplink.abort();
    }
    Ok(())
}

/// Urgent observations of the last life that the centre may not have, oldest first. Few: a home calls rarely, so only
/// the last batches are read.
fn waiting_calls(spool: &Spool) -> Vec<Record> {
    let next = spool.next(Lane::Urgent);
    let first = spool.base(Lane::Urgent).max(next.saturating_sub(WAITING_CALLS_MAX));
    let batches = (first..next).filter_map(|seq| spool.batch(Lane::Urgent, seq).ok().flatten());
    batches
        .filter_map(|batch| Pack::decode(batch.sealed.content_type.as_str(), &batch.sealed.bytes).ok())
        .flat_map(|pack| pack.records)
        .collect()
}

async fn product_timer(clock: &dyn Clock, wait: Option<Duration>) {
    match wait {
        Some(wait) => clock.sleep(wait).await,
        None => pending().await,
    }
}

async fn wire_timer(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

struct Gateway {
    config: Config,
    home: HomeFile,
    clock: Arc<dyn Clock>,
    stamper: Stamper,
    delivery: Delivery,
    devices: Vec<Device>,
    /// When each poll of each board last ended: everything before is known.
    polled: Vec<Vec<Option<Timestamp>>>,
    gather: Gather,
    commands: Commands,
    links: Links,
    status: StatusBoard,
    status_due: Duration,
    tell_status: bool,
    synchronised: bool,
}

impl Gateway {
    fn now(&self) -> Sample {
        Sample::take(&*self.clock)
    }

    fn trouble(&mut self, what: String) {
        self.status.trouble(what);
        self.tell_status = true;
    }

    async fn on_link(&mut self, event: LinkEvent) -> Result<(), KeeperError> {
        match event {
            LinkEvent::Polled { board, poll, sample, result } => {
                let Some(device) = self.devices.get_mut(board) else { return Ok(()) };
                let before = device.health();
                let told = match &result {
                    Ok(data) => device.hear(Heard::Answer { poll, data }, sample),
                    Err(silence) => {
                        device.hear(Heard::Nothing { cycles: silence.cycles, lasted: silence.lasted }, sample)
                    }
                };
                self.tell_status |= device.health() != before;
                if let Some(ended) = self.polled.get_mut(board).and_then(|polls| polls.get_mut(poll)) {
                    *ended = Some(sample.wall);
                }
                self.take(told).await
            }
            LinkEvent::Written { id, result, sample } => {
                let (result, recorded) = self.commands.written(id, result, sample.wall);
                self.tell_result(&result);
                if let Some((series, value)) = recorded {
                    let observed = Observed { series, value: Value::Flag(value), quality: Quality::Good, sample };
                    self.take(vec![Told { lane: Lane::Routine, observed }]).await?;
                }
                Ok(())
            }
        }
    }

    /// Urgent observations go to the spool and out at once; routine ones are gathered.
    async fn take(&mut self, told: Vec<Told>) -> Result<(), KeeperError> {
        let now = self.now();
        let mut urgent: Vec<Record> = Vec::new();
        for Told { lane, observed } in told {
            match lane {
                Lane::Urgent => urgent.push(self.stamper.at_once(observed)),
                Lane::Routine => self.gather.add(observed, &self.stamper, now),
            }
        }
        if !urgent.is_empty() {
            let complete_to = self.delivery.complete_to();
            self.delivery.keep(Lane::Urgent, urgent, complete_to).await?;
            self.delivery.pump().await?;
        }
        if self.gather.take_given_up() > 0 {
            self.trouble("the clock was not set for so long that the oldest observations were given up".to_owned());
        }
        Ok(())
    }

    /// Closes the routine batch, empty or not: it also says up to when the data is complete.
    async fn close_batch(&mut self) -> Result<(), KeeperError> {
        let now = self.now();
        let records = self.gather.take(&self.stamper, now);
        let polls = self.polled.iter().flatten();
        let ended = polls.copied().try_fold(now.wall, |earliest, ended| Some(earliest.min(ended?)));
        let known = self.delivery.complete_to();
        let complete_to = match ended {
            Some(ended) if self.gather.is_empty() => known.max(ended),
            _ => known,
        };
        self.delivery.keep(Lane::Routine, records, complete_to).await?;
        self.delivery.pump().await
    }

    async fn on_uplink(&mut self, event: UplinkEvent) -> Result<(), KeeperError> {
        match event {
            UplinkEvent::Connected(publisher) => {
                self.delivery.connected(publisher);
                self.tell_inventory();
                self.tell_status = true;
                self.tell();
                self.delivery.pump().await
            }
            UplinkEvent::Disconnected => {
                self.delivery.disconnected();
                Ok(())
            }
            UplinkEvent::Receipt(receipt) => self.delivery.receipt(receipt).await,
            UplinkEvent::Command(command) => {
                self.on_command(&command);
                Ok(())
            }
        }
    }

    fn on_command(&mut self, command: &Command) {
        let now = self.now().wall;
        match self.commands.decide(command, &self.home, now) {
            Decision::UnderWay => {}
            Decision::Tell(result) => self.tell_result(&result),
            Decision::Write(write) => {
                if let Err(write) = self.links.write(write) {
                    let busy = Err("too many commands wait for this link".to_owned());
                    let (result, _) = self.commands.written(write.id, busy, now);
                    self.tell_result(&result);
                }
            }
        }
    }

    fn tell_result(&self, result: &carebed_contract::command::CommandResult) {
        // Without a connection nobody hears it; the centre asks again under the same id.
        let _unheard = self.delivery.publisher().is_some_and(|p| p.json(Channel::Result, false, result));
    }

    fn tell_inventory(&self) {
        let inventory = self.home.inventory(self.now().wall);
        let _unheard = self.delivery.publisher().is_some_and(|p| p.json(Channel::Inventory, true, &inventory));
    }

    /// Tells the status when something in it changed or its time has come.
    fn tell(&mut self) {
        let now = self.now();
        let synchronised = self.stamper.is_synchronised(now.wall);
        if synchronised != self.synchronised {
            self.synchronised = synchronised;
            self.tell_status = true;
            self.tell_inventory();
        }
        for what in self.delivery.take_troubles() {
            self.trouble(what);
        }
        if std::mem::take(&mut self.tell_status) {
            self.status_due = now.monotonic + self.config.status_every;
            self.publish_status(GatewayState::Online);
        }
    }

    fn publish_status(&self, state: GatewayState) {
        let (spool_batches, spool_bytes) = self.delivery.depth();
        let clock = if self.synchronised { ClockQuality::Synchronised } else { ClockQuality::Unsynchronised };
        let devices = self.devices.iter().flat_map(Device::status).collect();
        let status = self.status.status(state, Now { spool_batches, spool_bytes, clock, devices });
        let _unheard = self.delivery.publisher().is_some_and(|p| p.json(Channel::Status, true, &status));
    }

    async fn goodbye(&mut self) -> Result<(), KeeperError> {
        for _ in 0..GOODBYE_BATCHES_MAX {
            if self.gather.is_empty() {
                break;
            }
            self.close_batch().await?;
        }
        self.delivery.close().await?;
        self.publish_status(GatewayState::Stopped);
        if let Some(publisher) = self.delivery.publisher() {
            publisher.disconnect();
        }
        Ok(())
    }
}
