//! Takes messages in, says what must be told at once, and groups what is accepted into commits. No sockets, no clock.
//!
//! The MQTT loop and the import of files drive the same type: [`Ingest::offer`] for every message, then a commit, then its
//! receipts. A commit can run beside further offers ([`Ingest::begin`], [`Work::run`], [`Ingest::finish`]), so that a call
//! never waits for a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use carebed_contract::crash;
use carebed_contract::digest::Digest;
use carebed_contract::id::{Area, GatewayId, HomeId};
use carebed_contract::inventory::Inventory;
use carebed_contract::labels::{Epoch, Labels, Lane};
use carebed_contract::receipt::Receipt;
use carebed_contract::time::Timestamp;
use carebed_contract::topic::{Channel, Topic};
use serde::de::DeserializeOwned;

use crate::accept::{Accept, GATEWAYS_MAX, Marks, Verdict};
use crate::dead_letter::DeadLetter;
use crate::event::Event;
use crate::gap::{Gap, Missing};
use crate::memory::Rows;
use crate::message::{Message, with_causes};
use crate::rows::{self, DAYS_MAX, Origin, Rooms};
use crate::store::{Commit, Committed, Store, StoreError};
use crate::streak::{self, Streak};
use crate::view::Complete;

/// A commit is pressing from this many rows on, however young it is.
pub const ROWS_MAX: usize = 250_000;
/// A commit is pressing from this many bytes of payload on.
pub const BYTES_MAX: usize = 32 << 20;
/// A commit is pressing when a lane is this many batches ahead of its receipts: a gateway that empties its spool would
/// otherwise wait for the next commit with its window full.
const AHEAD_MAX: u64 = 32;
/// Unusable messages without labels that one commit keeps. Beyond it they are dropped and that is logged: nobody waits for
/// their receipt, and a broken or hostile sender must not fill the disk.
const UNLABELLED_MAX: usize = 1_000;

/// What one message leads to.
#[derive(Debug, Default)]
pub struct Offered {
    /// A receipt to send now: the batch is committed already, or its gateway must go back. Accepted batches get theirs from
    /// the commit.
    pub receipt: Option<(Topic, Receipt)>,
    /// What the rest of the centre must hear now.
    pub events: Vec<Event>,
}

/// Takes messages and commits them. See the module.
#[derive(Debug)]
pub struct Ingest {
    accept: Accept,
    store: Store,
    homes: BTreeMap<GatewayId, Home>,
    pending: Pending,
    in_flight: bool,
    recorded: bool,
}

/// What is known of a gateway besides its lanes. At most [`GATEWAYS_MAX`]: a further one's rooms stay unknown.
#[derive(Debug)]
struct Home {
    area: Area,
    rooms: Rooms,
    /// Of the last inventory's bytes: the retained message comes again on every connection.
    inventory: Option<Digest>,
}

/// Accepted since the last commit began.
#[derive(Debug, Default)]
struct Pending {
    commit: Commit,
    /// How many of the commit's batches of rows are shown to readers.
    shown: usize,
    /// Gateways whose homes are known further than shown.
    heard: BTreeSet<GatewayId>,
    rows: usize,
    bytes: usize,
    days: BTreeSet<i32>,
    urgent: bool,
    /// A lane is [`AHEAD_MAX`] batches ahead of its receipts.
    ahead: bool,
    unlabelled: usize,
}

/// A commit to run, on any task.
#[derive(Debug)]
pub struct Work {
    commit: Commit,
    store: Store,
}

/// A commit that was run.
#[derive(Debug)]
pub struct Done {
    commit: Commit,
    at: Timestamp,
    result: Result<Committed, StoreError>,
    /// What is committed, where an error left that in doubt.
    marks: Option<BTreeMap<GatewayId, Marks>>,
}

impl Ingest {
    /// Continues where the store's last commit left off.
    pub async fn new(store: Store) -> Result<Self, StoreError> {
        let accept = Accept::resume(store.marks().await?);
        let (homes, pending) = (BTreeMap::new(), Pending::default());
        Ok(Self { accept, store, homes, pending, in_flight: false, recorded: false })
    }

    /// As [`Self::new`], for recordings: their times are believed however long ago they were.
    pub async fn of_recordings(store: Store) -> Result<Self, StoreError> {
        Ok(Self { recorded: true, ..Self::new(store).await? })
    }

