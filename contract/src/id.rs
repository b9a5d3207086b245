//! Names of places and things. All are short ASCII words that may stand in an MQTT topic and in a SenML name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest id accepted, in bytes. Longer ones are refused where they enter.
pub const LENGTH_MAX: usize = 64;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("an id must not be empty")]
    Empty,
    /// Longer than [`LENGTH_MAX`].
    #[error("id {0:?} is longer than {LENGTH_MAX} characters")]
    TooLong(String),
    /// Something other than ASCII letters, digits, `_`, `.`, `:` and `-`, or not starting with a letter or digit.
    #[error("id {0:?} must start with a letter or digit and hold only A-Z a-z 0-9 . _ : -")]
    Character(String),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > LENGTH_MAX {
        return Err(IdError::TooLong(text.to_owned()));
    }
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let holds_well = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'));
    if starts_well && holds_well { Ok(()) } else { Err(IdError::Character(text.to_owned())) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a text.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id!(
    /// Code of the street or community a gateway was enrolled in; access control and ingest shards follow it.
    Area
);
id!(
    /// A dwelling with its gateway.
    HomeId
);
id!(
    /// A monitored bed, the key of everything about its person.
    BedId
);
id!(
    /// A sensor unit, or one input of one.
    DeviceId
);
id!(
    /// The box in the home.
    GatewayId
);
id!(
    /// A room of a home, as its home file names it.
    Room
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_ascii_words() {
        for good in ["h1", "360702", "mat-1", "a.b_c:d", "9"] {
            assert_eq!(HomeId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-", "-a", "a/b", "a b", "床", "a+", "a#", &"x".repeat(65)] {
            assert!(HomeId::new(bad).is_err(), "{bad:?} was taken");
        }
    }
}
