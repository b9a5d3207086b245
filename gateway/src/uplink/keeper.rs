//! The spool behind a door: its disk may block, so it works beside the runtime; its disk may fail, and then calls go on
//! from memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carebed_contract::command::Purge;
use carebed_contract::labels::{Lane, Origin};
use carebed_contract::pack::Sealed;
use carebed_contract::receipt::Receipt;
use carebed_contract::time::Timestamp;

use crate::spool::{Appended, Batch, Limits, Released, Span, Spool, SpoolError};

/// A disk that takes longer than this for one operation counts as failed: flash cards stall for a second at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for a spool that is read as a whole: 64 MiB on the slowest box.
const PURGING: Duration = Duration::from_secs(60);
/// What the memory spool holds: hours of a home's observations. Then the oldest routine ones go.
pub(crate) const MEMORY_LIMITS: Limits = Limits { bytes_max: 4 << 20, segment_bytes: 256 << 10, reserve_bytes: 0 };

/// Why the keeper cannot go on at all.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Not even memory takes a spool.
    #[error("failed to keep a spool in memory")]
    Memory(#[source] SpoolError),
    /// The runtime is shutting down.
    #[error("the work on the spool was cut off")]
    CutOff,
}

/// Keeps the spool, or what stands in for it.
///
/// It also gives every batch its origin. A write that failed or took too long may have reached the disk all the same;
/// under its origin the centre knows the batch again that went from memory meanwhile.
#[derive(Debug)]
pub struct Keeper {
    spool: Option<Box<Spool>>,
    patience: Duration,
    run: u64,
    /// Batches taken by this run, by lane.
    taken: [u64; 2],
    troubles: Vec<String>,
    epoch_changed: bool,
}

impl Keeper {
    /// Takes a spool that was opened.
    #[must_use]
    pub fn new(spool: Spool) -> Self {
        let spool = Some(Box::new(spool));
        let (run, troubles) = (rand::random(), Vec::new());
        Self { spool, patience: PATIENCE, run, taken: [0; 2], troubles, epoch_changed: false }
    }

    /// The spool, for what needs no disk.
    pub fn spool(&self) -> Result<&Spool, KeeperError> {
        self.spool.as_deref().ok_or(KeeperError::CutOff)
    }

    /// Whether a new epoch began since the last call.
    pub fn take_epoch_changed(&mut self) -> bool {
        std::mem::take(&mut self.epoch_changed)
    }

    /// Sentences for the status since the last call.
    pub fn take_troubles(&mut self) -> Vec<String> {
        std::mem::take(&mut self.troubles)
    }

    /// Appends a batch: to the disk, or, when that fails, to memory under a new epoch.
    pub async fn append(&mut self, lane: Lane, sealed: Sealed, span: Span) -> Result<Appended, KeeperError> {
        let again = sealed.clone();
        let [urgent, routine] = &mut self.taken;
        let taken = if lane == Lane::Urgent { urgent } else { routine };
        let origin = Origin { run: self.run, number: *taken };
        *taken += 1;
        match self.work(move |spool| spool.append(lane, &sealed, span, origin)).await? {
            Some(appended) => Ok(appended),
            None => {
                // The first attempt failed, and the spool lies in memory now.
                let appended = self.work(move |spool| spool.append(lane, &again, span, origin)).await?;
                appended.ok_or(KeeperError::CutOff)
            }
        }
    }

    /// A batch, when it is still there. One that is damaged on disk is given up.
    pub async fn batch(&mut self, lane: Lane, seq: u64) -> Result<Option<Batch>, KeeperError> {
        let read = self.work(move |spool| match spool.batch(lane, seq) {
            Err(SpoolError::Damaged { .. }) => spool.give_up(lane, seq).map(|()| (None, true)),
            read => read.map(|batch| (batch, false)),
        });
        let (batch, damaged) = read.await?.unwrap_or_default();
        if damaged {
            self.troubles.push(format!("batch {seq} of the {lane} lane was damaged on disk and is lost"));
        }
        Ok(batch)
    }

    /// Hears from the centre what time it is.
    pub async fn learn_time(&mut self, now: Timestamp) -> Result<(), KeeperError> {
        self.work(move |spool| spool.learn_time(now)).await.map(|_| ())
    }

