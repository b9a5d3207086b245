//! A Modbus RTU bus: stations that hold registers, and the ways in which real ones misbehave. Pure: bytes in, bytes with
//! delays out. [`mod@line`] puts it on a pseudo-terminal or a TCP port.
//!
//! The frames are written here a second time, not taken from a library, so that a gateway is not tested against its own
//! codec.

pub mod line;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::chance::Chance;

/// Bytes kept while looking for a request; the oldest go first.
const HEARD_MAX: usize = 256;

/// What a station does that it should not.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Manners {
    /// It answers nothing.
    pub silent: bool,
    /// It takes so long to answer. Longer than the master waits makes it late.
    pub delay: Duration,
    /// How many of its answers come with a flipped bit, from 0 to 1.
    pub damages: f64,
    /// How many of its answers have a stray byte before and behind them, as a driver that switches late leaves it, from 0
    /// to 1.
    pub noise: f64,
    /// It answers requests to this unit, too, with its own registers.
    pub answers_for: Option<u8>,
    /// It answers a request that touches a register it does not have with its own exception; else such registers read as 0.
    pub refuses_holes: bool,
}

/// One device on the bus.
#[derive(Debug, Clone, PartialEq)]
pub struct Station {
    /// Its unit.
    pub unit: u8,
    /// Discrete inputs by address.
    pub inputs: BTreeMap<u16, bool>,
    /// Coils by address.
    pub coils: BTreeMap<u16, bool>,
    /// Input registers by address.
    pub input_registers: BTreeMap<u16, u16>,
    /// Holding registers by address.
    pub holding_registers: BTreeMap<u16, u16>,
    /// How it behaves.
    pub manners: Manners,
    /// Requests it has answered.
    pub answered: u64,
    /// Those among them that it answered with an exception.
    pub refused: u64,
}

impl Station {
    /// A station without any registers.
    #[must_use]
    pub fn new(unit: u8) -> Self {
        Self {
            unit,
            inputs: BTreeMap::new(),
            coils: BTreeMap::new(),
            input_registers: BTreeMap::new(),
            holding_registers: BTreeMap::new(),
            manners: Manners { refuses_holes: true, ..Manners::default() },
            answered: 0,
            refused: 0,
        }
    }

    /// A digital input board with eight inputs and eight coils.
    #[must_use]
    pub fn board(unit: u8) -> Self {
        let off = || (0..8).map(|address| (address, false)).collect();
        Self { inputs: off(), coils: off(), ..Self::new(unit) }
    }

    /// A module that counts presses (Wiren Board WB-MCM8) on those of its eight inputs that were told to: mode 1 in holding
    /// registers 9 to 16, presses in input registers 464 to 471, long ones in 480 to 487.
    #[must_use]
    pub fn counter(unit: u8) -> Self {
        Self {
            inputs: (0..8).map(|input| (input, false)).collect(),
            input_registers: (464..472).chain(480..488).map(|register| (register, 0)).collect(),
            holding_registers: (9..17).map(|register| (register, 0)).collect(),
            ..Self::new(unit)
        }
    }

    /// A short press of a button on such a module, shorter than anybody polls.
    pub fn press(&mut self, input: u16) {
        if self.holding_registers.get(&(9 + input)) == Some(&1)
            && let Some(count) = self.input_registers.get_mut(&(464 + input))
        {
            *count = count.wrapping_add(1);
        }
    }

    /// A room sensor (XY-MD02): temperature in tenths of a degree at 1, humidity in tenths of a percent at 2.
    #[must_use]
    pub fn climate(unit: u8, celsius: f64, percent: f64) -> Self {
        let mut station = Self::new(unit);
        station.show_climate(celsius, percent);
        station
    }

    /// What a room sensor measures now.
    pub fn show_climate(&mut self, celsius: f64, percent: f64) {
        let tenths = |value: f64| u16::from_be_bytes(whole(value * 10.0).to_be_bytes());
        self.input_registers.extend([(1, tenths(celsius)), (2, tenths(percent))]);
    }

    /// An energy meter (Eastron SDM120): floating point numbers, high word first.
    #[must_use]
    pub fn meter(unit: u8, volts: f32, watts: f32, kilowatt_hours: f32) -> Self {
        let mut station = Self::new(unit);
        station.show_meter(volts, watts, kilowatt_hours);
        station
    }

