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
        let shipped = |source: &Source| Shipped { profile: Arc::new(read(source)), captures: source.captures };
        SOURCES.iter().map(shipped).collect()
    })
}

/// The names of all shipped profiles.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    SOURCES.iter().map(|source| source.name)
}

/// The shipped profile of a name such as `waveshare/modbus-di8`. Only that one is read: a gateway needs few of them.
#[must_use]
pub fn find(name: &str) -> Option<Arc<Profile>> {
    let source = SOURCES.iter().find(|source| source.name == name)?;
    Some(Arc::new(read(source)))
}

fn read(source: &Source) -> Profile {
    Profile::parse(source.name, source.text).expect("a test reads every shipped profile")
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
