//! The desk: the one task that owns the alerts, their log and who is told.
//!
//! Each transition is written to the log, then told (to subscribers and, as lamp commands, to the homes), then noted
//! as told. A crash in between tells again what was not noted, under the same alert, number and command ids; a clean
//! stop tells nobody again.
//!
//! A log that cannot be written does not silence a call: what happens is told all the same, kept in memory (at most
//! [`UNWRITTEN_MAX`] transitions) and written when the database answers again. Beyond that the desk ends with an
//! error, so that a supervisor sees it.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use carebed_alerts::alert::{Alert, AlertId, OperatorId};
use carebed_alerts::policy::Policy;
use carebed_alerts::refused::Refused;
use carebed_alerts::transition::Transition;
use carebed_alerts::{Act, Alerts, Evaluated, ReplayError};
use carebed_contract::clock::Clock;
use carebed_contract::finding::Finding;
use carebed_contract::time::Timestamp;
use carebed_contract::{Shutdown, crash};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::database::{Database, DatabaseError};
use crate::home_action::{HomeAction, asked};
use crate::log::Log;
use crate::registry::Registry;

/// Requests that may wait for the desk; beyond it callers wait.
const WAITING_MAX: usize = 256;

/// What was told lately, kept for subscribers that come back; whoever was away for longer has to read anew.
pub const RECENT_MAX: usize = 1024;

/// Transitions kept while the log cannot be written; beyond it the desk ends with [`DeskError::LogLost`].
pub const UNWRITTEN_MAX: usize = 10_000;

/// Lamp commands waiting to be taken; beyond it the oldest is dropped: it would expire anyway.
const ACTIONS_MAX: usize = 1024;

/// How often a failing log is tried again.
const LOG_RETRY: Duration = Duration::from_secs(5);

/// Resolved alerts shown beside the open ones.
const RESOLVED_SHOWN: usize = 10;

/// A transition and the alert after it, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    /// What happened.
    pub transition: Transition,
    /// To which alert, as it was right after.
    pub alert: Alert,
}

/// Why the desk does not work.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The database failed at the start.
    #[error("cannot take up the alerts where they were left")]
    Database(#[from] DatabaseError),
    /// The log contradicts itself.
    #[error("cannot take up the alerts where they were left")]
    Replay(#[from] ReplayError),
    /// The log could not be written for too long.
    #[error(
        "the alert log could not be written and {UNWRITTEN_MAX} transitions wait: free or repair the disk, then start again"
    )]
    LogLost,
}

/// Why a request had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The rules say no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The desk has stopped.
    #[error("the service centre is stopping")]
    Stopped,
}

/// All that a page shows, at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Overview {
    /// Alerts to act on, most pressing first.
    pub open: Vec<Alert>,
    /// The last resolved ones, latest first.
    pub resolved: Vec<Alert>,
    /// The transition up to which this is true.
    pub last_number: u64,
    /// Since when the log cannot be written.
    pub log_failing_since: Option<Timestamp>,
}

/// What a subscriber missed, and what comes.
#[derive(Debug)]
pub struct Subscription {
    /// What came after the number it named; none when that is too long ago: read everything anew.
    pub missed: Option<Vec<Arc<Told>>>,
    /// What comes. A subscriber that is [`RECENT_MAX`] behind loses the oldest and is told so by the channel.
    pub live: broadcast::Receiver<Arc<Told>>,
}

enum Request {
    Findings { findings: Vec<Finding>, evaluated: Evaluated, reply: oneshot::Sender<usize> },
    Act { id: AlertId, act: Act, by: OperatorId, reply: oneshot::Sender<Result<Arc<Told>, Refused>> },
    Overview { reply: oneshot::Sender<Overview> },
    Get { id: AlertId, reply: oneshot::Sender<Option<Alert>> },
    Subscribe { after: Option<u64>, reply: oneshot::Sender<Subscription> },
}

/// The way to the desk; clones lead to the same one.
#[derive(Debug, Clone)]
pub struct Desk {
    requests: mpsc::Sender<Request>,
    log: Log,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

impl Desk {
    /// Hands over what an evaluation found. Returns when it is logged and told: how many transitions it led to.
    pub async fn findings(&self, findings: Vec<Finding>, evaluated: Evaluated) -> Result<usize, RequestError> {
        self.ask(|reply| Request::Findings { findings, evaluated, reply }).await
    }

    /// Takes a step for a person.
    pub async fn act(&self, id: AlertId, act: Act, by: OperatorId) -> Result<Arc<Told>, RequestError> {
        Ok(self.ask(|reply| Request::Act { id, act, by, reply }).await??)
    }

    /// Acknowledges an alert.
    pub async fn acknowledge(&self, id: AlertId, by: OperatorId) -> Result<Arc<Told>, RequestError> {
        self.act(id, Act::Acknowledge, by).await
    }

    /// Alerts to act on, most pressing first.
    pub async fn open_alerts(&self) -> Result<Vec<Alert>, RequestError> {
        Ok(self.overview().await?.open)
    }

