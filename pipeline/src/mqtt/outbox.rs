//! Receipts on their way out: the newest of each lane. Ingest never waits for the wire.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carebed_contract::id::GatewayId;
use carebed_contract::labels::{Epoch, Lane};
use carebed_contract::receipt::Receipt;
use carebed_contract::topic::Topic;
use tokio::sync::Notify;

/// Most lanes whose receipts may wait, however many a sender makes up. Beyond it a new lane's receipt is not sent: its
/// gateway asks again.
const LANES_MAX: usize = 100_000;

/// Holds at most one receipt per lane: a newer one says all that the older one said.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    receipts: BTreeMap<(GatewayId, Epoch, Lane), (Topic, Receipt)>,
    /// Taken, and not yet with the client.
    sending: usize,
}

impl Outbox {
    pub(super) fn put(&self, receipts: impl IntoIterator<Item = (Topic, Receipt)>) {
        let mut waiting = self.waiting();
        for (topic, receipt) in receipts {
            let lane = (topic.gateway.clone(), receipt.epoch, receipt.lane);
            if waiting.receipts.len() < LANES_MAX || waiting.receipts.contains_key(&lane) {
                waiting.receipts.insert(lane, (topic, receipt));
            }
        }
        if !waiting.receipts.is_empty() {
            self.filled.notify_one();
        }
    }

    /// Waits for a receipt and takes it. One that cannot be sent is [`Outbox::put`] back or lost: its gateway asks again.
    pub(super) async fn take(&self) -> (Topic, Receipt) {
        loop {
            let filled = self.filled.notified();
            {
                let mut waiting = self.waiting();
                if let Some((_, receipt)) = waiting.receipts.pop_first() {
                    waiting.sending += 1;
                    return receipt;
                }
            }
            filled.await;
        }
    }

    /// What was taken is with the client, or lost.
    pub(super) fn sent(&self) {
        let mut waiting = self.waiting();
        waiting.sending = waiting.sending.saturating_sub(1);
        if waiting.sending == 0 && waiting.receipts.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Waits until nothing waits.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            {
                let waiting = self.waiting();
                if waiting.sending == 0 && waiting.receipts.is_empty() {
                    return;
                }
            }
            emptied.await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
