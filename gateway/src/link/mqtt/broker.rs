//! The gateway's own broker for devices in the home: rumqttd in a process of its own, this same program started again.
//!
//! rumqttd cannot be stopped and only logs a failed bind; as a child it is ended by its handle. It serves loopback only and
//! keeps everything in memory. It ends with its parent, however the parent ended: it holds the reading end of a pipe that
//! closes with the parent.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use carebed_device_profiles::documents::PAYLOAD_LENGTH_MAX;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use tokio::process::{Child, Command};

/// Why the broker does not serve.
#[derive(Debug, thiserror::Error)]
pub enum HomeBrokerError {
    /// Not loopback.
    #[error(
        "the home's broker has no access control and listens on loopback only, not on {0}; for devices in the network run mosquitto and name it in [devices] broker"
    )]
    NotLoopback(SocketAddr),
    /// It refused its configuration.
    #[error("the home's broker refused to run: {0}")]
    Refused(String),
}

/// The child.
pub(super) struct Embedded {
    child: Child,
}

impl Embedded {
    pub(super) fn start(program: &Path, v4: SocketAddr, v5: SocketAddr) -> std::io::Result<Self> {
        let child = Command::new(program)
            .args(["home-broker", "--v4", &v4.to_string(), "--v5", &v5.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child })
    }

    /// Whether it is gone.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

/// The child's side: serves until its standard input closes. Returns only when the broker refuses to run.
pub fn serve(v4: SocketAddr, v5: SocketAddr) -> Result<(), HomeBrokerError> {
    if let Some(listen) = [v4, v5].into_iter().find(|listen| !listen.ip().is_loopback()) {
        return Err(HomeBrokerError::NotLoopback(listen));
    }
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        // End of file, or an error: either way nobody holds the other end any more.
        let _parent_gone = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
    let server = |name: &str, listen| {
        let connections = ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: PAYLOAD_LENGTH_MAX + 1_024,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        };
        let server =
            ServerSettings { name: name.to_owned(), listen, tls: None, next_connection_delay_ms: 1, connections };
        Some(HashMap::from([(name.to_owned(), server)]))
    };
    // A home has tens of devices with payloads of some hundred bytes: small segments keep the memory small.
    let router = RouterConfig {
        max_connections: 100,
        max_outgoing_packet_count: 100,
        max_segment_size: 256 << 10,
        max_segment_count: 2,
        ..RouterConfig::default()
    };
    let config = Config { id: 0, router, v4: server("v4", v4), v5: server("v5", v5), ..Config::default() };
    Broker::new(config).start().map_err(|error| HomeBrokerError::Refused(error.to_string()))
}
