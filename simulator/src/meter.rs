//! Meters of Chinese homes: electricity by DL/T 645-2007, water by CJ/T 188-2004. Pure; a
//! [`PtyLine`](crate::bus::line::PtyLine) carries them.
//!
//! Written after the standards, not with the gateway's own profiles.

use std::time::Duration;

use crate::bus::line::Speaker;

/// Bytes kept while looking for a question; the oldest go first.
const HEARD_MAX: usize = 256;
/// How long it takes to answer (DL/T 645: 20 to 500 ms).
const DELAY: Duration = Duration::from_millis(60);

/// What a meter counts and how it talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Electricity, in hundredths of a kilowatt-hour.
    Dlt645,
    /// Water, in hundredths of a cubic metre.
    Cjt188,
}

/// One meter.
#[derive(Debug)]
pub struct Meter {
    /// How it talks.
    pub dialect: Dialect,
    /// Its number, as printed on it.
    pub number: u64,
    /// What it has counted, in hundredths.
    pub hundredths: u32,
    heard: Vec<u8>,
}

impl Meter {
    /// A meter of a number.
    #[must_use]
    pub fn new(dialect: Dialect, number: u64, hundredths: u32) -> Self {
        Self { dialect, number, hundredths, heard: Vec::new() }
    }

    /// Address field, and the frame that answers a question for its total.
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        match self.dialect {
            // 68 | address 6 | 68 | 11 | 04 | identifier, each byte plus 33 | sum | 16
            Dialect::Dlt645 => {
                let own = bcd(self.number, 6);
                let is_asked = question.get(1..7).is_some_and(|asked| asked == own || asked == [0xAA; 6]);
                let wants_total = question.get(8..14) == Some(&[0x11, 0x04, 0x33, 0x33, 0x34, 0x33]);
                if !is_asked || !wants_total {
                    return None;
                }
                let mut frame = vec![0x68];
                frame.extend(own);
                frame.extend([0x68, 0x91, 0x08]);
                let data = [0x00, 0x00, 0x01, 0x00].into_iter().chain(bcd(self.hundredths.into(), 4));
                frame.extend(data.map(|byte| byte.wrapping_add(0x33)));
                Some(closed(frame))
            }
            // 68 | 10: cold water | address 7 | 01 | 03 | 90 1F, counter | sum | 16
            Dialect::Cjt188 => {
                let own = bcd(self.number, 7);
                let is_asked = question.get(2..9).is_some_and(|asked| asked == own || asked == [0xAA; 7]);
                if !is_asked || question.get(9..13) != Some(&[0x01, 0x03, 0x90, 0x1F]) {
                    return None;
                }
                let mut frame = vec![0x68, 0x10];
                frame.extend(own);
                frame.extend([0x81, 0x16, 0x90, 0x1F]);
                frame.push(question.get(13).copied().unwrap_or_default());
                for _now_and_at_the_day_of_account in 0..2 {
                    frame.extend(bcd(self.hundredths.into(), 4));
                    frame.push(0x2C); // cubic metres
                }
                frame.extend([0x30, 0x15, 0x12, 0x01, 0x03, 0x26, 0x20]); // its own clock
                frame.extend([0x00, 0x00]); // valve open, battery good
                Some(closed(frame))
            }
        }
    }
}

impl Speaker for Meter {
    fn hear(&mut self, bytes: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        self.heard.extend_from_slice(bytes);
        let excess = self.heard.len().saturating_sub(HEARD_MAX);
        self.heard.drain(..excess);
        let Some(begin) = self.heard.iter().position(|byte| *byte == 0x68) else { return Vec::new() };
        let question = self.heard.get(begin..).unwrap_or_default();
        if !question.ends_with(&[0x16]) || !is_closed(question) {
            return Vec::new();
        }
        let answer = self.answer(question);
        self.heard.clear();
        let preamble = [0xFE, 0xFE];
        answer.map(|frame| (DELAY, [&preamble[..], &frame].concat())).into_iter().collect()
    }
}

/// So many bytes of two digits, low first.
fn bcd(mut value: u64, n_bytes: usize) -> Vec<u8> {
    let digits = |value: &mut u64| {
        let low = u8::try_from(*value % 10).unwrap_or_default();
        let high = u8::try_from(*value / 10 % 10).unwrap_or_default();
        *value /= 100;
        high << 4 | low
    };
    (0..n_bytes).map(|_| digits(&mut value)).collect()
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn closed(mut frame: Vec<u8>) -> Vec<u8> {
    frame.push(sum(&frame));
    frame.push(0x16);
    frame
}

fn is_closed(frame: &[u8]) -> bool {
    matches!(frame, [body @ .., check, 0x16] if sum(body) == *check)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published questions and answers.
    #[test]
    fn meters_answer_as_published() {
        let mut meter = Meter::new(Dialect::Dlt645, 1, 20_210_626);
        let question = [
            0xFE, 0xFE, 0x68, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0x68, 0x11, 0x04, 0x33, 0x33, 0x34, 0x33, 0xAE, 0x16,
        ];
        let answer = [
            0xFE, 0xFE, 0x68, 0x01, 0, 0, 0, 0, 0, 0x68, 0x91, 0x08, 0x33, 0x33, 0x34, 0x33, 0x59, 0x39, 0x54, 0x53,
            0x70, 0x16,
        ];
        assert!(meter.hear(&question[..9]).is_empty());
        assert_eq!(meter.hear(&question[9..]), [(DELAY, answer.to_vec())]);

        let mut meter = Meter::new(Dialect::Cjt188, 78_330_011_223_344, 12_345);
        let mut question = vec![0x68, 0x10, 0x44, 0x33, 0x22, 0x11, 0x00, 0x33, 0x78, 0x01, 0x03, 0x90, 0x1F, 0x01];
        question = closed(question);
        let [(_, answer)] = &meter.hear(&question)[..] else { panic!("no answer") };
        assert_eq!(
            answer[..16],
            [0xFE, 0xFE, 0x68, 0x10, 0x44, 0x33, 0x22, 0x11, 0x00, 0x33, 0x78, 0x81, 0x16, 0x90, 0x1F, 0x01]
        );
        assert_eq!(answer[16..21], [0x45, 0x23, 0x01, 0x00, 0x2C]);
        assert_eq!(answer.len(), 2 + 13 + 0x16);
        let other = closed(vec![0x68, 0x10, 1, 2, 3, 4, 5, 6, 7, 0x01, 0x03, 0x90, 0x1F, 0x01]);
        assert!(meter.hear(&other).is_empty());
    }
}
