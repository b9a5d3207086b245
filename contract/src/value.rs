//! What was observed.

/// The value of one observation.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A finite number in the quantity's unit.
    Number(f64),
    /// A state: on or off. In the table it is 1 or 0.
    Flag(bool),
    /// A word, as of an enumeration.
    Text(String),
    /// No value; the quality says why.
    Missing,
}

impl Value {
    /// The number that the table's `value` column holds.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Flag(flag) => Some(f64::from(u8::from(*flag))),
            Self::Text(_) | Self::Missing => None,
        }
    }

    /// The word that the table's `text` column holds.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}
