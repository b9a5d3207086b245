//! Whether the listener of our own broker for MQTT 5 still answers. The one for MQTT 3.1.1 needs no probe: devices' messages
//! come over a connection to it.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tokio::time::{Instant, sleep};

use super::KEEP_ALIVE;

/// The pause between two attempts to connect.
const AGAIN: Duration = Duration::from_secs(1);

/// Holds a connection, and a new one when it breaks; ends when there was none for so long. Whether there ever was one.
pub(super) async fn until_dead(listener: SocketAddr, patience: Duration) -> bool {
    let (mut last, mut answered) = (Instant::now(), false);
    while last.elapsed() < patience {
        let name = format!("carebed-probe-{:08x}", rand::random::<u32>());
        let mut options = MqttOptions::new(name, listener.ip().to_string(), listener.port());
        options.set_keep_alive(KEEP_ALIVE).set_clean_start(true);
        // The client keeps a place for each message that may be under way, and this one sends none.
        options.set_outgoing_inflight_upper_limit(1);
        let (_client, mut events) = AsyncClient::new(options, 1);
        while let Ok(event) = events.poll().await {
            if matches!(event, Event::Incoming(Packet::ConnAck(_) | Packet::PingResp(_))) {
                (last, answered) = (Instant::now(), true);
            }
        }
        sleep(AGAIN).await;
    }
    answered
}
