//! Live detection: events from ingest become episodes, episodes findings, findings alerts.
//!
//! One task owns the episodes. An urgent observation is looked at before anything else happens; the rounds over all
//! detections run beside it, on what was known when they began.

mod asked;
mod heard;
mod registering;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arrow::array::RecordBatch;
use carebed_alerts::Evaluated;
use carebed_console::Console;
use carebed_console::board::{Blind, Board};
use carebed_console::desk::Desk;
use carebed_console::intervals::Intervals;
use carebed_console::log::Log;
use carebed_console::registry::Registry;
use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::command::Command;
use carebed_contract::finding::Finding;
use carebed_contract::id::{Area, HomeId};
use carebed_contract::labels::Lane;
use carebed_contract::observation::Observation;
use carebed_contract::status::{GatewayState, Status};
use carebed_contract::time::Timestamp;
use carebed_contract::topic::{Channel, Topic};
use carebed_pipeline::event::Event;
use carebed_pipeline::memory::Rows;
use carebed_pipeline::store::Store;
use carebed_queries::engine::{Baseline, Engine, EvaluateError};
use carebed_queries::episodes::{Episode, Episodes};
use carebed_queries::history::{self, HistoryError, Span};
use carebed_queries::home::HomeFacts;
use carebed_queries::live::{Live, Round};
use carebed_queries::sql::Lake;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::alert_times::Times;
use crate::config::{DAY, Detection as Settings};
use crate::detections::{self, Detections};
use crate::facts::{Params, intervals_of};
use crate::failing::{CENTRE, Failing};
use crate::notices::{self, Troubles};
use crate::purges::Purges;
use crate::wrong_clocks::WrongClocks;
use asked::{ASKED_MAX, Asked};
pub use asked::{InMemory, Memories};
pub use heard::Heard;
use registering::facts;
pub(crate) use registering::put;

/// How often it is seen whether a home's night is over and its baselines can be learnt.
const LEARN_EVERY: Duration = Duration::from_secs(3_600);

/// Rows of the table `baselines`, and which baselines failed.
type Learnt = (RecordBatch, Vec<EvaluateError>);

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
    intervals: Intervals,
    store: Store,
    /// Which detections cannot be used.
    failing: Failing,
    /// The round that runs beside, and how far its homes were complete when it began.
    looking: Option<(JoinHandle<Round>, BTreeMap<HomeId, Timestamp>)>,
    /// Homes with urgent observations since that round began: it has not seen those, so it can take nothing of theirs back.
    urgent_since: BTreeSet<HomeId>,
    /// Findings raised before it may rest on what was not rebuilt.
    since: Timestamp,
    engine: Arc<Engine>,
    baselines: Vec<Baseline>,
    log: Log,
    /// How alerts went, as far as the log was read.
    times: Times,
    /// Whether anything was learnt since the start.
    has_learnt: bool,
    /// What gateways said of their troubles.
    troubles: Troubles,
    wrong_clocks: WrongClocks,
    purges: Purges,
    /// The way to gateways.
    commands: mpsc::Sender<(Topic, Command)>,
    /// What is usual in the homes, on its way from the lake.
    learning: Option<JoinHandle<Result<Learnt, HistoryError>>>,
    /// Homes that were forgotten since it began: what was learnt of them counts no more.
    unlearn: BTreeSet<HomeId>,
    /// What analysts ask, and who erases.
    asked: mpsc::Receiver<Asked>,
    /// The home that is remembered anew; nothing else is answered meanwhile.
    remaking: Option<Remaking>,
    /// Rebuilt from then on.
    rebuilt_from: Timestamp,
    /// The episodes of the last days, on their way from the lake.
    rebuilding: Option<JoinHandle<Result<Episodes, HistoryError>>>,
}

/// A home whose episodes are made anew of what an erasure has left of it.
#[derive(Debug)]
struct Remaking {
    home: HomeId,
    episodes: JoinHandle<Result<Episodes, HistoryError>>,
    /// What came since it began; it may not be in the view that is read.
    since: Vec<Rows>,
    say: oneshot::Sender<()>,
}

/// A home that was in one state since before the rebuild looks as if it had begun then; a day later there is no such.
const REBUILT_MARGIN: Duration = Duration::from_secs(86_400);