    /// All that a page shows.
    pub async fn overview(&self) -> Result<Overview, RequestError> {
        self.ask(|reply| Request::Overview { reply }).await
    }

    /// One alert, while it is remembered.
    pub async fn alert(&self, id: AlertId) -> Result<Option<Alert>, RequestError> {
        self.ask(|reply| Request::Get { id, reply }).await
    }

    /// Everything that happened to one alert, in order; also when it is no longer remembered.
    pub async fn log(&self, id: &AlertId) -> Result<Vec<Transition>, DatabaseError> {
        self.log.of(id).await
    }

    /// What is told from now on, and what was told after the transition numbered `after`: nothing in between is
    /// missing or double.
    pub async fn subscribe(&self, after: Option<u64>) -> Result<Subscription, RequestError> {
        self.ask(|reply| Request::Subscribe { after, reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| RequestError::Stopped)?;
        answer.await.map_err(|_| RequestError::Stopped)
    }
}

/// The task behind [`Desk`].
#[derive(Debug)]
pub(crate) struct DeskTask {
    requests: mpsc::Receiver<Request>,
    alerts: Alerts,
    log: Log,
    registry: Registry,
    clock: Arc<dyn Clock>,
    live: broadcast::Sender<Arc<Told>>,
    recent: VecDeque<Arc<Told>>,
    /// Logged before the last stop, not noted as told.
    untold: Vec<Arc<Told>>,
    outgoing: mpsc::Sender<HomeAction>,
    actions: VecDeque<(u64, HomeAction)>,
    unwritten: VecDeque<Transition>,
    failing_since: Option<Timestamp>,
    noted: u64,
}

/// Takes up the alerts where the log left them.
pub(crate) async fn open(
    database: Database,
    registry: Registry,
    policy: Policy,
    outgoing: mpsc::Sender<HomeAction>,
    clock: Arc<dyn Clock>,
) -> Result<(Desk, DeskTask), DeskError> {
    let log = Log::new(database);
    let (transitions, noted) = (log.all().await?, log.told().await?);
    let mut alerts = Alerts::new(policy);
    let mut recent = VecDeque::new();
    let mut untold = Vec::new();
    let n_old = transitions.len().saturating_sub(RECENT_MAX);
    for (place, transition) in transitions.into_iter().enumerate() {
        alerts.resume(&transition)?;
        if place < n_old && transition.number <= noted {
            continue;
        }
        let Some(alert) = alerts.get(&transition.alert).cloned() else { continue };
        let told = Arc::new(Told { transition, alert });
        if told.transition.number > noted {
            untold.push(Arc::clone(&told));
        } else {
            remember(&mut recent, told);
        }
    }
    let (requests, inbox) = mpsc::channel(WAITING_MAX);
    let task = DeskTask {
        requests: inbox,
        alerts,
        log: log.clone(),
        registry,
        clock,
        live: broadcast::Sender::new(RECENT_MAX),
        recent,
        untold,
        outgoing,
        actions: VecDeque::new(),
        unwritten: VecDeque::new(),
        failing_since: None,
        noted,
    };
    Ok((Desk { requests, log }, task))
}

fn remember(recent: &mut VecDeque<Arc<Told>>, told: Arc<Told>) {
    if recent.len() == RECENT_MAX {
        recent.pop_front();
    }
    recent.push_back(told);
}

impl DeskTask {
    /// Works until shutdown, or until the log is lost.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<(), DeskError> {
        let untold = std::mem::take(&mut self.untold);
        if !untold.is_empty() {
            tracing::info!(n = untold.len(), "telling what a crash may have left untold");
            self.tell(untold).await;
        }
        loop {
            let timer = self.timer();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = timer => {
                    let due = self.alerts.due(self.clock.now());
                    self.publish(due).await?;
                }
                permit = self.outgoing.clone().reserve_owned(), if !self.actions.is_empty() => {
                    match (permit, self.actions.pop_front()) {
                        (Ok(permit), Some((_, action))) => drop(permit.send(action)),
                        // Nobody takes actions any more: the homes' side has stopped.
                        _ => self.actions.clear(),
                    }
                    self.note_told().await;
                }
                Some(request) = self.requests.recv() => self.serve(request).await?,
            }
        }
        if !self.unwritten.is_empty() {
            self.write(Vec::new()).await?;
        }
        Ok(())
    }

    /// When something is to be done without being asked.
    fn timer(&self) -> impl Future<Output = ()> + Send + use<> {
        let due = self.alerts.next_due();
        let retry = (!self.unwritten.is_empty()).then(|| self.clock.now() + LOG_RETRY);
        let wake = due.into_iter().chain(retry).min().map(|at| self.clock.sleep_until(at));
        async move {
            match wake {
                Some(sleep) => sleep.await,
                None => pending().await,
            }
        }
    }

