//! Baselines are folders: `baseline.sql` says what is learnt of a home, `baseline.toml` how far back it looks and what it is called.
//!
//! A baseline is a query over the same tables as a detection, and one more: `asked(home_id, known_at, slot)` says for which local
//! midnights (slot null) and half hours of the day it is asked. It returns rows of the table `baselines`: `home_id`, `bed_id`, `key`, `slot`, `known_at`, `value`, `n_days`. A row is
//! made only from what was known at its `known_at`, and holds from then on until the next; so live and over history a detection sees the same.
//! Its episodes hold the kind `pause` too, which is too much to keep live.

use std::path::Path;
use std::time::Duration;

use carebed_contract::text::Text;
use include_dir::{Dir, include_dir};
use miette::SourceSpan;
use serde::Deserialize;

use crate::detection::{Refused, Written};
use crate::span;

static BUILTIN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/baselines");

/// What a baseline is: `baseline.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// How far back it looks.
    #[serde(deserialize_with = "span::deserialize")]
    pub looks_back: Duration,
    /// What it is called.
    pub title: Text,
}

/// A baseline's two files, read but not yet planned.
#[derive(Debug, Clone)]
pub struct Source {
    /// `baseline.toml`
    pub about: About,
    /// `baseline.sql`
    pub written: Written,
}

impl Source {
    /// Those that come with the program, and why others are not used.
    #[must_use]
    pub fn builtin() -> (Vec<Self>, Vec<Refused>) {
        let read = |folder: &Dir<'_>| {
            let name = folder.path().to_string_lossy().into_owned();
            let content = |file: &str| {
                let file = folder.get_file(folder.path().join(file));
                file.and_then(include_dir::File::contents_utf8).map(str::to_owned)
            };
            Self::read(&name, &format!("baselines/{name}"), content)
        };
        let (mut sources, mut refused) = (Vec::new(), Vec::new());
        for result in BUILTIN.dirs().map(read) {
            match result {
                Ok(source) => sources.push(source),
                Err(reason) => refused.push(reason),
            }
        }
        (sources, refused)
    }

    /// The one in a folder of that name.
    ///
    /// # Errors
    /// When one of its files is missing or wrong.
    pub fn load(folder: &Path) -> Result<Self, Refused> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::read(&name, &folder.display().to_string(), |file| std::fs::read_to_string(folder.join(file)).ok())
    }

    fn read(name: &str, place: &str, content: impl Fn(&str) -> Option<String>) -> Result<Self, Refused> {
        let file = |file: &str| {
            let path = format!("{place}/{file}");
            let missing = || {
                Refused::new(name, &path, "", format!("{file} is missing or not text"))
                    .help("a baseline is a folder with baseline.toml and baseline.sql")
            };
            Ok((content(file).ok_or_else(missing)?, path.clone()))
        };
        let (toml, toml_file) = file("baseline.toml")?;
        let (sql, sql_file) = file("baseline.sql")?;
        let about = toml::from_str(&toml).map_err(|error| {
            let refused = Refused::new(name, &toml_file, &toml, error.message().to_owned());
            Refused { at: error.span().map(SourceSpan::from), ..refused }
        })?;
        Ok(Self { about, written: Written { name: name.to_owned(), file: sql_file, sql } })
    }
}
