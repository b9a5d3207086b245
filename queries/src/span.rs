//! Spans of time as people write them in the TOML files: `90s`, `15m`, `12h`, `2d`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Reads one number and one unit of s, m, h, d.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// For `#[serde(deserialize_with)]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time span; write 90s, 15m, 12h or 2d")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in [("0s", Some(0)), ("90s", Some(90)), ("15m", Some(900)), ("2d", Some(172_800))] {
            assert_eq!(parse(text).map(|d| d.as_secs()), seconds, "{text}");
        }
        for bad in ["", "s", "15", "1.5h", "-1s", "15 min", "99999999999999999999d"] {
            assert_eq!(parse(bad), None, "{bad:?} was taken");
        }
    }
}
