//! A bus on a pseudo-terminal or a TCP port, with the times of a real wire.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carebed_contract::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tokio_serial::{SerialPort as _, SerialStream};

use super::Bus;

/// What speaks on a line: it is given bytes, and says which bytes come back after how long.
pub trait Speaker: Send + 'static {
    /// Takes bytes from the other end.
    fn hear(&mut self, bytes: &[u8]) -> Vec<(Duration, Vec<u8>)>;

    /// What it says by itself now, and after how long it wants to be asked again; none: never.
    fn speak(&mut self) -> Option<(Vec<u8>, Duration)> {
        None
    }
}

impl Speaker for Bus {
    fn hear(&mut self, bytes: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        Bus::hear(self, bytes)
    }
}

/// A line that can be pulled out and plugged in again. Dropping it pulls it out.
#[derive(Debug)]
pub struct PtyLine<S> {
    path: PathBuf,
    speaker: Arc<Mutex<S>>,
    /// The speed at which it understands; 0: any.
    baud: Arc<AtomicU32>,
    plugged: Option<Shutdown>,
}

impl<S: Speaker> PtyLine<S> {
    /// Plugs a speaker into a new pseudo-terminal that is found at `path`, as adapters are below `/dev/serial/by-id`.
    pub fn plug(path: &Path, speaker: S) -> io::Result<Self> {
        let (speaker, baud) = (Arc::new(Mutex::new(speaker)), Arc::default());
        let mut line = Self { path: path.to_owned(), speaker, baud, plugged: None };
        line.replug()?;
        Ok(line)
    }

    /// Where it is found.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The speaker, to look at it or to change it.
    pub fn speaker(&self) -> MutexGuard<'_, S> {
        self.speaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the speaker understand one speed only. A pseudo-terminal carries bytes at any, but both its ends see which one
    /// was set.
    pub fn only_at(&mut self, baud: u32) {
        self.baud.store(baud, Ordering::Relaxed);
    }

    /// Pulls the adapter out: the terminal goes, and so does its path.
    pub fn unplug(&mut self) {
        if let Some(stop) = self.plugged.take() {
            stop.cancel();
            // An error means that somebody else removed it.
            let _gone = std::fs::remove_file(&self.path);
        }
    }

    /// Plugs it in again: another terminal at the same path.
    pub fn replug(&mut self) -> io::Result<()> {
        self.unplug();
        let (master, slave) = SerialStream::pair()?;
        let terminal = slave.name().ok_or_else(|| io::Error::other("the pseudo-terminal has no name"))?;
        // A test that was killed may have left one.
        let _absent = std::fs::remove_file(&self.path);
        std::os::unix::fs::symlink(terminal, &self.path)?;
        let stop = Shutdown::new();
        let (speaker, stopped) = (Arc::clone(&self.speaker), stop.clone());
        let baud = Arc::clone(&self.baud);
        let understands = move |line: &SerialStream| {
            let wanted = baud.load(Ordering::Relaxed);
            wanted == 0 || line.baud_rate().is_ok_and(|set| set == wanted)
        };
        tokio::spawn(async move {
            // The other end stays open with this one: without it, reading fails until somebody opens the terminal.
            let _other_end = slave;
            tokio::select! {
                _ended = converse(master, &speaker, understands) => {}
                () = stopped.cancelled() => {}
            }
        });
        self.plugged = Some(stop);
        Ok(())
    }
}

impl<S> Drop for PtyLine<S> {
    fn drop(&mut self) {
        if let Some(stop) = self.plugged.take() {
            stop.cancel();
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

/// A serial server: every client of a TCP port hears and speaks on the same line.
#[derive(Debug)]
pub struct TcpLine<S> {
    address: SocketAddr,
    speaker: Arc<Mutex<S>>,
    stop: Shutdown,
}

impl<S: Speaker> TcpLine<S> {
    /// On a free port of loopback.
    pub async fn start(speaker: S) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let line =
            Self { address: listener.local_addr()?, speaker: Arc::new(Mutex::new(speaker)), stop: Shutdown::new() };
        let (speaker, stop) = (Arc::clone(&line.speaker), line.stop.clone());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stop.cancelled() => return,
                };
                let Ok((stream, _)) = accepted else { return };
                let (speaker, stop) = (Arc::clone(&speaker), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ended = converse(stream, &speaker, |_| true) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        });
        Ok(line)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The speaker, to look at it or to change it.
    pub fn speaker(&self) -> MutexGuard<'_, S> {
        self.speaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Drop for TcpLine<S> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Carries bytes between a speaker and whoever is at the other end, each at its time.
async fn converse<S: Speaker, L: AsyncRead + AsyncWrite + Unpin>(
    mut stream: L,
    speaker: &Mutex<S>,
    understands: impl Fn(&L) -> bool,
) -> io::Result<()> {
    let lock = || speaker.lock().unwrap_or_else(PoisonError::into_inner);
    let mut coming: Vec<(Instant, Vec<u8>)> = Vec::new();
    let mut bytes = [0; 512];
    let mut speaks_at = Some(Instant::now());
    loop {
        let next = coming.iter().map(|(at, _)| *at).min();
        let far = Instant::now() + Duration::from_secs(3_600);
        tokio::select! {
            read = stream.read(&mut bytes) => {
                let n_bytes = read?;
                if n_bytes == 0 {
                    return Ok(());
                }
                if !understands(&stream) {
                    continue;
                }
                let now = Instant::now();
                let said = lock().hear(bytes.get(..n_bytes).unwrap_or_default());
                coming.extend(said.into_iter().map(|(after, bytes)| (now + after, bytes)));
            }
            () = sleep_until(next.unwrap_or(far)), if next.is_some() => {
                let now = Instant::now();
                coming.sort_by_key(|(at, _)| *at);
                let due = coming.iter().take_while(|(at, _)| *at <= now).count();
                let due: Vec<u8> = coming.drain(..due).flat_map(|(_, bytes)| bytes).collect();
                stream.write_all(&due).await?;
            }
            () = sleep_until(speaks_at.unwrap_or(far)), if speaks_at.is_some() => {
                let said = lock().speak();
                speaks_at = said.as_ref().map(|(_, after)| Instant::now() + *after);
                if let Some((bytes, _)) = said {
                    stream.write_all(&bytes).await?;
                }
            }
        }
    }
}
