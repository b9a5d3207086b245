//! Finding frames in a stream. Pure; cutting the stream anywhere changes nothing.

use std::time::Duration;

use super::{Check, Extent, FRAME_LENGTH_MAX, Frame, Framing, Order, Width};
use crate::reject::Reject;

/// A frame whose next byte is later than this was cut off: what of it has come is searched again for another frame.
/// Between two bytes of one frame USB adapters pause tens of milliseconds; DL/T 645 allows 500 ms.
const GAP_MAX: Duration = Duration::from_secs(1);

/// What stood in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A whole frame that holds in every respect.
    Frame(Frame),
    /// Bytes that are no frame, and why.
    Reject(Reject),
}

/// Finds the frames of a set of framings. Keeps at most [`FRAME_LENGTH_MAX`] bytes between two calls.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    buffer: Vec<u8>,
    last: Option<Duration>,
}

/// What begins at a place of the stream.
enum Begins {
    /// Nothing of this framing.
    Nothing,
    /// Perhaps a frame: more bytes will tell.
    Perhaps,
    /// A frame of this length.
    Frame(usize),
    /// A header, but the frame does not hold.
    Broken(Reject),
}

impl Scanner {
    /// Takes the bytes that came at `at` (monotonic) and returns what stood in the stream, in its order. Without bytes it
    /// only looks whether an unfinished frame was cut off.
    pub fn push(&mut self, framings: &[Framing], bytes: &[u8], at: Duration) -> Vec<Seen> {
        let mut seen = Vec::new();
        if self.last.is_some_and(|last| at.saturating_sub(last) >= GAP_MAX) && !self.buffer.is_empty() {
            self.search(framings, true, &mut seen);
        }
        if !bytes.is_empty() {
            self.last = Some(at);
            // In pieces, so that however much comes at once, no more than two frames are kept.
            for piece in bytes.chunks(FRAME_LENGTH_MAX) {
                self.buffer.extend_from_slice(piece);
                self.search(framings, false, &mut seen);
            }
        }
        seen
    }

    /// Whether part of a frame has come and the rest is awaited.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.buffer.is_empty()
    }

    #[cfg(test)]
    pub(super) fn buffer_length(&self) -> usize {
        self.buffer.len()
    }

    fn search(&mut self, framings: &[Framing], cut_off: bool, seen: &mut Vec<Seen>) {
        let mut noise = 0;
        let mut at = 0;
        while let Some(rest) = self.buffer.get(at..).filter(|rest| !rest.is_empty()) {
            let begins = first(framings, rest);
            let broken = match begins {
                (index, Begins::Frame(length)) => {
                    told_noise(&mut noise, seen);
                    if let Some((framing, raw)) = framings.get(index).zip(rest.get(..length)) {
                        seen.push(Seen::Frame(take_apart(index, framing, raw)));
                    }
                    at += length;
                    continue;
                }
                (_, Begins::Perhaps) if !cut_off => break,
                (_, Begins::Perhaps) => Some(Reject::Short(rest.len())),
                (_, Begins::Broken(reject)) => Some(reject),
                (_, Begins::Nothing) => None,
            };
            if let Some(reject) = broken {
                told_noise(&mut noise, seen);
                seen.push(Seen::Reject(reject));
            } else if !is_preamble(framings, rest) {
                noise += 1;
            }
            at += 1;
        }
        told_noise(&mut noise, seen);
        self.buffer.drain(..at.min(self.buffer.len()));
    }
}

fn told_noise(noise: &mut usize, seen: &mut Vec<Seen>) {
    if *noise > 0 {
        // Noise that came in several pieces is one stretch of noise.
        match seen.last_mut() {
            Some(Seen::Reject(Reject::Noise(before))) => *before += *noise,
            _ => seen.push(Seen::Reject(Reject::Noise(*noise))),
        }
        *noise = 0;
    }
}

fn is_preamble(framings: &[Framing], rest: &[u8]) -> bool {
    rest.first().is_some_and(|byte| framings.iter().any(|framing| framing.preamble.contains(byte)))
}

/// What begins here: the first framing that sees more than nothing decides, so that the answer depends on the stream
/// alone and not on how it was cut.
fn first(framings: &[Framing], rest: &[u8]) -> (usize, Begins) {
    let mut broken = None;
    for (index, framing) in framings.iter().enumerate() {
        match begins(framing, rest) {
            Begins::Nothing => {}
            Begins::Broken(reject) => {
                broken.get_or_insert((index, Begins::Broken(reject)));
            }
            found => return (index, found),
        }
    }
    broken.unwrap_or((0, Begins::Nothing))
}

