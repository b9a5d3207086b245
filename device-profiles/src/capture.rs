//! Recorded exchanges, and what they must decode to.
//!
//! A capture is a text file of lines. `#` begins a comment. `from` says where the exchanges below come from: `from
//! published …` and the source, or `from made` for what was built from the documented layout. `unit 1` and `address …` say
//! who is asked, unless the profile's own. Then come exchanges:
//!
//! - `>` what the gateway sent, if anything: a whole frame as hex, `GET /path`, or `PUBLISH topic payload`. It must be
//!   something that the profile really sends.
//! - `<` what came: bytes as hex (for Modbus whole RTU frames with their CRC), `topic payload`, or a page; `retained` in
//!   front of a topic says that the broker had kept it. `\n` stands for a new line.
//! - `=` what it means: `on 1 6` for the bits that are on; `name=value` for other inputs, with `?reason` for a missing value
//!   and `~reason` behind an uncertain one; the name of a message that holds no input; `ok` for a confirmed write; `sent`
//!   for what is not answered; `available` or `gone`; `nothing`; or `reject …` with the word of [`Reject::word`].

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::quality::Quality;
use carebed_contract::value::Value;

use crate::decoder::{Decoded, Decoder, Point};
use crate::hex::Hex;
use crate::modbus::{Request, rtu_frame, rtu_pdu};
use crate::profile::{Profile, Send, Transmission, Transport};
use crate::reject::Reject;

/// Time between two exchanges of a capture: long enough that a frame cut off in one does not go on in the next.
const BETWEEN: Duration = Duration::from_secs(10);

/// Why a capture does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct CaptureError {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong, or what came out instead.
    pub what: String,
}

/// Where an exchange comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody says.
    Unknown,
    /// From a document or a recording that others published: its source.
    Published(String),
    /// Built from the documented layout, with a correct checksum.
    Made,
}

/// One exchange of a capture, replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The line of its `=`.
    pub line: usize,
    /// Where it comes from.
    pub origin: Origin,
    /// What was sent.
    pub sent: Option<String>,
    /// What came.
    pub came: Option<String>,
    /// What the capture says it means.
    pub expected: String,
    /// What it means to the profile.
    pub meaning: String,
}

/// Replays every exchange of a capture, as the gateway would have heard it. An error is a capture that cannot be read.
pub fn run(profile: &Arc<Profile>, text: &str) -> Result<Vec<Exchange>, CaptureError> {
    let mut player = Player::new(Arc::clone(profile));
    let (mut origin, mut sent, mut came, mut exchanges) = (Origin::Unknown, None, None, Vec::new());
    for (index, line) in text.lines().enumerate() {
        let wrong = |what: String| CaptureError { line: index + 1, what };
        let line = line.trim();
        let (word, rest) = line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim()));
        match word {
            "" => {}
            _ if line.starts_with('#') => {}
            "from" => {
                origin = match rest.split_once(' ').unwrap_or((rest, "")) {
                    ("made", "") => Origin::Made,
                    ("published", source) if !source.is_empty() => Origin::Published(source.to_owned()),
                    _ => return Err(wrong("write \"from made\" or \"from published …\" with the source".to_owned())),
                }
            }
            "unit" => player.unit = rest.parse().map_err(|_| wrong(format!("{rest:?} is no unit")))?,
            "address" => player.ask(rest),
            ">" => (sent, came) = (Some(rest.to_owned()), None),
            "<" => came = Some(rest.to_owned()),
            "=" => {
                let meaning = player.play(sent.as_deref(), came.as_deref()).map_err(wrong)?;
                let (sent, came) = (sent.take(), came.take());
                let (line, origin, expected) = (index + 1, origin.clone(), rest.to_owned());
                exchanges.push(Exchange { line, origin, sent, came, expected, meaning });
            }
            _ => return Err(wrong(format!("a line starts with #, from, unit, address, >, < or =, not with {word:?}"))),
        }
    }
    Ok(exchanges)
}

/// Replays a capture and holds it against what it says, and gives its exchanges.
pub fn replay(profile: &Arc<Profile>, text: &str) -> Result<Vec<Exchange>, CaptureError> {
    let exchanges = run(profile, text)?;
    match exchanges.iter().find(|exchange| exchange.expected != exchange.meaning) {
        Some(Exchange { line, expected, meaning, .. }) => {
            Err(CaptureError { line: *line, what: format!("expected {expected:?}, it means {meaning:?}") })
        }
        None => Ok(exchanges),
    }
}

