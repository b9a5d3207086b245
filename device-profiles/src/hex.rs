//! Bytes as people write them in profiles and captures: `"53 59 80"`, blanks optional.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes written as pairs of hex digits.
///
/// ```
/// use carebed_device_profiles::hex::Hex;
/// assert_eq!(Hex::parse("53 59").unwrap().to_string(), "53 59");
/// assert_eq!(Hex::parse("5359"), Some(Hex(vec![0x53, 0x59])));
/// assert_eq!(Hex::parse("5 3"), None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex(pub Vec<u8>);

impl Hex {
    /// Reads pairs of hex digits; none for anything else, and for half a byte.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(text.len() / 2);
        for word in text.split_whitespace() {
            if word.len() % 2 != 0 {
                return None;
            }
            for pair in word.as_bytes().chunks_exact(2) {
                let digit = |at: usize| pair.get(at).and_then(|digit| char::from(*digit).to_digit(16));
                bytes.push(u8::try_from(digit(0)? << 4 | digit(1)?).ok()?);
            }
        }
        Some(Self(bytes))
    }
}

impl TryFrom<String> for Hex {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not bytes in hex, such as \"53 59\""))
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        hex.to_string()
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.0, f)
    }
}

fn show(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, byte) in bytes.iter().enumerate() {
        let blank = if index == 0 { "" } else { " " };
        write!(f, "{blank}{byte:02X}")?;
    }
    Ok(())
}
