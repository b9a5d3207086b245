//! `queries/views/*.sql` and `queries/reports/*.sql`: what analysts need again and again, each with a header that says what it is.
//! A view is a table; a report has parameters, `$name` in its SQL.

use carebed_contract::text::Text;
use include_dir::{Dir, include_dir};

static VIEWS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/views");
static REPORTS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/reports");

/// A view or a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewFile {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub title: Text,
    /// What one row is about.
    pub grain: String,
    /// Its parameters and what they mean; a view has none.
    pub parameters: Vec<(String, Text)>,
    /// The SELECT.
    pub sql: String,
}

/// The views that come with the program, by name.
#[must_use]
pub fn views() -> Vec<ViewFile> {
    VIEWS.files().map(read).collect()
}

/// The reports that come with the program, by name.
#[must_use]
pub fn reports() -> Vec<ViewFile> {
    REPORTS.files().map(read).collect()
}

fn read(file: &include_dir::File<'_>) -> ViewFile {
    let sql = file.contents_utf8().unwrap_or_default();
    let lines = || sql.lines().filter_map(|line| line.strip_prefix("-- ")?.split_once(": "));
    let header = |key: &str| lines().find(|(known, _)| *known == key).map_or("", |(_, text)| text).trim().to_owned();
    let parameter = |(key, text): (&str, &str)| {
        let (zh, en) = text.split_once(" / ")?;
        Some((key.strip_prefix("param ")?.to_owned(), Text::new(zh, en)))
    };
    ViewFile {
        name: file.path().file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        title: Text::new(header("title.zh"), header("title.en")),
        grain: header("grain"),
        parameters: lines().filter_map(parameter).collect(),
        sql: sql.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_and_report_says_what_it_is() {
        let chinese = |text: &str| text.chars().any(|c| c > '\u{2fff}');
        assert!(views().iter().all(|view| view.parameters.is_empty()), "a view has no parameters");
        for file in views().into_iter().chain(reports()) {
            assert!(chinese(&file.title.zh), "{}", file.name);
            assert!(!file.title.en.is_empty() && !file.grain.is_empty(), "{}", file.name);
            for (name, text) in &file.parameters {
                assert!(file.sql.contains(&format!("${name}")), "{} does not use its parameter {name}", file.name);
                assert!(chinese(&text.zh) && !text.en.is_empty(), "{} {name}", file.name);
            }
        }
    }
}
