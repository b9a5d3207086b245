//! How much memory may hold what was taken and is not committed.
//!
//! Every message takes its share before it is queued for ingest, by what its rows will need until they are in a file. The
//! share comes back when the last holder of the rows lets go: the commit that wrote them, and whoever was told of them. When
//! nothing is left, nothing more is read from the broker; receipts stay out, and the gateways keep their data.

use std::sync::Arc;

use carebed_contract::observation::Observation;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::streak::{Streak, streaks};

/// What one row needs between its reception and its file, reckoned from how it lies: its point and its part of a streak (60
/// bytes), its place in the columns that readers see (eleven views of 16 bytes and seven numbers: 240), and in those of the
/// commit (a key, numbers, and eight bytes of each word in the file's writer: 220). That makes 520; a centre under ten times the
/// load it commits took 700 (`carebed-tests flood`), and what the allocator keeps between is part of it. Rounded up.
pub const ROW_BYTES: usize = 768;

/// Shares are counted in these, so that their number fits a semaphore's.
const UNIT_BYTES: usize = 1 << 10;

/// Memory to take shares of. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    total: u32,
}

/// A share of memory; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share(#[expect(dead_code, reason = "held, never looked at")] OwnedSemaphorePermit);

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for a share. One that asks for more than there is gets all of it, so that nothing waits for ever.
    pub(crate) async fn share(&self, bytes: usize) -> Option<Share> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(self.total);
        // Never closed.
        Arc::clone(&self.free).acquire_many_owned(units).await.ok().map(Share)
    }
}

/// The rows of one batch, shared by those who work on them.
#[derive(Debug, Clone)]
pub struct Rows {
    streaks: Arc<[Streak]>,
    n_rows: usize,
    _share: Option<Arc<Share>>,
}

impl Rows {
    pub(crate) fn new(streaks: Arc<[Streak]>, share: Option<Share>) -> Self {
        let n_rows = streaks.iter().map(|streak| streak.points.len()).sum();
        Self { streaks, n_rows, _share: share.map(Arc::new) }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n_rows
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Each, in the order of its batch.
    pub fn iter(&self) -> impl Iterator<Item = Observation> {
        self.streaks.iter().flat_map(Streak::observations)
    }

    /// Without their share of memory: who holds these holds up nobody.
    pub(crate) fn streaks(&self) -> &Arc<[Streak]> {
        &self.streaks
    }
}

impl From<Vec<Observation>> for Rows {
    fn from(rows: Vec<Observation>) -> Self {
        Self::new(streaks(rows).into(), None)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_share_comes_back_with_the_last_holder_and_nothing_waits_for_ever() {
        let memory = Memory::new(8 << 10);
        let share = memory.share(5 << 10).await;
        let rows = Rows::new(Arc::default(), share);
        let told = rows.clone();
        let mut waiting = Box::pin(memory.share(4 << 10));
        assert!(waiting.as_mut().now_or_never().is_none(), "more than there is");
        drop(rows);
        assert!(waiting.as_mut().now_or_never().is_none(), "somebody still holds the rows");
        drop(told);
        drop(waiting.await);
        assert!(memory.share(1 << 30).now_or_never().is_some(), "a giant waits for ever");
    }
}
