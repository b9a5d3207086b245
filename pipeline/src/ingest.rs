//! Takes messages in, says what must be told at once, and groups what is accepted into commits. No sockets, no clock.
//!
//! The MQTT loop and the import of files drive the same type: [`Ingest::offer`] for every message, then a commit, then its
//! receipts. A commit can run beside further offers ([`Ingest::begin`], [`Work::run`], [`Ingest::finish`]), so that a call
//! never waits for a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use carebed_contract::crash;
use carebed_contract::digest::Digest;
use carebed_contract::id::{Area, GatewayId, HomeId};
use carebed_contract::inventory::Inventory;
use carebed_contract::labels::{Epoch, Labels, Lane};
use carebed_contract::observation::Observation;
use carebed_contract::pack::Pack;
use carebed_contract::receipt::Receipt;
use carebed_contract::time::Timestamp;
use carebed_contract::topic::{Channel, Topic};
use serde::de::DeserializeOwned;

use crate::accept::{Accept, Verdict};
use crate::dead_letter::DeadLetter;
use crate::event::Event;
use crate::gap::{Gap, Missing};
use crate::rows::{self, DAYS_MAX, Origin, Rooms};
use crate::store::{Commit, Committed, Store, StoreError};
use crate::view::Complete;

/// A commit is pressing from this many rows on, however young it is.
pub const ROWS_MAX: usize = 100_000;
/// A commit is pressing from this many bytes of payload on.
pub const BYTES_MAX: usize = 32 << 20;

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
}

/// What is known of a gateway besides its lanes. As many as `accept` knows gateways, or fewer.
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
}

impl Ingest {
    /// Continues where the store's last commit left off.
    pub async fn new(store: Store) -> Result<Self, StoreError> {
        let accept = Accept::resume(store.marks().await?);
        Ok(Self { accept, store, homes: BTreeMap::new(), pending: Pending::default(), in_flight: false })
    }

    /// Takes one message. Nothing in it makes this fail: what cannot be used becomes a dead letter.
    pub fn offer(
        &mut self,
        topic: &Topic,
        labels: Option<&[u8]>,
        content_type: &str,
        payload: &Bytes,
        received: Timestamp,
    ) -> Offered {
        let message = Message { topic, content_type, payload, received };
        match topic.channel {
            Channel::Batch(lane) => match readable(labels, lane) {
                Ok(labels) => self.batch(&message, labels),
                Err(reason) => self.unlabelled(&message, lane, reason),
            },
            Channel::Status => self.json(&message, |_, status| Some(Event::Status { topic: topic.clone(), status })),
            Channel::Result => self.json(&message, |_, result| Some(Event::Result { topic: topic.clone(), result })),
            Channel::Inventory => self.json(&message, |this, inventory: Inventory| {
                let rooms = Rooms::of(&inventory);
                this.accept.note_home(&topic.gateway, &inventory.home);
                let home = this.home(topic);
                let digest = Some(Digest::of_bytes(payload));
                let known = std::mem::replace(&mut home.inventory, digest) == digest;
                home.rooms = rooms;
                (!known).then(|| Event::Inventory { topic: topic.clone(), inventory })
            }),
            // Only the centre itself writes these.
            Channel::Receipt | Channel::Command => Offered::default(),
        }
    }

    /// Shows readers what was accepted since the last call. Call it after every few offers.
    pub fn show(&mut self) {
        let fresh = self.pending.commit.rows.get(self.pending.shown..).unwrap_or_default();
        let rows: Vec<&Observation> = fresh.iter().flat_map(|rows| rows.iter()).collect();
        let heard = std::mem::take(&mut self.pending.heard);
        let complete: Vec<(HomeId, Complete)> =
            heard.iter().filter_map(|g| self.accept.marks(g)).flat_map(|m| m.complete()).collect();
        if let Err(error) = self.store.show(&rows, &complete) {
            // Cannot happen: the columns are built from checked types. The rows are committed all the same.
            tracing::error!(%error, "failed to show accepted rows");
        }
        self.pending.shown = self.pending.commit.rows.len();
    }