    /// What an energy meter measures now.
    pub fn show_meter(&mut self, volts: f32, watts: f32, kilowatt_hours: f32) {
        let values = [
            (0x00, volts),
            (0x06, watts / volts),
            (0x0C, watts),
            (0x1E, 0.98),
            (0x46, 50.0),
            (0x48, kilowatt_hours),
            (0x0156, kilowatt_hours),
        ];
        for (address, value) in values {
            self.put_float(address, value);
        }
    }

    /// Puts a floating point number into two input registers, high word first.
    pub fn put_float(&mut self, address: u16, value: f32) {
        let [a, b, c, d] = value.to_be_bytes();
        self.input_registers.insert(address, u16::from_be_bytes([a, b]));
        self.input_registers.insert(address + 1, u16::from_be_bytes([c, d]));
    }

    /// The answer to a request without unit and checksum.
    fn answer(&mut self, pdu: &[u8]) -> Vec<u8> {
        let [function, a, b, c, d] = *pdu else { return vec![pdu.first().copied().unwrap_or(0) | 0x80, 3] };
        let (address, word) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let answer = match function {
            1 => bits(&self.coils, address, word, self.manners.refuses_holes),
            2 => bits(&self.inputs, address, word, self.manners.refuses_holes),
            3 => words(&self.holding_registers, address, word, self.manners.refuses_holes),
            4 => words(&self.input_registers, address, word, self.manners.refuses_holes),
            5 => match self.coils.get_mut(&address) {
                Some(coil) if word == 0xFF00 || word == 0 => {
                    *coil = word == 0xFF00;
                    return pdu.to_vec();
                }
                _ => None,
            },
            6 => match self.holding_registers.get_mut(&address) {
                Some(register) => {
                    *register = word;
                    return pdu.to_vec();
                }
                None => None,
            },
            _ => return vec![function | 0x80, 1],
        };
        let Some(data) = answer else { return vec![function | 0x80, 2] };
        let mut pdu = vec![function, u8::try_from(data.len()).unwrap_or(u8::MAX)];
        pdu.extend(data);
        pdu
    }
}

#[expect(clippy::cast_possible_truncation, reason = "temperatures and humidities are small")]
fn whole(value: f64) -> i16 {
    value.round() as i16
}

fn bits(held: &BTreeMap<u16, bool>, address: u16, count: u16, refuses: bool) -> Option<Vec<u8>> {
    let mut data = vec![0_u8; usize::from(count.min(2_000)).div_ceil(8)];
    for place in 0..count.min(2_000) {
        let on = held.get(&address.checked_add(place)?).copied();
        if on.is_none() && refuses {
            return None;
        }
        if let Some(byte) = data.get_mut(usize::from(place / 8)) {
            *byte |= u8::from(on.unwrap_or_default()) << (place % 8);
        }
    }
    Some(data).filter(|data| !data.is_empty())
}

fn words(held: &BTreeMap<u16, u16>, address: u16, count: u16, refuses: bool) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for place in 0..count.min(125) {
        let word = held.get(&address.checked_add(place)?).copied();
        if word.is_none() && refuses {
            return None;
        }
        data.extend(word.unwrap_or_default().to_be_bytes());
    }
    Some(data).filter(|data| !data.is_empty())
}

/// Stations on one pair of wires.
#[derive(Debug)]
pub struct Bus {
    /// Who is on it.
    pub stations: Vec<Station>,
    /// Whether the master's adapter gives back what it sends.
    pub echoes: bool,
    /// One byte on the wire.
    pub byte: Duration,
    chance: Chance,
    heard: Vec<u8>,
}

impl Bus {
    /// A bus at 9600 baud, ten bits to a byte.
    #[must_use]
    pub fn new(stations: Vec<Station>, seed: u64) -> Self {
        let byte = Duration::from_secs(1) * 10 / 9_600;
        Self { stations, echoes: false, byte, chance: Chance::new(seed), heard: Vec::new() }
    }

    /// The station of a unit.
    pub fn station(&mut self, unit: u8) -> Option<&mut Station> {
        self.stations.iter_mut().find(|station| station.unit == unit)
    }

    fn wire(&self, n_bytes: usize) -> Duration {
        self.byte * u32::try_from(n_bytes).unwrap_or(u32::MAX)
    }

