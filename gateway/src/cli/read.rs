//! `read`: what the devices of a home say at this moment.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::clock::{Clock, SystemClock};
use carebed_contract::quality::Quality;
use carebed_device_profiles::capture::show;
use carebed_device_profiles::document::duration;
use clap::Args;

use super::{Exit, config_file, home_file, print, runtime};
use crate::config::Config;
use crate::home::Board;
use crate::link::reading::{self, Reading};

#[derive(Args)]
pub(super) struct Arguments {
    /// The home file.
    #[arg(long, value_name = "FILE")]
    home: PathBuf,
    /// The gateway's configuration, for devices that speak MQTT to a broker which it names.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this board.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// How long to wait for what devices say by themselves.
    #[arg(long = "for", value_name = "DURATION", default_value = "5s", value_parser = patience)]
    patience: Duration,
}

pub(super) fn patience(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| format!("{text:?} is no duration such as 5s or 2min"))
}

pub(super) fn read(arguments: Arguments) -> anyhow::Result<Exit> {
    let home = home_file(&arguments.home)?;
    let broker = match &arguments.config {
        Some(config) => config_file(config)?.devices_broker,
        None => Config::default_devices_broker(),
    };
    let is_asked = |board: &Board| arguments.device.as_deref().is_none_or(|asked| asked == board.id.as_str());
    let boards: Vec<Arc<Board>> = home.boards.into_iter().filter(is_asked).map(Arc::new).collect();
    if boards.is_empty() {
        anyhow::bail!("no such device in {}", arguments.home.display());
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let readings = runtime()?.block_on(reading::read(&boards, &broker, &clock, arguments.patience));
    let (mut exit, mut table) = (Exit::Ok, String::new());
    for (board, reading) in boards.iter().zip(readings) {
        rows(&mut table, board, &reading);
        for reject in &reading.rejects {
            let _closed = writeln!(std::io::stderr(), "{}: not used: {reject}", board.id);
        }
        if !reading.is_whole {
            exit = Exit::NoAnswer;
            let why = reading.failure.unwrap_or_else(|| {
                format!(
                    "not everything was heard within {:?}; it speaks by itself: wait longer with --for",
                    arguments.patience
                )
            });
            let hint = "check power, cable, address, unit and speed; carebed-gateway scan looks for devices on a port";
            let _closed = writeln!(std::io::stderr(), "{} at {}: {why}\n  hint: {hint}", board.id, board.link);
        }
    }
    print(&table).map(|_| exit)
}

/// A line for each value: board, input, value with unit, quality, and what is wired there.
fn rows(table: &mut String, board: &Board, reading: &Reading) {
    for point in &reading.points {
        let Some(input) = board.profile.inputs.get(point.input) else { continue };
        let wired = board.inputs.iter().find(|wired| wired.input == point.input);
        let quantity = wired.map(|wired| &wired.quantity).or(input.quantity.as_ref());
        let unit = quantity.and_then(|quantity| quantity.definition()).map_or("", |known| &*known.ucum);
        let unit = if unit == "1" { "" } else { unit };
        let wired = wired.map_or_else(
            || "-".to_owned(),
            |wired| {
                let inverted = if wired.invert { " (inverted)" } else { "" };
                format!("{} {}{inverted}", wired.device, wired.quantity)
            },
        );
        let value = show(&point.value, &Quality::Good);
        let _never = writeln!(
            table,
            "{:<12} {:<20} {value:>12} {unit:<8} {:<20} {wired}",
            board.id,
            input.name,
            point.quality.to_string()
        );
    }
}