impl LiveTask {
    /// Begins to rebuild the episodes of the last days from the lake, so that a restart forgets nobody who is out of bed.
    /// Calls ring meanwhile.
    pub fn open(
        store: &Store,
        detections: Detections,
        registry: &Registry,
        (console, log): (&Console, Log),
        (settings, params): (Settings, Params),
        clock: Arc<dyn Clock>,
        commands: mpsc::Sender<(Topic, Command)>,
    ) -> (Self, InMemory) {
        let now = clock.now();
        let (ask, asked) = mpsc::channel(ASKED_MAX);
        let Detections { engine, definitions, list, baselines, urgent, off, .. } = detections;
        let mut live = Live::new(Arc::clone(&engine), list, Arc::clone(&definitions)).with_urgent(urgent);
        let intervals = console.intervals();
        for home in registry.homes() {
            live.set_home(facts(&params, &intervals, &home));
        }
        live.listen_from(now);
        let failing = Failing::new(off, now);
        let from = clock.now() - settings.rebuild;
        let mut facts: Vec<HomeFacts> = registry.homes().iter().map(|home| facts(&params, &intervals, home)).collect();
        // Homes that nobody registered, too: a call of theirs that still lasts must be found again, or it would be taken back.
        let view = store.view();
        let strangers = view.complete.keys().filter(|home| registry.home(home).is_none());
        let area = Area::new(CENTRE).expect("it is a name");
        facts.extend(strangers.map(|home| HomeFacts::unregistered(home.clone(), area.clone())));
        let span = Span { from, to: Timestamp::MAX };
        let lake = Lake::of(store);
        let limits = engine.limits();
        let rebuilding =
            tokio::spawn(async move { history::episodes(&lake, &view, span, &facts, definitions, limits).await });
        let window = live.detections().iter().map(|d| d.meaning.window).max().unwrap_or_default();
        let (desk, board) = (console.desk(), console.board());
        let (registry, since, rebuilding) = (registry.clone(), from + window, Some(rebuilding));
        let store = store.clone();
        let this = Self {
            live,
            desk,
            board,
            registry,
            settings,
            params,
            clock,
            intervals,
            store,
            failing,
            looking: None,
            urgent_since: BTreeSet::new(),
            since,
            engine,
            baselines,
            log,
            times: Times::default(),
            has_learnt: false,
            troubles: Troubles::default(),
            wrong_clocks: WrongClocks::default(),
            purges: Purges::default(),
            commands,
            learning: None,
            unlearn: BTreeSet::new(),
            asked,
            remaking: None,
            rebuilt_from: from,
            rebuilding,
        };
        (this, InMemory(ask))
    }

