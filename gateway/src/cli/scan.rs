//! `scan`: who answers on a port, at which speed, parity and unit.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use carebed_device_profiles::profile::Serial;
use clap::Args;

use super::read::patience;
use super::{Exit, print, profiles, runtime};
use crate::config::host_and_port;
use crate::link::address::Address;
use crate::link::scan::{Found, Search};

#[derive(Args)]
pub(super) struct Arguments {
    /// As in the home file: serial:/dev/serial/by-id/…, serial+tcp://host:port or tcp://host:port.
    #[arg(value_name = "LINK")]
    link: String,
    /// Modbus units to ask, as in 1-32 or 1,248; by default 1 to 32 and those that makers ship.
    #[arg(long, value_name = "UNITS", value_parser = units)]
    units: Option<Units>,
    /// Only this serial setting, such as "9600 8N1"; may be given several times.
    #[arg(long, value_name = "SETTING", value_parser = |text: &str| Serial::try_from(text.to_owned()))]
    serial: Vec<Serial>,
    /// Only this device: a name such as eastron/sdm120, or a folder.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Go on when somebody answers: every setting, and Modbus units beside devices with frames of their own.
    #[arg(long)]
    all: bool,
    /// How long a unit may take to answer.
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = patience)]
    timeout: Duration,
}

/// A list of Modbus units.
#[derive(Debug, Clone, PartialEq)]
struct Units(Vec<u8>);

fn units(text: &str) -> Result<Units, String> {
    let wrong = || format!("{text:?} is not units from 1 to 255, such as 1-32 or 1,248");
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u8, u8) =
            (first.trim().parse().map_err(|_| wrong())?, last.trim().parse().map_err(|_| wrong())?);
        if first == 0 || last < first {
            return Err(wrong());
        }
        all.extend(first..=last);
    }
    Ok(Units(all))
}

pub(super) fn scan(arguments: Arguments) -> anyhow::Result<Exit> {
    let profiles = match &arguments.profile {
        Some(name) => vec![profiles::find(name)?.profile],
        None => Search::all_profiles(),
    };
    let settings =
        if arguments.serial.is_empty() { Search::usual_settings(&profiles) } else { arguments.serial.clone() };
    let any = settings.first().copied().or_else(|| Serial::try_from("9600 8N1".to_owned()).ok());
    let place = any.and_then(|line| place(&arguments.link, line)).with_context(|| {
        format!("{:?} is no link that can be searched\n  hint: write serial:/dev/ttyUSB0, serial+tcp://host:port or tcp://host:port", arguments.link)
    })?;
    let units = arguments.units.map_or_else(
        || {
            let mut units: Vec<u8> = (1..=32).chain(profiles.iter().map(|profile| profile.link.unit)).collect();
            units.sort_unstable();
            units.dedup();
            units
        },
        |Units(units)| units,
    );
    let search = Search { place, settings, units, timeout: arguments.timeout, profiles, all: arguments.all };
    let tell = |what| {
        let _closed = writeln!(std::io::stderr(), "{what}");
    };
    let found = runtime()?.block_on(search.run(tell)).map_err(anyhow::Error::msg)?;
    if found.is_empty() {
        let hint = "check power and the two wires (try them swapped); --units 1-247, --serial, --profile try others";
        let _closed = writeln!(std::io::stderr(), "nobody answers\n  hint: {hint}");
        return Ok(Exit::NoAnswer);
    }
    let mut table = String::new();
    for Found { setting, unit, fits } in found {
        let setting = setting.map_or_else(|| "-".to_owned(), |setting| setting.to_string());
        let unit = unit.map_or_else(|| "-".to_owned(), |unit| unit.to_string());
        let fits = if fits.is_empty() { "no shipped profile".to_owned() } else { fits.join(" ") };
        let _never = writeln!(table, "{setting:<12} unit {unit:<4} {fits}");
    }
    print(&table)
}

fn place(link: &str, line: Serial) -> Option<Address> {
    if let Some(path) = link.strip_prefix("serial:") {
        return Some(Address::Serial { path: PathBuf::from(path), line });
    }
    if let Some(server) = link.strip_prefix("serial+tcp://") {
        return Some(Address::SerialServer { host: host_and_port(server, None)?, line });
    }
    host_and_port(link.strip_prefix("tcp://")?, Some(502)).map(Address::ModbusTcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_nonsense_is_refused() {
        assert_eq!(units("1-3,248"), Ok(Units(vec![1, 2, 3, 248])));
        for text in ["", "0", "0-3", "5-2", "1-256", "1;2", "床"] {
            assert!(units(text).is_err(), "{text:?}");
        }
    }
}