    /// Whether something waits for a commit.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let commit = &self.pending.commit;
        self.pending.bytes > 0 || !(commit.rows.is_empty() && commit.gaps.is_empty() && commit.dead_letters.is_empty())
    }

    /// Whether a commit should begin without waiting for its time: a call, or many rows.
    #[must_use]
    pub fn is_pressing(&self) -> bool {
        self.pending.urgent || self.is_full()
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
        self.store.begin();
        let mut commit = std::mem::take(&mut self.pending).commit;
        commit.marks = self.accept.begin();
        Some(Work { commit, store: self.store.clone() })
    }

    /// A commit ended. Returns the receipts it owes. After a failed one everything that was accepted and not committed is
    /// forgotten: the gateways send it again.
    pub fn finish(&mut self, done: Done) -> Result<Vec<(Topic, Receipt)>, StoreError> {
        self.in_flight = false;
        if let Err(error) = done.result {
            self.accept.roll_back();
            self.pending = Pending::default();
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

    fn batch(&mut self, message: &Message<'_>, labels: Labels) -> Offered {
        let Message { topic, content_type, payload, received } = *message;
        let gateway = &topic.gateway;
        let verdict = self.accept.offer(gateway, &labels, content_type, payload, received);
        match verdict {
            Verdict::Next { gaps } => self.take(message, labels, gaps),
            Verdict::Duplicate | Verdict::Hole | Verdict::Fork => {
                if verdict == Verdict::Fork {
                    tracing::warn!(%gateway, epoch = %labels.epoch, lane = %labels.lane, seq = labels.seq, "a batch does not continue its lane");
                }
                self.home(topic).area = topic.area.clone();
                let settled = self.accept.is_settled(gateway, labels.epoch, labels.lane);
                let receipt = settled.then(|| self.receipt(topic, labels.epoch, labels.lane, received));
                let early = verdict != Verdict::Duplicate && labels.lane == Lane::Urgent;
                Offered { receipt, events: if early { self.early(message, &labels) } else { Vec::new() } }
            }
            Verdict::Full => {
                tracing::error!(%gateway, "more gateways than this centre can hold: the batch stays in its spool");
                Offered::default()
            }
        }
    }

    /// A batch that is the next of its lane: it is consumed, whatever its payload holds.
    fn take(&mut self, message: &Message<'_>, labels: Labels, gaps: Vec<Missing>) -> Offered {
        let Message { topic, payload, received, .. } = *message;
        crash::point("centre.after_accept");
        self.home(topic).area = topic.area.clone();
        let rows: Arc<[Observation]> = match self.decode(message, &labels) {
            Ok(rows) => rows.into(),
            Err(reason) => {
                self.pending.commit.dead_letters.push(message.letter(Some(labels), reason));
                [].into()
            }
        };
        for home in rows.iter().map(|row| &row.home).collect::<BTreeSet<_>>() {
            self.accept.note_home(&topic.gateway, home);
        }

        let note =
            |missing| Gap { gateway: topic.gateway.clone(), area: topic.area.clone(), missing, noted_at: received };
        let gaps: Vec<Gap> = gaps.into_iter().map(note).collect();
        let mut events: Vec<Event> = gaps.iter().cloned().map(Event::Gap).collect();
        let complete = self.accept.marks(&topic.gateway).into_iter().flat_map(|marks| marks.complete());
        events.push(Event::Accepted {
            gateway: topic.gateway.clone(),
            area: topic.area.clone(),
            rows: Arc::clone(&rows),
            complete: complete.map(|(home, complete)| (home, complete.complete_to)).collect(),
        });

        let pending = &mut self.pending;
        pending.rows += rows.len();
        // At least one, so that an empty batch is pending too.
        pending.bytes += payload.len().max(1);
        pending.days.extend(rows.iter().map(|row| rows::day(row.event_time)));
        pending.urgent |= labels.lane == Lane::Urgent;
        pending.heard.insert(topic.gateway.clone());
        pending.commit.gaps.extend(gaps);
        if !rows.is_empty() {
            pending.commit.rows.push(rows);
        }
        Offered { receipt: None, events }
    }

    /// A batch without readable labels: it cannot be put in order, so it is no row; but a call rings.
    fn unlabelled(&mut self, message: Message, lane: Lane, reason: String, received: Timestamp) -> Offered {
        self.dead(&message, reason, received);
        let unnumbered = Labels {
            epoch: Epoch::new(0),
            lane,
            seq: 0,
            base: 0,
            prev: Digest::ORIGIN,
            complete_to: Timestamp::MIN,
            sealed: None,
        };
        let events = if lane == Lane::Urgent { self.early(message, &unnumbered, received) } else { Vec::new() };
        Offered { receipt: None, events }
    }

    fn early(&self, message: &Message<'_>, labels: &Labels) -> Vec<Event> {
        let Topic { gateway, area, .. } = message.topic.clone();
        let rows = self.decode(message, labels).unwrap_or_default();
        if rows.is_empty() { Vec::new() } else { vec![Event::Early { gateway, area, rows: rows.into() }] }
    }

    /// The rows of a batch, or why it is none.
    fn decode(&self, message: &Message<'_>, labels: &Labels) -> Result<Vec<Observation>, String> {
        let Message { topic, content_type, payload, received } = *message;
        let pack = Pack::decode(content_type, payload).map_err(|error| with_causes(&error))?;
        let origin = Origin {
            area: topic.area.clone(),
            gateway: topic.gateway.clone(),
            epoch: labels.epoch,
            lane: labels.lane,
            seq: labels.seq,
            sealed: labels.sealed,
            received,
        };
        let nowhere = Rooms::default();
        let rooms = self.homes.get(&topic.gateway).map_or(&nowhere, |home| &home.rooms);
        let rows = rows::observations(pack, &origin, rooms);
        let days = rows::days(&rows);
        if days > DAYS_MAX {
            Err(format!("its times fall on {days} days, at most {DAYS_MAX} are taken"))
        } else {
            Ok(rows)
        }
    }

    fn json<T: DeserializeOwned>(
        &mut self,
        message: &Message<'_>,
        event: impl FnOnce(&mut Self, T) -> Option<Event>,
    ) -> Offered {
        if message.payload.is_empty() {
            // How MQTT takes a retained message back.
            return Offered::default();
        }
        match serde_json::from_slice(message.payload) {
            Ok(read) => Offered { receipt: None, events: event(self, read).into_iter().collect() },
            Err(error) => {
                self.dead(message, with_causes(&error));
                Offered::default()
            }
        }
    }

    fn dead(&mut self, message: &Message<'_>, reason: String) {
        tracing::debug!(topic = %message.topic, reason, "kept a message that cannot be used");
        self.pending.bytes += message.payload.len();
        self.pending.commit.dead_letters.push(message.letter(None, reason));
    }

    fn home(&mut self, topic: &Topic) -> &mut Home {
        self.homes.entry(topic.gateway.clone()).or_insert_with(|| Home {
            area: topic.area.clone(),
            rooms: Rooms::default(),
            inventory: None,
        })
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
        Done { commit: self.commit, at: now, result }
    }
}

/// One message as it came.
#[derive(Clone, Copy)]
struct Message<'a> {
    topic: &'a Topic,
    content_type: &'a str,
    payload: &'a Bytes,
    received: Timestamp,
}

impl Message<'_> {
    fn letter(&self, labels: Option<Labels>, reason: String) -> DeadLetter {
        DeadLetter {
            gateway: self.topic.gateway.clone(),
            area: self.topic.area.clone(),
            topic: self.topic.to_string(),
            labels,
            content_type: self.content_type.to_owned(),
            payload: self.payload.clone(),
            reason,
            received_time: self.received,
        }
    }
}

/// Labels that can be followed, or why not.
fn readable(labels: Option<&[u8]>, lane: Lane) -> Result<Labels, String> {
    let labels = Labels::decode(labels.ok_or("no labels")?).map_err(|error| with_causes(&error))?;
    if labels.lane != lane {
        return Err(format!("labels of lane {} on the topic of lane {lane}", labels.lane));
    }
    // The table counts batches in 63 bits.
    if i64::try_from(labels.seq).is_err() {
        return Err(format!("batch number {} is too large", labels.seq));
    }
    Ok(labels)
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