    async fn serve(&mut self, request: Request) -> Result<(), DeskError> {
        // Whoever asked may be gone by the time of the answer; that changes nothing here.
        match request {
            Request::Findings { findings, evaluated, reply } => {
                let now = self.clock.now();
                let transitions = self.alerts.apply(&findings, &evaluated, |home| self.registry.zone(home), now);
                let n_transitions = transitions.len();
                self.publish(transitions).await?;
                let _asker_left = reply.send(n_transitions);
            }
            Request::Act { id, act, by, reply } => {
                let answer = match self.alerts.act(&id, act, by, self.clock.now()) {
                    Ok(transition) => match self.publish(vec![transition]).await?.pop() {
                        Some(told) => Ok(told),
                        None => Err(Refused::Unknown(id)),
                    },
                    Err(refused) => Err(refused),
                };
                let _asker_left = reply.send(answer);
            }
            Request::Overview { reply } => {
                let _asker_left = reply.send(self.overview());
            }
            Request::Get { id, reply } => {
                let _asker_left = reply.send(self.alerts.get(&id).cloned());
            }
            Request::Subscribe { after, reply } => {
                let _asker_left = reply.send(self.subscribe(after));
            }
        }
        Ok(())
    }

    fn overview(&self) -> Overview {
        Overview {
            open: self.alerts.open().into_iter().cloned().collect(),
            resolved: self.alerts.resolved().take(RESOLVED_SHOWN).cloned().collect(),
            last_number: self.alerts.last_number(),
            log_failing_since: self.failing_since,
        }
    }

    fn subscribe(&self, after: Option<u64>) -> Subscription {
        let live = self.live.subscribe();
        let last = self.alerts.last_number();
        let first = self.recent.front().map_or(last + 1, |told| told.transition.number);
        let missed = match after {
            None => Some(Vec::new()),
            // A number that we never gave, or one whose successors are forgotten.
            Some(after) if after > last || after + 1 < first => None,
            Some(after) => {
                Some(self.recent.iter().filter(|told| told.transition.number > after).map(Arc::clone).collect())
            }
        };
        Subscription { missed, live }
    }

    /// Writes, then tells.
    async fn publish(&mut self, transitions: Vec<Transition>) -> Result<Vec<Arc<Told>>, DeskError> {
        let told: Vec<_> = transitions
            .iter()
            .filter_map(|transition| {
                let alert = self.alerts.get(&transition.alert)?.clone();
                Some(Arc::new(Told { transition: transition.clone(), alert }))
            })
            .collect();
        self.write(transitions).await?;
        self.tell(told.clone()).await;
        Ok(told)
    }

    async fn write(&mut self, transitions: Vec<Transition>) -> Result<(), DeskError> {
        self.unwritten.extend(transitions);
        if self.unwritten.is_empty() {
            return Ok(());
        }
        crash::point("console.before_log");
        match self.log.append(self.unwritten.make_contiguous()).await {
            Ok(()) => {
                self.unwritten.clear();
                if let Some(since) = self.failing_since.take() {
                    tracing::info!(%since, "the alert log is written again");
                }
                crash::point("console.after_log");
            }
            Err(error) => {
                if self.failing_since.is_none() {
                    self.failing_since = Some(self.clock.now());
                    tracing::error!(error = &error as &dyn std::error::Error, "the alert log cannot be written");
                }
                if self.unwritten.len() > UNWRITTEN_MAX {
                    return Err(DeskError::LogLost);
                }
            }
        }
        Ok(())
    }

    async fn tell(&mut self, told: Vec<Arc<Told>>) {
        if told.is_empty() {
            return;
        }
        for told in told {
            let Told { transition, alert } = &*told;
            tracing::info!(
                number = transition.number,
                alert = %alert.id,
                detection = alert.detection,
                home = %alert.home,
                priority = alert.priority.as_str(),
                state = alert.state.as_str(),
                "alert"
            );
            let home = self.registry.home(&alert.home);
            if let Some(action) = home.and_then(|home| asked(transition, alert, &self.alerts.open(), &home)) {
                if self.actions.len() == ACTIONS_MAX
                    && let Some((_, dropped)) = self.actions.pop_front()
                {
                    tracing::error!(home = %dropped.home, "nobody takes lamp commands: the oldest is dropped");
                }
                self.actions.push_back((transition.number, action));
            }
            // Nobody listening is no error: whoever comes reads the queue.
            let _n_listeners = self.live.send(Arc::clone(&told));
            remember(&mut self.recent, told);
        }
        crash::point("console.after_told");
        self.note_told().await;
    }

    /// Notes how far everybody was told; a lamp command that nobody has taken yet holds it back.
    async fn note_told(&mut self) {
        let taken = self.actions.front().map_or(u64::MAX, |(number, _)| number - 1);
        let told = self.recent.back().map_or(0, |told| told.transition.number);
        let note = taken.min(told);
        if note <= self.noted || !self.unwritten.is_empty() {
            return;
        }
        match self.log.set_told(note).await {
            Ok(()) => self.noted = note,
            // The next note covers it; a crash before tells once more.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot note what was told"),
        }
    }
}

#[cfg(test)]
mod tests;