/// Holds all captures of a device (file name and text) against its profile, and counts their exchanges. The errors are
/// everything that is wrong: what does not hold, what comes from nowhere, and a device of which only good or only bad
/// exchanges are shown, for then nobody has seen the profile refuse, or understand, anything.
pub fn check(profile: &Arc<Profile>, captures: &[(String, String)]) -> Result<usize, Vec<String>> {
    let (mut wrong, mut n_exchanges) = (Vec::new(), 0);
    let (mut good, mut bad) = (false, false);
    for (file, text) in captures {
        let place = format!("{}/captures/{file}", profile.name);
        match replay(profile, text) {
            Ok(exchanges) if exchanges.is_empty() => wrong.push(format!("{place} is empty")),
            Ok(exchanges) => {
                let unknown = exchanges.iter().filter(|exchange| exchange.origin == Origin::Unknown);
                wrong.extend(unknown.map(|e| format!("{place}: line {}: where does it come from?", e.line)));
                let refused = |e: &Exchange| e.meaning.contains("reject") || e.meaning.contains('?');
                good |= exchanges.iter().any(|exchange| !refused(exchange));
                bad |= exchanges.iter().any(refused);
                n_exchanges += exchanges.len();
            }
            Err(error) => wrong.push(format!("{place}: {error}")),
        }
    }
    if captures.is_empty() {
        wrong.push(format!("{} has no captures: write exchanges with the device into captures/", profile.name));
    } else if wrong.is_empty() && !(good && bad) {
        let missing =
            if good { "refused: add a damaged, a foreign or an impossible one" } else { "understood: add a good one" };
        wrong.push(format!("{} has no exchange that is {missing}", profile.name));
    }
    if wrong.is_empty() { Ok(n_exchanges) } else { Err(wrong) }
}

/// What was decoded, as captures write it.
#[must_use]
pub fn describe(profile: &Profile, decoded: &Decoded) -> String {
    let name = |point: &Point| profile.inputs.get(point.input).map_or("", |input| input.name.as_str());
    let mut words: Vec<String> =
        decoded.points.iter().map(|point| format!("{}={}", name(point), show(&point.value, &point.quality))).collect();
    if words.is_empty() {
        let named = decoded.messages.iter().filter_map(|index| profile.messages.get(*index));
        words.extend(named.map(|message| message.name.clone()));
    }
    words.extend(decoded.available.map(|available| if available { "available" } else { "gone" }.to_owned()));
    let told = decoded.rejects.iter().find(|reject| !matches!(reject, Reject::Noise(_)));
    let told = told.or(decoded.rejects.first().filter(|_| words.is_empty()));
    words.extend(told.map(|reject| match reject {
        Reject::Exception(code) => format!("reject exception {code}"),
        other => format!("reject {}", other.word()),
    }));
    if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }
}

/// A value with its quality, in one word.
#[must_use]
pub fn show(value: &Value, quality: &Quality) -> String {
    let value = match value {
        Value::Flag(flag) => if *flag { "on" } else { "off" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) if text.contains(' ') || text.is_empty() => format!("{text:?}"),
        Value::Text(text) => text.clone(),
        Value::Missing => String::new(),
    };
    match quality {
        Quality::Good => value,
        Quality::Uncertain(reason) => format!("{value}~{reason}"),
        Quality::Bad(reason) => format!("{value}?{reason}"),
    }
}

struct Player {
    profile: Arc<Profile>,
    decoder: Decoder,
    unit: u8,
    address: Option<String>,
    now: Duration,
}

impl Player {
    fn new(profile: Arc<Profile>) -> Self {
        let (decoder, unit) = (Decoder::new(Arc::clone(&profile)), profile.link.unit);
        Self { profile, decoder, unit, address: None, now: Duration::ZERO }
    }

    fn ask(&mut self, address: &str) {
        self.address = Some(address.to_owned());
        self.decoder = Decoder::at(Arc::clone(&self.profile), Some(address));
    }

