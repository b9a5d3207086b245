//! `profiles list | show | check | schema`: what can be connected.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use carebed_device_profiles::capture;
use carebed_device_profiles::document::nearest;
use carebed_device_profiles::folder::{self, Folder};
use carebed_device_profiles::profile::{Input, Profile, Source, Transport};
use carebed_device_profiles::shipped;
use clap::Subcommand;

use super::{Exit, print};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Every device that can be connected, one a line.
    List,
    /// One device: how it is reached, what it observes, what it can be told, and what its installer must know.
    Show {
        /// Its name, such as waveshare/modbus-di8, or a folder.
        profile: String,
    },
    /// Check device folders: every mistake in a profile, and every capture; there must be good and bad ones. Without a path:
    /// the shipped ones.
    Check {
        /// A device's folder, or a folder of vendors.
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Print the JSON Schema of profile.toml, for editors.
    Schema,
}

pub(super) fn profiles(command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::List => list(),
        Command::Show { profile } => print(&show(&find(profile)?.profile)),
        Command::Check { paths } => check(paths),
        Command::Schema => print(&format!("{:#}\n", Profile::schema())),
    }
}

/// A shipped profile by name, or one in a folder, with its captures.
pub(super) fn find(name: &str) -> anyhow::Result<Folder> {
    if let Some(shipped) = shipped::all().iter().find(|shipped| shipped.profile.name == name) {
        let owned = |(file, text): &(&str, &str)| ((*file).to_owned(), (*text).to_owned());
        let captures = shipped.captures.iter().map(owned).collect();
        return Ok(Folder { profile: Arc::clone(&shipped.profile), captures });
    }
    let path = Path::new(name);
    if path.exists() {
        return Ok(folder::read(path)?);
    }
    let names = shipped::all().iter().map(|shipped| shipped.profile.name.as_str());
    match nearest(name, names) {
        Some(near) => bail!("there is no profile {name:?}\n  hint: did you mean {near:?}?"),
        None => bail!("there is no profile {name:?}\n  hint: carebed-gateway profiles list"),
    }
}

fn list() -> anyhow::Result<Exit> {
    let mut table = String::new();
    let width = shipped::all().iter().map(|shipped| shipped.profile.name.len()).max().unwrap_or(0);
    for shipped in shipped::all() {
        let about = &shipped.profile.identification;
        let tested = if about.tested_on_hardware { "tested " } else { "untried" };
        let _never = writeln!(
            table,
            "{:<width$}  {:?} {tested}  {} · {}",
            shipped.profile.name, about.confidence, about.title.zh, about.title.en
        );
    }
    print(&table)
}

fn show(profile: &Profile) -> String {
    let mut text = String::new();
    let about = &profile.identification;
    let tested = if about.tested_on_hardware { "tested on hardware" } else { "not tested on hardware" };
    let _never = writeln!(text, "{}\n{} · {}", profile.name, about.title.zh, about.title.en);
    let _never = writeln!(text, "{} {}; confidence {:?}, {tested}", about.vendor, about.model, about.confidence);
    let _never = writeln!(text, "{}", about.source);
    if let Some(advice) = &about.advice {
        let _never = writeln!(text, "\n{}\n{}", advice.zh, advice.en);
    }
    let link = &profile.link;
    let kinds: Vec<&str> = link.kinds.iter().map(|kind| kind.word()).collect();
    let serial: Vec<String> = link.serial.iter().map(ToString::to_string).collect();
    let _never = writeln!(text, "\nlink      {}", kinds.join(", "));
    if !serial.is_empty() {
        let _never = writeln!(text, "serial    {}", serial.join(", "));
    }
    let _never = writeln!(text, "timeout   {:?}", link.timeout);
    for poll in &profile.polls {
        let last = u32::from(poll.address) + u32::from(poll.count) - 1;
        let _never = writeln!(
            text,
            "poll      {}: function {:02}, {}–{last}, every {:?}",
            poll.name,
            poll.function.code(),
            poll.address,
            poll.every
        );
    }
    for input in &profile.inputs {
        let quantity = input.quantity.as_ref().and_then(|quantity| quantity.definition());
        let what = quantity.map_or_else(
            || "as the home file says".to_owned(),
            |known| format!("{} [{}] {} · {}", known.name, known.ucum, known.title.zh, known.title.en),
        );
        let _never = writeln!(text, "input     {:<24} {:<20} {what}", input.name, source(profile, input));
    }
    for output in &profile.outputs {
        let _never = writeln!(text, "output    {:<24} {}", output.name, output.actions.join(", "));
    }
    for rule in &profile.deny {
        let kind = if rule.registers { "registers" } else { "coils" };
        let _never = writeln!(text, "never     {kind} {}–{}: {}", rule.first, rule.last, rule.reason);
    }
    text
}

fn source(profile: &Profile, input: &Input) -> String {
    match input.source {
        Source::Poll(poll) => profile.polls.get(poll).map_or_else(String::new, |poll| format!("poll {}", poll.name)),
        Source::Message(index) => {
            profile.messages.get(index).map_or_else(String::new, |message| match &message.transport {
                Transport::Frame(_) => format!("frame {}", message.name),
                Transport::Topic(topic) => format!("topic {topic}"),
                Transport::Page(page) => format!("page {page}"),
            })
        }
    }
}

fn check(paths: &[PathBuf]) -> anyhow::Result<Exit> {
    let mut folders = Vec::new();
    if paths.is_empty() {
        folders.extend(shipped::all().iter().map(|shipped| find(&shipped.profile.name)));
    }
    for path in paths {
        let found = folder::find(path)?;
        if found.is_empty() {
            bail!("{} holds no profile.toml\n  hint: give a device's folder, or a folder of vendors", path.display());
        }
        folders.extend(found.iter().map(|path| Ok(folder::read(path)?)));
    }
    let (mut exit, mut good) = (Exit::Ok, String::new());
    for folder in folders {
        let wrong = match folder {
            Ok(Folder { profile, captures }) => match capture::check(&profile, &captures) {
                Ok(exchanges) => {
                    let captures = captures.len();
                    let _never = writeln!(good, "{}: {captures} captures, {exchanges} exchanges hold", profile.name);
                    continue;
                }
                Err(wrong) => wrong.join("\n"),
            },
            Err(error) => error.to_string(),
        };
        let _closed = writeln!(std::io::stderr(), "{wrong}");
        exit = Exit::Mistakes;
    }
    print(&good)?;
    Ok(exit)
}