fn begins(framing: &Framing, rest: &[u8]) -> Begins {
    let same = framing.start.iter().zip(rest).all(|(expected, byte)| expected == byte);
    if !same {
        return Begins::Nothing;
    }
    if rest.len() < framing.start.len() {
        return Begins::Perhaps;
    }
    // Header bytes are judged as soon as they are there: a false start with a long length must not hold up what follows.
    if let Some(reject) = judge(framing, rest, None) {
        return Begins::Broken(reject);
    }
    let total = match total(framing, rest) {
        Ok(Some(total)) => total,
        Ok(None) => return Begins::Perhaps,
        Err(reject) => return Begins::Broken(reject),
    };
    let Some(frame) = rest.get(..total) else { return Begins::Perhaps };
    match judge(framing, frame, Some(total)) {
        None => Begins::Frame(total),
        Some(reject) => Begins::Broken(reject),
    }
}

/// Length of the frame that begins here; none while the length field has not come.
fn total(framing: &Framing, rest: &[u8]) -> Result<Option<usize>, Reject> {
    let total = match &framing.extent {
        Extent::Fixed(total) => *total,
        Extent::Until(end) => {
            let found = rest.windows(end.len().max(1)).position(|window| window == &end[..]);
            match found {
                Some(at) => at + end.len(),
                None if rest.len() >= framing.length_max => return Err(Reject::Oversize(rest.len())),
                None => return Ok(None),
            }
        }
        Extent::Field { at, width, order, add, empty } => {
            let Some(field) = rest.get(*at..at + width.length()) else { return Ok(None) };
            let value = match width {
                Width::Hex4 => hex_digits(field).ok_or(Reject::Fixed(*at))?,
                _ => order.sorted(field).iter().fold(0, |value, byte| value << 8 | usize::from(*byte)),
            };
            match empty {
                Some(empty) if value == 0 => *empty,
                _ => value + add,
            }
        }
    };
    if total > framing.length_max {
        Err(Reject::Oversize(total))
    } else if total < least(framing).max(1) {
        Err(Reject::Short(total))
    } else {
        Ok(Some(total))
    }
}

/// Upper-case digits only: a flipped bit makes `c` of `C`, and no sum covers the length.
fn hex_digits(field: &[u8]) -> Option<usize> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(usize::from(byte - b'0')),
        b'A'..=b'F' => Some(usize::from(byte - b'A') + 10),
        _ => None,
    };
    field.iter().try_fold(0, |value, byte| Some(value << 4 | digit(byte)?))
}

fn least(framing: &Framing) -> usize {
    match framing.extent {
        Extent::Field { empty: Some(empty), .. } => empty,
        _ => framing.data_from + framing.data_after,
    }
}

/// Whether fixed bytes and checksums hold: all of a whole frame's, or those whose bytes of an unfinished one are there.
fn judge(framing: &Framing, bytes: &[u8], total: Option<usize>) -> Option<Reject> {
    let no_tail = total.is_none_or(|total| framing.is_empty_form(total));
    for (place, expected) in &framing.fixed {
        if *place < 0 && no_tail {
            continue;
        }
        let at = Framing::resolve(*place, bytes.len());
        match at.and_then(|at| bytes.get(at..at + expected.len())) {
            Some(found) if found != expected => return Some(Reject::Fixed(at.unwrap_or_default())),
            None if total.is_some() => return Some(Reject::Fixed(at.unwrap_or_default())),
            _ => {}
        }
    }
    let judged = |check: &&Check| !no_tail || (check.at >= 0 && check.from >= 0 && check.to >= 0);
    for check in framing.checks.iter().filter(judged) {
        let resolve = |place| Framing::resolve(place, bytes.len());
        let sum = resolve(check.at).and_then(|at| bytes.get(at..at + check.kind.length()));
        let covered = resolve(check.from).zip(resolve(check.to)).and_then(|(from, to)| bytes.get(from..to));
        match sum.zip(covered) {
            Some((sum, covered)) if check.kind.of(covered, check.order) != sum => return Some(Reject::Checksum),
            None if total.is_some() => return Some(Reject::Checksum),
            _ => {}
        }
    }
    None
}

impl Framing {
    /// What the frame that begins these bytes is about; none when none does, or when it is not whole.
    pub(crate) fn key_of<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (at, length) = self.key?;
        match begins(self, bytes) {
            Begins::Frame(total) => bytes.get(..total)?.get(at..at + length),
            _ => None,
        }
    }
}

fn take_apart(index: usize, framing: &Framing, raw: &[u8]) -> Frame {
    let field = |place: Option<(usize, usize)>| place.and_then(|(at, length)| raw.get(at..at + length));
    Frame {
        framing: index,
        raw: raw.to_vec(),
        key: field(framing.key).unwrap_or_default().to_vec(),
        address: field(framing.address).map(digits),
        data: framing.data(raw).iter().map(|byte| byte.wrapping_sub(framing.plus)).collect(),
    }
}

/// Packed digits, low byte first, as they are read.
fn digits(bytes: &[u8]) -> String {
    Order::Dcba.sorted(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}
