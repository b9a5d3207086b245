//! The profiles that come with carebed.

use std::sync::{Arc, OnceLock};

use crate::profile::Profile;

struct Source {
    name: &'static str,
    text: &'static str,
    captures: &'static [(&'static str, &'static str)],
}

const SOURCES: &[Source] = include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// A shipped profile and the captures that prove it.
#[derive(Debug, Clone)]
pub struct Shipped {
    /// The profile.
    pub profile: Arc<Profile>,
    /// File name and text of each capture.
    pub captures: &'static [(&'static str, &'static str)],
}

/// All shipped profiles, by name.
pub fn all() -> &'static [Shipped] {
    static ALL: OnceLock<Vec<Shipped>> = OnceLock::new();
    ALL.get_or_init(|| {
        let read = |source: &Source| {
            let profile = Profile::parse(source.name, source.text).expect("a test reads every shipped profile");
            Shipped { profile: Arc::new(profile), captures: source.captures }
        };
        SOURCES.iter().map(read).collect()
    })
}

/// The shipped profile of a name such as `waveshare/modbus-di8`.
#[must_use]
pub fn find(name: &str) -> Option<Arc<Profile>> {
    all().iter().find(|shipped| shipped.profile.name == name).map(|shipped| Arc::clone(&shipped.profile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_reads_and_has_captures() {
        for source in SOURCES {
            if let Err(mistakes) = Profile::parse(source.name, source.text) {
                panic!("{mistakes}");
            }
        }
        for shipped in all() {
            let Shipped { profile, captures } = shipped;
            assert!(!captures.is_empty(), "{} has no capture", profile.name);
            assert!(profile.identification.title.zh.chars().any(|c| c > '\u{2fff}'), "{}: zh title", profile.name);
        }
        assert!(find("waveshare/modbus-di8").is_some() && find("waveshare").is_none());
    }
}
