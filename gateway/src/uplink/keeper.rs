//! The spool behind a door: its disk may block, so it works beside the runtime; its disk may fail, and then calls go on
//! from memory.

use std::time::Duration;

use carebed_contract::labels::Lane;
use carebed_contract::pack::Sealed;
use carebed_contract::receipt::Receipt;

use crate::spool::{Appended, Batch, Limits, Memory, Released, Span, Spool, SpoolError};

/// A disk that takes longer than this for one operation counts as failed: flash cards stall for a second at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the memory spool holds: hours of a home's observations. Then the oldest routine ones go.
pub(crate) const MEMORY_LIMITS: Limits = Limits { bytes_max: 4 << 20, segment_bytes: 256 << 10 };

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
#[derive(Debug)]
pub struct Keeper {
    spool: Option<Box<Spool>>,
    troubles: Vec<String>,
    epoch_changed: bool,
}

impl Keeper {
    /// Takes a spool that was opened.
    #[must_use]
    pub fn new(spool: Spool) -> Self {
        Self { spool: Some(Box::new(spool)), troubles: Vec::new(), epoch_changed: false }
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
        match self.work(move |spool| spool.append(lane, &sealed, span)).await? {
            Some(appended) => Ok(appended),
            None => {
                // The first attempt failed, and the spool lies in memory now.
                let appended = self.work(move |spool| spool.append(lane, &again, span)).await?;
                appended.ok_or(KeeperError::CutOff)
            }
        }
    }

    /// A batch, when it is still there. One that is damaged on disk ends the epoch.
    pub async fn batch(&mut self, lane: Lane, seq: u64) -> Result<Option<Batch>, KeeperError> {
        let read = self.work(move |spool| match spool.batch(lane, seq) {
            Err(SpoolError::Damaged { .. }) => Ok(None),
            Ok(batch) => Ok(Some(batch)),
            Err(error) => Err(error),
        });
        match read.await? {
            Some(Some(batch)) => Ok(batch),
            Some(None) => {
                self.troubles.push(format!("batch {seq} of the {lane} lane was damaged on disk and is lost"));
                self.begin_epoch().await?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Takes a receipt. None when the disk failed over it.
    pub async fn release(&mut self, receipt: Receipt) -> Result<Option<Released>, KeeperError> {
        self.work(move |spool| spool.release(&receipt)).await
    }

    /// Begins a new epoch with what is not released.
    pub async fn begin_epoch(&mut self) -> Result<(), KeeperError> {
        if let Some(lost) = self.work(Spool::begin_epoch).await? {
            self.epoch_changed = true;
            if lost > 0 {
                self.troubles.push(format!("{lost} batches could not be read from the spool and are lost"));
            }
        }
        Ok(())
    }

    /// Does something with the spool beside the runtime. None when the disk failed; a fresh spool in memory has taken
    /// its place then.
    async fn work<T: Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<Option<T>, KeeperError> {
        let mut spool = self.spool.take().ok_or(KeeperError::CutOff)?;
        let work = tokio::task::spawn_blocking(move || {
            let result = act(&mut spool);
            (spool, result)
        });
        let why = match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok((spool, Ok(value)))) => {
                self.spool = Some(spool);
                return Ok(Some(value));
            }
            Ok(Ok((_, Err(error)))) => match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
            Ok(Err(_)) => return Err(KeeperError::CutOff),
            Err(_) => format!("the spool's disk did not answer within {PATIENCE:?}"),
        };
        self.fall_back(&why)?;
        Ok(None)
    }

    fn fall_back(&mut self, why: &str) -> Result<(), KeeperError> {
        let opened = Spool::open(Box::new(Memory::default()), MEMORY_LIMITS).map_err(KeeperError::Memory)?;
        let what =
            "observations are kept in memory only, under a new epoch; replace the disk or make room, then restart";
        self.troubles.push(format!("{why}; {what}"));
        self.spool = Some(Box::new(opened.spool));
        self.epoch_changed = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use carebed_contract::pack::ContentType;
    use carebed_contract::time::Timestamp;

    use super::*;
    use crate::spool::Disk;

    /// Memory that refuses to sync once it is told to fail.
    #[derive(Debug, Default)]
    struct Failing {
        disk: Memory,
        fails: Arc<AtomicBool>,
    }

    impl Disk for Failing {
        fn names(&self) -> io::Result<Vec<String>> {
            self.disk.names()
        }
        fn read(&self, name: &str) -> io::Result<Vec<u8>> {
            self.disk.read(name)
        }
        fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
            self.disk.read_at(name, offset, length)
        }
        fn create(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.disk.create(name, bytes)
        }
        fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
            self.disk.append(name, bytes)
        }
        fn sync(&mut self, _name: &str) -> io::Result<()> {
            if self.fails.load(Ordering::SeqCst) { Err(io::Error::other("no medium")) } else { Ok(()) }
        }
        fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
            self.disk.truncate(name, length)
        }
        fn remove(&mut self, name: &str) -> io::Result<()> {
            self.disk.remove(name)
        }
    }

    #[tokio::test]
    async fn a_failed_disk_does_not_silence_a_call() {
        let fails = Arc::new(AtomicBool::new(false));
        let disk = Failing { disk: Memory::default(), fails: Arc::clone(&fails) };
        let mut keeper = Keeper::new(Spool::open(Box::new(disk), Limits::default()).unwrap().spool);
        let call = Sealed { content_type: ContentType::Cbor, bytes: vec![7; 9] };
        let span = Span { from: Timestamp::MAX, complete_to: Timestamp::MIN };
        assert_eq!(keeper.append(Lane::Urgent, call.clone(), span).await.unwrap().seq, 0);
        let epoch = keeper.spool().unwrap().epoch();
        assert!(!keeper.take_epoch_changed());

        fails.store(true, Ordering::SeqCst);
        assert_eq!(keeper.append(Lane::Urgent, call.clone(), span).await.unwrap().seq, 0, "the first of a new epoch");
        assert!(keeper.take_epoch_changed() && keeper.spool().unwrap().epoch() != epoch);
        assert_eq!(keeper.batch(Lane::Urgent, 0).await.unwrap().unwrap().sealed, call);
        let troubles = keeper.take_troubles();
        assert!(troubles[0].contains("no medium") && troubles[0].contains("kept in memory only"), "{troubles:?}");
    }
}
