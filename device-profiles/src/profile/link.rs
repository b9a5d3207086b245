//! How a device is reached: `[link]`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::Deny;
use crate::deny::denied;
use crate::document::Fields;
use crate::hex::Hex;

/// Kinds of links a device can be reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// Modbus TCP.
    ModbusTcp,
    /// Modbus RTU on a serial line.
    ModbusRtu,
    /// Frames of its own on a serial line.
    Serial,
    /// Topics of a broker in the home.
    Mqtt,
    /// Pages of its own web server.
    Http,
}

impl LinkKind {
    /// Its word in profiles.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::ModbusTcp => "modbus_tcp",
            Self::ModbusRtu => "modbus_rtu",
            Self::Serial => "serial",
            Self::Mqtt => "mqtt",
            Self::Http => "http",
        }
    }
}

/// Settings of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial {
    /// Bits per second.
    pub baud: u32,
    /// Data bits of a character: 7 or 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// Stop bits: 1 or 2.
    pub stop_bits: u8,
}

/// The parity bit of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parity {
    /// None is sent.
    None,
    /// Even.
    Even,
    /// Odd.
    Odd,
}

impl TryFrom<String> for Serial {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let read = || {
            let (baud, character) = text.split_once(' ')?;
            let [data, parity, stop] = <[u8; 3]>::try_from(character.as_bytes()).ok()?;
            let parity = match parity {
                b'N' => Parity::None,
                b'E' => Parity::Even,
                b'O' => Parity::Odd,
                _ => return None,
            };
            let baud = baud.parse().ok().filter(|baud| (300..=4_000_000).contains(baud))?;
            let (data_bits, stop_bits) = (data.checked_sub(b'0')?, stop.checked_sub(b'0')?);
            ((7..=8).contains(&data_bits) && (1..=2).contains(&stop_bits)).then_some(Self {
                baud,
                data_bits,
                parity,
                stop_bits,
            })
        };
        read().ok_or_else(|| format!("{text:?} is not a serial setting such as \"9600 8N1\""))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::None => 'N',
            Parity::Even => 'E',
            Parity::Odd => 'O',
        };
        write!(f, "{} {}{parity}{}", self.baud, self.data_bits, self.stop_bits)
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.to_string()
    }
}

/// How to reach the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSettings {
    /// By what.
    pub kinds: Vec<LinkKind>,
    /// Modbus unit as shipped by the maker.
    pub unit: u8,
    /// TCP port as shipped by the maker.
    pub port: u16,
    /// Serial settings it may be found with, the maker's own first. Empty when it has no serial line.
    pub serial: Vec<Serial>,
    /// Its address where frames or topics carry one and the home file names none.
    pub address: Option<String>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Silence it needs between the end of an answer and the next request.
    pub gap: Duration,
    /// Bytes that wake it before a request, and how long to wait after them.
    pub wake: Option<(Vec<u8>, Duration)>,
}

pub(super) fn read(mut f: Fields<'_>, deny: &[Deny]) -> Option<LinkSettings> {
    let (kinds, unit): (Option<Spanned<Vec<LinkKind>>>, _) = (f.need("kinds"), f.take::<u8>("unit"));
    let (port, timeout) = (f.take::<u16>("port"), f.take_duration("timeout"));
    let serial: Option<Spanned<Vec<Serial>>> = f.take("serial");
    let (address, gap) = (f.take::<String>("address"), f.take_duration("gap"));
    let (wake, wake_pause) = (f.take::<Hex>("wake"), f.take_duration("wake_pause"));
    let kinds = kinds?;
    let is = |kind| kinds.get_ref().contains(&kind);
    if kinds.get_ref().is_empty() {
        let hint = "name at least one of modbus_tcp, modbus_rtu, serial, mqtt, http";
        f.tell(kinds.span(), "kinds is empty", hint);
    }
    if unit.is_none() && (is(LinkKind::ModbusTcp) || is(LinkKind::ModbusRtu)) {
        f.tell(f.span(), "[link] lacks unit", "add unit = 1, or the unit as shipped by the maker");
    }
    let on_a_line = is(LinkKind::ModbusRtu) || is(LinkKind::Serial);
    let serial = serial.map_or_else(Vec::new, Spanned::into_inner);
    if serial.is_empty() && on_a_line {
        f.tell(f.span(), "[link] lacks serial", "add serial = [\"9600 8N1\"], the maker's setting first");
    }
    let default_port = if is(LinkKind::Http) { 80 } else { 502 };
    let pause = wake_pause.unwrap_or(Duration::ZERO);
    if let Some(wake) = &wake
        && let Some(reason) = denied(&wake.get_ref().0, deny)
    {
        f.tell(wake.span(), format!("wake is never sent: {reason}"), "correct or remove it");
    }
    Some(LinkSettings {
        kinds: kinds.into_inner(),
        unit: unit.map_or(1, Spanned::into_inner),
        port: port.map_or(default_port, Spanned::into_inner),
        serial,
        address: address.map(Spanned::into_inner),
        // Slow serial boards answer within 100–200 ms; half a second leaves room for a serial-to-Ethernet box.
        timeout: timeout.unwrap_or(Duration::from_millis(500)),
        gap: gap.unwrap_or(Duration::ZERO),
        wake: wake.map(|wake| (wake.into_inner().0, pause)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_settings_read_back_and_nonsense_does_not() {
        for text in ["9600 8N1", "1382400 8N1", "2400 8E1", "9600 8N2", "19200 7O1"] {
            assert_eq!(Serial::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["9600", "9600 8X1", "9600 9N1", "9600 8N3", "0 8N1", "床 8N1", "9600 8N"] {
            assert!(Serial::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
