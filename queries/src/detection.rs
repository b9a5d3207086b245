//! Detections are folders: `detection.sql` says what is found, `detection.toml` what it means to people.
//!
//! A folder that cannot be used is refused when it is read, with its file and place; the others go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::finding::{Class, Priority};
use carebed_contract::quantity::Quantity;
use carebed_contract::text::Text;
use include_dir::{Dir, include_dir};
use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::Deserialize;

use crate::coverage::Reason;
use crate::span;

static BUILTIN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/detections");

/// Largest file read from a folder of detections, in bytes; a larger one is refused.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What a detection means: `detection.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meaning {
    /// How pressing its alerts are.
    pub priority: Priority,
    /// About the person, or about the equipment.
    pub class: Class,
    /// Whether lateness, an absence or a visit may keep its alerts quiet; false for calls and hazards.
    pub suppressible: bool,
    /// Evaluated for a home at once when an urgent observation arrives.
    #[serde(default)]
    pub urgent: bool,
    /// How long a new alert waits for a confirmation in the home before a person is told.
    #[serde(default, deserialize_with = "span::deserialize")]
    pub wait: Duration,
    /// How long ended episodes still matter to it.
    #[serde(deserialize_with = "span::deserialize")]
    pub window: Duration,
    /// Without a live device for one of these quantities it cannot say anything about a home.
    pub requires_any: Vec<Quantity>,
    /// What, of the reasons that may keep its alerts quiet, does not: `away` for a detection that is about being away.
    #[serde(default)]
    pub not_suppressed_by: Vec<Reason>,
    /// It rests on what gateways say of themselves. That is not kept: after a start it is only known once they were heard again, so
    /// for a while nothing of it may be taken back.
    #[serde(default)]
    pub rests_on_signs: bool,
    /// Which baselines it compares with.
    #[serde(default)]
    pub baselines: Vec<String>,
    /// Evidence that may still change while the finding holds; all other evidence is as it was when it was raised.
    #[serde(default)]
    pub evolving: Vec<String>,
    /// What the alert is called.
    pub title: Text,
    /// What it says: `{name}` stands for evidence of that name.
    pub wording: Text,
    /// What the codes in its evidence are called.
    #[serde(default)]
    pub words: BTreeMap<String, Text>,
    /// Which of its numbers a home may have of its own, and what they mean: the keys that its SQL, or its baseline's, asks `params` for.
    #[serde(default)]
    pub params: BTreeMap<String, Text>,
}

/// A query as somebody wrote it.
#[derive(Debug, Clone)]
pub struct Written {
    /// What it is called.
    pub name: String,
    /// Where it stands, for messages.
    pub file: String,
    /// The text.
    pub sql: String,
}

/// A detection's two files, read but not yet planned.
#[derive(Debug, Clone)]
pub struct Source {
    /// The folder's name, which is the detection's.
    pub name: String,
    /// What it means.
    pub meaning: Meaning,
    /// `detection.sql`
    pub sql: String,
    /// Where that came from, for messages.
    pub sql_file: String,
}

/// Why a detection is not used.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("detection {name} is not used: {message}")]
pub struct Refused {
    /// The detection.
    pub name: String,
    /// What is wrong.
    pub message: String,
    /// The file.
    #[source_code]
    pub source_code: Arc<NamedSource<String>>,
    /// Where in it, when known.
    #[label("here")]
    pub at: Option<SourceSpan>,
    /// What to do.
    #[help]
    pub help: Option<String>,
}

impl Refused {
    pub(crate) fn new(name: &str, file: &str, content: &str, message: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            message: message.into(),
            source_code: Arc::new(NamedSource::new(file, content.to_owned())),
            at: None,
            help: None,
        }
    }

    /// Points to a place given in lines and columns that count from 1.
    pub(crate) fn at_line(mut self, line: u64, column: u64) -> Self {
        let content = self.source_code.inner();
        let before = usize::try_from(line.saturating_sub(1)).unwrap_or(0);
        let start: usize = content.split_inclusive('\n').take(before).map(str::len).sum();
        let offset = start.saturating_add(usize::try_from(column.saturating_sub(1)).unwrap_or(0));
        self.at = Some(SourceSpan::from(offset.min(content.len())));
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `file:line:column`, or the file alone when the place is not known.
    #[must_use]
    pub fn place(&self) -> String {
        let file = self.source_code.name();
        let content = self.source_code.inner();
        match self.at.and_then(|at| content.get(..at.offset())) {
            Some(before) => {
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
                format!("{file}:{line}:{column}")
            }
            None => file.to_owned(),
        }
    }
}

impl Source {
    /// Its query.
    pub(crate) fn written(&self) -> Written {
        Written { name: self.name.clone(), file: self.sql_file.clone(), sql: self.sql.clone() }
    }