    /// An error is a capture that holds what the profile never sends or hears.
    fn play(&mut self, sent: Option<&str>, came: Option<&str>) -> Result<String, String> {
        self.now += BETWEEN;
        let profile = Arc::clone(&self.profile);
        let page = sent.and_then(|sent| sent.strip_prefix("GET "));
        if let Some(path) = page {
            let is = |transport: &Transport| matches!(transport, Transport::Page(page) if page == path);
            let message = profile.messages.iter().position(|message| is(&message.transport));
            let message = message.ok_or_else(|| format!("no message is the page {path:?}"))?;
            let came = came.unwrap_or_default().replace("\\n", "\n");
            return Ok(describe(&profile, &self.decoder.payload(message, came.as_bytes(), false)));
        }
        if let Some(published) = sent.and_then(|sent| sent.strip_prefix("PUBLISH ")) {
            self.sends(
                &|t| matches!(t, Transmission::Publish { topic, payload } if format!("{topic} {payload}").trim_end() == published),
            )?;
            return Ok("sent".to_owned());
        }
        let sent = sent.map(|sent| Hex::parse(sent).ok_or("what was sent is not hex")).transpose()?;
        if let Some(Hex(sent)) = &sent
            && let Some(request) = self.modbus(sent)
        {
            let came = came.map_or(Some(Hex::default()), Hex::parse).ok_or("what came is not hex")?;
            return Ok(self.rtu(request, &came.0));
        }
        let write = match &sent {
            Some(Hex(sent)) => {
                Some(self.sends(&|t| matches!(t, Transmission::Bytes(bytes) if self.is_sent(bytes, sent)))?)
            }
            None => None,
        };
        let Some(came) = came else { return Ok("sent".to_owned()) };
        if profile.framings.is_empty() {
            return self.topic(came);
        }
        let came = Hex::parse(came).ok_or("what came is not hex")?;
        let mut decoded = self.decoder.push(&came.0, self.now);
        let cut_off = self.decoder.push(&[], self.now + BETWEEN / 2);
        decoded.points.extend(cut_off.points);
        decoded.messages.extend(cut_off.messages);
        decoded.rejects.extend(cut_off.rejects);
        decoded.frames.extend(cut_off.frames);
        match write.flatten() {
            Some(Send::Frame { expect: Some(expect), .. }) => {
                let confirmed = decoded.frames.iter().any(|frame| profile.answers(&expect, frame));
                Ok(if confirmed { "ok".to_owned() } else { "reject echo".to_owned() })
            }
            _ => Ok(describe(&profile, &decoded)),
        }
    }

    /// What the profile sends that goes out so; with its answer when it is a write.
    fn sends(&self, is: &dyn Fn(&Transmission) -> bool) -> Result<Option<Send>, String> {
        let profile = &self.profile;
        let queries = profile.messages.iter().filter_map(|message| message.query.as_ref()).map(|send| (send, false));
        let outputs = profile.outputs.iter().flat_map(|output| std::iter::once(&output.on).chain(&output.off));
        let steps = profile.startup.iter().filter_map(|step| step.send.as_ref().map(|send| (send, &step.expect)));
        let steps: Vec<(Send, bool)> = steps
            .map(|(send, awaited)| match send.clone() {
                Send::Frame { framing, key, data, .. } => {
                    (Send::Frame { framing, key, data, expect: awaited.clone() }, true)
                }
                other => (other, true),
            })
            .collect();
        let all = queries.chain(outputs.map(|send| (send, true))).chain(steps.iter().map(|(send, w)| (send, *w)));
        let address = self.address.as_deref();
        let found = all.into_iter().find(|(send, _)| send.encode(profile, address).is_ok_and(|t| is(&t)));
        let (send, write) = found.ok_or("the profile never sends this frame")?;
        Ok(write.then(|| send.clone()))
    }

    /// A preamble may be left out of a capture: bytes that wake the other side are often not recorded.
    fn is_sent(&self, bytes: &[u8], sent: &[u8]) -> bool {
        let preambles = self.profile.framings.iter().map(|framing| &framing.preamble[..]);
        bytes == sent || preambles.into_iter().any(|preamble| bytes.strip_prefix(preamble) == Some(sent))
    }

    fn modbus(&self, sent: &[u8]) -> Option<(Request, Option<usize>)> {
        let framed = |request: Request| rtu_frame(self.unit, &request.pdu());
        let polls = self.profile.polls.iter().enumerate().map(|(index, poll)| (poll.request(), Some(index)));
        let outputs = self.profile.outputs.iter().flat_map(|output| std::iter::once(&output.on).chain(&output.off));
        let sends = outputs.chain(self.profile.startup.iter().filter_map(|step| step.send.as_ref()));
        let writes = sends.filter_map(|send| match send {
            Send::Modbus(request) => Some((*request, None)),
            _ => None,
        });
        polls.chain(writes).find(|(request, _)| framed(*request) == sent)
    }

