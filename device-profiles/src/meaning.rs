//! From the raw form of a value to what it says: sentinels, enumerations, scale and range. What cannot be meant becomes
//! no number: the value is missing, and its quality says why.

use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::value::Value;

use crate::field::Raw;

/// Longest word that a device may send as a value; a longer one is cut.
const WORD_LENGTH_MAX: usize = 64;

/// How a raw value is to be read. The default takes it as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Meaning {
    /// Raw values that say nothing at all: the point is left out.
    pub ignore: Vec<String>,
    /// Raw values that mean "not measured": `bad:sentinel`.
    pub missing: Vec<String>,
    /// Raw values and what they mean. When there are any, a value that is not among them is `bad:unknown_value`.
    pub values: Vec<(String, Value)>,
    /// Raw values that a bridge makes itself, by a timer: `uncertain:inferred`.
    pub inferred: Vec<String>,
    /// Whether a flag is the other way round.
    pub invert: bool,
    /// The number is raw · scale + offset.
    pub scale: f64,
    /// See `scale`.
    pub offset: f64,
    /// Lowest believable number; below it `bad:range`.
    pub low: Option<f64>,
    /// Highest believable number; above it `bad:range`.
    pub high: Option<f64>,
    /// Why even a good value is uncertain, when it is.
    pub uncertain: Option<String>,
}

impl Default for Meaning {
    fn default() -> Self {
        Self {
            ignore: Vec::new(),
            missing: Vec::new(),
            values: Vec::new(),
            inferred: Vec::new(),
            invert: false,
            scale: 1.0,
            offset: 0.0,
            low: None,
            high: None,
            uncertain: None,
        }
    }
}

impl Meaning {
    /// What a raw value says; none for one that is to be ignored.
    #[must_use]
    pub fn of(&self, raw: &Raw) -> Option<(Value, Quality)> {
        let among = |literals: &[String]| literals.iter().any(|literal| raw.is(literal));
        if among(&self.ignore) {
            return None;
        }
        let bad = |reason: &'static str| Some((Value::Missing, Quality::Bad(reason.into())));
        if among(&self.missing) {
            return bad("sentinel");
        }
        let value = if self.values.is_empty() {
            match self.plain(raw) {
                Ok(value) => value,
                Err(reason) => return bad(reason),
            }
        } else {
            match self.values.iter().find(|(literal, _)| raw.is(literal)) {
                Some((_, value)) => value.clone(),
                None => return bad("unknown_value"),
            }
        };
        if let Value::Number(number) = value
            && (self.low.is_some_and(|low| number < low) || self.high.is_some_and(|high| number > high))
        {
            return bad("range");
        }
        let quality = match &self.uncertain {
            Some(reason) => Quality::Uncertain(reason.clone().into()),
            None if among(&self.inferred) => Quality::Uncertain("inferred".into()),
            None => Quality::Good,
        };
        Some((value, quality))
    }

    fn plain(&self, raw: &Raw) -> Result<Value, &'static str> {
        match raw {
            Raw::Flag(flag) => Ok(Value::Flag(*flag != self.invert)),
            #[expect(clippy::cast_precision_loss, reason = "counters above 2^53 do not occur in homes")]
            Raw::Integer(value) => Ok(Value::Number(self.scaled(*value as f64))),
            Raw::Float(value) if value.is_finite() => Ok(Value::Number(self.scaled(*value))),
            Raw::Float(_) => Err("not_a_number"),
            Raw::Word(word) => Ok(Value::Text(word.chars().take(WORD_LENGTH_MAX).collect())),
            Raw::Unreadable(reason) => Err(reason),
        }
    }

    /// Scaled as decimal numbers are: 231 · 0.1 is 23.1, not 23.1000000000000014.
    fn scaled(&self, raw: f64) -> f64 {
        let inverse = (1.0 / self.scale).round();
        let product = if self.scale < 1.0 && (inverse * self.scale - 1.0).abs() < 1e-12 {
            raw / inverse
        } else {
            raw * self.scale
        };
        product + self.offset
    }
}

/// What the vocabulary's range of a quantity makes of a value: outside it, no number but `bad:range`.
#[must_use]
pub fn judged(quantity: &Quantity, value: Value, quality: Quality) -> (Value, Quality) {
    match quantity.definition().map(|definition| definition.judge(&value)) {
        Some(bad @ Quality::Bad(_)) => (Value::Missing, bad),
        _ => (value, quality),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Raw values → `value quality`.
    fn check(meaning: &Meaning, cases: &[(Raw, &str)]) {
        for (raw, expected) in cases {
            let got = match meaning.of(raw) {
                None => "nothing".to_owned(),
                Some((value, quality)) => format!("{value:?} {quality}"),
            };
            assert_eq!(&got, expected, "{raw:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_no_number() {
        let tenths = Meaning { scale: 0.1, missing: vec!["0x7FFF".into()], high: Some(80.0), ..Meaning::default() };
        check(
            &tenths,
            &[
                (Raw::Integer(231), "Number(23.1) good"),
                (Raw::Integer(-205), "Number(-20.5) good"),
                (Raw::Integer(0x7FFF), "Missing bad:sentinel"),
                (Raw::Integer(801), "Missing bad:range"),
                (Raw::Float(f64::NAN), "Missing bad:not_a_number"),
                (Raw::Unreadable("not_bcd"), "Missing bad:not_bcd"),
            ],
        );
    }

    #[test]
    fn enumerations_are_closed_and_synthesised_values_are_marked() {
        let values = vec![("true".to_owned(), Value::Flag(true)), ("false".to_owned(), Value::Flag(false))];
        let motion = Meaning { values, inferred: vec!["false".into()], ignore: vec!["".into()], ..Meaning::default() };
        check(
            &motion,
            &[
                (Raw::Flag(true), "Flag(true) good"),
                (Raw::Flag(false), "Flag(false) uncertain:inferred"),
                (Raw::Word("maybe".to_owned()), "Missing bad:unknown_value"),
                (Raw::Word(String::new()), "nothing"),
            ],
        );
        let heart = Quantity::new("heart_rate").unwrap();
        let judged = |number| judged(&heart, Value::Number(number), Quality::Good);
        assert_eq!(judged(300.0), (Value::Missing, Quality::Bad("range".into())));
        assert_eq!(judged(72.0), (Value::Number(72.0), Quality::Good));
    }
}