    /// Takes one message. Nothing in it makes this fail: what cannot be used becomes a dead letter.
    pub fn offer(&mut self, message: Message, received: Timestamp) -> Offered {
        match message.topic.channel {
            Channel::Batch(lane) => match message.labels.clone() {
                Ok(labels) => self.batch(message, labels, received),
                Err(reason) => self.unlabelled(message, lane, reason, received),
            },
            Channel::Status => self.json(&message, received, |_, topic, status| Some(Event::Status { topic, status })),
            Channel::Result => self.json(&message, received, |_, topic, result| Some(Event::Result { topic, result })),
            Channel::Inventory => self.json(&message, received, |this, topic, inventory: Inventory| {
                let digest = Some(Digest::of_bytes(&message.payload));
                let home = this.home(&topic)?;
                home.rooms = Rooms::of(&inventory);
                let known = std::mem::replace(&mut home.inventory, digest) == digest;
                this.accept.note_home(&topic.gateway, &inventory.home);
                (!known).then_some(Event::Inventory { topic, inventory })
            }),
            // Only the centre itself writes these.
            Channel::Receipt | Channel::Command => Offered::default(),
        }
    }

    /// Shows readers what was accepted since the last call. It looks at every home that is known: call it a few times a second,
    /// and after a call.
    pub fn show(&mut self) {
        let fresh = self.pending.commit.rows.get(self.pending.shown..).unwrap_or_default();
        let heard = std::mem::take(&mut self.pending.heard);
        let complete: Vec<(HomeId, Complete)> =
            heard.iter().filter_map(|g| self.accept.marks(g)).flat_map(|m| m.complete()).collect();
        self.store.show(fresh, &complete);
        self.pending.shown = self.pending.commit.rows.len();
    }

