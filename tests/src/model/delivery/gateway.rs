//! A gateway: a spool of two lanes, what is on its disk, and where it is in sending.

use carebed_contract::digest::Digest;
use carebed_contract::labels::{Epoch, Lane, Origin};

use super::few::Few;
use super::{Broken, Delivery, Key, Message, Obs, Receipt, WINDOW};

/// One observation sealed under a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Batch {
    obs: Obs,
    prev: Digest,
    digest: Digest,
    origin: Origin,
    /// It cannot be read any more.
    damaged: bool,
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
    /// The receipts that made the lane go back since the last progress: each does so only once.
    went_back_on: Few<Receipt>,
}

impl Queue {
    /// Numbers from `first` on: those below are missing from the beginning, and the base says so.
    fn new(first: u64) -> Self {
        let last = Digest::ORIGIN;
        Self { first, batches: Vec::new(), synced: first, last, base: first, sent: first, went_back_on: Few::default() }
    }

    fn next(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    fn batch(&self, seq: u64) -> Option<&Batch> {
        self.batches.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// The digest of batch `seq - 1`, as far as it is known: what is released is forgotten at once, before the disk does.
    fn digest_before(&self, seq: u64) -> Option<Digest> {
        if seq == self.next() {
            return Some(self.last);
        }
        self.batch(seq).filter(|_| seq >= self.base).map(|batch| batch.prev)
    }

    fn append(&mut self, epoch: Epoch, lane: Lane, (obs, origin): (Obs, Origin)) -> Key {
        let (seq, prev) = (self.next(), self.last);
        let digest = Digest::of_batch(epoch, lane, seq, prev, super::centre::CONTENT_TYPE, &[obs]);
        self.batches.push(Batch { obs, prev, digest, origin, damaged: false });
        self.last = digest;
        (obs, epoch, lane, seq)
    }

    fn unreleased(&self) -> impl Iterator<Item = (u64, &Batch)> {
        (self.base..self.next()).filter_map(|seq| Some((seq, self.batch(seq)?)))
    }

    /// The number after the last batch that can be sent before others are released.
    fn end(&self) -> u64 {
        self.unreleased().find(|(_, batch)| batch.damaged).map_or(self.synced, |(seq, _)| seq.min(self.synced))
    }

    /// Damaged batches go as soon as all before them have gone.
    fn pass_damaged(&mut self) {
        while self.batch(self.base).is_some_and(|batch| batch.damaged) {
            self.base += 1;
        }
        self.sent = self.sent.max(self.base);
    }

    /// Everything unreleased under new numbers, behind as many missing ones as are damaged.
    fn renumbered(&self, epoch: Epoch, lane: Lane) -> (Self, Vec<Key>) {
        let (damaged, whole): (Vec<&Batch>, Vec<&Batch>) =
            self.unreleased().map(|(_, batch)| batch).partition(|batch| batch.damaged);
        let mut queue = Self::new(damaged.len() as u64);
        let mut keys: Vec<Key> = (0..).zip(damaged).map(|(seq, batch)| (batch.obs, epoch, lane, seq)).collect();
        keys.extend(whole.into_iter().map(|batch| queue.append(epoch, lane, (batch.obs, batch.origin))));
        queue.synced = queue.next();
        (queue, keys)
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
    run: u64,
    /// Batches taken by this run, by lane.
    taken: [u64; 2],
    /// Its disk failed: what it takes now lives in memory.
    in_memory: bool,
    /// It stops: its last routine batch says so.
    closing: bool,
    /// It could say so: no call waited.
    said_goodbye: bool,
    /// Where its urgent lane stood when its latest routine batch was first sent, and the number after that batch.
    told: (u64, Option<(u64, Digest)>),
    queues: [Queue; 2],
}

impl Gateway {
    pub(super) fn new(epoch: Epoch) -> Self {
        let queues = [Queue::new(0), Queue::new(0)];
        Self {
            epoch,
            run: 0,
            taken: [0; 2],
            in_memory: false,
            closing: false,
            said_goodbye: false,
            told: (0, None),
            queues,
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// Where its urgent lane stands; none when this epoch never had a call.
    fn calls(&self) -> Option<(u64, Digest)> {
        let calls = self.queue(Lane::Urgent);
        calls.digest_before(calls.base).filter(|_| calls.next() > 0).map(|prev| (calls.base, prev))
    }

    /// Its next heartbeat will tell something new of the urgent lane.
    pub(super) fn has_to_tell(&self) -> bool {
        self.calls() != self.told.1
    }

    /// A box that stops takes nothing more.
    pub(super) fn takes(&self) -> bool {
        !self.closing
    }

    pub(super) fn said_goodbye(&self) -> bool {
        self.said_goodbye
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
        let [urgent, routine] = &mut self.taken;
        let taken = if lane == Lane::Urgent { urgent } else { routine };
        let origin = Origin { run: self.run, number: *taken };
        *taken += 1;
        let epoch = self.epoch;
        self.queue_mut(lane).append(epoch, lane, (obs, origin))
    }

    pub(super) fn sync(&mut self) {
        for queue in &mut self.queues {
            queue.synced = queue.next();
            queue.forget_released();
        }
    }

    /// The disk fails, and `kept` of its unsynced batches reach it all the same. Goes on in memory under a new epoch, with
    /// what it was writing, behind as many missing numbers as are on the disk. Returns the disk.
    pub(super) fn disk_fails(&mut self, kept: u64, epoch: Epoch, keys: &mut Few<Key>) -> Self {
        let mut disk = self.clone();
        disk.crash(kept, None);
        for lane in Lane::ALL {
            let queue = self.queue(lane);
            let (on_disk, in_doubt): (Vec<_>, Vec<_>) = queue.unreleased().partition(|(seq, _)| *seq < queue.synced);
            let mut fresh = Queue::new(on_disk.len() as u64);
            (0..).zip(on_disk).for_each(|(seq, (_, batch))| keys.insert((batch.obs, epoch, lane, seq)));
            for (_, batch) in in_doubt {
                keys.insert(fresh.append(epoch, lane, (batch.obs, batch.origin)));
            }
            fresh.synced = fresh.next();
            *self.queue_mut(lane) = fresh;
        }
        (self.epoch, self.in_memory, self.told) = (epoch, true, (0, None));
        disk
    }

    /// One batch on the disk cannot be read any more.
    pub(super) fn damage(&mut self, lane: Lane, seq: u64) {
        let queue = self.queue_mut(lane);
        let at = seq.checked_sub(queue.first).and_then(|at| usize::try_from(at).ok());
        if let Some(batch) = at.and_then(|at| queue.batches.get_mut(at)) {
            batch.damaged = true;
        }
        queue.pass_damaged();
    }

    /// What damage can hit.
    pub(super) fn unreleased_on_disk(&self, lane: Lane) -> std::ops::Range<u64> {
        let queue = self.queue(lane);
        queue.base..queue.synced
    }

    /// Power is lost. Of the unsynced batches of each lane `kept` reached the disk; released ones not yet deleted there
    /// are back.
    ///
    /// The next run finds damage, if there is any, and then begins the epoch it is given.
    pub(super) fn crash(&mut self, kept: u64, next: Option<(u64, &mut u64)>) -> Vec<Key> {
        for queue in &mut self.queues {
            queue.base = queue.first;
            let survive = (queue.synced + kept).min(queue.next());
            queue.last = queue.digest_before(survive).unwrap_or(queue.last);
            queue.batches.truncate(usize::try_from(survive - queue.first).unwrap_or(usize::MAX));
            queue.synced = survive;
            queue.sent = queue.first;
            queue.went_back_on = Few::default();
        }
        let Some((run, next_epoch)) = next else { return Vec::new() };
        (self.run, self.taken, self.closing, self.told) = (run, [0; 2], false, (0, None));
        let is_damaged = self.queues.iter().any(|queue| queue.batches.iter().any(|batch| batch.damaged));
        if is_damaged { self.begin_epoch(next_epoch) } else { Vec::new() }
    }

    pub(super) fn may_send(&self, lane: Lane, model: &Delivery) -> bool {
        let queue = self.queue(lane);
        let ready = if model.is(Broken::SendBeforeSync) { queue.next() } else { queue.end() };
        queue.sent < ready && queue.sent < queue.base + WINDOW
    }

    /// Labels are written now. Completeness is claimed only up to the first urgent batch without a receipt: routine
    /// batches behind it may arrive while it is lost.
    pub(super) fn send(&mut self, lane: Lane, model: &Delivery) -> Option<Message> {
        let urgent = self.queue(Lane::Urgent).unreleased().map(|(_, batch)| batch.obs).next();
        let calls = self.calls().filter(|_| lane == Lane::Routine);
        let closing = self.closing && lane == Lane::Routine && urgent.is_none();
        let sent = self.queue(lane).sent;
        let is_first = lane == Lane::Routine && sent >= self.told.0;
        if is_first && (calls.is_some() || closing) {
            self.told = (sent + 1, calls);
        }
        let told = calls.filter(|_| !model.is(Broken::HidesCalls));
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
        let closing = closing && queue.sent == queue.next();
        let closes = closing && !model.is(Broken::NeverCloses);
        let origin = Some(batch.origin).filter(|_| !model.is(Broken::NoOrigins));
        let (prev, obs) = (batch.prev, batch.obs);
        self.said_goodbye |= closing && is_first;
        Some(Message { epoch, lane, seq, base, prev, complete_to, obs, origin, calls: told, closes })
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
        queue.pass_damaged();
        queue.forget_released();
    }

    pub(super) fn close(&mut self) {
        self.closing = true;
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
        queue.pass_damaged();
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
            self.begin_epoch(next_epoch).into_iter().for_each(|key| keys.insert(key));
            return Vec::new();
        }
        let released = self.release(receipt.lane, receipt.next);
        let queue = self.queue_mut(receipt.lane);
        // It asks for what was sent before: something was lost, or the centre forgot. Once for each receipt.
        let asks_for_less = released.is_empty() && queue.sent > queue.base;
        if !released.is_empty() {
            queue.went_back_on = Few::default();
        }
        if asks_for_less && !queue.went_back_on.contains(receipt) && !model.is(Broken::NeverGoesBack) {
            queue.went_back_on.insert(*receipt);
            queue.sent = queue.base;
        }
        released
    }

    /// The old life cannot be continued: what is not released is numbered anew. One durable step.
    fn begin_epoch(&mut self, next_epoch: &mut u64) -> Vec<Key> {
        let epoch = Epoch::new(*next_epoch);
        *next_epoch += 1;
        (self.epoch, self.told) = (epoch, (0, None));
        let mut keys = Vec::new();
        for lane in Lane::ALL {
            let (queue, numbered) = self.queue(lane).renumbered(epoch, lane);
            *self.queue_mut(lane) = queue;
            keys.extend(numbered);
        }
        keys
    }
}

#[cfg(test)]
mod tests;
