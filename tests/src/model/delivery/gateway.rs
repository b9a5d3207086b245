//! A gateway: a spool of two lanes, what is on its disk, and where it is in sending.

use carebed_contract::digest::Digest;
use carebed_contract::labels::{Epoch, Lane};

use super::few::Few;
use super::{Broken, Delivery, Key, Message, Obs, Receipt, WINDOW};

/// One observation sealed under a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Batch {
    obs: Obs,
    prev: Digest,
    digest: Digest,
}

/// One lane. On disk: `batches` below `synced`, from `first` on. In memory only: the rest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Queue {
    first: u64,
    batches: Vec<Batch>,
    synced: u64,
    /// The digest of the last batch there ever was.
    last: Digest,
    base: u64,
    sent: u64,
    /// The receipt that last made the lane go back: it does so only once.
    went_back_on: Option<Receipt>,
}

impl Queue {
    fn new() -> Self {
        let last = Digest::ORIGIN;
        Self { first: 0, batches: Vec::new(), synced: 0, last, base: 0, sent: 0, went_back_on: None }
    }

    fn next(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    fn batch(&self, seq: u64) -> Option<&Batch> {
        self.batches.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// The digest of batch `seq - 1`, as far as it is known.
    fn digest_before(&self, seq: u64) -> Option<Digest> {
        if seq == self.next() { Some(self.last) } else { self.batch(seq).map(|batch| batch.prev) }
    }

    fn append(&mut self, epoch: Epoch, lane: Lane, obs: Obs) -> Key {
        let (seq, prev) = (self.next(), self.last);
        let digest = Digest::of_batch(epoch, lane, seq, prev, super::centre::CONTENT_TYPE, &[obs]);
        self.batches.push(Batch { obs, prev, digest });
        self.last = digest;
        (obs, epoch, lane, seq)
    }

    fn unreleased(&self) -> impl Iterator<Item = (u64, &Batch)> {
        (self.base..self.next()).filter_map(|seq| Some((seq, self.batch(seq)?)))
    }

    fn forget_released(&mut self) {
        let gone = usize::try_from(self.base - self.first).unwrap_or(usize::MAX);
        self.batches.drain(..gone.min(self.batches.len()));
        self.first = self.base;
    }
}

/// A box in a home.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Gateway {
    epoch: Epoch,
    queues: [Queue; 2],
}

impl Gateway {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, queues: [Queue::new(), Queue::new()] }
    }

    fn queue(&self, lane: Lane) -> &Queue {
        let [urgent, routine] = &self.queues;
        match lane {
            Lane::Urgent => urgent,
            Lane::Routine => routine,
        }
    }

    fn queue_mut(&mut self, lane: Lane) -> &mut Queue {
        let [urgent, routine] = &mut self.queues;
        match lane {
            Lane::Urgent => urgent,
            Lane::Routine => routine,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.base == queue.next())
    }

    pub(super) fn wants_sync(&self) -> bool {
        self.queues.iter().any(|queue| queue.synced < queue.next() || queue.first < queue.base)
    }

    pub(super) fn unsynced(&self) -> u64 {
        self.queues.iter().map(|queue| queue.next() - queue.synced).max().unwrap_or(0)
    }

    pub(super) fn on_disk(&self) -> impl Iterator<Item = Obs> {
        self.queues
            .iter()
            .flat_map(|queue| (queue.first..queue.synced).filter_map(|seq| queue.batch(seq)).map(|batch| batch.obs))
    }

    pub(super) fn take(&mut self, lane: Lane, obs: Obs) -> Key {
        let epoch = self.epoch;
        self.queue_mut(lane).append(epoch, lane, obs)
    }

    pub(super) fn sync(&mut self) {
        for queue in &mut self.queues {
            queue.synced = queue.next();
            queue.forget_released();
        }
    }

    /// Power is lost. Of the unsynced batches of each lane `kept` reached the disk; released ones not yet deleted there
    /// are back.
    pub(super) fn crash(&mut self, kept: u64) {
        for queue in &mut self.queues {
            let survive = (queue.synced + kept).min(queue.next());
            queue.last = queue.digest_before(survive).unwrap_or(queue.last);
            queue.batches.truncate(usize::try_from(survive - queue.first).unwrap_or(usize::MAX));
            queue.synced = survive;
            queue.base = queue.first;
            queue.sent = queue.first;
            queue.went_back_on = None;
        }
    }

    pub(super) fn may_send(&self, lane: Lane, model: &Delivery) -> bool {
        let queue = self.queue(lane);
        let ready = if model.is(Broken::SendBeforeSync) { queue.next() } else { queue.synced };
        queue.sent < ready && queue.sent < queue.base + WINDOW
    }

    /// Labels are written now. Completeness is claimed only up to the first urgent batch without a receipt: routine
    /// batches behind it may arrive while it is lost.
    pub(super) fn send(&mut self, lane: Lane, model: &Delivery) -> Option<Message> {
        let urgent = self.queue(Lane::Urgent).unreleased().map(|(_, batch)| batch.obs).next();
        let epoch = self.epoch;
        let queue = self.queue_mut(lane);
        let seq = queue.sent;
        let batch = queue.batch(seq)?.clone();
        queue.sent += 1;
        let sealed = batch.obs + 1;
        let complete_to = match urgent {
            Some(obs) if !model.is(Broken::ClaimsTooMuch) => sealed.min(obs),
            _ => sealed,
        };
        let base = if model.is(Broken::HidesBase) { 0 } else { queue.base };
        Some(Message { epoch, lane, seq, base, prev: batch.prev, complete_to, obs: batch.obs })
    }

    pub(super) fn may_go_back(&self, lane: Lane, model: &Delivery) -> bool {
        let queue = self.queue(lane);
        queue.sent > queue.base && !model.is(Broken::NeverGoesBack)
    }

    pub(super) fn go_back(&mut self, lane: Lane) {
        let queue = self.queue_mut(lane);
        queue.sent = queue.base;
    }

    /// A newer batch is safe on disk, so the oldest can go and its absence will be seen.
    pub(super) fn may_overflow(&self, lane: Lane) -> bool {
        let queue = self.queue(lane);
        queue.base + 1 < queue.synced
    }

    pub(super) fn overflow(&mut self, lane: Lane) {
        let queue = self.queue_mut(lane);
        queue.base += 1;
        queue.sent = queue.sent.max(queue.base);
        queue.forget_released();
    }

    pub(super) fn release_all_sent(&mut self, lane: Lane) -> Vec<Key> {
        let to = self.queue(lane).sent;
        self.release(lane, to)
    }

    fn release(&mut self, lane: Lane, to: u64) -> Vec<Key> {
        let epoch = self.epoch;
        let queue = self.queue_mut(lane);
        let released = queue.unreleased().take_while(|(seq, _)| *seq < to);
        let released = released.map(|(seq, batch)| (batch.obs, epoch, lane, seq)).collect();
        queue.base = queue.base.max(to);
        queue.sent = queue.sent.max(to);
        released
    }

    /// Takes a receipt; returns what it released.
    pub(super) fn hear(
        &mut self,
        receipt: &Receipt,
        next_epoch: &mut u64,
        keys: &mut Few<Key>,
        model: &Delivery,
    ) -> Vec<Key> {
        if receipt.epoch != self.epoch {
            return Vec::new();
        }
        let queue = self.queue(receipt.lane);
        let ahead = receipt.next > queue.next();
        let foreign = queue.digest_before(receipt.next).is_some_and(|digest| digest != receipt.digest);
        if ahead && model.is(Broken::IgnoresAhead) {
            let to = queue.next();
            return self.release(receipt.lane, to);
        }
        if ahead || foreign && !model.is(Broken::IgnoresForeignDigest) {
            self.begin_epoch(Epoch::new(*next_epoch)).into_iter().for_each(|key| keys.insert(key));
            *next_epoch += 1;
            return Vec::new();
        }
        let released = self.release(receipt.lane, receipt.next);
        let queue = self.queue_mut(receipt.lane);
        // It asks for what was sent before: something was lost, or the centre forgot. Once for each receipt.
        let asks_for_less = released.is_empty() && queue.sent > queue.base;
        if asks_for_less && queue.went_back_on != Some(*receipt) && !model.is(Broken::NeverGoesBack) {
            queue.went_back_on = Some(*receipt);
            queue.sent = queue.base;
        }
        released
    }

    /// The old life cannot be continued: what is not released is numbered anew. One durable step.
    fn begin_epoch(&mut self, epoch: Epoch) -> Vec<Key> {
        self.epoch = epoch;
        let mut keys = Vec::new();
        for lane in Lane::ALL {
            let old = std::mem::replace(self.queue_mut(lane), Queue::new());
            let queue = self.queue_mut(lane);
            keys.extend(old.unreleased().map(|(_, batch)| queue.append(epoch, lane, batch.obs)));
            queue.synced = queue.next();
        }
        keys
    }
}

#[cfg(test)]
mod tests;
