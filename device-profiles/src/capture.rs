//! Recorded frames, and what they must decode to.
//!
//! A capture is a text file: `#` a comment; `unit 1` who is asked; then exchanges of three lines. `>` is what the
//! gateway sent and `<` what came back, both as hex of whole RTU frames with their CRC. `=` says what it means: `on 1 6`
//! for the inputs that are on (`on` alone: none), `ok` for a confirmed write, or `reject exception 2`, `reject checksum`,
//! `reject length`, `reject unit`, `reject function`, `reject echo` for an answer that must not be taken.

use std::sync::Arc;

use carebed_contract::value::Value;

use crate::decoder::Decoder;
use crate::modbus::{Reject, Request, rtu_frame, rtu_pdu};
use crate::profile::Profile;

/// Why a capture does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct CaptureError {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong, or what came out instead.
    pub what: String,
}

/// Replays every exchange of a capture against a profile, and says how many there were.
pub fn replay(profile: &Arc<Profile>, text: &str) -> Result<usize, CaptureError> {
    let decoder = Decoder::new(Arc::clone(profile));
    let (mut unit, mut sent, mut came, mut exchanges) = (profile.link.unit, Vec::new(), Vec::new(), 0);
    for (index, line) in text.lines().enumerate() {
        let wrong = |what: String| CaptureError { line: index + 1, what };
        let line = line.split_once('#').map_or(line, |(before, _)| before).trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" => {}
            "unit" => unit = rest.parse().map_err(|_| wrong(format!("{rest:?} is no unit")))?,
            ">" => sent = hex(rest).ok_or_else(|| wrong("not hex".to_owned()))?,
            "<" => came = hex(rest).ok_or_else(|| wrong("not hex".to_owned()))?,
            "=" => {
                let meaning = meaning(profile, &decoder, unit, &sent, &came).map_err(wrong)?;
                if meaning != rest {
                    return Err(wrong(format!("expected {rest:?}, it means {meaning:?}")));
                }
                exchanges += 1;
            }
            _ => return Err(wrong(format!("a line starts with #, unit, >, < or =, not with {word:?}"))),
        }
    }
    Ok(exchanges)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

/// Decodes one exchange as the gateway would. An error is a capture that asks for what the profile never asks.
fn meaning(profile: &Profile, decoder: &Decoder, unit: u8, sent: &[u8], came: &[u8]) -> Result<String, String> {
    let poll = profile.polls.iter().position(|poll| rtu_frame(unit, &poll.request().pdu()) == sent);
    let write = profile
        .outputs
        .iter()
        .flat_map(|output| [false, true].map(|value| Request::WriteCoil { address: output.coil, value }));
    let write = write.into_iter().find(|write| rtu_frame(unit, &write.pdu()) == sent);
    let request = match (poll.and_then(|index| profile.polls.get(index)), write) {
        (Some(poll), _) => poll.request(),
        (None, Some(write)) => write,
        (None, None) => return Err("the profile never sends this frame".to_owned()),
    };
    let answer = rtu_pdu(unit, came).and_then(|pdu| request.answer(pdu));
    let points = answer.and_then(|data| poll.map(|poll| decoder.decode(poll, data)).transpose());
    Ok(match points {
        Ok(None) => "ok".to_owned(),
        Ok(Some(points)) => {
            let on = points.iter().filter(|(_, value)| *value == Value::Flag(true));
            let names = on.filter_map(|(index, _)| profile.inputs.get(*index)).map(|input| input.name.as_str());
            std::iter::once("on").chain(names).collect::<Vec<_>>().join(" ")
        }
        Err(Reject::Exception(code)) => format!("reject exception {code}"),
        Err(Reject::Checksum) => "reject checksum".to_owned(),
        Err(Reject::Length { .. } | Reject::Short(_)) => "reject length".to_owned(),
        Err(Reject::Unit { .. }) => "reject unit".to_owned(),
        Err(Reject::Function { .. }) => "reject function".to_owned(),
        Err(Reject::Echo) => "reject echo".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped;

    #[test]
    fn every_capture_of_every_profile_replays() {
        for shipped in shipped::all() {
            for (file, text) in shipped.captures {
                let name = &shipped.profile.name;
                match replay(&shipped.profile, text) {
                    Ok(exchanges) => assert!(exchanges > 0, "{name}/captures/{file} holds no exchange"),
                    Err(error) => panic!("{name}/captures/{file}: {error}"),
                }
            }
        }
    }

    #[test]
    fn a_capture_that_says_something_else_is_told_with_its_line() {
        let profile = shipped::find("waveshare/modbus-di8").unwrap();
        let check = |text| replay(&profile, text).unwrap_err().to_string();
        let exchange = "> 01 02 00 00 00 08 79 CC\n< 01 02 01 20 A0 50\n= on 5";
        assert_eq!(check(exchange), "line 3: expected \"on 5\", it means \"on 6\"");
        assert_eq!(check("> 01 0F 00\n< 00\n= ok"), "line 3: the profile never sends this frame");
        assert_eq!(check("> xx"), "line 1: not hex");
    }
}