    /// Whether something waits for a commit.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let commit = &self.pending.commit;
        self.pending.bytes > 0 || !(commit.rows.is_empty() && commit.gaps.is_empty() && commit.dead_letters.is_empty())
    }

    /// Whether a commit should begin without waiting for its time: a call, many rows, or a gateway that waits for receipts.
    #[must_use]
    pub fn is_pressing(&self) -> bool {
        self.pending.urgent || self.pending.ahead || self.is_full()
    }

    /// How many rows wait for a commit.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.pending.rows
    }

    /// Whether nothing more should be offered before a commit begins.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pending.rows >= ROWS_MAX || self.pending.bytes >= BYTES_MAX || self.pending.days.len() >= DAYS_MAX
    }

    /// Takes what waits, to commit it. None when nothing waits or another commit has not finished.
    pub fn begin(&mut self) -> Option<Work> {
        if self.in_flight || !self.is_pending() {
            return None;
        }
        self.in_flight = true;
        self.show();
        self.store.begin();
        let mut commit = std::mem::take(&mut self.pending).commit;
        commit.marks = self.accept.begin();
        Some(Work { commit, store: self.store.clone() })
    }

    /// A commit ended. Returns the receipts it owes. After a failed one everything that was accepted and not committed is
    /// forgotten, since the gateways send it again; what bears no labels is not sent again, and waits for the next commit.
    pub fn finish(&mut self, done: Done) -> Result<Vec<(Topic, Receipt)>, StoreError> {
        self.in_flight = false;
        if let Err(error) = done.result {
            match done.marks {
                Some(marks) => self.accept = Accept::resume(marks),
                None => drop(self.accept.roll_back()),
            }
            let since = std::mem::take(&mut self.pending);
            let letters = done.commit.dead_letters.into_iter().chain(since.commit.dead_letters);
            letters.filter(|letter| letter.labels.is_none()).for_each(|letter| self.keep(letter));
            self.store.take_back();
            return Err(error);
        }
        let moved = self.accept.finish(done.commit.marks);
        let owed = moved.into_iter().filter_map(|(gateway, epoch, lane)| {
            let area = self.homes.get(&gateway)?.area.clone();
            Some(self.receipt(&Topic::new(area, gateway, Channel::Receipt), epoch, lane, done.at))
        });
        Ok(owed.collect())
    }

    /// Commits what waits and returns the receipts it owes: for those who have nothing else to do meanwhile.
    pub async fn commit(&mut self, now: Timestamp) -> Result<Vec<(Topic, Receipt)>, StoreError> {
        match self.begin() {
            Some(work) => {
                let done = work.run(now).await;
                self.finish(done)
            }
            None => Ok(Vec::new()),
        }
    }

    fn batch(&mut self, message: Message, labels: Labels, received: Timestamp) -> Offered {
        let Message { topic, content_type, payload, .. } = &message;
        let gateway = &topic.gateway;
        let verdict = self.accept.offer(gateway, &labels, content_type, payload, received);
        match verdict {
            Verdict::Next { gaps, repeats } => self.take(message, labels, (gaps, repeats), received),
            Verdict::Duplicate | Verdict::Hole | Verdict::Fork => {
                if verdict == Verdict::Fork {
                    tracing::warn!(%gateway, epoch = %labels.epoch, lane = %labels.lane, seq = labels.seq, "a batch does not continue its lane");
                }
                let settled = self.accept.is_settled(gateway, labels.epoch, labels.lane);
                let receipt = settled.then(|| self.receipt(topic, labels.epoch, labels.lane, received));
                let early = verdict != Verdict::Duplicate && labels.lane == Lane::Urgent;
                Offered { receipt, events: if early { self.early(message, &labels, received) } else { Vec::new() } }
            }
            Verdict::Full => {
                tracing::error!(%gateway, "more gateways than this centre can hold: the batch stays in its spool");
                Offered::default()
            }
        }
    }

    /// A batch that is the next of its lane: it is consumed, whatever its payload holds.
    fn take(
        &mut self,
        mut message: Message,
        labels: Labels,
        (gaps, repeats): (Vec<Missing>, bool),
        received: Timestamp,
    ) -> Offered {
        crash::point("centre.after_accept");
        let Topic { gateway, area, .. } = message.topic.clone();
        if let Some(home) = self.home(&message.topic) {
            home.area = area.clone();
        }
        let share = message.share.take();
        let rows = if repeats { Ok(Arc::default()) } else { self.decoded(&mut message, &labels, received) };
        let mut unreadable = None;
        let rows = match rows {
            Ok(rows) => rows,
            Err(reason) => {
                if labels.lane == Lane::Urgent {
                    unreadable = Some(Event::Unreadable { gateway: gateway.clone(), area: area.clone(), received });
                }
                self.pending.commit.dead_letters.push(message.letter(Some(labels), reason, received));
                Arc::default()
            }
        };
        let rows = Rows::new(rows, share);
        for streak in rows.streaks().chunk_by(|a, b| a.about.home == b.about.home).filter_map(<[_]>::first) {
            self.accept.note_home(&gateway, &streak.about.home);
        }

        let note = |missing| Gap { gateway: gateway.clone(), area: area.clone(), missing, noted_at: received };
        let gaps: Vec<Gap> = gaps.into_iter().map(note).collect();
        let mut events: Vec<Event> = gaps.iter().cloned().map(Event::Gap).chain(unreadable).collect();
        let complete = self.accept.marks(&gateway).into_iter().flat_map(|marks| marks.complete());
        // A call overtakes routine rows on their way: it says that its homes were heard, not how far they are complete.
        let known = |to: Timestamp| (labels.lane == Lane::Routine).then_some(to);
        events.push(Event::Accepted {
            gateway: gateway.clone(),
            area,
            rows: rows.clone(),
            complete: complete.map(|(home, complete)| (home, known(complete.complete_to))).collect(),
        });

        let committed = self.accept.committed(&gateway, labels.epoch, labels.lane).next;
        let pending = &mut self.pending;
        pending.rows += rows.len();
        // At least one, so that an empty batch is pending too.
        pending.bytes += message.payload.len().max(1);
        pending.days.extend(streak::days(rows.streaks()));
        pending.urgent |= labels.lane == Lane::Urgent;
        pending.ahead |= labels.seq.saturating_sub(committed) >= AHEAD_MAX;
        pending.heard.insert(gateway);
        pending.commit.gaps.extend(gaps);
        if !rows.is_empty() {
            pending.commit.rows.push(rows);
        }
        Offered { receipt: None, events }
    }

    /// A batch without readable labels: it cannot be put in order, so it is no row; but a call rings.
    fn unlabelled(&mut self, message: Message, lane: Lane, reason: String, received: Timestamp) -> Offered {
        self.dead(&message, reason, received);
        let unnumbered = Labels::of(Epoch::new(0), lane, 0, Digest::ORIGIN);
        let events = if lane == Lane::Urgent { self.early(message, &unnumbered, received) } else { Vec::new() };
        Offered { receipt: None, events }
    }

    fn early(&self, mut message: Message, labels: &Labels, received: Timestamp) -> Vec<Event> {
        let share = message.share.take();
        let rows = Rows::new(self.decoded(&mut message, labels, received).unwrap_or_default(), share);
        let Topic { gateway, area, .. } = message.topic;
        if rows.is_empty() { Vec::new() } else { vec![Event::Early { gateway, area, rows }] }
    }

    /// The rows of a batch, or why it has none. Takes its pack.
    fn decoded(&self, message: &mut Message, labels: &Labels, received: Timestamp) -> Result<Arc<[Streak]>, String> {
        let pack = std::mem::replace(&mut message.pack, Err(String::new()))?;
        let Topic { gateway, area, .. } = message.topic.clone();
        let home = self.homes.get(&gateway);
        let origin = Origin {
            area,
            gateway,
            epoch: labels.epoch,
            lane: labels.lane,
            seq: labels.seq,
            sealed: labels.sealed,
            received,
            recorded: self.recorded,
        };
        let nowhere = Rooms::default();
        let rows = rows::streaks(pack, &origin, home.map_or(&nowhere, |home| &home.rooms)).into();
        // What was still in a spool of somebody who is forgotten is consumed, and told to nobody.
        let rows = self.store.erasures().left_of(&rows);
        let days = streak::days(&rows).len();
        if days > DAYS_MAX {
            Err(format!("its times fall on {days} days, at most {DAYS_MAX} are taken"))
        } else {
            Ok(rows)
        }
    }

    fn json<T: DeserializeOwned>(
        &mut self,
        message: &Message,
        received: Timestamp,
        event: impl FnOnce(&mut Self, Topic, T) -> Option<Event>,
    ) -> Offered {
        if message.payload.is_empty() {
            // How MQTT takes a retained message back.
            return Offered::default();
        }
        match serde_json::from_slice(&message.payload) {
            Ok(read) => {
                let events = event(self, message.topic.clone(), read).into_iter().collect();
                Offered { receipt: None, events }
            }
            Err(error) => {
                self.dead(message, with_causes(&error), received);
                Offered::default()
            }
        }
    }

    fn dead(&mut self, message: &Message, reason: String, received: Timestamp) {
        tracing::debug!(topic = %message.topic, reason, "kept a message that cannot be used");
        self.keep(message.letter(None, reason, received));
    }

    /// Keeps a letter without labels for the next commit.
    fn keep(&mut self, letter: DeadLetter) {
        if self.pending.unlabelled >= UNLABELLED_MAX {
            tracing::warn!(
                topic = letter.topic,
                reason = letter.reason,
                "dropped a message that cannot be used: too many"
            );
            return;
        }
        self.pending.unlabelled += 1;
        self.pending.bytes += letter.payload.len();
        self.pending.commit.dead_letters.push(letter);
    }

    /// What is known of a gateway; none for one more than can be remembered.
    fn home(&mut self, topic: &Topic) -> Option<&mut Home> {
        if self.homes.len() >= GATEWAYS_MAX && !self.homes.contains_key(&topic.gateway) {
            return None;
        }
        let unknown = || Home { area: topic.area.clone(), rooms: Rooms::default(), inventory: None };
        Some(self.homes.entry(topic.gateway.clone()).or_insert_with(unknown))
    }

    fn receipt(&self, topic: &Topic, epoch: Epoch, lane: Lane, now: Timestamp) -> (Topic, Receipt) {
        let mark = self.accept.committed(&topic.gateway, epoch, lane);
        let receipt = Receipt { epoch, lane, next: mark.next, digest: mark.digest, centre_time: now };
        (Topic { channel: Channel::Receipt, ..topic.clone() }, receipt)
    }
}

impl Work {
    /// Commits. `now` goes into the receipts and the table's log.
    pub async fn run(self, now: Timestamp) -> Done {
        let result = self.store.commit(&self.commit, now).await;
        let marks = match &result {
            Err(error) if error.leaves_doubt() => self.store.marks().await.ok(),
            _ => None,
        };
        Done { commit: self.commit, at: now, result, marks }
    }
}

#[cfg(test)]
mod tests;
