//! Live detection: events from ingest become episodes, episodes findings, findings alerts.
//!
//! One task owns the episodes. An urgent observation is looked at before anything else happens; the rounds over all
//! detections come in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use carebed_alerts::Evaluated;
use carebed_console::Console;
use carebed_console::board::Board;
use carebed_console::desk::Desk;
use carebed_console::registry::{Bed, Home, Registry, RegistryError};
use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::id::HomeId;
use carebed_contract::inventory::Inventory;
use carebed_contract::labels::Lane;
use carebed_contract::observation::Observation;
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use carebed_contract::topic::Topic;
use carebed_pipeline::event::Event;
use carebed_pipeline::store::Store;
use carebed_queries::episodes::Episodes;
use carebed_queries::history::{self, HistoryError, Span};
use carebed_queries::home::HomeFacts;
use carebed_queries::live::{Live, Round};
use carebed_queries::sql::Lake;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Detection as Settings;
use crate::detections::Detections;
use crate::facts::Params;

/// The task and what it owns.
#[derive(Debug)]
pub struct LiveTask {
    live: Live,
    desk: Desk,
    board: Board,
    registry: Registry,
    settings: Settings,
    params: Params,
    clock: Arc<dyn Clock>,
    /// Findings raised before it may rest on what was not rebuilt.
    since: Timestamp,
    /// The episodes of the last days, on their way from the lake.
    rebuilding: Option<JoinHandle<Result<Episodes, HistoryError>>>,
}

/// What ingest tells.
#[derive(Debug)]
pub struct Heard {
    /// Calls, and what gateways say of themselves and their homes.
    pub urgent: mpsc::Receiver<Event>,
    /// Routine observations.
    pub routine: mpsc::Receiver<Event>,
}

impl Heard {
    /// The next event, calls first; none when ingest has ended.
    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            Some(event) = self.urgent.recv() => Some(event),
            Some(event) = self.routine.recv() => Some(event),
            else => None,
        }
    }

    fn close(&mut self) {
        self.urgent.close();
        self.routine.close();
    }
}

impl LiveTask {
    /// Begins to rebuild the episodes of the last days from the lake, so that a restart forgets nobody who is out of bed.
    /// Calls ring meanwhile.
    pub fn open(
        store: &Store,
        detections: Detections,
        registry: &Registry,
        console: &Console,
        (settings, params): (Settings, Params),
        clock: Arc<dyn Clock>,
    ) -> Self {
        let Detections { engine, definitions, list, .. } = detections;
        let mut live = Live::new(Arc::clone(&engine), list, Arc::clone(&definitions));
        for home in registry.homes() {
            live.set_home(params.facts(&home));
        }
        let from = clock.now() - settings.rebuild;
        let facts: Vec<HomeFacts> = registry.homes().iter().map(|home| params.facts(home)).collect();
        let span = Span { from, to: Timestamp::MAX };
        let (lake, view) = (Lake::of(store), store.view());
        let limits = engine.limits();
        let rebuilding = tokio::spawn(async move {
            history::episodes(&lake, &view, span, &facts, definitions, limits).await
        });
        let window = live.detections().iter().map(|d| d.meaning.window).max().unwrap_or_default();
        let (desk, board) = (console.desk(), console.board());
        let (registry, since, rebuilding) = (registry.clone(), from + window, Some(rebuilding));
        Self { live, desk, board, registry, settings, params, clock, since, rebuilding }
    }

