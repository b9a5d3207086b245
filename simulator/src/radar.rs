//! A bed radar (MicRadar R60ABD1) that speaks by itself: vitals while somebody lies there, presence when it changes. Pure; a
//! [`PtyLine`](crate::bus::line::PtyLine) carries it.
//!
//! Written after the vendor's manual V3.0, not with the gateway's own profile.

use std::time::Duration;

use crate::bus::line::Speaker;
use crate::chance::Chance;

/// Bytes kept while looking for a command; the oldest go first.
const HEARD_MAX: usize = 256;

/// A radar over a bed.
#[derive(Debug)]
pub struct BedRadar {
    in_bed: bool,
    /// How often it sends a group of frames.
    every: Duration,
    told: Option<bool>,
    /// Whether the functions are on; they are off after power-up.
    sleeps: bool,
    breathes: bool,
    beats: bool,
    /// Groups since power-up.
    ticks: u64,
    started: bool,
    chance: Chance,
    heard: Vec<u8>,
}

impl BedRadar {
    /// One that was just switched on over a bed. Real ones send about once a second; on a fast clock it must be sooner.
    #[must_use]
    pub fn new(in_bed: bool, every: Duration, seed: u64) -> Self {
        Self {
            in_bed,
            every,
            told: None,
            sleeps: false,
            breathes: false,
            beats: false,
            ticks: 0,
            started: false,
            chance: Chance::new(seed),
            heard: Vec::new(),
        }
    }

    /// Somebody got into the bed, or out of it.
    pub fn set_in_bed(&mut self, in_bed: bool) {
        self.in_bed = in_bed;
    }

    /// Whether it was set up for a care bed: sleep mode, breathing and heart on.
    #[must_use]
    pub fn is_set_up(&self) -> bool {
        self.sleeps && self.breathes && self.beats
    }

    /// Power goes and comes: settings are forgotten, and it says that it has started.
    pub fn restart(&mut self) {
        (self.sleeps, self.breathes, self.beats, self.told, self.started) = (false, false, false, None, false);
    }

    fn heart(&mut self) -> u8 {
        if self.in_bed { 58 + self.chance.byte() % 12 } else { 0 }
    }

    fn breath(&mut self) -> u8 {
        if self.in_bed { 13 + self.chance.byte() % 5 } else { 0 }
    }

    fn answer(&mut self, control: u8, command: u8, data: &[u8]) -> Option<Vec<u8>> {
        let on = data.first().copied() == Some(1);
        let said = match (control, command) {
            (0x84, 0x0F) => {
                self.sleeps = on;
                data.to_vec()
            }
            (0x81, 0x00) => {
                self.breathes = on;
                data.to_vec()
            }
            (0x85, 0x00) => {
                self.beats = on;
                data.to_vec()
            }
            (0x80 | 0x84, 0x00) => data.to_vec(),
            (0x02, 0xA4) => b"G60SM1SYv010309".to_vec(),
            (0x80, 0x81) => vec![u8::from(self.in_bed)],
            (0x80, 0x82) => vec![u8::from(self.in_bed)],
            (0x84, 0x81) => vec![if self.sleeps { u8::from(self.in_bed) } else { 2 }],
            (0x84, 0x82) => vec![if self.in_bed { 1 } else { 3 }],
            (0x81, 0x82) => vec![self.breath()],
            (0x85, 0x82) => vec![self.heart()],
            _ => return None,
        };
        Some(frame(control, command, &said))
    }
}

fn frame(control: u8, command: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x53, 0x59, control, command, 0, u8::try_from(data.len()).unwrap_or(u8::MAX)];
    frame.extend(data);
    frame.push(frame.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
    frame.extend([0x54, 0x43]);
    frame
}

impl Speaker for BedRadar {
    fn hear(&mut self, bytes: &[u8]) -> Vec<(Duration, Vec<u8>)> {
        self.heard.extend_from_slice(bytes);
        let mut said = Vec::new();
        while let Some(at) = self.heard.windows(2).position(|start| start == [0x53, 0x59]) {
            self.heard.drain(..at);
            let Some(length) = self.heard.get(5).map(|length| usize::from(*length) + 9) else { break };
            if self.heard.len() < length {
                break;
            }
            let command: Vec<u8> = self.heard.drain(..length).collect();
            let whole = command.len() >= 9 && command == frame_again(&command);
            if let ([_, _, control, code, _, _, rest @ ..], true) = (&command[..], whole) {
                let data = rest.get(..rest.len().saturating_sub(3)).unwrap_or_default();
                said.extend(self.answer(*control, *code, data).map(|answer| (Duration::from_millis(20), answer)));
            }
        }
        let excess = self.heard.len().saturating_sub(HEARD_MAX);
        self.heard.drain(..excess);
        said
    }

    fn speak(&mut self) -> Option<(Vec<u8>, Duration)> {
        let mut said = Vec::new();
        if !std::mem::replace(&mut self.started, true) {
            said.extend(frame(0x05, 0x01, &[0x0F]));
        }
        self.ticks += 1;
        let movement = if self.in_bed { self.chance.byte() % 20 } else { 0 };
        said.extend(frame(0x80, 0x03, &[movement]));
        if self.told != Some(self.in_bed) {
            self.told = Some(self.in_bed);
            said.extend(frame(0x80, 0x01, &[u8::from(self.in_bed)]));
            if self.sleeps {
                said.extend(frame(0x84, 0x01, &[u8::from(self.in_bed)]));
            }
        }
        if self.ticks.is_multiple_of(3) {
            if self.breathes {
                let breath = self.breath();
                said.extend(frame(0x81, 0x02, &[breath]));
            }
            if self.beats {
                let heart = self.heart();
                said.extend(frame(0x85, 0x02, &[heart]));
            }
        }
        if self.ticks.is_multiple_of(60) {
            said.extend(frame(0x01, 0x01, &[0x0F]));
        }
        Some((said, self.every))
    }
}

/// The frame that these control, command and data make.
fn frame_again(command: &[u8]) -> Vec<u8> {
    match command {
        [_, _, control, code, _, _, rest @ ..] => {
            frame(*control, *code, rest.get(..rest.len().saturating_sub(3)).unwrap_or_default())
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published frames of the manual.
    #[test]
    fn it_answers_as_published() {
        let mut radar = BedRadar::new(true, Duration::from_secs(1), 1);
        let query = [0x53, 0x59, 0x80, 0x81, 0x00, 0x01, 0x0F, 0xBD, 0x54, 0x43];
        let answer = |radar: &mut BedRadar, bytes: &[u8]| radar.hear(bytes).pop().map(|(_, bytes)| bytes);
        assert_eq!(answer(&mut radar, &query), Some(frame(0x80, 0x81, &[1])));
        assert_eq!(answer(&mut radar, &[&[0x00][..], &query[..4]].concat()), None);
        assert_eq!(answer(&mut radar, &query[4..]), Some(frame(0x80, 0x81, &[1])));
        let sleep = [0x53, 0x59, 0x84, 0x0F, 0x00, 0x01, 0x01, 0x41, 0x54, 0x43];
        assert_eq!(answer(&mut radar, &sleep), Some(sleep.to_vec()));
        let mut damaged = sleep;
        damaged[6] = 0;
        assert_eq!(answer(&mut radar, &damaged), None);
    }
}