    /// Those that come with the program.
    #[must_use]
    pub fn builtin() -> (Vec<Self>, Vec<Refused>) {
        let read = |folder: &Dir<'_>| {
            let name = folder.path().to_string_lossy().into_owned();
            let content = |file: &str| {
                let file = folder.get_file(folder.path().join(file));
                file.and_then(include_dir::File::contents_utf8).map(str::to_owned)
            };
            Self::from_files(&name, &format!("detections/{name}"), content)
        };
        split(BUILTIN.dirs().map(read))
    }

    /// Those below a directory, one folder each.
    ///
    /// # Errors
    /// When the directory itself cannot be listed.
    pub fn load(directory: &Path) -> std::io::Result<(Vec<Self>, Vec<Refused>)> {
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
        folders.sort();
        Ok(split(folders.iter().map(|folder| Self::load_one(folder))))
    }

    /// The one in a folder of that name.
    ///
    /// # Errors
    /// When one of its files is missing or wrong.
    pub fn load_one(folder: &Path) -> Result<Self, Refused> {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let content = |file: &str| {
            let path = folder.join(file);
            let small = std::fs::metadata(&path).is_ok_and(|meta| meta.len() <= FILE_BYTES_MAX);
            if small { std::fs::read_to_string(path).ok() } else { None }
        };
        Self::from_files(&name, &folder.display().to_string(), content)
    }

    fn from_files(name: &str, place: &str, content: impl Fn(&str) -> Option<String>) -> Result<Self, Refused> {
        let file = |file: &str| {
            let path = format!("{place}/{file}");
            let missing = || {
                Refused::new(
                    name,
                    &path,
                    "",
                    format!("{file} is missing, not text, or longer than {FILE_BYTES_MAX} bytes"),
                )
                .help("a detection is a folder with detection.toml, detection.sql and cases.slt")
            };
            Ok((content(file).ok_or_else(missing)?, path.clone()))
        };
        let (toml, toml_file) = file("detection.toml")?;
        let (sql, sql_file) = file("detection.sql")?;
        let meaning: Meaning = toml::from_str(&toml).map_err(|error| {
            let refused = Refused::new(name, &toml_file, &toml, error.message().to_owned());
            Refused { at: error.span().map(SourceSpan::from), ..refused }
        })?;
        Ok(Self { name: name.to_owned(), meaning, sql, sql_file })
    }
}

fn split(read: impl Iterator<Item = Result<Source, Refused>>) -> (Vec<Source>, Vec<Refused>) {
    let (mut sources, mut refused) = (Vec::new(), Vec::new());
    for result in read {
        match result {
            Ok(source) => sources.push(source),
            Err(reason) => refused.push(reason),
        }
    }
    (sources, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_detections_read_and_speak_both_languages() {
        let (sources, refused) = Source::builtin();
        assert!(refused.is_empty(), "{refused:?}");
        let names: Vec<_> = sources.iter().map(|s| s.name.as_str()).collect();
        for name in
            ["call_for_help", "hazard", "bed_exit_no_return", "suspected_fall", "device_health", "gateway_silent"]
        {
            assert!(names.contains(&name), "{name} is missing of {names:?}");
        }
        for source in sources {
            let meaning = source.meaning;
            let texts = [&meaning.title, &meaning.wording].into_iter();
            for text in texts.chain(meaning.words.values()).chain(meaning.params.values()) {
                assert!(text.zh.chars().any(|c| c > '\u{2fff}'), "{}: {}", source.name, text.zh);
                assert!(text.en.is_ascii(), "{}: {}", source.name, text.en);
            }
        }
    }

    #[test]
    fn a_home_s_own_numbers_are_those_that_the_sql_asks_for() {
        let (baselines, _) = crate::baselines::Source::builtin();
        for source in Source::builtin().0 {
            let learnt = baselines.iter().filter(|baseline| source.meaning.baselines.contains(&baseline.written.name));
            let of_it = format!("p.detection = '{}'", source.name);
            let texts = learnt.map(|baseline| baseline.written.sql.as_str()).chain([source.sql.as_str()]);
            let texts: Vec<&str> = texts.filter(|sql| sql.contains(&of_it)).collect();
            let asked =
                texts.iter().flat_map(|sql| sql.split("p.key = '").skip(1)).filter_map(|rest| rest.split('\'').next());
            let asked: std::collections::BTreeSet<&str> = asked.collect();
            let told: std::collections::BTreeSet<&str> = source.meaning.params.keys().map(String::as_str).collect();
            assert_eq!(asked, told, "{}", source.name);
        }
    }

    #[test]
    fn a_wrong_folder_is_refused_with_its_place_and_the_others_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let (good, _) = Source::builtin();
        let toml = BUILTIN.get_file("call_for_help/detection.toml").unwrap().contents_utf8().unwrap();
        for (name, toml) in [("good", toml.to_owned()), ("bad", toml.replace("urgent", "urgnet"))] {
            let folder = directory.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("detection.toml"), toml).unwrap();
            std::fs::write(folder.join("detection.sql"), &good[0].sql).unwrap();
        }
        std::fs::create_dir(directory.path().join("empty")).unwrap();
        let (sources, refused) = Source::load(directory.path()).unwrap();
        assert_eq!(sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["good"]);
        assert!(refused[0].message.contains("urgnet"), "{}", refused[0].message);
        assert!(refused[0].place().ends_with("bad/detection.toml:6:1"), "{}", refused[0].place());
        assert!(refused[1].message.contains("missing"), "{}", refused[1].message);
    }
}
