//! Components that are real and may be absent: brokers, browsers, other programs that read the table, recordings.
//!
//! A test that needs one prints `skipped: …` and passes when it is absent, and fails instead when
//! `CAREBED_REQUIRE_REAL=1`, as in continuous integration.

use std::path::PathBuf;
use std::process::Command;

/// Says that something is absent, or fails where everything must be there.
pub fn absent(what: &str, how: &str) {
    let message = format!("{what} is absent; {how}");
    assert!(std::env::var_os("CAREBED_REQUIRE_REAL").is_none_or(|v| v != "1"), "{message}");
    #[expect(clippy::print_stderr, reason = "the promise of this module is to say what was skipped")]
    {
        eprintln!("skipped: {message}");
    }
}

/// The first of these programs that is on the path.
#[must_use]
pub fn program(names: &[&str], package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(extra)
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        absent(names.first().copied().unwrap_or("?"), &format!("install the Debian package {package}"));
    }
    found
}

/// A Python that has these modules: `CAREBED_PYTHON`, or `python3`.
#[must_use]
pub fn python(modules: &[&str]) -> Option<PathBuf> {
    let python = std::env::var_os("CAREBED_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let import = format!("import {}", modules.join(", "));
    let works = Command::new(&python).args(["-c", &import]).output().is_ok_and(|o| o.status.success());
    if works {
        return Some(python);
    }
    absent(&format!("a Python with {modules:?}"), "pip install them and name the interpreter in CAREBED_PYTHON");
    None
}

/// The folder of recordings, `CAREBED_RECORDINGS`: the TIHM recordings (doi 10.5281/zenodo.7622128) as CSV below
/// `tihm/normalized`.
#[must_use]
pub fn recordings() -> Option<PathBuf> {
    let folder = std::env::var_os("CAREBED_RECORDINGS").map(PathBuf::from).filter(|folder| folder.is_dir());
    if folder.is_none() {
        absent("the folder of recordings", "name it in CAREBED_RECORDINGS");
    }
    folder
}