    /// Takes a receipt. None when the disk failed over it.
    pub async fn release(&mut self, receipt: Receipt) -> Result<Option<Released>, KeeperError> {
        self.work(move |spool| spool.release(&receipt)).await
    }

    /// Begins a new epoch with what is not released.
    pub async fn begin_epoch(&mut self) -> Result<(), KeeperError> {
        if let Some(lost) = self.work(Spool::begin_epoch).await? {
            self.epoch_changed = true;
            // Should this be the copy of a running machine, its next batches shall not be taken for the other's.
            (self.run, self.taken) = (rand::random(), [0; 2]);
            if lost > 0 {
                self.troubles.push(format!("{lost} batches could not be read from the spool and are lost"));
            }
        }
        Ok(())
    }

    /// Takes out of the spool what the centre orders to forget; a new epoch may begin. Says how many records. A full spool is
    /// read as a whole, which takes longer than any other work on it.
    pub async fn purge(&mut self, purge: Purge) -> Result<usize, KeeperError> {
        let before = self.spool()?.epoch();
        let usual = std::mem::replace(&mut self.patience, PURGING);
        let gone = self.work(move |spool| spool.purge(&purge)).await;
        self.patience = usual;
        let gone = gone?.unwrap_or(0);
        self.epoch_changed |= self.spool()?.epoch() != before;
        Ok(gone)
    }

    /// Does something with the spool beside the runtime. None when the disk failed; a fresh spool in memory has taken
    /// its place then.
    async fn work<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<Option<T>, KeeperError> {
        let mut spool = self.spool.take().ok_or(KeeperError::CutOff)?;
        let waiting = Lane::ALL.map(|lane| spool.next(lane) - spool.base(lane));
        let is_given_up = Arc::new(AtomicBool::new(false));
        let work = tokio::task::spawn_blocking({
            let is_given_up = Arc::clone(&is_given_up);
            move || {
                let result = act(&mut spool);
                if result.is_err() || is_given_up.load(Ordering::SeqCst) {
                    spool.leave_aside();
                }
                (spool, result)
            }
        });
        let why = match tokio::time::timeout(self.patience, work).await {
            Ok(Ok((spool, Ok(value)))) => {
                self.spool = Some(spool);
                return Ok(Some(value));
            }
            Ok(Ok((_, Err(error)))) => match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
            Ok(Err(_)) => return Err(KeeperError::CutOff),
            Err(_) => {
                is_given_up.store(true, Ordering::SeqCst);
                format!("the spool's disk did not answer within {:?}", self.patience)
            }
        };
        self.fall_back(&why, waiting)?;
        Ok(None)
    }

