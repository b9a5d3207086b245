//! From the data bytes that answer a poll to the values of named inputs.

use std::sync::Arc;

use carebed_contract::value::Value;

use crate::modbus::Reject;
use crate::profile::{Decode, Profile};

/// Reads the answers to one profile's polls. Pure; holds no state between answers.
#[derive(Debug, Clone)]
pub struct Decoder {
    profile: Arc<Profile>,
}

impl Decoder {
    /// For a profile.
    #[must_use]
    pub fn new(profile: Arc<Profile>) -> Self {
        Self { profile }
    }

    /// The values that stand in the answer to poll `poll` (an index into [`Profile::polls`]): pairs of an index into
    /// [`Profile::inputs`] and the value. An answer that is not exactly as long as the poll asked for is refused whole.
    pub fn decode(&self, poll: usize, data: &[u8]) -> Result<Vec<(usize, Value)>, Reject> {
        let expected = self.profile.polls.get(poll).map_or(0, |p| p.function.answer_length(p.count));
        if data.len() != expected {
            return Err(Reject::Length { expected, found: data.len() });
        }
        let of_poll = self.profile.inputs.iter().enumerate().filter(|(_, input)| input.poll == poll);
        of_poll
            .map(|(index, input)| {
                let value = match input.decode {
                    Decode::Bit(bit) => bit_of(data, bit).map(Value::Flag),
                };
                Ok((index, value.ok_or(Reject::Length { expected, found: data.len() })?))
            })
            .collect()
    }
}

fn bit_of(data: &[u8], bit: u16) -> Option<bool> {
    data.get(usize::from(bit / 8)).map(|byte| byte >> (bit % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped;

    #[test]
    fn bits_become_inputs_and_other_lengths_nothing() {
        let decoder = Decoder::new(shipped::find("waveshare/modbus-di8").unwrap());
        let on = |data: &[u8]| -> Vec<usize> {
            let points = decoder.decode(0, data).unwrap();
            assert_eq!(points.len(), 8);
            points.into_iter().filter(|(_, v)| *v == Value::Flag(true)).map(|(index, _)| index + 1).collect()
        };
        assert_eq!(on(&[0x20]), [6]);
        assert_eq!(on(&[0x81]), [1, 8]);
        for wrong in [&[][..], &[0, 0]] {
            assert!(decoder.decode(0, wrong).is_err());
        }
        assert!(decoder.decode(7, &[0]).is_err());
    }
}
