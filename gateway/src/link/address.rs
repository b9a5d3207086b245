//! Where a device is reached: the `link` of the home file.

use std::fmt;
use std::path::PathBuf;

use carebed_device_profiles::profile::{LinkKind, Profile, Serial};

/// Where a device is reached. Devices at equal addresses share a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// Modbus TCP: `tcp://host:port`.
    ModbusTcp(Host),
    /// A serial port: `serial:/dev/serial/by-id/…`.
    Serial {
        /// The port. A path below `/dev/serial/by-id` stays the same when the adapter is plugged in elsewhere.
        path: PathBuf,
        /// Speed and character.
        line: Serial,
    },
    /// A serial line behind a serial server that passes bytes on as they are: `serial+tcp://host:port`.
    SerialServer {
        /// The server.
        host: Host,
        /// Speed and character of the line behind it, for the times on the wire.
        line: Serial,
    },
    /// The device's own web server: `http://host:port`.
    Http(Host),
    /// The broker in the home: `mqtt`.
    Broker,
}

/// A name or address, and a port.
pub type Host = (String, u16);

/// Why a link cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongAddress {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl Address {
    /// Reads a `link`; `line` is what the home file says of a serial line, else the maker's setting holds.
    pub fn parse(link: &str, line: Option<Serial>, profile: &Profile) -> Result<Self, WrongAddress> {
        let kinds = &profile.link.kinds;
        let line = line.or(profile.link.serial.first().copied());
        let host = |text: &str, port| crate::config::host_and_port(text, port);
        let read = || {
            if link == "mqtt" {
                return Some(Self::Broker);
            }
            if let Some(path) = link.strip_prefix("serial:") {
                let path = PathBuf::from(path);
                return path.is_absolute().then_some(Self::Serial { path, line: line? });
            }
            if let Some(server) = link.strip_prefix("serial+tcp://") {
                return Some(Self::SerialServer { host: host(server, None)?, line: line? });
            }
            if let Some(server) = link.strip_prefix("http://") {
                return host(server.trim_end_matches('/'), Some(profile.link.port)).map(Self::Http);
            }
            host(link.strip_prefix("tcp://")?, Some(profile.link.port)).map(Self::ModbusTcp)
        };
        let examples: Vec<&str> = kinds.iter().map(|kind| example(*kind)).collect();
        let hint = || format!("write {}", examples.join(" or "));
        let Some(address) = read() else {
            return Err(WrongAddress { message: format!("link: {link:?} is no address"), hint: hint() });
        };
        if kinds.iter().any(|kind| address.carries(*kind)) {
            Ok(address)
        } else {
            Err(WrongAddress { message: format!("link: {} is not reached by {link:?}", profile.name), hint: hint() })
        }
    }

    fn carries(&self, kind: LinkKind) -> bool {
        match self {
            Self::ModbusTcp(_) => kind == LinkKind::ModbusTcp,
            Self::Serial { .. } | Self::SerialServer { .. } => matches!(kind, LinkKind::ModbusRtu | LinkKind::Serial),
            Self::Http(_) => kind == LinkKind::Http,
            Self::Broker => kind == LinkKind::Mqtt,
        }
    }

    /// Whether it is the same port or server, whatever the settings.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Serial { path: one, .. }, Self::Serial { path: two, .. }) => one == two,
            (Self::SerialServer { host: one, .. }, Self::SerialServer { host: two, .. }) => one == two,
            _ => self == other,
        }
    }
}

fn example(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::ModbusTcp => "\"tcp://192.168.1.50:502\"",
        LinkKind::ModbusRtu | LinkKind::Serial => {
            "\"serial:/dev/serial/by-id/usb-…\" or \"serial+tcp://192.168.1.50:4196\""
        }
        LinkKind::Mqtt => "\"mqtt\", and the device's topic name as address",
        LinkKind::Http => "\"http://192.168.1.60\"",
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ModbusTcp((host, port)) => write!(f, "tcp://{host}:{port}"),
            Self::Serial { path, .. } => write!(f, "serial:{}", path.display()),
            Self::SerialServer { host: (host, port), .. } => write!(f, "serial+tcp://{host}:{port}"),
            Self::Http((host, port)) => write!(f, "http://{host}:{port}"),
            Self::Broker => f.write_str("mqtt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use carebed_device_profiles::shipped;

    use super::*;

    #[test]
    fn addresses_are_what_the_profile_can_be_reached_by() {
        let board = shipped::find("waveshare/modbus-di8").unwrap();
        let cases = [
            ("tcp://10.0.0.5:1502", Ok("tcp://10.0.0.5:1502")),
            ("tcp://[::1]", Ok("tcp://[::1]:502")),
            ("serial:/dev/ttyUSB0", Ok("serial:/dev/ttyUSB0")),
            ("serial+tcp://10.0.0.5:4196", Ok("serial+tcp://10.0.0.5:4196")),
            ("serial:ttyUSB0", Err("is no address")),
            ("serial+tcp://10.0.0.5", Err("is no address")),
            ("/dev/ttyUSB0", Err("is no address")),
            ("mqtt", Err("is not reached by")),
            ("http://10.0.0.5", Err("is not reached by")),
        ];
        for (link, expected) in cases {
            match (Address::parse(link, None, &board), expected) {
                (Ok(address), Ok(expected)) => assert_eq!(address.to_string(), expected),
                (Err(wrong), Err(expected)) => {
                    assert!(wrong.message.contains(expected), "{wrong:?}");
                    assert!(wrong.hint.contains("tcp://192.168.1.50:502"), "{wrong:?}");
                }
                (got, _) => panic!("{link}: {got:?}"),
            }
        }
    }
}
