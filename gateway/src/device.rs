//! From what a link hears of a board to what is told of the devices wired to it. Pure.

use std::sync::Arc;
use std::time::Duration;

use carebed_contract::id::HomeId;
use carebed_contract::labels::Lane;
use carebed_contract::pack::TEXT_MAX;
use carebed_contract::quality::Quality;
use carebed_contract::quantity::Quantity;
use carebed_contract::record::{Record, Series};
use carebed_contract::status::{DeviceStatus, Health};
use carebed_contract::time::Timestamp;
use carebed_contract::value::Value;
use carebed_device_profiles::decoder::{self, Decoded, Decoder};
use carebed_device_profiles::hex::Hex;
use carebed_device_profiles::meaning::judged;
use carebed_device_profiles::report::{Policy, Reporter, Why};

use crate::home::{Board, InputUse};
use crate::link::Silence;
use crate::stamp::{Observed, Sample};

/// A board counts as silent after this long without an answer … (wb-mqtt-serial's figures: shorter ones make noise on
/// every hiccup of a bus).
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// … and this many failed polls.
const SILENT_CYCLES: u32 = 2;
/// The quantity of what stood on the wire.
const RAW: &str = "raw_frame";

/// What a link heard of a board.
#[derive(Debug, Clone, Copy)]
pub enum Heard<'a> {
    /// The data bytes that answer a poll (an index into the profile's polls).
    Answer {
        /// Which poll.
        poll: usize,
        /// The data.
        data: &'a [u8],
    },
    /// What a device said by itself.
    Said(&'a Decoded),
    /// No answer, an exception, or something that is no answer.
    Nothing {
        /// How many polls in a row gave none.
        cycles: u32,
        /// For how long, in wire time.
        lasted: Duration,
    },
}

impl From<&Silence> for Heard<'_> {
    fn from(silence: &Silence) -> Self {
        Self::Nothing { cycles: silence.cycles, lasted: silence.lasted }
    }
}

/// An observation and the lane it goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The lane.
    pub lane: Lane,
    /// The observation.
    pub observed: Observed,
}

/// One board: the last state of each input, and whether it answers.
#[derive(Debug)]
pub struct Device {
    home: HomeId,
    board: Arc<Board>,
    decoder: Decoder,
    points: Vec<Point>,
    health: Health,
    since: Timestamp,
    last_good: Option<Timestamp>,
    /// Whether its counters began again since this was asked.
    has_restarted: bool,
}

#[derive(Debug)]
struct Point {
    series: Series,
    wired: InputUse,
    policy: Policy,
    reporter: Reporter,
    /// What was told of it before the last stop and waits in the spool, until it is told again.
    recalled: Option<Value>,
}

impl Device {
    /// A board nobody has heard of yet. `heartbeat` overrides the profile's.
    #[must_use]
    pub fn new(home: &HomeId, board: Arc<Board>, heartbeat: Option<Duration>, now: Timestamp) -> Self {
        let point = |wired: &InputUse| {
            let mut policy = board.profile.inputs.get(wired.input)?.policy;
            policy.heartbeat = heartbeat.unwrap_or(policy.heartbeat);
            let series = Series {
                home: home.clone(),
                bed: wired.bed.clone(),
                device: wired.device.clone(),
                quantity: wired.quantity.clone(),
            };
            Some(Point { series, wired: wired.clone(), policy, reporter: Reporter::default(), recalled: None })
        };
        Self {
            home: home.clone(),
            decoder: Decoder::at(Arc::clone(&board.profile), board.address.as_deref()),
            points: board.inputs.iter().filter_map(point).collect(),
            health: Health::Unknown,
            since: now,
            last_good: None,
            has_restarted: false,
            board,
        }
    }

    /// A state that was told before the last stop and still waits in the spool: the same again is no news, and is told as
    /// a state of now.
    pub fn recall(&mut self, record: &Record) {
        for point in self.points.iter_mut().filter(|point| point.series == record.series) {
            point.recalled = Some(record.value.clone());
        }
    }

