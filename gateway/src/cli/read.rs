//! `read`: what the devices of a home say at this moment.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use carebed_device_profiles::capture::show;
use carebed_device_profiles::decoder::Decoder;

use super::{Exit, home_file, print, runtime};
use crate::link;

pub(super) fn read(home: &Path) -> anyhow::Result<Exit> {
    let home = home_file(home)?;
    let runtime = runtime()?;
    let mut exit = Exit::Ok;
    for board in &home.boards {
        let answers = match runtime.block_on(link::read_once(board)) {
            Ok(answers) => answers,
            Err(error) => {
                let hint = "check power, cable, address and unit";
                let _closed = writeln!(std::io::stderr(), "{} at {}: {error}\n  hint: {hint}", board.id, board.link);
                exit = Exit::NoAnswer;
                continue;
            }
        };
        let mut decoder = Decoder::new(Arc::clone(&board.profile));
        let mut table = String::new();
        for (poll, data) in answers {
            let decoded = decoder.answer(poll, &data);
            for reject in decoded.rejects {
                let _closed = writeln!(std::io::stderr(), "{}: the answer cannot be used: {reject}", board.id);
                exit = Exit::NoAnswer;
            }
            for point in decoded.points {
                let name = board.profile.inputs.get(point.input).map_or("", |input| input.name.as_str());
                let raw = show(&point.value, &point.quality);
                let wired = board.inputs.iter().find(|wired| wired.input == point.input);
                let wired = wired.map_or_else(
                    || "-".to_owned(),
                    |wired| {
                        let inverted = if wired.invert { " (inverted)" } else { "" };
                        format!("{} {}{inverted}", wired.device, wired.quantity)
                    },
                );
                let _never = writeln!(table, "{:<12} {name:>3} {raw:>3}  {wired}", board.id);
            }
        }
        print(&table)?;
    }
    Ok(exit)
}
