//! Who may import whom, as `ARCHITECTURE.md` draws it: each crate may use what it names and all that those may use.

use std::collections::BTreeSet;

/// The arrows of the map: crate folder → folders it may name.
pub const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("contract", &[]),
    ("device-profiles", &["contract"]),
    ("gateway", &["device-profiles"]),
    ("pipeline", &["contract"]),
    ("queries", &["pipeline"]),
    ("alerts", &["contract"]),
    ("console", &["queries", "alerts"]),
    ("carebed", &["console", "gateway", "simulator"]),
    ("simulator", &["device-profiles"]),
    ("tests", &["carebed"]),
];

/// Everything a folder may import, the arrows followed to their ends; none for a folder that is not on the map.
#[must_use]
pub fn allowed(folder: &str) -> Option<BTreeSet<&'static str>> {
    let (_, names) = MAY_IMPORT.iter().find(|(name, _)| *name == folder)?;
    Some(names.iter().flat_map(|name| allowed(name).into_iter().flatten().chain([*name])).collect())
}

/// What a manifest says against the map; empty when it keeps to it.
#[must_use]
pub fn breaches(folder: &str, manifest: &toml::Table) -> Vec<String> {
    let Some(may) = allowed(folder) else {
        return vec![format!("{folder} stands in the workspace but not on the map (tests/src/layers.rs)")];
    };
    let mut found = Vec::new();
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
        for name in table.keys() {
            let target = match name.as_str() {
                "carebed" => "carebed",
                other => match other.strip_prefix("carebed-") {
                    Some(target) => target,
                    None => continue,
                },
            };
            // The gateway's tests talk to simulated devices; the simulator knows nothing of gateways.
            let in_tests = section == "dev-dependencies" && (folder, target) == ("gateway", "simulator");
            if !may.contains(target) && !in_tests {
                found.push(format!("{folder} names {name} in [{section}]; it may import only {may:?}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breach_is_named() {
        let manifest = toml::from_str("[dependencies]\ncarebed-queries.workspace = true\nserde = \"1\"").unwrap();
        assert_eq!(breaches("gateway", &manifest).len(), 1);
        assert!(breaches("console", &manifest).is_empty());
        assert_eq!(breaches("unheard-of", &manifest).len(), 1);
    }
}