    /// Waits for the rebuilt episodes. Calls ring from what they say themselves, and are taken once more afterwards; routine
    /// data waits in its channel, and behind that in the spools.
    async fn resume(&mut self, heard: &mut Heard, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Some(mut rebuilding) = self.rebuilding.take() else { return Ok(()) };
        // Nothing is known to be over while so little is known.
        let since = std::mem::replace(&mut self.since, Timestamp::MAX);
        let (mut calls, mut forget) = (Vec::new(), None);
        let rebuilt = loop {
            tokio::select! {
                biased;
                rebuilt = &mut rebuilding => break rebuilt.context("rebuilding the episodes was cut off")?,
                Some(event) = heard.urgent.recv() => {
                    if matches!(event, Event::Accepted { .. } | Event::Early { .. }) {
                        // Bounded by the memory that ingest gives to calls.
                        calls.push(event.clone());
                    }
                    self.take(event).await?;
                }
                Some(sign) = heard.signs.recv() => self.take(sign).await?,
                Some(asked) = self.asked.recv(), if forget.is_none() => match asked {
                    // Analysts need not wait: the lake tells the same.
                    Asked::Episodes(_, unsaid) => drop(unsaid),
                    // What is being rebuilt may hold it.
                    Asked::Forget(home, say) => forget = Some((home, say)),
                },
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
        if let Some((home, say)) = forget {
            self.forget(home, say);
        }
        Ok(())
    }

    /// Works until told to stop and the last event is taken.
    pub async fn run(mut self, mut heard: Heard, shutdown: Shutdown) -> anyhow::Result<()> {
        self.hear_gateways();
        self.resume(&mut heard, &shutdown).await?;
        self.read_log().await;
        let mut changes = self.intervals.changes();
        // What was entered while this centre started.
        self.take_intervals();
        let mut next_round = self.clock.sleep(self.settings.every);
        let mut next_lesson = self.clock.sleep(Duration::ZERO);
        loop {
            // Not biased: while a backlog drains there is always another event, and rounds must run all the same.
            tokio::select! {
                event = heard.next() => match event {
                    Some(event) => self.take(event).await?,
                    None => return Ok(()),
                },
                () = &mut next_round, if self.looking.is_none() => {
                    self.begin_round().await;
                }
                round = done(&mut self.looking) => {
                    let (round, homes) = round.context("a round of detections was cut off")?;
                    self.end_round(round, homes).await?;
                    next_round = self.clock.sleep(self.settings.every);
                }
                Some(asked) = self.asked.recv(), if self.remaking.is_none() => match asked {
                    Asked::Episodes(homes, say) => self.say_episodes(&homes, say),
                    Asked::Forget(home, say) => self.forget(home, say),
                },
                remade = remade(&mut self.remaking) => self.remember(remade),
                () = &mut next_lesson, if self.learning.is_none() => self.begin_learning(),
                learnt = lesson(&mut self.learning) => {
                    self.end_learning(learnt);
                    next_lesson = self.clock.sleep(LEARN_EVERY);
                }
                Ok(()) = changes.changed() => self.take_intervals(),
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

    /// Forgets a home, and begins to make its episodes anew of what the lake has left of it.
    fn forget(&mut self, home: HomeId, say: oneshot::Sender<()>) {
        self.live.forget_home(&home);
        self.unlearn.insert(home.clone());
        let facts: Vec<HomeFacts> = self.live.homes().filter(|facts| facts.home == home).cloned().collect();
        if facts.is_empty() {
            // Nobody knows the home: without facts all homes would be read.
            let _gone = say.send(());
            return;
        }
        let span = Span { from: self.rebuilt_from, to: Timestamp::MAX };
        let (lake, view, limits) = (Lake::of(&self.store), self.store.view(), self.engine.limits());
        let definitions = self.live.episodes().definitions();
        let episodes =
            tokio::spawn(async move { history::episodes(&lake, &view, span, &facts, definitions, limits).await });
        self.remaking = Some(Remaking { home, episodes, since: Vec::new(), say });
    }

    fn remember(&mut self, (rebuilt, remaking): (anyhow::Result<Episodes>, Remaking)) {
        match rebuilt {
            Ok(rebuilt) => {
                let since: Vec<Vec<Observation>> = remaking.since.iter().map(|rows| rows.iter().collect()).collect();
                self.live.resume_home(&remaking.home, rebuilt, since.iter().map(Vec::as_slice));
            }
            Err(error) => tracing::error!(
                home = %remaking.home,
                error = format!("{error:#}"),
                "failed to remember what an erasure has left of a home; who is in or out of bed is known from now on"
            ),
        }
        // Who asked may have given up.
        let _gone = remaking.say.send(());
    }

    fn say_episodes(&mut self, homes: &[HomeId], say: oneshot::Sender<(Timestamp, Vec<Episode>)>) {
        let since = self.live.remembers_from(self.clock.now()).max(self.rebuilt_from + REBUILT_MARGIN);
        let episodes = homes.iter().flat_map(|home| self.live.episodes().of(home)).collect();
        // Who asked may have given up.
        let _given_up = say.send((since, episodes));
    }

    async fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Accepted { rows, complete, .. } => {
                let observations: Vec<Observation> = rows.iter().collect();
                self.feed(&rows, &observations);
                let now = self.clock.now();
                for (home, complete_to) in complete {
                    if let Some(complete_to) = complete_to {
                        self.live.advance(&home, complete_to);
                    }
                    self.board.heard(&home, now);
                }
                self.look_at_urgent(&observations).await
            }
            Event::Early { rows, .. } => {
                let observations: Vec<Observation> = rows.iter().collect();
                self.feed(&rows, &observations);
                self.look_at_urgent(&observations).await
            }
            Event::Status { topic, status } => {
                self.order_purges(&topic, &status);
                if status.state == GatewayState::Lost {
                    // It may have been heard for the first time since the last round. No other is looked at: an outage brings
                    // as many last wills as there are homes, and calls wait for each.
                    let (now, heard) = (self.clock.now(), self.store.view().complete.get(&status.home).copied());
                    self.live.signs().noted(heard.map(|heard| (&status.home, heard.received)), now);
                    self.live.signs().lost(&status.home, now);
                }
                let troubles = (status.state != GatewayState::Lost)
                    .then(|| self.registry.home(&status.home))
                    .flatten()
                    .and_then(|home| self.troubles.take(&status, &home.area));
                self.board.status(status);
                match troubles {
                    Some((findings, evaluated)) => self.notice(findings, evaluated).await,
                    None => Ok(()),
                }
            }
            Event::Inventory { topic, inventory } => {
                let notice = self.register(&topic, inventory).await;
                self.notice(notice.into_iter().collect(), Evaluated::default()).await
            }
            Event::Result { topic, result } => {
                tracing::info!(gateway = %topic.gateway, command = result.id, outcome = ?result.outcome, "the home answered a command");
                self.purges.answered(&topic.gateway, &result);
                Ok(())
            }
            Event::Gap(gap) => {
                tracing::warn!(?gap, "observations are missing for good; see the table gaps");
                if gap.missing.lane != Lane::Urgent {
                    return Ok(());
                }
                let home = self.registry.served_by(&gap.gateway);
                let reason = gap.missing.reason.as_str();
                let lost = notices::calls_lost(&gap.gateway, home, gap.area, gap.noted_at, reason);
                self.notice(lost.into_iter().collect(), Evaluated::default()).await
            }
            Event::Unreadable { gateway, area, received } => {
                let lost =
                    notices::calls_lost(&gateway, self.registry.served_by(&gateway), area, received, "unreadable");
                self.notice(lost.into_iter().collect(), Evaluated::default()).await
            }
        }
    }

    /// A gateway that is there empties its spool of what is erased. An order for which there is no room goes with its next word.
    fn order_purges(&self, topic: &Topic, status: &Status) {
        if status.state != GatewayState::Online {
            return;
        }
        let to = Topic { channel: Channel::Command, ..topic.clone() };
        for order in self.purges.due(&self.store.erasures(), &topic.gateway, &status.home, self.clock.now()) {
            let _no_room = self.commands.try_send((to.clone(), order));
        }
    }

    /// What no detection looked for becomes an alert all the same.
    async fn notice(&mut self, findings: Vec<Finding>, evaluated: Evaluated) -> anyhow::Result<()> {
        if findings.is_empty() && evaluated.detections.is_empty() {
            return Ok(());
        }
        self.desk.findings(findings, evaluated).await.context("the desk does not answer")?;
        Ok(())
    }

    fn feed(&mut self, shared: &Rows, rows: &[Observation]) {
        if let Some(remaking) = &mut self.remaking
            && rows.iter().any(|row| row.home == remaking.home)
        {
            remaking.since.push(shared.clone());
        }
        // The newest of each home by its gateway's clock.
        let mut clocks = BTreeMap::<&HomeId, (Timestamp, Timestamp)>::new();
        for row in rows.iter() {
            let clock = clocks.entry(&row.home).or_insert((row.gateway_time, row.received_time));
            *clock = (clock.0.max(row.gateway_time), clock.1.max(row.received_time));
        }
        for (home, (observed_at, heard_at)) in clocks {
            self.live.signs().clock(home, observed_at, heard_at);
        }
        let erasures = self.store.erasures();
        let corrected: Vec<Option<Observation>> = rows.iter().map(|row| self.in_our_time(row)).collect();
        // Decoded before it was asked to be forgotten.
        let fed = if corrected.iter().any(Option::is_some) || rows.iter().any(|row| erasures.cover(row)) {
            let left = rows.iter().zip(corrected).filter(|(row, _)| !erasures.cover(row));
            let left: Vec<Observation> =
                left.map(|(row, corrected)| corrected.unwrap_or_else(|| row.clone())).collect();
            self.live.feed(&left)
        } else {
            self.live.feed(rows)
        };
        if fed.too_late > 0 {
            tracing::warn!(
                rows = fed.too_late,
                "observations came too late for the live episodes; they are in the table"
            );
        }
    }

    /// A press whose gateway's clock is far behind. One that came in its time before, and comes again, stays what it was.
    fn in_our_time(&mut self, row: &Observation) -> Option<Observation> {
        if row.lane != Lane::Urgent {
            return None;
        }
        let contact_since = self.live.signs().contact_since(&row.home);
        let corrected = self.wrong_clocks.correct(row, contact_since)?;
        let is_known =
            |known: &Episode| known.device.as_ref() == Some(&row.device) && known.started_at == row.event_time;
        if self.live.episodes().of(&row.home).iter().any(is_known) {
            return None;
        }
        tracing::warn!(gateway = %row.gateway, home = %row.home, said = %row.event_time, "a call from a gateway whose clock is far behind rings as of now");
        Some(corrected)
    }

    /// The short way for calls: the urgent detections of the homes concerned, at once.
    async fn look_at_urgent(&mut self, rows: &[Observation]) -> anyhow::Result<()> {
        let homes: BTreeSet<&HomeId> = rows.iter().filter(|r| r.lane == Lane::Urgent).map(|r| &r.home).collect();
        for home in homes {
            self.urgent_since.insert(home.clone());
            let round = self.live.tick_home(home, self.clock.now()).await;
            let homes = BTreeMap::from([(home.clone(), self.complete_to(home))]);
            self.tell(round, |detection| detection.meaning.urgent, homes).await?;
        }
        Ok(())
    }

    /// A round runs beside: presses do not wait for it.
    async fn begin_round(&mut self) {
        self.hear_gateways();
        self.read_log().await;
        let look = self.live.look(self.clock.now());
        self.urgent_since.clear();
        let homes = look.homes().clone();
        self.looking = Some((tokio::spawn(look.run()), homes));
    }

    async fn end_round(&mut self, round: Round, mut homes: BTreeMap<HomeId, Timestamp>) -> anyhow::Result<()> {
        homes.retain(|home, _| !self.urgent_since.contains(home));
        self.note_failures(&round);
        self.show_blind();
        let Round { mut findings, failed } = round;
        let signs: BTreeSet<&str> =
            self.live.detections().iter().filter(|d| d.meaning.rests_on_signs).map(|d| d.name.as_str()).collect();
        let of_signs = findings.extract_if(.., |finding| signs.contains(finding.detection.as_str())).collect();
        self.tell(Round { findings, failed }, |detection| !detection.meaning.rests_on_signs, homes).await?;
        // What rests on signs weighed all homes against each other.
        let all: Vec<HomeId> = self.live.homes().map(|facts| facts.home.clone()).collect();
        let mut all: BTreeMap<_, _> = all.into_iter().map(|home| (home.clone(), self.complete_to(&home))).collect();
        all.retain(|home, _| !self.urgent_since.contains(home));
        let round = Round { findings: of_signs, failed: Vec::new() };
        self.tell(round, |detection| detection.meaning.rests_on_signs, all).await
    }

    /// What is usual in the homes, as known at their last two midnights: the one before is for what began before the last. After a start also
    /// as known when that began which has lasted for longer; later it is remembered.
    fn begin_learning(&mut self) {
        self.unlearn.clear();
        let now = self.clock.now();
        let homes: Vec<HomeFacts> = self.live.homes().cloned().collect();
        let is_first = !std::mem::replace(&mut self.has_learnt, true);
        let lasts = if is_first { self.live.lasting_since(now - DAY) } else { BTreeSet::new() };
        let (lake, view, since) = (Lake::of(&self.store), self.store.view(), self.rebuilt_from);
        let (engine, baselines) = (Arc::clone(&self.engine), self.baselines.clone());
        self.learning = Some(tokio::spawn(async move {
            history::learn_for(&engine, &lake, &view, now, &homes, (&lasts, since), &baselines).await
        }));
    }

    /// What cannot be learnt leaves what was learnt before.
    fn end_learning(&mut self, learnt: anyhow::Result<Result<Learnt, HistoryError>>) {
        match learnt {
            Ok(Ok((rows, failed))) => {
                for error in failed {
                    tracing::error!(error = &error as &dyn std::error::Error, "a baseline was not learnt");
                }
                self.live.set_baselines(&rows);
                std::mem::take(&mut self.unlearn).iter().for_each(|home| self.live.forget_baselines(home));
            }
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "failed to read history for the baselines");
            }
            Err(error) => tracing::error!("learning the baselines was cut off: {error:#}"),
        }
    }

    /// How alerts went since the log was last read. What cannot be read is read the next time.
    async fn read_log(&mut self) {
        match self.log.since(self.times.number()).await {
            Ok(log) => {
                for home in self.times.take(&log) {
                    self.live.set_alerts(&home, self.times.of_home(&home));
                }
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "failed to read the alert log"),
        }
    }

    /// When gateways were last heard, as the lake keeps it: so a silence has the same beginning after a restart.
    fn hear_gateways(&mut self) {
        let view = self.store.view();
        self.live.signs().noted(view.complete.iter().map(|(home, heard)| (home, heard.received)), self.clock.now());
    }

    /// A detection that fails again and again is switched off, told as a technical alert, and the others go on. Those for calls stay:
    /// one that works at the next press is worth every error.
    fn note_failures(&mut self, round: &Round) {
        let failed = round.failed.iter().map(|error| (error.detection().to_owned(), error.to_string()));
        for name in self.failing.note(failed.collect(), self.clock.now()) {
            let is_urgent = self.live.detections().iter().any(|d| d.name == name && d.meaning.urgent);
            if !is_urgent {
                self.live.switch_off(&name);
            }
            tracing::error!(detection = name, "a detection is switched off");
        }
    }

    /// Shows where nothing can be judged.
    fn show_blind(&self) {
        let (now, coverage) = (self.clock.now(), self.live.coverage());
        let detections = || self.live.detections().iter().map(|d| (d.name.as_str(), &d.meaning));
        let title =
            |name: &str| self.live.detections().iter().find(|d| d.name == name).map(|d| d.meaning.title.clone());
        let blind = coverage.homes().filter_map(|home| {
            let gaps = coverage.gaps(home, detections(), now).into_iter();
            let blind: Vec<_> = gaps
                .filter_map(|gap| {
                    Some(Blind { title: title(&gap.detection)?, detection: gap.detection, since: gap.since })
                })
                .collect();
            (!blind.is_empty()).then(|| (home.clone(), blind))
        });
        self.board.set_blind(blind.collect());
    }

    /// Somebody entered an absence or a visit, or ended one.
    fn take_intervals(&mut self) {
        let known: Vec<HomeFacts> = self.live.homes().cloned().collect();
        for facts in known {
            let intervals = intervals_of(&self.intervals, &facts.home);
            if intervals != facts.intervals {
                self.live.set_home(HomeFacts { intervals, ..facts });
            }
        }
    }

    async fn tell(
        &mut self,
        round: Round,
        asked: impl Fn(&carebed_queries::engine::Detection) -> bool,
        homes: BTreeMap<HomeId, Timestamp>,
    ) -> anyhow::Result<()> {
        let Round { mut findings, failed } = round;
        let mut detections: BTreeSet<String> =
            self.live.detections().iter().filter(|d| asked(d)).map(|d| d.name.clone()).collect();
        for error in &failed {
            tracing::error!(%error, "a detection gave no answer");
            detections.remove(error.detection());
        }
        let mut homes = homes;
        // Gateways are given their time to be heard again before anybody is told that one is back or was never silent.
        if !self.live.signs().are_settled(self.clock.now()) {
            let rests =
                |name: &String| self.live.detections().iter().any(|d| d.name == *name && d.meaning.rests_on_signs);
            detections.retain(|name| !rests(name));
        }
        if homes.len() > 1 || detections.len() > 1 {
            findings.extend(self.failing.findings());
            detections.insert(detections::OFF.to_owned());
            homes.extend(HomeId::new(CENTRE).ok().map(|home| (home, Timestamp::MIN)));
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
}

/// The end of the round that runs beside; never, when none does.
async fn done(
    looking: &mut Option<(JoinHandle<Round>, BTreeMap<HomeId, Timestamp>)>,
) -> Result<(Round, BTreeMap<HomeId, Timestamp>), tokio::task::JoinError> {
    let Some((round, _)) = looking else { return std::future::pending().await };
    let round = round.await;
    let homes = looking.take().map(|(_, homes)| homes).unwrap_or_default();
    Ok((round?, homes))
}

/// The home that was made anew, when it has been; never while none is.
async fn remade(remaking: &mut Option<Remaking>) -> (anyhow::Result<Episodes>, Remaking) {
    let Some(running) = remaking else { return std::future::pending().await };
    let rebuilt = (&mut running.episodes).await;
    let remaking = remaking.take().expect("it was just there");
    (rebuilt.map_err(Into::into).and_then(|read| read.map_err(Into::into)), remaking)
}

/// What was learnt, when it has been; never while nothing is learnt.
async fn lesson(
    learning: &mut Option<JoinHandle<Result<Learnt, HistoryError>>>,
) -> anyhow::Result<Result<Learnt, HistoryError>> {
    let Some(running) = learning else { return std::future::pending().await };
    let learnt = running.await;
    *learning = None;
    Ok(learnt?)
}
