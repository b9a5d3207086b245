//! `carebed users`: who may ask over the PostgreSQL wire protocol.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use carebed_queries::postgres::{Users, password_line};
use serde::{Deserialize, Serialize};

use crate::cli::{UsersCommand, complain, say};
use crate::exit::Exit;

/// Shorter passwords are refused: the file may fall into hands that can try millions a second.
const PASSWORD_CHARS_MIN: usize = 12;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    user: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    password: String,
    areas: Vec<String>,
}

/// `carebed users`
pub fn run(command: UsersCommand) -> anyhow::Result<Exit> {
    match command {
        UsersCommand::Add { file, name, areas } => add(&file, name, areas),
        UsersCommand::Remove { file, name } => {
            let mut users = read(&file)?;
            let before = users.user.len();
            users.user.retain(|user| user.name != name);
            if users.user.len() == before {
                bail!("{} names no user {name:?}", file.display());
            }
            write(&file, &users)
        }
        UsersCommand::List { file } => {
            for user in read(&file)?.user {
                say(&format!("{}\t{}", user.name, user.areas.join(" ")));
            }
            Ok(Exit::Done)
        }
    }
}

fn add(file: &Path, name: String, areas: Vec<String>) -> anyhow::Result<Exit> {
    let mut users = if file.exists() { read(file)? } else { File::default() };
    if std::io::stdin().is_terminal() {
        complain("password (it shows while you type; pipe it in to avoid that):");
    }
    let mut password = String::new();
    std::io::stdin().lock().read_line(&mut password).context("failed to read the password from standard input")?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.chars().count() < PASSWORD_CHARS_MIN {
        bail!("the password has fewer than {PASSWORD_CHARS_MIN} characters\nhint: openssl rand -base64 18");
    }
    let areas = if areas.is_empty() { vec!["*".to_owned()] } else { areas };
    users.user.retain(|user| user.name != name);
    users.user.push(Entry { name, password: password_line(password), areas });
    write(file, &users)
}

fn read(file: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    toml::from_str(&text).with_context(|| format!("{} cannot be used", file.display()))
}

/// Written beside and moved into place, readable to its owner only; what the server would refuse never lies there.
fn write(file: &Path, users: &File) -> anyhow::Result<Exit> {
    let text = format!(
        "# Kept by `carebed users`; the centre reads it again when it has changed.\n\n{}",
        toml::to_string(users)?
    );
    let new = file.with_extension("new");
    let written = || -> std::io::Result<()> {
        let mut open = std::fs::OpenOptions::new();
        let mut out = open.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()
    };
    written().with_context(|| format!("failed to write {}", new.display()))?;
    if let Err(mistakes) = Users::load(&new) {
        let _gone = std::fs::remove_file(&new);
        return Err(mistakes.into());
    }
    std::fs::rename(&new, file).with_context(|| format!("failed to replace {}", file.display()))?;
    Ok(Exit::Done)
}
