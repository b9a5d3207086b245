//! Looking for devices on a port or host: at which speed, parity and unit somebody answers, and which profiles that fits.
//!
//! Only questions are asked: nothing is ever set. At each serial setting the line is first listened to, then devices that
//! speak frames of their own are asked what their profiles know to ask, then every Modbus unit is asked for one register and
//! for eight inputs; an exception is an answer, too.

use std::sync::Arc;
use std::time::Duration;

use carebed_device_profiles::decoder::Decoder;
use carebed_device_profiles::modbus::{Function, Reject, Request};
use carebed_device_profiles::profile::{LinkKind, Profile, Serial, Transmission};
use carebed_device_profiles::shipped;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::Address;
use super::line::{Line, LineError};
use super::polled::{NoAnswer, Wire};
use super::rtu::Ask;

/// How long a line is listened to before anything is asked: every radar says something each second.
const LISTEN: Duration = Duration::from_millis(1_500);
/// How long the answer to a device's own question may take (DL/T 645: 500 ms).
const QUESTION: Duration = Duration::from_millis(700);
/// How long it may take to find out which profiles fit one unit; what was not tried then is not told.
const FITTING: Duration = Duration::from_secs(20);
/// Bytes taken off the line at once.
const CHUNK: usize = 1_024;
/// What every Modbus device answers, if only with an exception: most have a register 0, and boards their inputs.
const PROBES: [Request; 2] = [
    Request::Read { function: Function::ReadHoldingRegisters, address: 0, count: 1 },
    Request::Read { function: Function::ReadDiscreteInputs, address: 0, count: 8 },
];

/// Where and what to try.
#[derive(Debug)]
pub struct Search {
    /// The port, server or host; its serial settings are replaced by each of `settings`.
    pub place: Address,
    /// Serial settings to try, most likely first. One is enough for a host that speaks Modbus TCP.
    pub settings: Vec<Serial>,
    /// Modbus units to ask.
    pub units: Vec<u8>,
    /// How long a unit may take to answer.
    pub timeout: Duration,
    /// Only devices of these profiles; none: every shipped one.
    pub profiles: Vec<Arc<Profile>>,
    /// Whether to go on after the first setting at which somebody answers, and to ask Modbus units where frames of another
    /// kind were heard.
    pub all: bool,
}

/// Somebody who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// At which setting; none: over TCP.
    pub setting: Option<Serial>,
    /// As which Modbus unit; none: it speaks frames of its own.
    pub unit: Option<u8>,
    /// Names of the profiles whose every question it answers, or whose frames it speaks.
    pub fits: Vec<String>,
}

impl Search {
    /// The distinct serial settings of the shipped profiles, those that most devices come with first.
    #[must_use]
    pub fn usual_settings(profiles: &[Arc<Profile>]) -> Vec<Serial> {
        let mut counted: Vec<(Serial, usize)> = Vec::new();
        for profile in profiles {
            for (place, setting) in profile.link.serial.iter().enumerate() {
                // A maker's own setting counts for more than one that can be chosen.
                let weight = if place == 0 { 10 } else { 1 };
                match counted.iter_mut().find(|(known, _)| known == setting) {
                    Some((_, count)) => *count += weight,
                    None => counted.push((*setting, weight)),
                }
            }
        }
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counted.into_iter().map(|(setting, _)| setting).collect()
    }

    /// Every profile that can be found by a search.
    #[must_use]
    pub fn all_profiles() -> Vec<Arc<Profile>> {
        let is_found = |profile: &&Arc<Profile>| !profile.polls.is_empty() || !profile.framings.is_empty();
        shipped::all().iter().map(|shipped| &shipped.profile).filter(is_found).cloned().collect()
    }

    /// Searches until somebody answers at a setting, and then to the end of that one, or of all. `tell` hears what is tried.
    pub async fn run(&self, mut tell: impl FnMut(String)) -> Result<Vec<Found>, String> {
        if matches!(self.place, Address::ModbusTcp(_)) {
            tell(format!("asking {} units at {}", self.units.len(), self.place));
            return self.modbus(&self.place, None).await;
        }
        let mut all = Vec::new();
        for setting in &self.settings {
            let Some(address) = at(&self.place, *setting) else { return Err(format!("{} is no line", self.place)) };
            tell(format!("{setting}: listening, then asking {} units", self.units.len()));
            let mut found = self.framed(&address, *setting).await.map_err(|error| super::told(&error))?;
            if found.is_empty() || self.all {
                found.extend(self.modbus(&address, Some(*setting)).await?);
            }
            all.extend(found);
            if !all.is_empty() && !self.all {
                break;
            }
        }
        Ok(all)
    }

