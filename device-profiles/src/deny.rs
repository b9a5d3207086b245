//! What is never sent: `deny.toml`, compiled in. No profile can loosen it.
//!
//! Of Modbus only the single writes 05 and 06 exist here at all, never to the broadcast unit 0; so there is no frame for a
//! function that wipes counters, such as the PZEM's 0x42. What single coils and registers must not be written is each
//! profile's own `[[deny]]`.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::hex::Hex;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    deny: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    start: Hex,
    key: Hex,
    reason: String,
}

/// Why a frame that starts so, and is about this, is never sent; none when it may be.
#[must_use]
pub fn denied(start: &[u8], key: &[u8]) -> Option<&'static str> {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    let rules = RULES.get_or_init(|| {
        toml::from_str::<List>(include_str!("deny.toml")).expect("a test reads the list of what is never sent").deny
    });
    let hits = |rule: &&Rule| rule.start.0 == start && rule.key.0 == key;
    rules.iter().find(hits).map(|rule| rule.reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bricks_a_device_is_denied() {
        assert!(denied(&[1], &[0x30, 0]).is_some_and(|reason| reason.contains("upgrade")));
        assert!(denied(&[0x68], &[0x1C]).is_some());
        assert_eq!(denied(&[1], &[0x0E, 4]), None);
    }
}