    /// Takes over what was told of the same series by a device that was wired otherwise.
    pub fn adopt(&mut self, old: &Self) {
        for point in &mut self.points {
            if let Some(known) = old.points.iter().find(|known| known.series == point.series) {
                point.reporter = known.reporter.clone();
                point.recalled.clone_from(&known.recalled);
            }
        }
        if old.board == self.board {
            (self.health, self.since, self.last_good) = (old.health, old.since, old.last_good);
        }
        if old.board.id == self.board.id && old.board.profile == self.board.profile {
            // It knows how far counters have come: a press meanwhile is a press.
            self.decoder = old.decoder.clone();
        }
    }

    /// What is to be told. The first answer after a start or a silence tells every state; then changes are told at once
    /// and sameness once per heartbeat, so that silence can be seen. A board that fell silent is told once per input.
    pub fn hear(&mut self, heard: Heard<'_>, sample: Sample) -> Vec<Told> {
        match heard {
            Heard::Answer { poll, data } => {
                let decoded = self.decoder.answer(poll, data);
                self.has_restarted |= decoded.restarted;
                let mut told = self.said(&decoded, sample);
                if self.board.keeps_raw && !told.is_empty() {
                    let name = self.board.profile.polls.get(poll).map_or("", |poll| poll.name.as_str());
                    told.extend(self.raw(format!("{name} {}", compact(data)), sample));
                }
                told
            }
            Heard::Said(decoded) => {
                let mut told = self.said(decoded, sample);
                if self.board.keeps_raw && !told.is_empty() {
                    let frames = decoded.frames.iter().map(|frame| compact(&frame.raw));
                    let documents = decoded.documents.iter().map(|(message, bytes)| {
                        let name = self.board.profile.messages.get(*message).map_or("", |m| m.name.as_str());
                        format!("{name} {}", String::from_utf8_lossy(bytes))
                    });
                    let texts: Vec<String> = frames.chain(documents).collect();
                    told.extend(texts.into_iter().filter_map(|text| self.raw(text, sample)));
                }
                told
            }
            Heard::Nothing { cycles, lasted } => {
                if cycles < SILENT_CYCLES || lasted < SILENT_AFTER || self.health == Health::Silent {
                    return Vec::new();
                }
                self.silent(sample)
            }
        }
    }

    fn said(&mut self, decoded: &Decoded, sample: Sample) -> Vec<Told> {
        for reject in &decoded.rejects {
            tracing::debug!(device = %self.board.id, %reject, "not used");
        }
        if decoded.available == Some(false) {
            return if self.health == Health::Silent { Vec::new() } else { self.silent(sample) };
        }
        if decoded.alive && self.health != Health::Live {
            self.turn(Health::Live, sample);
        }
        // A device that only says that it has no value is there, but says nothing good.
        if decoded.alive && (decoded.points.is_empty() || decoded.points.iter().any(|point| point.quality.is_usable()))
        {
            self.last_good = Some(sample.wall);
        }
        self.tell(&decoded.points, sample)
    }

    /// What was said, as it stood on the wire, beside what is told of it. `carebed-gateway decode --profile` reads it
    /// again. What no pack can carry is left out.
    fn raw(&self, text: String, sample: Sample) -> Option<Told> {
        let series =
            Series { home: self.home.clone(), bed: None, device: self.board.id.clone(), quantity: Quantity::new(RAW)? };
        let value = Value::Text(text.chars().take(TEXT_MAX + 1).collect());
        let fits = value.text().is_some_and(|text| text.len() <= TEXT_MAX);
        let observed = Observed { series, value, quality: Quality::Good, sample };
        fits.then_some(Told { lane: Lane::Routine, observed })
    }

    fn silent(&mut self, sample: Sample) -> Vec<Told> {
        self.turn(Health::Silent, sample);
        self.points.iter_mut().map(|point| point.silent(sample)).collect()
    }

