//! `replay`: captures, and what each exchange means.

use std::fmt::Write as _;
use std::path::PathBuf;

use carebed_device_profiles::capture::{self, Exchange, Origin};
use carebed_device_profiles::folder::Folder;
use clap::Args;

use super::{Exit, print, profiles, text};

#[derive(Args)]
pub(super) struct Arguments {
    /// The device: a name such as micradar/r60abd1, or a folder.
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// Captures; without any, those of the profile.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn replay(arguments: &Arguments) -> anyhow::Result<Exit> {
    let Folder { profile, mut captures } = profiles::find(&arguments.profile)?;
    if !arguments.files.is_empty() {
        captures.clear();
        for file in &arguments.files {
            captures.push((file.display().to_string(), text(file)?));
        }
    }
    let (mut exit, mut table) = (Exit::Ok, String::new());
    for (file, text) in captures {
        let exchanges = capture::run(&profile, &text).map_err(|error| anyhow::anyhow!("{file}: {error}"))?;
        let _never = writeln!(table, "{file}");
        for Exchange { line, origin, sent, came, expected, meaning } in exchanges {
            let origin = match origin {
                Origin::Published(source) => format!("published: {source}"),
                Origin::Made => "made".to_owned(),
                Origin::Unknown => "origin unknown".to_owned(),
            };
            let _never = writeln!(table, "  line {line} ({origin})");
            for (arrow, bytes) in [('>', sent), ('<', came)] {
                let _never = bytes.map(|bytes| writeln!(table, "    {arrow} {bytes}"));
            }
            let _never = writeln!(table, "    = {meaning}");
            if expected != meaning {
                let _never = writeln!(table, "    ! the capture says: {expected}");
                exit = Exit::Failed;
            }
        }
    }
    print(&table)?;
    Ok(exit)
}
