//! Views that several detections share: `queries/shared/<name>.sql`. A detection uses one by its name, as if it were a table.

use std::sync::LazyLock;

use include_dir::{Dir, include_dir};

use crate::detection::Written;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/shared");

/// In order of name: a view may rest on those before it.
static VIEWS: LazyLock<Vec<Written>> = LazyLock::new(|| {
    let read = |file: &include_dir::File<'_>| {
        let name = file.path().file_stem()?.to_str()?.to_owned();
        Some(Written { name, file: format!("shared/{}", file.path().display()), sql: file.contents_utf8()?.to_owned() })
    };
    let mut views: Vec<Written> = FILES.files().filter_map(read).collect();
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
});

/// The views that a query names, and those they rest on; to plan the others would only take time.
pub(super) fn named_in(sql: &str) -> Vec<&'static Written> {
    let mut text = sql.to_owned();
    let mut named = Vec::new();
    for view in VIEWS.iter().rev() {
        if text.contains(&view.name) {
            text.push_str(&view.sql);
            named.insert(0, view);
        }
    }
    named
}
