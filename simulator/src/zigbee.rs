//! Zigbee devices behind a bridge that speaks MQTT, as Zigbee2MQTT does: a door contact, motion sensors, an SOS button.
//!
//! Payloads as that bridge publishes them: a contact is true while the door is shut; a button is an `action` without a
//! release, never retained; states are merged JSON objects.

use std::net::SocketAddr;
use std::time::Duration;

use carebed_contract::Shutdown;
use rumqttc::{AsyncClient, MqttOptions, QoS};

use crate::fact::Fact;

/// Messages that may wait for the broker; one more is dropped, as a radio drops what nobody takes.
const WAITING_MAX: usize = 64;

/// A bridge and its devices. Dropping it turns it off.
#[derive(Debug)]
pub struct ZigbeeBridge {
    devices: Vec<(String, Fact)>,
    client: AsyncClient,
    stop: Shutdown,
}

impl ZigbeeBridge {
    /// Connects to a broker that speaks MQTT 3.1.1; each device is a friendly name and what it feels.
    #[must_use]
    pub fn start(broker: SocketAddr, devices: Vec<(String, Fact)>) -> Self {
        let mut options = MqttOptions::new("simulated-zigbee2mqtt", broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(10));
        let (client, mut events) = AsyncClient::new(options, WAITING_MAX);
        let stop = Shutdown::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    event = events.poll() => if event.is_err() {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    },
                }
            }
        });
        Self { devices, client, stop }
    }

    /// A fact became so or ceased to be so: the devices that feel it say so.
    pub fn show(&self, fact: Fact, on: bool) {
        for (name, _) in self.devices.iter().filter(|(_, felt)| *felt == fact) {
            let payload = match fact {
                Fact::DoorOpen => format!(r#"{{"battery":100,"contact":{},"linkquality":153,"voltage":3035}}"#, !on),
                Fact::Motion(_) => format!(r#"{{"battery":98,"illuminance":12,"linkquality":90,"occupancy":{on}}}"#),
                Fact::BedOccupied => format!(r#"{{"battery":97,"linkquality":110,"occupancy":{on}}}"#),
                Fact::CallPressed if on => {
                    r#"{"action":"emergency","battery":100,"linkquality":120,"voltage":3000}"#.to_owned()
                }
                Fact::CallPressed => continue,
            };
            // A full queue means that the broker is away.
            let _dropped = self.client.try_publish(format!("zigbee2mqtt/{name}"), QoS::AtMostOnce, false, payload);
        }
    }
}

impl Drop for ZigbeeBridge {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
