//! The embedded broker: rumqttd in a process of its own, this same program started again.
//!
//! rumqttd cannot be stopped, cannot take port 0 and only logs a failed bind; as a child it is ended by its handle, its
//! port is chosen before and tried by connecting. The child ends with its parent, however the parent ended: it
//! holds the reading end of a pipe that closes with the parent.
//!
//! It serves loopback only and keeps everything in memory. Nothing rests on it: spools send again what the centre has
//! not receipted.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use carebed_gateway::uplink::backoff::Backoff;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};

/// Largest packet taken; above the largest batch a gateway sends.
const PACKET_BYTES_MAX: usize = 6 << 20;
/// How long a started broker may take until it answers.
const START_WITHIN: Duration = Duration::from_secs(20);

/// The first pause before a broker that ended is started again …
const RESTART_SOONEST: Duration = Duration::from_millis(200);
/// … and the longest, when it ends again and again.
const RESTART_LATEST: Duration = Duration::from_secs(20);

/// Why the embedded broker is not there.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The port is taken.
    #[error(
        "the embedded broker cannot listen on {listen}; stop the program that has the port, or choose another one in [broker] listen"
    )]
    Port {
        /// Where it should listen.
        listen: SocketAddr,
        /// Why it cannot.
        #[source]
        source: std::io::Error,
    },
    /// The program could not be started again.
    #[error("failed to start {program} as the embedded broker")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended before it answered.
    #[error("the embedded broker on {address} ended at once ({status}); is the port taken?")]
    Ended {
        /// Where it should have listened.
        address: SocketAddr,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// It does not answer.
    #[error("the embedded broker on {0} does not answer")]
    Silent(SocketAddr),
    /// It refused its configuration.
    #[error("the embedded broker refused to run: {0}")]
    Refused(String),
    /// Not loopback.
    #[error(
        "the embedded broker has no access control and listens on loopback only, not on {0}; for a network run mosquitto or EMQX and name it in [broker] address"
    )]
    NotLoopback(SocketAddr),
}

/// A running embedded broker; ended when dropped.
#[derive(Debug)]
pub struct EmbeddedBroker {
    program: PathBuf,
    address: SocketAddr,
    child: Child,
    /// What the child lives by. Not left in `child`, where waiting for the child's end would close it.
    alive: Option<ChildStdin>,
}

impl EmbeddedBroker {
    /// Starts `program broker` and waits until it accepts a connection. Port 0 takes a free one.
    pub async fn start(program: &Path, listen: SocketAddr) -> Result<Self, BrokerError> {
        if !listen.ip().is_loopback() {
            return Err(BrokerError::NotLoopback(listen));
        }
        // Connecting alone would take a stranger's broker on this port for ours.
        let address = TcpListener::bind(listen)
            .and_then(|taken| taken.local_addr())
            .map_err(|source| BrokerError::Port { listen, source })?;
        let (child, alive) = spawn(program, address)?;
        let mut broker = Self { program: program.to_owned(), address, child, alive };
        broker.answers().await?;
        Ok(broker)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it at once, as a power cut would, and forgets all it held.
    pub async fn kill(&mut self) {
        // An error means that it has ended already.
        let _ended = self.child.kill().await;
    }

    /// Starts it again on the same port, empty.
    pub async fn restart(&mut self) -> Result<(), BrokerError> {
        self.kill().await;
        (self.child, self.alive) = spawn(&self.program, self.address)?;
        self.answers().await
    }

    /// Starts it again whenever it ends, until told to stop; later and later, while it ends soon after its start.
    pub async fn keep_alive(mut self, stop: carebed_contract::Shutdown) {
        let mut backoff = Backoff::new(RESTART_SOONEST, RESTART_LATEST);
        loop {
            let started = tokio::time::Instant::now();
            let status = tokio::select! {
                () = stop.cancelled() => return self.kill().await,
                status = self.child.wait() => status,
            };
            let lasted = started.elapsed();
            backoff.ended(lasted, false);
            let mut why = match status {
                Ok(status) => format!("it ended after {lasted:.1?} ({status})"),
                Err(error) => error.to_string(),
            };
            loop {
                let pause = backoff.pause(rand::random());
                tracing::error!(
                    address = %self.address, %why, ?pause,
                    "the embedded broker is started again; meanwhile gateways keep their data and calls do not ring"
                );
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                match self.restart().await {
                    Ok(()) => break,
                    Err(error) => why = error.to_string(),
                }
            }
        }
    }

    async fn answers(&mut self) -> Result<(), BrokerError> {
        let deadline = tokio::time::Instant::now() + START_WITHIN;
        while tokio::time::Instant::now() < deadline {
            if TcpStream::connect(self.address).await.is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(BrokerError::Ended { address: self.address, status });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(BrokerError::Silent(self.address))
    }
}

fn spawn(program: &Path, address: SocketAddr) -> Result<(Child, Option<ChildStdin>), BrokerError> {
    let mut child = Command::new(program)
        .args(["broker", "--listen", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| BrokerError::Start { program: program.to_owned(), source })?;
    let alive = child.stdin.take();
    Ok((child, alive))
}

/// A port that was free a moment ago.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The child's side: serves until its standard input closes. Returns only when the broker refuses to run.
pub fn serve(listen: SocketAddr) -> Result<(), BrokerError> {
    if !listen.ip().is_loopback() {
        return Err(BrokerError::NotLoopback(listen));
    }
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        // End of file, or an error: either way nobody holds the other end any more.
        let _parent_gone = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
    let server = ServerSettings {
        name: "carebed".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections: ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: PACKET_BYTES_MAX,
            max_inflight_count: 200,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let config = Config {
        id: 0,
        router: RouterConfig {
            max_connections: 2_000,
            max_outgoing_packet_count: 500,
            max_segment_size: 8 << 20,
            max_segment_count: 4,
            ..RouterConfig::default()
        },
        v5: Some(HashMap::from([("carebed".to_owned(), server)])),
        ..Config::default()
    };
    Broker::new(config).start().map_err(|error| BrokerError::Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A broker that takes the first connection and ends, as one does whose memory is taken or whose program was replaced.
    #[tokio::test]
    async fn a_broker_that_ends_at_once_is_started_again_later_and_later() {
        let folder = tempfile::tempdir().unwrap();
        let (program, starts) = (folder.path().join("broker"), folder.path().join("starts"));
        let script = format!("#!/bin/sh\necho >> {}\nexit 1\n", starts.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Its port answers all the same, so that each start counts as a good one.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (child, alive) = spawn(&program, address).unwrap();
        let broker = EmbeddedBroker { program, address, child, alive };

        let stop = carebed_contract::Shutdown::new();
        let began = tokio::time::Instant::now();
        let kept = tokio::spawn(broker.keep_alive(stop.clone()));
        while std::fs::read(&starts).unwrap_or_default().len() < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(began.elapsed() >= 4 * RESTART_SOONEST, "{:?}", began.elapsed());
        stop.cancel();
        kept.await.unwrap();
    }
}
