//! What the first home of the demo has beside its board: a bed radar and a bus with a second board, a room sensor and a
//! meter on serial ports, and Zigbee devices behind the gateway's own broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use carebed_contract::time::Timestamp;
use carebed_gateway::link::LocalBroker;
use carebed_simulator::bus::line::PtyLine;
use carebed_simulator::bus::{Bus, Station};
use carebed_simulator::fact::{Change, Fact, Room};
use carebed_simulator::home::SimulatedHome;
use carebed_simulator::radar::BedRadar;
use carebed_simulator::surroundings::{Readings, Surroundings};
use carebed_simulator::zigbee::ZigbeeBridge;
use tokio::sync::broadcast::error::RecvError;

use crate::broker::free_port;
use crate::serve::program;

/// The voltage of the mains.
const MAINS: f32 = 229.8;
/// What the meter shows at the start, in kilowatt-hours.
const METER: f32 = 412.6;
/// Product minutes after which Zigbee devices tell how they are though nothing changed. Real ones take about an hour.
const CHECK_IN_MINUTES: u64 = 10;

/// The devices, plugged in and switched on.
pub(super) struct Devices {
    radar: PtyLine<BedRadar>,
    bus: PtyLine<Bus>,
    bridge: ZigbeeBridge,
    /// What room sensor and meter feel.
    surroundings: Surroundings,
    /// How things are that a Zigbee device tells again by and by.
    states: Vec<(Fact, bool)>,
    /// The broker that the gateway starts for them.
    pub(super) broker: LocalBroker,
}

impl Devices {
    /// Plugs them in below `folder`, where adapters are found by name. `speed`: how fast the demo's clock goes.
    pub(super) fn start(folder: &Path, home: &SimulatedHome, speed: u32, seed: u64) -> anyhow::Result<Self> {
        let [v4, v5] = [free_port()?, free_port()?].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let radar = BedRadar::new(home.is(Fact::BedOccupied), Duration::from_secs(1) / speed.max(1), seed);
        let stations = vec![Station::board(1), Station::climate(2, 21.5, 48.0), Station::meter(3, MAINS, 86.0, METER)];
        let plugged = "failed to make a pseudo-terminal for a simulated device";
        let living = Fact::Motion(Room::Living);
        let zigbee = [("balcony", Fact::DoorOpen), ("sos", Fact::CallPressed), ("living", living)];
        Ok(Self {
            radar: PtyLine::plug(&folder.join("radar"), radar).context(plugged)?,
            bus: PtyLine::plug(&folder.join("bus"), Bus::new(stations, seed)).context(plugged)?,
            bridge: ZigbeeBridge::start(v4, zigbee.map(|(name, fact)| (name.to_owned(), fact)).to_vec()),
            surroundings: Surroundings::new(f64::from(METER), seed),
            states: [Fact::DoorOpen, living].map(|fact| (fact, home.is(fact))).to_vec(),
            broker: LocalBroker::Embedded { program: program()?, v4, v5 },
        })
    }

    /// Their part of the home file.
    pub(super) fn home_file(&self, home: &str) -> String {
        let (radar, bus) = (self.radar.path().display(), self.bus.path().display());
        format!(
            r#"
[[device]]
id = "{home}-radar"
profile = "micradar/r60abd1"
link = "serial:{radar}"
[device.inputs.heart_rate]
bed = "{home}-bed"
[device.inputs.respiratory_rate]
bed = "{home}-bed"
[device.inputs.body_movement]
bed = "{home}-bed"

[[device]]
id = "{home}-board-2"
profile = "waveshare/modbus-di8"
link = "serial:{bus}"
serial = "9600 8N1"
unit = 1
every = "200ms"
[device.inputs.1]
device = "{home}-cord-2"
quantity = "call_button"
bed = "{home}-bed"
room = "living"

[[device]]
id = "{home}-climate"
profile = "xy/md02"
link = "serial:{bus}"
serial = "9600 8N1"
unit = 2
[device.inputs.temperature]
room = "bedroom"
[device.inputs.humidity]
room = "bedroom"

[[device]]
id = "{home}-meter"
profile = "eastron/sdm120"
every = "2s" # the demo's clock is fast: the maker's minute would be hours
link = "serial:{bus}"
serial = "9600 8N1"
unit = 3
[device.inputs.power]
room = "living"
[device.inputs.energy]
room = "living"

[[device]]
id = "{home}-balcony"
profile = "zigbee2mqtt/aqara-door"
link = "mqtt"
address = "balcony"
[device.inputs.door_open]
room = "living"

[[device]]
id = "{home}-sos"
profile = "zigbee2mqtt/tuya-sos"
link = "mqtt"
address = "sos"
[device.inputs.call]
bed = "{home}-bed"
room = "bedroom"

[[device]]
id = "{home}-zigbee-pir"
profile = "zigbee2mqtt/aqara-motion"
link = "mqtt"
address = "living"
[device.inputs.motion]
room = "living"
"#
        )
    }

    /// Lets them feel what happens in the home, until it is over.
    pub(super) async fn follow(
        mut self,
        mut changes: tokio::sync::broadcast::Receiver<Change>,
        clock: Arc<dyn Clock>,
        shutdown: Shutdown,
    ) {
        for minute in 0_u64.. {
            self.feel(clock.now());
            if minute.is_multiple_of(CHECK_IN_MINUTES) {
                self.states.iter().for_each(|(fact, on)| self.bridge.show(*fact, *on));
            }
            let next = clock.sleep(Duration::from_secs(60));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.pass_on(&mut changes) => return,
                () = next => {}
            }
        }
    }

    /// Puts the surroundings on the bus.
    fn feel(&mut self, now: Timestamp) {
        let Readings { celsius, percent, watts, kilowatt_hours } = self.surroundings.at(now);
        let mut bus = self.bus.speaker();
        if let Some(room) = bus.station(2) {
            room.show_climate(celsius, percent);
        }
        if let Some(meter) = bus.station(3) {
            meter.show_meter(MAINS, watts, kilowatt_hours);
        }
    }

    /// Passes on what changes in the home; ends with it.
    async fn pass_on(&mut self, changes: &mut tokio::sync::broadcast::Receiver<Change>) {
        loop {
            match changes.recv().await {
                Ok(Change { fact: Fact::BedOccupied, on, .. }) => self.radar.speaker().set_in_bed(on),
                Ok(Change { fact, on, .. }) => {
                    self.bridge.show(fact, on);
                    self.states.iter_mut().filter(|(known, _)| *known == fact).for_each(|state| state.1 = on);
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}