    fn tell(&mut self, values: &[decoder::Point], sample: Sample) -> Vec<Told> {
        let mut told = Vec::new();
        for heard in values {
            for point in self.points.iter_mut().filter(|point| point.wired.input == heard.input) {
                told.extend(point.hear(heard, sample));
            }
        }
        told
    }

    fn turn(&mut self, health: Health, sample: Sample) {
        tracing::info!(device = %self.board.id, from = ?self.health, to = ?health, "device health changed");
        (self.health, self.since) = (health, sample.wall);
    }

    /// How each device wired to the board is, the board itself first.
    pub fn status(&self) -> impl Iterator<Item = DeviceStatus> + '_ {
        let of = |id: &carebed_contract::id::DeviceId| DeviceStatus {
            device: id.clone(),
            health: self.health,
            since: self.since,
            last_good: self.last_good,
        };
        let mut wired: Vec<_> = self.board.inputs.iter().map(|input| &input.device).collect();
        wired.extend(self.board.outputs.iter().map(|output| &output.device));
        wired.sort();
        wired.dedup();
        std::iter::once(&self.board.id).chain(wired).map(of).collect::<Vec<_>>().into_iter()
    }

    /// Whether its counters have begun again since this was asked last: it lost its power, or is another piece.
    pub fn take_restart(&mut self) -> bool {
        std::mem::take(&mut self.has_restarted)
    }

    /// Whether it answers.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }
}

/// Bytes as pairs of hex digits without blanks.
fn compact(bytes: &[u8]) -> String {
    Hex(bytes.to_vec()).to_string().replace(' ', "")
}

impl Point {
    fn hear(&mut self, heard: &decoder::Point, sample: Sample) -> Option<Told> {
        let value = match &heard.value {
            Value::Flag(flag) => Value::Flag(*flag != self.wired.invert),
            other => other.clone(),
        };
        let (value, quality) = judged(&self.series.quantity, value, heard.quality.clone());
        let lane = match (self.reporter.offer(&self.policy, &value, &quality, sample.monotonic)?, self.recalled.take())
        {
            (Why::Change | Why::Event, _) => self.wired.lane,
            (Why::Start, Some(recalled)) if recalled != value => self.wired.lane,
            // A call that began while nobody listened is a call; that there is none is not urgent.
            (Why::Start, None) if value == Value::Flag(true) => self.wired.lane,
            (Why::Start | Why::Heartbeat, _) => Lane::Routine,
        };
        let sample = Sample { monotonic: sample.monotonic.saturating_sub(heard.age), wall: sample.wall - heard.age };
        Some(Told { lane, observed: Observed { series: self.series.clone(), value, quality, sample } })
    }