    /// Waits for the rebuilt episodes. Calls ring from what they say themselves, and are taken once more afterwards; routine
    /// data waits in its channel, and behind that in the spools.
    async fn resume(&mut self, heard: &mut Heard, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Some(mut rebuilding) = self.rebuilding.take() else { return Ok(()) };
        // Nothing is known to be over while so little is known.
        let since = std::mem::replace(&mut self.since, Timestamp::MAX);
        let mut calls = Vec::new();
        let rebuilt = loop {
            tokio::select! {
                rebuilt = &mut rebuilding => break rebuilt.context("rebuilding the episodes was cut off")?,
                Some(event) = heard.urgent.recv() => {
                    if matches!(event, Event::Accepted { .. } | Event::Early { .. }) {
                        // Bounded by the memory that ingest gives to calls.
                        calls.push(event.clone());
                    }
                    self.take(event).await?;
                }
                () = shutdown.cancelled() => {
                    rebuilding.abort();
                    return Ok(());
                }
            }
        };
        self.since = since;
        match rebuilt {
            Ok(episodes) => self.live.resume(episodes),
            // A lake that cannot be read must not keep calls from ringing.
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "failed to rebuild episodes from the lake; who was in or out of bed before now is not known"
            ),
        }
        for call in calls {
            self.take(call).await?;
        }
        Ok(())
    }

    /// Works until told to stop and the last event is taken.
    pub async fn run(mut self, mut heard: Heard, shutdown: Shutdown) -> anyhow::Result<()> {
        self.resume(&mut heard, &shutdown).await?;
        let mut next_round = self.clock.sleep(self.settings.every);
        loop {
            // Not biased: while a backlog drains there is always another event, and rounds must run all the same.
            tokio::select! {
                event = heard.next() => match event {
                    Some(event) => self.take(event).await?,
                    None => return Ok(()),
                },
                () = &mut next_round => {
                    self.round().await?;
                    next_round = self.clock.sleep(self.settings.every);
                }
                () = shutdown.cancelled() => {
                    heard.close();
                    while let Some(event) = heard.next().await {
                        self.take(event).await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    async fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Accepted { rows, complete, .. } => {
                self.feed(&rows);
                let now = self.clock.now();
                for (home, complete_to) in complete {
                    self.live.advance(&home, complete_to);
                    self.board.heard(&home, now);
                }
                self.look_at_urgent(&rows).await
            }
            Event::Early { rows, .. } => {
                self.feed(&rows);
                self.look_at_urgent(&rows).await
            }
            Event::Status { status, .. } => {
                self.board.status(status);
                Ok(())
            }
            Event::Inventory { topic, inventory } => {
                self.register(&topic, inventory).await;
                Ok(())
            }
            Event::Result { topic, result } => {
                tracing::info!(gateway = %topic.gateway, command = result.id, outcome = ?result.outcome, "the home answered a command");
                Ok(())
            }
            Event::Gap(gap) => {
                tracing::warn!(?gap, "observations are missing for good; see the table gaps");
                Ok(())
            }
        }
    }

    fn feed(&mut self, rows: &[Observation]) {
        let fed = self.live.feed(rows);
        if fed.too_late > 0 {
            tracing::warn!(
                rows = fed.too_late,
                "observations came too late for the live episodes; they are in the table"
            );
        }
    }

    /// The short way for calls: the urgent detections of the homes concerned, at once.
    async fn look_at_urgent(&mut self, rows: &[Observation]) -> anyhow::Result<()> {
        let homes: BTreeSet<&HomeId> = rows.iter().filter(|r| r.lane == Lane::Urgent).map(|r| &r.home).collect();
        for home in homes {
            let round = self.live.tick_home(home, self.clock.now()).await;
            let homes = BTreeMap::from([(home.clone(), self.complete_to(home))]);
            self.tell(round, |detection| detection.meaning.urgent, homes).await?;
        }
        Ok(())
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        let round = self.live.tick(self.clock.now()).await;
        let homes: Vec<HomeId> = self.live.homes().map(|facts| facts.home.clone()).collect();
        let homes = homes.into_iter().map(|home| (home.clone(), self.complete_to(&home))).collect();
        self.tell(round, |_| true, homes).await
    }

    async fn tell(
        &mut self,
        round: Round,
        asked: impl Fn(&carebed_queries::engine::Detection) -> bool,
        homes: BTreeMap<HomeId, Timestamp>,
    ) -> anyhow::Result<()> {
        let Round { findings, failed } = round;
        let mut detections: BTreeSet<String> =
            self.live.detections().iter().filter(|d| asked(d)).map(|d| d.name.clone()).collect();
        for error in &failed {
            tracing::error!(%error, "a detection gave no answer");
            detections.remove(error.detection());
        }
        self.desk
            .findings(findings, Evaluated { detections, homes, since: self.since })
            .await
            .context("the desk does not answer")?;
        Ok(())
    }

    fn complete_to(&mut self, home: &HomeId) -> Timestamp {
        self.live.episodes().complete_to(home).unwrap_or(Timestamp::MIN)
    }

    /// A home file says what is where; names and people of a home that is known already stay as they are.
    async fn register(&mut self, topic: &Topic, inventory: Inventory) {
        let known = self.registry.home(&inventory.home);
        let bed = |id| {
            let known = known.as_ref().and_then(|home| home.beds.iter().find(|bed| bed.id == id).cloned());
            known.unwrap_or_else(|| Bed { name: id.to_string(), id, person: None })
        };
        let lamp = inventory.devices.iter().find(|device| device.actions.iter().any(|action| action == "set"));
        let home = Home {
            area: topic.area.clone(),
            gateway: topic.gateway.clone(),
            name: known.as_ref().map_or_else(|| inventory.home.to_string(), |home| home.name.clone()),
            time_zone: inventory.time_zone.parse().unwrap_or(carebed_console::registry::TIME_ZONE),
            residents: inventory.residents,
            lamp: lamp.map(|device| device.id.clone()),
            beds: inventory.beds.iter().map(|b| bed(b.id.clone())).collect(),
            id: inventory.home,
        };
        if known.as_deref() == Some(&home) {
            return;
        }
        self.live.set_home(self.params.facts(&home));
        if let Err(error) = put(&self.registry, home).await {
            tracing::error!(%error, gateway = %topic.gateway, "the home file's home was not registered");
        }
    }
}

/// Registers a home, and its area when that is new: an area without a name is called by its code.
pub(crate) async fn put(registry: &Registry, home: Home) -> Result<(), RegistryError> {
    if registry.area(&home.area).is_none() {
        registry.put_area(home.area.clone(), Text::new(home.area.as_str(), home.area.as_str())).await?;
    }
    registry.put_home(home).await
}