    /// Devices that speak frames of their own.
    async fn framed(&self, address: &Address, setting: Serial) -> Result<Vec<Found>, LineError> {
        let mut devices: Vec<(&Arc<Profile>, Decoder)> = self
            .profiles
            .iter()
            .filter(|profile| !profile.framings.is_empty())
            .map(|profile| (profile, Decoder::new(Arc::clone(profile))))
            .collect();
        let mut line = Line::new(address.clone());
        line.open().await?;
        let start = Instant::now();
        let mut heard = listen(&mut line, &mut devices, start, start + LISTEN).await?;
        let questions =
            self.profiles.iter().filter(|profile| profile.link.serial.contains(&setting)).filter_map(|profile| {
                let query = profile.messages.iter().find_map(|message| message.query.as_ref())?;
                match query.encode(profile, None) {
                    Ok(Transmission::Bytes(bytes)) => Some(bytes),
                    _ => None,
                }
            });
        for question in questions {
            if !heard.is_empty() {
                break;
            }
            line.send(&question).await?;
            let until = Instant::now() + QUESTION;
            heard = listen(&mut line, &mut devices, start, until).await?;
        }
        let found = Found { setting: Some(setting), unit: None, fits: heard };
        Ok(if found.fits.is_empty() { Vec::new() } else { vec![found] })
    }

    async fn modbus(&self, address: &Address, setting: Option<Serial>) -> Result<Vec<Found>, String> {
        let start = Instant::now();
        let Some(mut wire) = Wire::new(address, None, start) else {
            return Err(format!("{address} carries no Modbus"));
        };
        let mut found = Vec::new();
        for unit in &self.units {
            if self.is_there(&mut wire, *unit, start).await? {
                found.push(Found {
                    setting,
                    unit: Some(*unit),
                    fits: self.fits(&mut wire, address, *unit, start).await,
                });
            }
        }
        Ok(found)
    }

    async fn is_there(&self, wire: &mut Wire, unit: u8, start: Instant) -> Result<bool, String> {
        // A profile's own question reaches devices that answer nothing else.
        let own = self.profiles.iter().filter(|_| self.profiles.len() == 1).flat_map(|profile| &profile.polls);
        let own: Vec<Request> = own.map(|poll| poll.request()).take(1).collect();
        for request in own.iter().chain(&PROBES) {
            match self.ask(wire, unit, *request, start).await {
                Ok(_) | Err(NoAnswer::Rejected(Reject::Exception(_))) => return Ok(true),
                Err(NoAnswer::Line(error)) => return Err(super::told(&error)),
                Err(_) => {}
            }
        }
        Ok(false)
    }

    async fn ask(&self, wire: &mut Wire, unit: u8, request: Request, start: Instant) -> Result<Vec<u8>, NoAnswer> {
        // A late answer to the last question must not be taken for one to this.
        sleep_until(start + wire.ready_at(unit, request)).await;
        wire.open_at_once();
        wire.ask(Ask { unit, request, timeout: self.timeout }, None).await
    }

    /// The profiles whose every poll the unit answers.
    async fn fits(&self, wire: &mut Wire, address: &Address, unit: u8, start: Instant) -> Vec<String> {
        let kind = if matches!(address, Address::ModbusTcp(_)) { LinkKind::ModbusTcp } else { LinkKind::ModbusRtu };
        let until = Instant::now() + FITTING;
        let mut fits = Vec::new();
        let candidates = self.profiles.iter().filter(|p| !p.polls.is_empty() && p.link.kinds.contains(&kind));
        for profile in candidates {
            let mut answers_all = true;
            for poll in &profile.polls {
                answers_all &= Instant::now() < until && self.ask(wire, unit, poll.request(), start).await.is_ok();
                if !answers_all {
                    break;
                }
            }
            if answers_all {
                fits.push(profile.name.clone());
            }
        }
        fits
    }
}

fn at(place: &Address, line: Serial) -> Option<Address> {
    match place {
        Address::Serial { path, .. } => Some(Address::Serial { path: path.clone(), line }),
        Address::SerialServer { host, .. } => Some(Address::SerialServer { host: host.clone(), line }),
        _ => None,
    }
}

/// Reads the line until then; names of the profiles that understood a message.
async fn listen(
    line: &mut Line,
    devices: &mut [(&Arc<Profile>, Decoder)],
    start: Instant,
    until: Instant,
) -> Result<Vec<String>, LineError> {
    let mut heard: Vec<String> = Vec::new();
    let mut bytes = [0; CHUNK];
    while let Ok(read) = timeout_at(until, line.read(&mut bytes)).await {
        let n_bytes = read?;
        for (profile, decoder) in devices.iter_mut() {
            let decoded = decoder.push(bytes.get(..n_bytes).unwrap_or_default(), start.elapsed());
            if !decoded.messages.is_empty() && !heard.contains(&profile.name) {
                heard.push(profile.name.clone());
            }
        }
    }
    Ok(heard)
}
