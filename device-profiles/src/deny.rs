//! What is never sent: `deny.toml`, compiled in. No profile can loosen it.
//!
//! Only finished bytes are judged, as the device would hear them: wake bytes, preamble and frame in one row. How a profile
//! cuts them into start, key and data makes no difference, for the list has framings of its own and looks for its frames
//! at every place of the bytes. What it cannot see is a frame that a profile spreads over two separate sends.
//!
//! Of Modbus only the single writes 05 and 06 exist as requests, never to the broadcast unit 0. Bytes that a profile puts
//! together itself and that are a whole Modbus frame (their CRC holds) are therefore held to the same: reads 01–04, and
//! writes that the profile's own `[[deny]]` allows; so there is no frame for a function that wipes counters, such as the
//! PZEM's 0x42.

use std::sync::OnceLock;

use toml::Spanned;

use crate::document::{self, Fields};
use crate::framing::Framing;
use crate::hex::Hex;
use crate::modbus;
use crate::profile::{Deny, framings};

struct Rule {
    framing: Framing,
    key: Vec<u8>,
    reason: String,
}

/// Why bytes are never sent in one row; none when they may be. `rules` are the profile's own.
#[must_use]
pub fn denied(bytes: &[u8], rules: &[Deny]) -> Option<String> {
    let mut places = (0..bytes.len()).filter_map(|at| bytes.get(at..));
    let listed = places.find_map(|rest| list().iter().find(|rule| rule.framing.key_of(rest) == Some(&rule.key)));
    listed.map(|rule| rule.reason.clone()).or_else(|| modbus_denied(bytes, rules))
}

fn list() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    RULES.get_or_init(|| {
        document::read("deny.toml", include_str!("deny.toml"), read)
            .expect("a test reads the list of what is never sent")
    })
}

fn read(fields: &mut Fields<'_>) -> Option<Vec<Rule>> {
    let framings: Vec<Spanned<Framing>> = fields.tables("framing").into_iter().filter_map(framings::read).collect();
    let rules: Vec<Option<Rule>> = fields.tables("deny").into_iter().map(|f| rule(f, &framings)).collect();
    rules.into_iter().collect()
}

fn rule(mut f: Fields<'_>, framings: &[Spanned<Framing>]) -> Option<Rule> {
    let (framing, key, reason) = (f.need::<String>("framing"), f.need::<Hex>("key"), f.need("reason"));
    let framing = framing?;
    let Some(known) = framings.iter().map(Spanned::get_ref).find(|known| known.name == *framing.get_ref()) else {
        f.tell(framing.span(), format!("no [[framing]] is named {:?}", framing.get_ref()), "name one of the list");
        return None;
    };
    Some(Rule { framing: known.clone(), key: key?.into_inner().0, reason: reason?.into_inner() })
}

/// Why bytes that are a whole Modbus frame are never sent; none for those that may be, and for all other bytes.
fn modbus_denied(bytes: &[u8], rules: &[Deny]) -> Option<String> {
    let (body, crc) = bytes.split_last_chunk::<2>()?;
    let [unit, function, data @ ..] = body else { return None };
    // A function above 127 is an answer: no device takes it for a request.
    if *function >= 0x80 || modbus::crc16(body) != u16::from_le_bytes(*crc) {
        return None;
    }
    let (registers, first, count) = match (function, data) {
        (1..=4, [_, _, _, _]) => return None,
        (5 | 6, [a, b, _, _]) => (*function == 6, u16::from_be_bytes([*a, *b]), 1),
        (0x0F | 0x10, [a, b, c, d, _, _, ..]) => {
            (*function == 0x10, u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))
        }
        _ => return Some(format!("Modbus function {function:02X} is neither a read nor a plain write")),
    };
    if *unit == 0 {
        return Some("a Modbus write to unit 0 is for every device of the line".to_owned());
    }
    let last = first.saturating_add(count.saturating_sub(1));
    let hit = rules.iter().find(|rule| rule.registers == registers && rule.first <= last && first <= rule.last);
    hit.map(|rule| rule.reason.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        Hex::parse(text).unwrap().0
    }

    /// Finished bytes, and a word of the reason.
    #[test]
    fn what_bricks_a_device_is_denied() {
        let cases = [
            ("01 00 00 00 00 30 00 CE", "upgrade"),
            ("01 12 34 00 01 30 00 E9 00 FF", "upgrade"),
            ("AA AA 01 00 00 00 00 40 00 BE", "factory"),
            ("FD FC FB FA 02 00 A2 00 04 03 02 01", "factory settings"),
            ("FE FE 68 01 00 00 00 00 00 68 1C 00 ED 16", "power"),
            ("68 10 01 00 00 00 00 00 00 15 03 33 33 33 2A 16", "address"),
            ("F8 42 C2 41", "function 42"),
            ("00 06 00 02 00 01 E8 1B", "unit 0"),
        ];
        for (text, reason) in cases {
            let denied = denied(&bytes(text), &[]);
            assert!(denied.as_ref().is_some_and(|told| told.contains(reason)), "{text}: {denied:?}");
        }
        for text in [
            "01 00 00 00 01 0E 04 F5 01 FE",
            "FD FC FB FA 02 00 A0 00 04 03 02 01",
            "FE FE FE FE 68 AA AA AA AA AA AA 68 11 04 33 33 33 33 AD 16",
            "68 10 AA AA AA AA AA AA AA 01 03 90 1F 01 D2 16",
            "F8 04 00 00 00 0A 64 64",
            "8F",
            "",
        ] {
            assert_eq!(denied(&bytes(text), &[]), None, "{text}");
        }
    }

    /// Whoever describes a Modbus frame as one of their own meets the rules that Modbus has.
    #[test]
    fn writes_that_only_look_like_frames_meet_the_rules_of_the_profile() {
        let rule = |registers| Deny { registers, first: 2, last: 3, reason: "unit".to_owned() };
        for (registers, pdu, expected) in [
            (true, "06 00 02 00 01", true),
            (true, "06 00 04 00 01", false),
            (true, "10 00 01 00 02 04 00 01 00 01", true),
            (true, "05 00 02 FF 00", false),
            (false, "05 00 02 FF 00", true),
            (false, "0F 00 00 00 03 01 07", true),
            (false, "0F 00 00 00 02 01 03", false),
            (true, "10 00 02", true),
        ] {
            let frame = modbus::rtu_frame(1, &bytes(pdu));
            assert_eq!(denied(&frame, &[rule(registers)]).is_some(), expected, "{pdu}");
        }
    }

    proptest! {
        /// Whatever stands around it, and whatever number it bears.
        #[test]
        fn a_denied_frame_is_found_anywhere(id: [u8; 2], before in prop::collection::vec(any::<u8>(), 0..40), behind in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut frame = vec![1, id[0], id[1], 0, 0, 0x30, 0];
            frame.push(!frame.iter().fold(0, |sum, byte| sum ^ byte));
            prop_assert!(denied(&[before, frame, behind].concat(), &[]).is_some());
        }

        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _judged = denied(&bytes, &[]);
        }
    }
}
