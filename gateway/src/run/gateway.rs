//! What a gateway does with each thing that happens.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::Clock;
use carebed_contract::command::{ACTION_PURGE, Command, CommandResult, Outcome};
use carebed_contract::labels::Lane;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::status::{GatewayState, Health};
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::topic::Channel;
use carebed_contract::value::Value;
use tokio::sync::watch;

use crate::actions::{Act, Actions};
use crate::command::{Commands, Decision};
use crate::config::Config;
use crate::device::{Device, Heard, Told};
use crate::gather::Gather;
use crate::home::HomeFile;
use crate::known::Known;
use crate::link::{LinkEvent, Links, NotConfirmed, Write};
use crate::metrics::{DeviceCounts, Metrics};
use crate::signals::Signals;
use crate::stamp::{Observed, Sample, Stamper};
use crate::status::{Now, StatusBoard};
use crate::uplink::delivery::Delivery;
use crate::uplink::keeper::KeeperError;
use crate::uplink::mqtt::UplinkEvent;

/// Batches that saying goodbye brings into the spool: more than is ever gathered.
const GOODBYE_BATCHES_MAX: usize = 64;
/// How often the clock is looked at though nothing happens: it may become right by itself. Product time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the metrics are brought up to date.
const METRICS_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Gateway {
    pub(super) config: Config,
    pub(super) home: HomeFile,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stamper: Stamper,
    pub(super) delivery: Delivery,
    pub(super) devices: Vec<Device>,
    pub(super) known: Known,
    pub(super) gather: Gather,
    pub(super) commands: Commands,
    pub(super) links: Links,
    pub(super) status: StatusBoard,
    pub(super) status_due: Duration,
    pub(super) tell_status: bool,
    /// When the clock was last looked at.
    pub(super) looked: Duration,
    pub(super) signals: Signals,
    pub(super) actions: Actions,
    pub(super) counts: Metrics,
    pub(super) metrics: watch::Sender<Metrics>,
    pub(super) metrics_due: Duration,
    /// As the status last said.
    pub(super) told_clock: ClockQuality,
}

impl Gateway {
    pub(super) fn now(&self) -> Sample {
        Sample::take(&*self.clock)
    }

    pub(super) fn trouble(&mut self, what: String) {
        self.status.trouble(what);
        self.tell_status = true;
    }

