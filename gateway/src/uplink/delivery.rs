//! Brings batches into the spool and from there to the centre, and lets go of what the centre has.

use std::time::Duration;

use carebed_contract::command::Purge;
use carebed_contract::labels::{Labels, Lane};
use carebed_contract::pack::Pack;
use carebed_contract::receipt::Receipt;
use carebed_contract::record::{Record, RecordTime};
use carebed_contract::time::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::keeper::{Keeper, KeeperError};
use super::mqtt::Publisher;
use super::session::{Session, Window};
use crate::boots::{Boots, is_timeless};
use crate::spool::{Released, Span, Spool};
use crate::stamp::Anchor;

/// Spool, session and connection together.
#[derive(Debug)]
pub struct Delivery {
    keeper: Keeper,
    session: Session,
    publisher: Option<Publisher>,
    boot: u64,
    boots: Boots,
    /// The last batch there is closes the epoch.
    closing: bool,
    troubles: Vec<String>,
    call_waits: watch::Sender<bool>,
}

impl Delivery {
    /// From a spool that was opened.
    #[must_use]
    pub fn new(spool: Spool, window: Window) -> Self {
        let session = Session::new(window, |lane| spool.base(lane));
        let boot = spool.boot();
        let mut boots = Boots::new(boot);
        let batch = |lane, seq| spool.batch(lane, seq).ok().flatten();
        for lane in Lane::ALL {
            spool.timeless(lane).filter_map(|seq| batch(lane, seq)).for_each(|batch| boots.recall(&batch));
        }
        for lane in Lane::ALL.into_iter().filter(|_| boots.is_unsure()).collect::<Vec<_>>() {
            let timed = (spool.base(lane)..spool.next(lane)).filter_map(|seq| batch(lane, seq));
            let _rest = timed.filter(|batch| !is_timeless(batch.span)).find(|batch| !boots.compare(batch));
        }
        let call_waits = watch::Sender::new(spool.base(Lane::Urgent) < spool.next(Lane::Urgent));
        let (keeper, troubles) = (Keeper::new(spool), Vec::new());
        Self { keeper, session, publisher: None, boot, boots, closing: false, troubles, call_waits }
    }

    /// Whether the urgent lane holds something that the centre does not have.
    #[must_use]
    pub fn call_waits(&self) -> watch::Receiver<bool> {
        self.call_waits.subscribe()
    }

    /// Whether it does now.
    #[must_use]
    pub fn is_call_waiting(&self) -> bool {
        *self.call_waits.borrow()
    }

    /// Batches and bytes in the spool.
    #[must_use]
    pub fn depth(&self) -> (u64, u64) {
        self.keeper.spool().map_or((0, 0), |spool| (spool.batches(), spool.bytes()))
    }

    /// Up to when all event times are in batches.
    #[must_use]
    pub fn complete_to(&self) -> Timestamp {
        self.keeper.spool().map_or(Timestamp::MIN, Spool::complete_to)
    }

    /// The connection, while there is one.
    #[must_use]
    pub fn publisher(&self) -> Option<&Publisher> {
        self.publisher.as_ref()
    }

    /// Sentences for the status since the last call.
    pub fn take_troubles(&mut self) -> Vec<String> {
        self.troubles.append(&mut self.keeper.take_troubles());
        std::mem::take(&mut self.troubles)
    }

    /// Learns what is known of the time now: what was sealed without it is sent with it.
    pub fn learn(&mut self, anchor: Option<Anchor>, now: Duration) {
        self.boots.learn(anchor, now);
    }

    /// Seals records into a batch and keeps it. When this returns, the batch is as safe as the spool can make it.
    pub async fn keep(&mut self, lane: Lane, records: Vec<Record>, complete_to: Timestamp) -> Result<(), KeeperError> {
        let times = records.iter().map(|record| match record.time {
            RecordTime::At(at) => at,
            RecordTime::BeforeReceive(_) => Timestamp::MIN,
        });
        let span = Span { from: times.min().unwrap_or(Timestamp::MAX), complete_to };
        let sealed = match (Pack { boot: Some(self.boot), records }).seal() {
            Ok(sealed) => sealed,
            Err(error) => {
                self.troubles.push(format!("a batch could not be sealed and is lost: {error}"));
                return Ok(());
            }
        };
        let appended = self.keeper.append(lane, sealed, span).await?;
        self.follow_epoch()?;
        self.note_calls()?;
        if appended.given_up > 0 {
            self.troubles.push("the spool is full: the oldest observations are given up unsent".to_owned());
            let spool = self.keeper.spool()?;
            for lane in Lane::ALL {
                self.session.given_up(lane, spool.base(lane));
            }
        }
        Ok(())
    }

