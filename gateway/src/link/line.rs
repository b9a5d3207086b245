//! A line that carries bytes: a serial port, or a serial server. Opened when it is needed, and again after it was lost.

use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use carebed_device_profiles::profile::{Parity, Serial};
use rand::RngExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_serial::{DataBits, FlowControl, SerialPortBuilderExt as _, StopBits};

use super::address::{Address, Host};

/// How long connecting may take: a host in the same home answers within milliseconds or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long sending a few bytes may take before the line counts as lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause after a line was lost or could not be opened, and the longest.
const REOPEN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why a line cannot be used now.
#[derive(Debug, thiserror::Error)]
pub(super) enum LineError {
    #[error("failed to open {address}")]
    Open {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("waiting before the next attempt to open {0}")]
    Waiting(Address),
    #[error("{address} was lost")]
    Lost {
        address: Address,
        #[source]
        source: io::Error,
    },
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for S {}

/// A line, open or not.
pub(super) struct Line {
    address: Address,
    stream: Option<Box<dyn Stream>>,
    reopen: Reopen,
}

/// Pauses between attempts, longer and longer, never twice the same.
pub(super) struct Reopen {
    not_before: Instant,
    pause: Duration,
}

impl Reopen {
    pub(super) fn new() -> Self {
        Self { not_before: Instant::now(), pause: REOPEN.0 }
    }

    pub(super) fn may(&self) -> bool {
        Instant::now() >= self.not_before
    }

    /// Someone waits for it: no pause this time.
    pub(super) fn at_once(&mut self) {
        self.not_before = Instant::now();
    }

    /// An attempt was made. Also after a success there is a pause: a line that opens and is lost at once must not be
    /// opened without one.
    pub(super) fn tried(&mut self) {
        self.pause = rand::rng().random_range(REOPEN.0..=(self.pause * 3).min(REOPEN.1));
        self.not_before = Instant::now() + self.pause;
    }

    /// Waits until the pause is over.
    pub(super) async fn wait(&self) {
        sleep_until(self.not_before).await;
    }

    /// It works.
    pub(super) fn worked(&mut self) {
        self.pause = REOPEN.0;
    }
}

impl Line {
    pub(super) fn new(address: Address) -> Self {
        Self { address, stream: None, reopen: Reopen::new() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// When a closed line may be opened again.
    pub(super) fn reopens_at(&self) -> Instant {
        self.reopen.not_before
    }

    pub(super) fn open_at_once(&mut self) {
        self.reopen.at_once();
    }

    /// Opens the line if it is not open; says whether it is a new connection.
    pub(super) async fn open(&mut self) -> Result<bool, LineError> {
        if self.stream.is_some() {
            return Ok(false);
        }
        if !self.reopen.may() {
            return Err(LineError::Waiting(self.address.clone()));
        }
        let opened = open(&self.address).await;
        self.reopen.tried();
        match opened {
            Ok(stream) => {
                tracing::info!(link = %self.address, "line opened");
                self.stream = Some(stream);
                Ok(true)
            }
            Err(source) => Err(LineError::Open { address: self.address.clone(), source }),
        }
    }

    /// Waits for bytes. A line that gives none more is lost, and closed. Without an open line it waits for ever. Nothing
    /// is lost when the waiting is given up.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LineError> {
        let Some(stream) = &mut self.stream else { return std::future::pending().await };
        let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "it gives no more bytes; is it unplugged?");
        match stream.read(buffer).await {
            Ok(0) => Err(self.lost(gone())),
            Ok(n_bytes) => {
                self.reopen.worked();
                Ok(n_bytes)
            }
            Err(error) => Err(self.lost(error)),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), LineError> {
        let Some(stream) = &mut self.stream else { return Err(LineError::Waiting(self.address.clone())) };
        let sent = timeout(SEND_TIMEOUT, async {
            stream.write_all(bytes).await?;
            stream.flush().await
        });
        match sent.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(error)),
            Err(_) => Err(self.lost(io::Error::new(io::ErrorKind::TimedOut, "it takes no bytes"))),
        }
    }

    fn lost(&mut self, source: io::Error) -> LineError {
        self.stream = None;
        tracing::warn!(link = %self.address, %source, "line lost");
        LineError::Lost { address: self.address.clone(), source }
    }
}

async fn open(address: &Address) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Serial { path, line } => {
            let path = path.to_string_lossy();
            let Serial { baud, data_bits, parity, stop_bits } = *line;
            let port = tokio_serial::new(path, baud)
                .data_bits(if data_bits == 7 { DataBits::Seven } else { DataBits::Eight })
                .parity(match parity {
                    Parity::None => tokio_serial::Parity::None,
                    Parity::Even => tokio_serial::Parity::Even,
                    Parity::Odd => tokio_serial::Parity::Odd,
                })
                .stop_bits(if stop_bits == 2 { StopBits::Two } else { StopBits::One })
                .flow_control(FlowControl::None);
            Ok(Box::new(port.open_native_async()?))
        }
        Address::SerialServer { host, .. } => Ok(Box::new(connect(host).await?)),
        Address::ModbusTcp(_) | Address::Http(_) | Address::Broker => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no line of bytes"))
        }
    }
}

/// A time-out whose timer is set anew when it has run out, not for each answer that is waited for: while answers come in
/// time, waiting for the next one costs nothing.
#[derive(Default)]
pub(super) struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Waits for something, but not for longer than this.
    pub(super) async fn wait<T: Send>(
        &mut self,
        limit: Duration,
        something: impl Future<Output = T> + Send,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        let mut something = pin!(something);
        loop {
            tokio::select! {
                biased;
                done = &mut something => return Some(done),
                () = timer.as_mut() => {
                    if Instant::now() >= deadline {
                        return None;
                    }
                    timer.as_mut().reset(deadline);
                }
            }
        }
    }
}

/// Connects to a host of the home.
pub(super) async fn connect((host, port): &Host) -> io::Result<TcpStream> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, *port)));
    let stream = stream.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the host does not answer"))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
