//! `queries/views/*.sql`: views for analysts, each with a header that says what it is.

use carebed_contract::text::Text;
use include_dir::{Dir, include_dir};

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/views");

/// A view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewFile {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub title: Text,
    /// What one row is about.
    pub grain: String,
    /// The SELECT.
    pub sql: String,
}

/// The views that come with the program, by name.
#[must_use]
pub fn views() -> Vec<ViewFile> {
    let read = |file: &include_dir::File<'_>| {
        let sql = file.contents_utf8().unwrap_or_default();
        let header = |key: &str| {
            let line = sql.lines().find_map(|line| line.strip_prefix("-- ")?.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        ViewFile {
            name: file.path().file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            title: Text::new(header("title.zh"), header("title.en")),
            grain: header("grain"),
            sql: sql.to_owned(),
        }
    };
    FILES.files().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_says_what_it_is() {
        let views = views();
        assert_eq!(views.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["daily_counts", "latest"]);
        for view in views {
            assert!(view.title.zh.chars().any(|c| c > '\u{2fff}'), "{}", view.name);
            assert!(!view.title.en.is_empty() && !view.grain.is_empty(), "{}", view.name);
        }
    }
}