    /// Takes what the master sends, and says which bytes stand at its end of the line afterwards, each after how long.
    pub fn hear(&mut self, bytes: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        self.heard.extend_from_slice(bytes);
        let mut said = Vec::new();
        let sent = self.wire(bytes.len());
        if self.echoes {
            said.push((sent, bytes.to_vec()));
        }
        // Requests of the functions served here have eight bytes.
        while let Some(at) = self.heard.windows(8).position(is_request) {
            let request: Vec<u8> = self.heard.drain(..at + 8).skip(at).take(8).collect();
            let (unit, pdu) = (request.first().copied().unwrap_or_default(), request.get(1..6).unwrap_or_default());
            for index in 0..self.stations.len() {
                let Some(station) = self.stations.get_mut(index) else { break };
                let Manners { silent, delay, damages, noise, answers_for, .. } = station.manners;
                let asked = unit == 0 || unit == station.unit || answers_for == Some(unit);
                if silent || !asked {
                    continue;
                }
                let answer = station.answer(pdu);
                if unit == 0 {
                    continue;
                }
                station.answered += 1;
                station.refused += u64::from(answer.first().is_some_and(|function| function & 0x80 != 0));
                let mut frame = vec![unit];
                frame.extend(answer);
                frame.extend(crc(&frame).to_le_bytes());
                if self.chance.happens(damages) {
                    let place = usize::from(self.chance.byte()) % frame.len();
                    if let Some(byte) = frame.get_mut(place) {
                        *byte ^= 0x10;
                    }
                }
                if self.chance.happens(noise) {
                    frame.insert(0, self.chance.byte());
                    frame.push(self.chance.byte());
                }
                said.push((sent + delay + self.wire(frame.len()), frame));
            }
        }
        let excess = self.heard.len().saturating_sub(HEARD_MAX);
        self.heard.drain(..excess);
        said
    }
}

fn is_request(window: &[u8]) -> bool {
    let Some((body, sum)) = window.split_last_chunk::<2>() else { return false };
    matches!(body.get(1), Some(1..=6)) && crc(body).to_le_bytes() == *sum
}

/// The checksum of Modbus RTU, bit by bit as its specification draws it.
fn crc(bytes: &[u8]) -> u16 {
    let mut crc = 0xFFFF_u16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1 == 1;
            crc >>= 1;
            if carry {
                crc ^= 0xA001;
            }
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published exchanges, and what a bus does with its stations' manners.
    #[test]
    fn stations_answer_as_published() {
        let mut board = Station::board(1);
        board.inputs.insert(5, true);
        let mut bus = Bus::new(vec![board, Station::climate(2, 30.5, 54.6)], 1);
        let ask = |bus: &mut Bus, request: &[u8]| -> Vec<Vec<u8>> {
            bus.hear(request).into_iter().map(|(_, bytes)| bytes).collect()
        };
        let read = [0x01, 0x02, 0x00, 0x00, 0x00, 0x08, 0x79, 0xCC];
        assert_eq!(ask(&mut bus, &read), [vec![0x01, 0x02, 0x01, 0x20, 0xA0, 0x50]]);
        // In two pieces, behind noise.
        assert!(ask(&mut bus, &[0xFF, 0x00, 0x01, 0x02, 0x00]).is_empty());
        assert_eq!(ask(&mut bus, &read[3..]), [vec![0x01, 0x02, 0x01, 0x20, 0xA0, 0x50]]);
        let mut climate = vec![0x02, 0x04, 0x00, 0x01, 0x00, 0x02];
        climate.extend(crc(&climate).to_le_bytes());
        let answer = ask(&mut bus, &climate).remove(0);
        assert_eq!(answer[..7], [0x02, 0x04, 0x04, 0x01, 0x31, 0x02, 0x22]);
        bus.echoes = true;
        bus.station(1).unwrap().manners.silent = true;
        assert_eq!(ask(&mut bus, &read), [read.to_vec()]);
        // Another answers in its place, and has no inputs; then with stray bytes around its words.
        bus.echoes = false;
        bus.station(2).unwrap().manners.answers_for = Some(1);
        assert_eq!(ask(&mut bus, &read), [vec![0x01, 0x82, 0x02, 0xC1, 0x61]]);
        bus.station(2).unwrap().manners.noise = 1.0;
        let noisy = ask(&mut bus, &read).remove(0);
        assert_eq!((noisy.len(), &noisy[1..6]), (7, &[0x01, 0x82, 0x02, 0xC1, 0x61][..]));
    }
}