    fn rtu(&mut self, (request, poll): (Request, Option<usize>), came: &[u8]) -> String {
        let answer = rtu_pdu(self.unit, came).and_then(|pdu| request.answer(pdu));
        let decoded = match (answer, poll) {
            (Ok(_), None) => return "ok".to_owned(),
            (Ok(data), Some(poll)) => self.decoder.answer(poll, data),
            (Err(reject), _) => Decoded { rejects: vec![reject], ..Decoded::default() },
        };
        let bits = poll.and_then(|poll| self.profile.polls.get(poll)).is_some_and(|poll| poll.function.is_bits());
        if !bits || !decoded.rejects.is_empty() {
            return describe(&self.profile, &decoded);
        }
        let on = decoded.points.iter().filter(|point| point.value == Value::Flag(true));
        let names = on.filter_map(|point| self.profile.inputs.get(point.input)).map(|input| input.name.as_str());
        std::iter::once("on").chain(names).collect::<Vec<_>>().join(" ")
    }

    fn topic(&mut self, came: &str) -> Result<String, String> {
        let (retained, came) = match came.strip_prefix("retained ") {
            Some(came) => (true, came),
            None => (false, came),
        };
        let (topic, payload) = came.split_once(' ').unwrap_or((came, ""));
        let mut all = Decoded::default();
        let mut heard = false;
        for message in 0..self.profile.messages.len() {
            if self.decoder.topic(message).as_deref() == Some(topic) {
                heard = true;
                let decoded = self.decoder.payload(message, payload.as_bytes(), retained);
                all.points.extend(decoded.points);
                all.messages.extend(decoded.messages);
                all.rejects.extend(decoded.rejects);
                all.available = all.available.or(decoded.available);
            }
        }
        if heard { Ok(describe(&self.profile, &all)) } else { Err(format!("the profile does not listen to {topic:?}")) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::folder::{self, Folder};
    use crate::shipped;

    /// Read from the tree, so that a new folder needs no new build to be tried.
    #[test]
    fn every_capture_of_every_profile_replays() {
        let mut wrong = Vec::new();
        for path in folder::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles")).unwrap() {
            match folder::read(&path) {
                Ok(Folder { profile, captures }) => {
                    wrong.extend(check(&profile, &captures).err().into_iter().flatten())
                }
                Err(error) => wrong.push(format!("{}: {error}", path.display())),
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    #[test]
    fn a_device_needs_exchanges_that_are_understood_and_such_that_are_refused() {
        let profile = shipped::find("waveshare/modbus-di8").unwrap();
        let good = "from made\n> 01 02 00 00 00 08 79 CC\n< 01 02 01 20 A0 50\n= on 6\n";
        let bad = "from made\n> 01 02 00 00 00 08 79 CC\n< 01 02 01 20 A0 51\n= reject checksum\n";
        let checked = |texts: &[&str]| {
            let captures: Vec<_> = texts.iter().map(|text| ("a.txt".to_owned(), (*text).to_owned())).collect();
            check(&profile, &captures).map_err(|wrong| wrong.join("\n"))
        };
        assert_eq!(checked(&[good, bad]), Ok(2));
        for (texts, expected) in [
            (&[][..], "has no captures"),
            (&[good], "no exchange that is refused"),
            (&[bad], "no exchange that is understood"),
            (&[good, "# later"], "a.txt is empty"),
            (&[&good["from made\n".len()..], bad], "line 3: where does it come from?"),
        ] {
            let wrong = checked(texts).unwrap_err();
            assert!(wrong.contains(expected), "{expected}: {wrong}");
        }
    }

    #[test]
    fn a_capture_that_says_something_else_is_told_with_its_line() {
        let profile = shipped::find("waveshare/modbus-di8").unwrap();
        let check = |text| replay(&profile, text).unwrap_err().to_string();
        let exchange = "> 01 02 00 00 00 08 79 CC\n< 01 02 01 20 A0 50\n= on 5";
        assert_eq!(check(exchange), "line 3: expected \"on 5\", it means \"on 6\"");
        assert_eq!(check("> 01 0F 00\n< 00\n= ok"), "line 3: the profile never sends this frame");
        assert_eq!(check("> xx\n< 00\n= ok"), "line 3: what was sent is not hex");
        assert_eq!(check("from hearsay"), "line 1: write \"from made\" or \"from published …\" with the source");
    }
}