    pub(super) async fn on_link(&mut self, event: LinkEvent) -> Result<(), KeeperError> {
        match event {
            LinkEvent::Polled { board, poll, sample, result, tally, is_given_up } => {
                if let Some(counts) = self.counts_of(board) {
                    counts.asked += tally;
                    counts.is_given_up = is_given_up;
                }
                match &result {
                    Ok(data) => {
                        self.known.answered(board, poll, sample.monotonic);
                        self.hear(board, Heard::Answer { poll, data }, sample).await
                    }
                    Err(silence) => {
                        self.known.failed(board, poll);
                        self.hear(board, silence.into(), sample).await
                    }
                }
            }
            LinkEvent::Heard { board, sample, result } => {
                if let (Some(counts), Ok(decoded)) = (self.counts_of(board), &result) {
                    counts.heard += u64::from(!decoded.messages.is_empty());
                    for reject in &decoded.rejects {
                        *counts.refused.entry(reject.word()).or_default() += 1;
                    }
                }
                match &result {
                    Ok(decoded) => self.hear(board, Heard::Said(decoded), sample).await,
                    Err(silence) => self.hear(board, silence.into(), sample).await,
                }
            }
            LinkEvent::Trouble(what) => {
                self.trouble(what);
                Ok(())
            }
            LinkEvent::NotShown { board, output, .. } => {
                if let Some(output) = self.home.output_of(board, output) {
                    self.signals.failed(output, self.now().monotonic);
                }
                Ok(())
            }
            // What the home shows by itself: nobody waits for its result.
            LinkEvent::Written { id, .. } if id.is_empty() => Ok(()),
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

    async fn hear(&mut self, board: usize, heard: Heard<'_>, sample: Sample) -> Result<(), KeeperError> {
        let Some(device) = self.devices.get_mut(board) else { return Ok(()) };
        let before = device.health();
        let told = device.hear(heard, sample);
        self.tell_status |= device.health() != before;
        self.known.silent(board, device.health() == Health::Silent);
        let has_restarted = device.take_restart();
        if let Some(board) = self.home.boards.get(board).filter(|_| has_restarted) {
            self.trouble(format!("{} has started anew: its counters began again at 0", board.id));
        }
        self.take(told).await
    }

    fn counts_of(&mut self, board: usize) -> Option<&mut DeviceCounts> {
        let board = self.home.boards.get(board)?;
        let link = || board.link.to_string();
        Some(self.counts.of(&board.id, link))
    }

    /// Urgent observations go to the spool and out at once; routine ones are gathered.
    async fn take(&mut self, told: Vec<Told>) -> Result<(), KeeperError> {
        let now = self.now().monotonic;
        let (urgent, routine): (Vec<Told>, Vec<Told>) = told.into_iter().partition(|told| told.lane == Lane::Urgent);
        let [n_urgent, n_routine] = &mut self.counts.observations;
        *n_urgent += urgent.len() as u64;
        *n_routine += routine.len() as u64;
        for Told { observed, .. } in urgent.iter().chain(&routine) {
            self.act(observed, now);
        }
        for Told { observed, .. } in routine {
            self.gather.add(observed, now);
        }
        for Told { observed, .. } in &urgent {
            let is_on = observed.value == Value::Flag(true);
            match observed.series.quantity.as_str() {
                _ if is_call(&observed.series.quantity, &observed.value) => self.signals.called(now),
                "call_cancel" if is_on => self.signals.cancelled(),
                _ => {}
            }
        }
        if urgent.is_empty() {
            return Ok(());
        }
        self.look();
        let records = self.stamper.seal(urgent.into_iter().map(|told| told.observed).collect(), self.now().monotonic);
        let complete_to = self.complete_to();
        self.delivery.keep(Lane::Urgent, records, complete_to).await?;
        self.delivery.pump().await
    }

    /// Outputs that the home sets by itself.
    fn act(&mut self, observed: &Observed, now: Duration) {
        let time = self.stamper.anchor().and_then(|anchor| self.home.time_of_day(anchor.at(now)));
        for (output, act) in self.actions.observed(observed, time) {
            match act {
                Act::On(lasts) => self.signals.act(output, lasts, now),
                Act::Release => self.signals.release(output),
            }
        }
    }

    /// How long until [`Self::on_time`] has something to do.
    pub(super) fn due_in(&self, now: Duration) -> Duration {
        let status = self.status_due.saturating_sub(now);
        let rest = [self.batch_due_in(now), self.signals.due_in(now)];
        rest.into_iter().flatten().fold(status.min(self.look_due_in(now)), Duration::min)
    }

    /// Does what is due by now. What is shown is brought up to date after each turn, anyway.
    pub(super) async fn on_time(&mut self) -> Result<(), KeeperError> {
        let now = self.now().monotonic;
        self.tell_status |= now >= self.status_due;
        if self.look_due_in(now).is_zero() {
            self.look();
            self.delivery.pump().await?;
        }
        if self.batch_due_in(now).is_some_and(|wait| wait.is_zero()) {
            self.close_batch().await?;
        }
        Ok(())
    }

    /// How long until a batch is due. While nobody knows the time there is nothing to say beside observations.
    fn batch_due_in(&self, now: Duration) -> Option<Duration> {
        let says_something = !self.gather.is_empty() || self.stamper.anchor().is_some();
        says_something.then(|| self.gather.due_in(now))
    }

    /// How long until the clock is looked at again.
    fn look_due_in(&self, now: Duration) -> Duration {
        (self.looked + LOOK_EVERY).saturating_sub(now)
    }

    /// Looks at the clock; everything that is stamped or sent afterwards goes by it.
    pub(super) fn look(&mut self) {
        // In this order: a time server steps the clock first and gives its word afterwards.
        let word = self.clock.is_synchronised();
        let now = self.now();
        self.stamper.look(now, word);
        self.delivery.learn(self.stamper.anchor(), now.monotonic);
        self.looked = now.monotonic;
    }

    /// What was told of completeness before, unless a clock that was ahead told it.
    fn complete_to(&self) -> Timestamp {
        let told = self.delivery.complete_to();
        self.stamper.anchor().map_or(told, |anchor| told.min(anchor.at(self.now().monotonic)))
    }

    /// Closes the routine batch, empty or not: it also says up to when the data is complete.
    async fn close_batch(&mut self) -> Result<(), KeeperError> {
        self.look();
        let now = self.now().monotonic;
        let records = self.stamper.seal(self.gather.take(now), now);
        let told = self.complete_to();
        let complete_to = match (self.known.until(now), self.stamper.anchor()) {
            (Some(known), Some(anchor)) if self.gather.is_empty() => told.max(anchor.at(known)),
            _ => told,
        };
        self.delivery.keep(Lane::Routine, records, complete_to).await?;
        self.delivery.pump().await
    }

    pub(super) async fn on_uplink(&mut self, event: UplinkEvent) -> Result<(), KeeperError> {
        match event {
            UplinkEvent::Connected(publisher) => {
                self.look();
                self.delivery.connected(publisher);
                self.tell_inventory();
                self.tell_status = true;
                self.tell();
                if self.stamper.anchor().is_none() && !self.delivery.is_call_waiting() {
                    // Routine batches wait for the time, and the centre's receipts tell it: so there must be one.
                    self.delivery.keep(Lane::Urgent, Vec::new(), self.delivery.complete_to()).await?;
                }
                self.delivery.pump().await
            }
            UplinkEvent::Disconnected => {
                self.delivery.disconnected();
                Ok(())
            }
            UplinkEvent::Receipt(receipt) => {
                self.look();
                let now = self.now().monotonic;
                if let Some(differs) = self.stamper.receipt(receipt.centre_time, now) {
                    let minutes = differs.as_secs() / 60;
                    self.trouble(format!(
                        "this box's clock differs from the centre's by {minutes} min; check its time server"
                    ));
                }
                self.delivery.learn(self.stamper.anchor(), now);
                self.delivery.receipt(receipt).await?;
                if !self.delivery.is_call_waiting() {
                    self.signals.received(now);
                }
                Ok(())
            }
            UplinkEvent::Command(command) if command.action == ACTION_PURGE => self.purge(&command).await,
            UplinkEvent::Command(command) => {
                self.on_command(&command);
                Ok(())
            }
        }
    }

    /// Forgets what the centre has erased, what is not in the spool yet included. However late the order comes, it is carried
    /// out.
    async fn purge(&mut self, command: &Command) -> Result<(), KeeperError> {
        let (outcome, reason) = match serde_json::from_value(command.value.clone()) {
            Ok(purge) => {
                if !self.gather.is_empty() {
                    self.close_batch().await?;
                }
                let gone = self.delivery.purge(purge).await?;
                (Outcome::Done, format!("{gone} records were in the spool"))
            }
            Err(error) => (Outcome::Refused, format!("not an order to purge: {error}")),
        };
        tracing::info!(command = command.id, ?outcome, reason, "the centre orders to forget");
        let at = self.now().wall;
        self.tell_result(&CommandResult { id: command.id.clone(), outcome, reason: Some(reason), at });
        Ok(())
    }

    fn on_command(&mut self, command: &Command) {
        let now = self.now();
        // An unset clock must not carry out what has expired.
        let now = self.stamper.anchor().map_or(now.wall, |anchor| anchor.at(now.monotonic));
        match self.commands.decide(command, &self.home, now) {
            Decision::UnderWay => {}
            Decision::Tell(result) => self.tell_result(&result),
            Decision::Warn { output, lasts, result } => {
                self.signals.warn(output, lasts, self.now().monotonic);
                self.tell_result(&result);
            }
            Decision::Write(write) => {
                if let Some(output) = self.home.output_of(write.board, write.output) {
                    self.signals.set_by_centre(output, write.value);
                }
                if let Err(write) = self.links.write(write) {
                    let busy = Err(NotConfirmed::Failed("too many commands wait for this link".to_owned()));
                    let (result, _) = self.commands.written(write.id, busy, now);
                    self.tell_result(&result);
                }
            }
        }
    }

    /// Lets outputs show what they have to show.
    pub(super) fn show(&mut self) {
        let now = self.now().monotonic;
        for (signal, value) in self.signals.turn(now) {
            let Some((board, output)) = self.home.outputs().nth(signal).map(|(board, _, used)| (board, used.output))
            else {
                continue;
            };
            let within = Duration::ZERO;
            if self.links.write(Write { id: String::new(), board, output, value, within }).is_err() {
                self.signals.failed(signal, now);
            }
        }
    }

    fn tell_result(&self, result: &CommandResult) {
        // Without a connection nobody hears it; the centre asks again under the same id.
        let _unheard = self.delivery.publisher().is_some_and(|p| p.json(Channel::Result, false, result));
    }

    pub(super) fn tell_inventory(&self) {
        let inventory = self.home.inventory(self.now().wall);
        let _unheard = self.delivery.publisher().is_some_and(|p| p.json(Channel::Inventory, true, &inventory));
    }

    /// Tells the status when something in it changed or its time has come.
    pub(super) fn tell(&mut self) {
        let now = self.now();
        let clock = self.stamper.quality();
        if clock != self.told_clock {
            tracing::info!(from = self.told_clock.as_str(), to = clock.as_str(), "clock quality changed");
            self.told_clock = clock;
            self.tell_status = true;
            self.tell_inventory();
        }
        for what in self.delivery.take_troubles() {
            self.trouble(what);
        }
        self.tell_metrics(now);
        if std::mem::take(&mut self.tell_status) {
            self.status_due = now.monotonic + self.config.status_every;
            self.publish_status(GatewayState::Online);
        }
    }

    fn tell_metrics(&mut self, now: Sample) {
        if self.metrics.receiver_count() == 0 || now.monotonic < self.metrics_due {
            return;
        }
        self.metrics_due = now.monotonic + METRICS_EVERY;
        let counts = &mut self.counts;
        counts.spool = self.delivery.depth();
        counts.is_connected = self.delivery.publisher().is_some();
        counts.clock = self.told_clock;
        counts.complete_to = Some(self.delivery.complete_to()).filter(|known| *known > Timestamp::MIN);
        counts.devices = self.devices.iter().flat_map(Device::status).collect();
        counts.now = Some(now.wall);
        self.metrics.send_replace(counts.clone());
    }

    fn publish_status(&self, state: GatewayState) {
        let (spool_batches, spool_bytes) = self.delivery.depth();
        let clock = self.told_clock;
        let devices = self.devices.iter().flat_map(Device::status).collect();
        let status = self.status.status(state, Now { spool_batches, spool_bytes, clock, devices });
        let _unheard = self.delivery.publisher().is_some_and(|p| p.json(Channel::Status, true, &status));
    }

    pub(super) async fn goodbye(&mut self) -> Result<(), KeeperError> {
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

/// Whether somebody calls for help by it.
pub(super) fn is_call(quantity: &Quantity, value: &Value) -> bool {
    matches!(quantity.as_str(), "call_button" | "call_event") && *value == Value::Flag(true)
}
