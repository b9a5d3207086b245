//! The workspace's own rules, each with the reason in its message.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use carebed_tests::layers::{MAY_IMPORT, breaches};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifest(path: &Path) -> toml::Table {
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn crates_import_only_what_the_map_allows() {
    let workspace = manifest(&root().join("Cargo.toml"));
    let members: Vec<&str> =
        workspace["workspace"]["members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
    let map: Vec<&str> = MAY_IMPORT.iter().map(|(folder, _)| *folder).collect();
    assert_eq!(members, map, "members stand in the order of the data's way, the same as on the map");
    let found: Vec<String> = members
        .iter()
        .flat_map(|folder| breaches(folder, &manifest(&root().join(folder).join("Cargo.toml"))))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

/// A box in a home has little memory and a slow disk: it must not carry the centre's libraries.
#[test]
fn the_gateway_never_pulls_in_datafusion_or_arrow() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "carebed-gateway", "-e", "normal", "--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("carebed-contract"), "the tree was not read: {tree}");
    for heavy in ["datafusion", "arrow", "parquet", "deltalake", "sqlx"] {
        assert!(!tree.lines().any(|line| line.starts_with(heavy)), "the gateway pulls in {heavy}");
    }
}

fn tracked(ending: &str) -> Vec<PathBuf> {
    let listed =
        Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root()).output().unwrap();
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .filter(|path| path.ends_with(ending))
        .map(|path| root().join(path))
        .filter(|path| path.is_file())
        .collect()
}

/// A test that is switched off hides a broken promise.
#[test]
fn no_test_is_switched_off() {
    let ignore = concat!("#[ig", "nore");
    let hidden: Vec<PathBuf> =
        tracked(".rs").into_iter().filter(|p| std::fs::read_to_string(p).unwrap().contains(ignore)).collect();
    assert!(hidden.is_empty(), "ignored tests in {hidden:?}");
}

/// Chinese is written with full-width punctuation: no half-width mark touches a Chinese character. (Chinese words within an English
/// sentence of a comment or a document are set as English is.)
#[test]
fn chinese_texts_have_full_width_punctuation() {
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    let wrong = |line: &str| {
        let letters: Vec<char> = line.chars().collect();
        letters.windows(2).any(|pair| match pair {
            [before, after] => {
                is_chinese(*before) && ",;:!?()".contains(*after) || ",!?)".contains(*before) && is_chinese(*after)
            }
            _ => false,
        })
    };
    let mut found = Vec::new();
    for path in [".rs", ".toml", ".sql", ".js", ".html"].into_iter().flat_map(tracked) {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        found.extend(
            lines.filter(|(_, line)| wrong(line)).map(|(n, line)| format!("{}:{}: {line}", path.display(), n + 1)),
        );
    }
    assert!(found.is_empty(), "write ，；：！？（） there:\n{}", found.join("\n"));
}

/// The arrows are held by a test; so are the tests that ARCHITECTURE.md names: each must exist.
#[test]
fn every_test_that_the_architecture_names_exists() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let sources: String = tracked(".rs").iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let named: Vec<&str> = page
        .split('`')
        .filter(|word| word.contains("::") && word.split("::").count() == 2 && word.contains('_'))
        .collect();
    assert!(named.len() >= 8, "the page names only {} tests", named.len());
    for test in named {
        let (_, function) = test.split_once("::").unwrap();
        assert!(sources.contains(&format!("fn {function}(")), "ARCHITECTURE.md names {test}, which is not there");
    }
}
