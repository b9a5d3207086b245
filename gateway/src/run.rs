//! The gateway as a whole: events in, observations and results out.

mod gateway;
mod reload;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::labels::Lane;
use carebed_contract::pack::Pack;
use carebed_contract::record::Record;
use carebed_contract::time::ClockQuality;
use tokio::sync::{mpsc, watch};

use crate::actions::Actions;
use crate::command::Commands;
use crate::config::Config;
use crate::device::Device;
use crate::gather::Gather;
use crate::home::HomeFile;
use crate::known::Known;
use crate::link::Links;
use crate::metrics::Metrics;
use crate::signals::Signals;
use crate::spool::{Directory, DirectoryError, Memory, Opened, Spool, SpoolError, leave_aside};
use crate::stamp::{Sample, Stamper};
use crate::status::StatusBoard;
use crate::uplink::delivery::Delivery;
use crate::uplink::keeper::{KeeperError, MEMORY_LIMITS};
use crate::uplink::mqtt::{JsonText as _, Mqtt};
use crate::uplink::session::Window;
use gateway::Gateway;

/// Events that may wait for the gateway; then links and connection wait, too.
const EVENTS_MAX: usize = 256;
/// Batches of the urgent lane that are read at start to know what was told; of more, older states are told again.
const WAITING_CALLS_MAX: u64 = 64;
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

/// What reaches a running gateway beside devices and centre.
#[derive(Debug)]
pub struct Outside {
    /// Changed files.
    pub reloads: mpsc::Receiver<Reload>,
    /// Where it says how it is; nothing is said while nobody listens.
    pub metrics: watch::Sender<Metrics>,
}

/// What became of changed files.
#[derive(Debug)]
pub enum Reload {
    /// They were read.
    Read(Box<(Config, HomeFile)>),
    /// They cannot be used; the gateway goes on with what it has.
    Refused(String),
}

impl Default for Outside {
    /// Nothing reaches it.
    fn default() -> Self {
        Self { reloads: mpsc::channel(1).1, metrics: watch::Sender::default() }
    }
}

/// Runs one gateway until `shutdown` is cancelled; then what is gathered is brought into the spool and the centre told.
pub async fn run(config: Config, home: HomeFile, clock: Arc<dyn Clock>, shutdown: Shutdown) -> Result<(), Error> {
    run_with(config, home, clock, shutdown, Outside::default()).await
}

/// Runs one gateway as [`run`] does, and takes what comes from outside.
pub async fn run_with(
    config: Config,
    home: HomeFile,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    mut outside: Outside,
) -> Result<(), Error> {
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
                if let Ok(mut directory) = Directory::open(&spool_directory) {
                    leave_aside(&mut directory);
                }
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
    let mut signals = Signals::new(home.shows());
    for record in waiting_calls(&spool) {
        devices.iter_mut().for_each(|device| device.recall(&record));
        if gateway::is_call(&record.series.quantity, &record.value) {
            // What was pressed before the restart still waits for the centre: lamp and siren say so.
            signals.called(start.monotonic);
        }
    }
    let stamper = Stamper::new(config.clock, spool.floor());
    let floor = spool.floor();
    let delivery = Delivery::new(spool, Window::of(config.window));
    let place = (home.area.clone(), home.gateway.clone());
    let mqtt = Mqtt::new(
        config.broker.clone(),
        place,
        will,
        uplink_sender,
        delivery.call_waits(),
        (Arc::clone(&clock), floor),
    );
    let stop_uplink = Shutdown::new();
    let mut uplink = tokio::spawn(mqtt.run(stop_uplink.clone()));
    let stop_links = shutdown.child_token();
    let links = Links::start(&boards, &config.devices_broker, &link_sender, &clock, &stop_links);
    drop(link_sender);

    let known = Known::new(boards.iter().map(|board| board.profile.polls.len()), start.monotonic);
    let mut gateway = Gateway {
        stamper,
        delivery,
        devices,
        known,
        gather: Gather::new(config.routine_every, config.complete_every, start.monotonic),
        commands: Commands::default(),
        links,
        status,
        status_due: start.monotonic,
        tell_status: false,
        told_clock: ClockQuality::Unsynchronised,
        looked: start.monotonic,
        signals,
        actions: Actions::new(&home.actions),
        counts: Metrics::default(),
        metrics: outside.metrics,
        metrics_due: start.monotonic,
        config,
        home,
        clock: Arc::clone(&clock),
    };
    for what in damage {
        gateway.trouble(format!("{what}; what could be read goes on under a new epoch"));
    }

    loop {
        let due = gateway.due_in(clock.monotonic());
        let retry_due = gateway.delivery.due();
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(event) = uplink_events.recv() => gateway.on_uplink(event).await?,
            Some(event) = link_events.recv() => gateway.on_link(event).await?,
            () = clock.sleep(due) => gateway.on_time().await?,
            Some(reload) = outside.reloads.recv() => {
                if let Some((config, home)) = gateway.accept(reload) {
                    let boards: Vec<_> = home.boards.iter().cloned().map(Arc::new).collect();
                    gateway.links.end_changed(&boards, &config.devices_broker).await;
                    // What the old links still had to say means what the old files say it means.
                    while let Ok(event) = link_events.try_recv() {
                        gateway.on_link(event).await?;
                    }
                    gateway.reload(config, home, &boards);
                }
            }
            () = wire_timer(retry_due) => gateway.delivery.pump().await?,
        }
        gateway.show();
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

async fn wire_timer(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