    /// Goes on in memory; `waiting` batches of each lane stay behind on the disk.
    fn fall_back(&mut self, why: &str, waiting: [u64; 2]) -> Result<(), KeeperError> {
        let spool = Spool::in_memory(MEMORY_LIMITS, waiting).map_err(KeeperError::Memory)?;
        let what =
            "observations are kept in memory only, under a new epoch; replace the disk or make room, then restart";
        self.troubles.push(format!("{why}; {what}"));
        self.spool = Some(Box::new(spool));
        self.epoch_changed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::sync::mpsc::{self, Receiver};

    use carebed_contract::pack::ContentType;

    use super::*;
    use crate::spool::{Disk, Memory};

    /// Memory that refuses to sync once it is told to fail, or hangs once until it is let go.
    #[derive(Debug, Clone, Default)]
    struct Failing {
        disk: Arc<Mutex<Memory>>,
        fails: Arc<AtomicBool>,
        hangs: Arc<Mutex<Option<Receiver<()>>>>,
    }

    impl Disk for Failing {
        fn names(&self) -> io::Result<Vec<String>> {
            self.disk.lock().unwrap().names()
        }
        fn read(&self, name: &str) -> io::Result<Vec<u8>> {
            self.disk.lock().unwrap().read(name)
        }
        fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
            self.disk.lock().unwrap().read_at(name, offset, length)
        }
        fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.disk.lock().unwrap().create(name, bytes)
        }
        fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.disk.lock().unwrap().append(name, bytes)
        }
        fn sync(&mut self, _name: &str) -> io::Result<()> {
            let hangs = self.hangs.lock().unwrap().take();
            if let Some(hangs) = hangs {
                let _let_go = hangs.recv();
            }
            if self.fails.load(Ordering::SeqCst) { Err(io::Error::other("no medium")) } else { Ok(()) }
        }
        fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
            self.disk.lock().unwrap().truncate(name, length)
        }
        fn remove(&mut self, name: &str) -> io::Result<()> {
            self.disk.lock().unwrap().remove(name)
        }
    }

    fn call() -> (Sealed, Span) {
        let sealed = Sealed { content_type: ContentType::Cbor, bytes: vec![7; 9] };
        (sealed, Span { from: Timestamp::MAX, complete_to: Timestamp::MIN })
    }

    #[tokio::test]
    async fn a_failed_disk_does_not_silence_a_call() {
        let disk = Failing::default();
        let fails = Arc::clone(&disk.fails);
        let mut keeper = Keeper::new(Spool::open(Box::new(disk), Limits::default()).unwrap().spool);
        let (call, span) = call();
        assert_eq!(keeper.append(Lane::Urgent, call.clone(), span).await.unwrap().seq, 0);
        let epoch = keeper.spool().unwrap().epoch();
        let first = keeper.batch(Lane::Urgent, 0).await.unwrap().unwrap().origin.unwrap();
        assert!(!keeper.take_epoch_changed());

        fails.store(true, Ordering::SeqCst);
        let appended = keeper.append(Lane::Urgent, call.clone(), span).await.unwrap();
        assert_eq!(appended.seq, 1, "a new epoch, behind the one that the failed disk still has");
        assert_eq!(keeper.spool().unwrap().base(Lane::Urgent), 1);
        assert!(keeper.take_epoch_changed() && keeper.spool().unwrap().epoch() != epoch);
        let kept = keeper.batch(Lane::Urgent, 1).await.unwrap().unwrap();
        assert_eq!(kept.sealed, call);
        // Should the failed write have reached the disk all the same, the centre knows it by this.
        assert_eq!(kept.origin, Some(Origin { number: 1, ..first }));
        let troubles = keeper.take_troubles();
        assert!(troubles[0].contains("no medium") && troubles[0].contains("kept in memory only"), "{troubles:?}");
    }

    #[tokio::test]
    async fn what_was_kept_in_memory_only_is_declared_after_a_restart() {
        let disk = Failing::default();
        let mut keeper = Keeper::new(Spool::open(Box::new(disk.clone()), Limits::default()).unwrap().spool);
        let (call, span) = call();
        keeper.append(Lane::Urgent, call.clone(), span).await.unwrap();
        let epoch = keeper.spool().unwrap().epoch();
        disk.fails.store(true, Ordering::SeqCst);
        keeper.append(Lane::Urgent, call, span).await.unwrap();
        drop(keeper);

        disk.fails.store(false, Ordering::SeqCst);
        let opened = Spool::open(Box::new(disk.clone()), Limits::default()).unwrap();
        assert!(opened.damage[0].contains("went on in memory"), "{:?}", opened.damage);
        assert_ne!(opened.spool.epoch(), epoch, "a new epoch, so that the centre declares what the old one may lack");
        let epoch = opened.spool.epoch();
        drop(opened);
        let again = Spool::open(Box::new(disk), Limits::default()).unwrap();
        assert!(again.damage.is_empty() && again.spool.epoch() == epoch, "{:?}: once is enough", again.damage);
    }

    #[tokio::test]
    async fn a_write_that_lands_too_late_is_known_again() {
        let disk = Failing::default();
        let (let_go, hangs) = mpsc::channel();
        let mut keeper = Keeper::new(Spool::open(Box::new(disk.clone()), Limits::default()).unwrap().spool);
        keeper.patience = Duration::from_millis(20);
        let (call, span) = call();
        *disk.hangs.lock().unwrap() = Some(hangs);
        let seq = keeper.append(Lane::Urgent, call, span).await.unwrap().seq;
        let from_memory = keeper.batch(Lane::Urgent, seq).await.unwrap().unwrap();
        assert!(keeper.take_troubles()[0].contains("did not answer within 20ms"));
        while disk.hangs.lock().unwrap().is_some() {
            // On a busy machine the write comes to its sync later than the keeper gave it up.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(let_go);

        let spool = Spool::open(Box::new(disk), Limits::default()).unwrap().spool;
        let from_disk = spool.batch(Lane::Urgent, 0).unwrap().unwrap();
        assert_eq!((from_disk.sealed, from_disk.origin), (from_memory.sealed, from_memory.origin));
    }
}
