//! How far one value may be trusted, and why not further (after OPC UA's status and FHIR's data-absent reason).

use std::borrow::Cow;
use std::fmt;

/// Why a value is not good: a short word such as `clock`, `range`, `no_answer`, `stale`, `sentinel`, `unit`.
pub type Reason = Cow<'static, str>;

/// Longest reason kept; a longer one is cut.
pub const REASON_LENGTH_MAX: usize = 48;

/// Quality of one observation. In payloads and in the table it is one word: `good`, `uncertain:clock`, `bad:range`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Quality {
    /// Use it.
    #[default]
    Good,
    /// Use it with care: something about it, often its time, is not sure.
    Uncertain(Reason),
    /// Do not use the value; that it came, and why it is bad, is the information.
    Bad(Reason),
}

impl Quality {
    /// Whether detections may rest on the value. Bad ones never count.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !matches!(self, Self::Bad(_))
    }

    /// Reads what [`fmt::Display`] writes. Anything else is `bad:unreadable_quality`: never better than it says.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        let (level, reason) = word.split_once(':').unwrap_or((word, "unspecified"));
        let reason: String = reason.chars().take(REASON_LENGTH_MAX).collect();
        match level {
            "good" => Self::Good,
            "uncertain" => Self::Uncertain(reason.into()),
            "bad" => Self::Bad(reason.into()),
            _ => Self::Bad("unreadable_quality".into()),
        }
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("good"),
            Self::Uncertain(reason) => write!(f, "uncertain:{reason}"),
            Self::Bad(reason) => write!(f, "bad:{reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip_and_nonsense_is_bad() {
        for word in ["good", "uncertain:clock", "bad:no_answer"] {
            assert_eq!(Quality::parse(word).to_string(), word);
        }
        for word in ["", "excellent", "GOOD"] {
            assert!(!Quality::parse(word).is_usable(), "{word:?} counted as usable");
        }
    }
}