    fn silent(&mut self, sample: Sample) -> Told {
        self.reporter.forget();
        let quality = Quality::Bad("no_answer".into());
        let observed = Observed { series: self.series.clone(), value: Value::Missing, quality, sample };
        Told { lane: Lane::Routine, observed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::HomeFile;

    /// Steps of (second, what was heard) → what is told, as `lane device value quality`.
    fn check(steps: &[(u64, Heard<'_>, &[&str])]) {
        let home = HomeFile::parse("home.toml", include_str!("../../deploy/gateway/home.toml")).unwrap();
        let board = Arc::new(home.boards[0].clone());
        let mut device = Device::new(&home.home, board, Some(Duration::from_secs(600)), Timestamp::from_millis(0));
        for (second, heard, expected) in steps {
            let monotonic = Duration::from_secs(*second);
            let told = device.hear(*heard, Sample { monotonic, wall: Timestamp::from_millis(0) + monotonic });
            let rows: Vec<String> = told
                .iter()
                .map(|t| {
                    format!(
                        "{} {} {:?} {}",
                        t.lane,
                        t.observed.series.device,
                        t.observed.value.number(),
                        t.observed.quality
                    )
                })
                .collect();
            assert_eq!(&rows, expected, "at {second} s");
        }
    }

    fn answer(data: &[u8]) -> Heard<'_> {
        Heard::Answer { poll: 0, data }
    }

    fn nothing(cycles: u32, seconds: u64) -> Heard<'static> {
        Heard::Nothing { cycles, lasted: Duration::from_secs(seconds) }
    }

    const START: &[&str] = &[
        "routine call-1 Some(0.0) good",
        "routine mat-1 Some(0.0) good",
        "routine door-1 Some(1.0) good",
        "routine pir-1 Some(0.0) good",
    ];

    #[test]
    fn states_are_told_at_start_on_change_and_once_per_heartbeat() {
        check(&[
            (0, answer(&[0b0000]), START),
            (1, answer(&[0b0000]), &[]),
            (2, answer(&[0b0100]), &["routine door-1 Some(0.0) good"]),
            (3, answer(&[0b0111]), &["urgent call-1 Some(1.0) good", "routine mat-1 Some(1.0) good"]),
            (4, answer(&[0b0110]), &["urgent call-1 Some(0.0) good"]),
            (5, answer(&[0b0110, 0]), &[]),
            (599, answer(&[0b0110]), &[]),
            (600, answer(&[0b0110]), &["routine pir-1 Some(0.0) good"]),
            (603, answer(&[0b0110]), &["routine mat-1 Some(1.0) good", "routine door-1 Some(0.0) good"]),
            (604, answer(&[0b0110]), &["routine call-1 Some(0.0) good"]),
        ]);
    }

    #[test]
    fn a_press_that_waits_in_the_spool_is_told_again_as_a_state() {
        let home = HomeFile::parse("home.toml", include_str!("../../deploy/gateway/home.toml")).unwrap();
        let mut device = Device::new(&home.home, Arc::new(home.boards[0].clone()), None, Timestamp::from_millis(0));
        let sample = Sample { monotonic: Duration::ZERO, wall: Timestamp::from_millis(0) };
        let mut before = Device::new(&home.home, Arc::new(home.boards[0].clone()), None, Timestamp::from_millis(0));
        let press = before.hear(answer(&[0b0001]), sample).remove(0);
        assert_eq!((press.lane, &press.observed.value), (Lane::Urgent, &Value::Flag(true)));
        let stamper = crate::stamp::Stamper::new(crate::stamp::ClockTrust::Trusted, Timestamp::MIN);
        let press = stamper.seal(vec![press.observed], sample.monotonic).remove(0);
        device.recall(&press);
        let told = device.hear(answer(&[0b0001]), sample);
        assert_eq!(told.len(), START.len(), "a life begins with every state");
        assert!(told.iter().all(|told| told.lane == Lane::Routine), "a second call");
        let released = device.hear(answer(&[0b0000]), sample);
        assert_eq!(
            released.first().map(|t| (t.lane, t.observed.value.clone())),
            Some((Lane::Urgent, Value::Flag(false)))
        );

        // Released while nobody listened: that is news.
        let mut device = Device::new(&home.home, Arc::new(home.boards[0].clone()), None, Timestamp::from_millis(0));
        device.recall(&press);
        let released = device.hear(answer(&[0b0000]), sample).remove(0);
        assert_eq!((released.lane, released.observed.value), (Lane::Urgent, Value::Flag(false)));
    }

    #[test]
    fn silence_is_told_once_and_a_call_found_afterwards_is_urgent() {
        let silent: &[&str] = &[
            "routine call-1 None bad:no_answer",
            "routine mat-1 None bad:no_answer",
            "routine door-1 None bad:no_answer",
            "routine pir-1 None bad:no_answer",
        ];
        let mut back = START.to_vec();
        back[0] = "urgent call-1 Some(1.0) good";
        check(&[
            (0, answer(&[0]), START),
            (1, nothing(1, 60), &[]),
            (2, nothing(40, 2), &[]),
            (3, nothing(2, 3), silent),
            (4, nothing(3, 4), &[]),
            (5, answer(&[1]), &back),
        ]);
        // A board that never answered is told as silent, too.
        check(&[(3, nothing(2, 3), silent)]);
    }
}