    /// Says to the centre, as far as it hears it, that nothing of this epoch is left: should the box come back without its
    /// disk, or was there never one, then nothing is missing. Not while a call waits.
    pub async fn close(&mut self) -> Result<(), KeeperError> {
        self.closing = true;
        let complete_to = self.complete_to();
        self.keep(Lane::Routine, Vec::new(), complete_to).await?;
        self.pump().await
    }

    /// A connection is there: everything without a receipt goes again.
    pub fn connected(&mut self, publisher: Publisher) {
        self.publisher = Some(publisher);
        self.session.connected();
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.publisher = None;
        self.session.disconnected();
    }

    /// When [`Delivery::pump`] has something to do by itself.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.session.due()
    }

    /// Sends what may be sent now.
    pub async fn pump(&mut self) -> Result<(), KeeperError> {
        self.session.expire(Instant::now());
        loop {
            let Some(publisher) = &self.publisher else { return Ok(()) };
            let spool = self.keeper.spool()?;
            let end = |lane| match lane {
                // What has no time yet waits for it, unless it is urgent.
                Lane::Routine if !self.boots.is_time_known() => {
                    spool.timeless(lane).next().map_or(spool.end(lane), |seq| seq.min(spool.end(lane)))
                }
                _ => spool.end(lane),
            };
            let Some((lane, seq)) = self.session.next(end) else { return Ok(()) };
            let Some(batch) = self.keeper.batch(lane, seq).await? else {
                // Gone meanwhile: it is damaged, or the disk failed over it and everything goes on in memory.
                self.follow_epoch()?;
                self.session.given_up(lane, self.keeper.spool()?.base(lane));
                continue;
            };
            let spool = self.keeper.spool()?;
            // What is urgent may overtake; so nothing is complete beyond a call that the centre does not have yet.
            let complete_to = match lane {
                Lane::Routine => batch.span.complete_to.min(spool.urgent_from()),
                Lane::Urgent => spool.receipted_to(),
            };
            let (epoch, base) = (spool.epoch(), spool.base(lane));
            let is_last = spool.next(Lane::Routine) == seq + 1 && spool.base(Lane::Urgent) == spool.next(Lane::Urgent);
            let labels = Labels {
                base,
                complete_to,
                sealed: if is_timeless(batch.span) { self.boots.sealed_at(&batch.sealed) } else { None },
                origin: batch.origin,
                urgent: if lane == Lane::Routine { spool.calls() } else { None },
                closes: self.closing && lane == Lane::Routine && is_last,
                ..Labels::of(epoch, lane, seq, batch.prev)
            };
            let bytes = batch.sealed.bytes.len() as u64;
            if !publisher.batch(&labels, batch.sealed) {
                // The connection takes no more for now; a receipt or the timer comes by again.
                return Ok(());
            }
            self.session.sent(lane, bytes, Instant::now(), rand::random());
        }
    }

    /// Takes a receipt of the centre, and sends what it lets through.
    pub async fn receipt(&mut self, receipt: Receipt) -> Result<(), KeeperError> {
        let Receipt { lane, next, digest, centre_time, .. } = receipt;
        // A centre whose clock shows less does not know what time it is either.
        if centre_time >= Timestamp::RELEASED {
            self.keeper.learn_time(centre_time).await?;
        }
        match self.keeper.release(receipt).await? {
            None | Some(Released::OtherEpoch) => {}
            Some(Released::Upto { next, .. }) => {
                self.session.receipted(lane, next, digest, Instant::now(), rand::random());
                self.session.given_up(lane, self.keeper.spool()?.base(lane));
            }
            Some(Released::Below) => self.session.asked_for_less(lane, next, digest),
            Some(Released::ForeignDigest | Released::Ahead) => {
                let what = "the centre has other batches under this gateway's numbers: a copied box or a restored disk; \
                            a new epoch was begun";
                self.troubles.push(what.to_owned());
                self.keeper.begin_epoch().await?;
            }
        }
        self.follow_epoch()?;
        self.note_calls()?;
        self.pump().await
    }

    /// Takes out of the spool what the centre orders to forget. Says how many records.
    pub async fn purge(&mut self, purge: Purge) -> Result<usize, KeeperError> {
        let gone = self.keeper.purge(purge).await?;
        self.follow_epoch()?;
        self.note_calls()?;
        self.pump().await?;
        Ok(gone)
    }

    fn note_calls(&self) -> Result<(), KeeperError> {
        let spool = self.keeper.spool()?;
        let waits = spool.base(Lane::Urgent) < spool.next(Lane::Urgent);
        self.call_waits.send_if_modified(|before| std::mem::replace(before, waits) != waits);
        Ok(())
    }

    fn follow_epoch(&mut self) -> Result<(), KeeperError> {
        if self.keeper.take_epoch_changed() {
            let spool = self.keeper.spool()?;
            self.session.new_epoch(|lane| spool.base(lane));
        }
        Ok(())
    }
}
