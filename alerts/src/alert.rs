//! One alert: what it is about, how far people have come with it, and whether its condition still holds.

use std::fmt;
use std::sync::Arc;

use carebed_contract::digest::Digest;
use carebed_contract::finding::{Class, Finding, Priority, Subject};
use carebed_contract::id::{Area, HomeId};
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::transition::{Change, Raised};

/// Longest operator name and longest note, in characters. Longer ones are refused where they enter.
pub const OPERATOR_LENGTH_MAX: usize = 40;
/// See [`OPERATOR_LENGTH_MAX`].
pub const NOTE_LENGTH_MAX: usize = 500;

/// Names an alert: the same for the same (detection, subject, raised_at), so that telling it again after a crash is
/// telling the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AlertId(Arc<str>);

/// A text that is not an alert's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an alert id (24 hexadecimal digits)")]
pub struct NotAnId(String);

impl AlertId {
    const LENGTH: usize = 24;

    /// The id of the alert about what happened to `subject` at `raised_at`.
    #[must_use]
    pub fn new(detection: &str, subject: &Subject, raised_at: Timestamp) -> Self {
        let name = format!("{detection}\0{subject}\0{}", raised_at.millis());
        let digest = Digest::of_bytes(name.as_bytes()).to_string();
        Self(digest.chars().take(Self::LENGTH).collect::<String>().into())
    }

    /// The id of the alert that a finding raises, the first time it happens.
    #[must_use]
    pub fn of(finding: &Finding) -> Self {
        Self::new(&finding.detection, &finding.subject, finding.raised_at)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AlertId {
    type Error = NotAnId;
    fn try_from(text: String) -> Result<Self, NotAnId> {
        let good = text.len() == Self::LENGTH && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self(text.into())) } else { Err(NotAnId(text)) }
    }
}

impl From<AlertId> for String {
    fn from(id: AlertId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlertId({})", self.0)
    }
}

/// Who at the service centre did something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperatorId(String);

/// Not a name to sign with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an operator's name has 1 to {OPERATOR_LENGTH_MAX} printable characters")]
pub struct NotAnOperator;

impl OperatorId {
    /// Checks and takes a name; blanks around it are dropped.
    pub fn new(name: impl AsRef<str>) -> Result<Self, NotAnOperator> {
        let name = name.as_ref().trim();
        let good = (1..=OPERATOR_LENGTH_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        if good { Ok(Self(name.to_owned())) } else { Err(NotAnOperator) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for OperatorId {
    type Error = NotAnOperator;
    fn try_from(text: String) -> Result<Self, NotAnOperator> {
        Self::new(text)
    }
}

impl From<OperatorId> for String {
    fn from(id: OperatorId) -> Self {
        id.0
    }
}

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far people have come with an alert. Later is greater; the only way back is to open, when something new happened
/// under it that nobody has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The home is being asked; nobody at the centre was told yet.
    Waiting,
    /// Told, and nobody has taken it.
    Open,
    /// An operator sees it and acts.
    Acknowledged,
    /// A responder is on the way.
    Dispatched,
    /// The responder is there.
    OnSite,
    /// Done, with an outcome.
    Resolved,
    /// A second person looked at how it was done.
    Reviewed,
}

impl State {
    /// The word used in JSON and in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Dispatched => "dispatched",
            Self::OnSite => "on_site",
            Self::Resolved => "resolved",
            Self::Reviewed => "reviewed",
        }
    }

    /// For people.
    #[must_use]
    pub fn text(self) -> Text {
        match self {
            Self::Waiting => Text::new("等待老人确认", "waiting for the home"),
            Self::Open => Text::new("待确认", "open"),
            Self::Acknowledged => Text::new("已确认", "acknowledged"),
            Self::Dispatched => Text::new("已派单", "dispatched"),
            Self::OnSite => Text::new("已到场", "on site"),
            Self::Resolved => Text::new("已办结", "resolved"),
            Self::Reviewed => Text::new("已复核", "reviewed"),
        }
    }
}

/// What it turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was so.
    Verified,
    /// It was not so.
    FalseAlarm,
    /// Somebody tested.
    Test,
    /// Something else; the note says what.
    Other,
    /// Over before a person had to act (only the program says this).
    Recovered,
}

impl Outcome {
    /// Those that a person may choose.
    pub const CHOICES: [Self; 4] = [Self::Verified, Self::FalseAlarm, Self::Test, Self::Other];

    /// The word used in JSON and in the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::FalseAlarm => "false_alarm",
            Self::Test => "test",
            Self::Other => "other",
            Self::Recovered => "recovered",
        }
    }

    /// For people.
    #[must_use]
    pub fn text(self) -> Text {
        match self {
            Self::Verified => Text::new("情况属实", "verified"),
            Self::FalseAlarm => Text::new("误报", "false alarm"),
            Self::Test => Text::new("测试", "test"),
            Self::Other => Text::new("其他", "other"),
            Self::Recovered => Text::new("自行恢复", "recovered by itself"),
        }
    }
}

/// One finding that belongs to the alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// From when it could be said, in event time.
    pub raised_at: Timestamp,
    /// When it was over, or none while it holds.
    pub cleared_at: Option<Timestamp>,
}

/// A step somebody took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The state it led to.
    pub state: State,
    /// By whom; none when the program did it.
    pub by: Option<OperatorId>,
    /// When.
    pub at: Timestamp,
}

/// An alert, the sum of its transitions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// Its name.
    pub id: AlertId,
    /// Which detection found it.
    pub detection: String,
    /// About whom.
    pub subject: Subject,
    /// The home it is in.
    pub home: HomeId,
    /// Where that home's gateway was enrolled.
    pub area: Area,
    /// About the person, or about the equipment.
    pub class: Class,
    /// How pressing now; escalation raises it.
    pub priority: Priority,
    /// What it is, in a few words.
    pub title: Text,
    /// What was found, in a sentence.
    pub sentence: Text,
    /// The numbers and times behind the sentence.
    pub evidence: serde_json::Map<String, serde_json::Value>,
    /// How far people have come.
    pub state: State,
    /// When the condition began, in event time.
    pub raised_at: Timestamp,
    /// When the centre took it up.
    pub created_at: Timestamp,
    /// Until when the home may answer, while [`State::Waiting`].
    pub opens_at: Option<Timestamp>,
    /// Since when people are being told; none while it is quiet.
    pub rings_since: Option<Timestamp>,
    /// When they were last told.
    pub told_at: Option<Timestamp>,
    /// It came later than the freshness limit.
    pub late: bool,
    /// Why it is quiet, when an absence, a visit or the like explains it.
    pub suppressed: Option<String>,
    /// The findings it stands for, oldest first: at least one.
    pub occurrences: Vec<Occurrence>,
    /// When evidence and sentence last changed.
    pub updated_at: Timestamp,
    /// Steps taken, in order.
    pub done: Vec<Done>,
    /// What it turned out to be.
    pub outcome: Option<Outcome>,
    /// What was noted when it was resolved or reviewed, latest last.
    pub notes: Vec<String>,
}

impl Alert {
    pub(crate) fn raised(id: AlertId, raised: &Raised, at: Timestamp) -> Self {
        let opens = raised.opens_at.is_none();
        let rings_since = (opens && raised.rings).then_some(at);
        Self {
            id,
            detection: raised.detection.clone(),
            subject: raised.subject.clone(),
            home: raised.home.clone(),
            area: raised.area.clone(),
            class: raised.class,
            priority: raised.priority,
            title: raised.title.clone(),
            sentence: raised.sentence.clone(),
            evidence: raised.evidence.clone(),
            state: if opens { State::Open } else { State::Waiting },
            raised_at: raised.raised_at,
            created_at: at,
            opens_at: raised.opens_at,
            rings_since,
            told_at: rings_since,
            late: raised.late,
            suppressed: raised.suppressed.clone(),
            occurrences: vec![Occurrence { raised_at: raised.raised_at, cleared_at: raised.cleared_at }],
            updated_at: at,
            done: Vec::new(),
            outcome: None,
            notes: Vec::new(),
        }
    }

    /// How often it happened again after the first time.
    #[must_use]
    pub fn repeats(&self) -> usize {
        self.occurrences.len().saturating_sub(1)
    }

    /// When the condition was over, or none while it holds.
    #[must_use]
    pub fn cleared_at(&self) -> Option<Timestamp> {
        self.occurrences.iter().try_fold(Timestamp::MIN, |latest, o| Some(latest.max(o.cleared_at?)))
    }

    /// Nobody need act on it any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state >= State::Resolved
    }

    /// People should be told of it now.
    #[must_use]
    pub fn rings(&self) -> bool {
        self.state == State::Open && self.rings_since.is_some()
    }

    /// The step that led to a state, when it was taken (the last time it was).
    #[must_use]
    pub fn step(&self, state: State) -> Option<&Done> {
        self.done.iter().rev().find(|done| done.state == state)
    }

    pub(crate) fn fold(&mut self, change: &Change, at: Timestamp) {
        match change {
            Change::Raised(_) => {}
            Change::Opened { rings } => {
                self.state = State::Open;
                self.ring(rings.then_some(at));
            }
            Change::Repeated { occurrence, sentence, evidence, rings, reopens } => {
                let place = self.occurrences.partition_point(|o| o.raised_at < occurrence.raised_at);
                self.occurrences.insert(place, *occurrence);
                self.describe(sentence, evidence, at);
                if *reopens {
                    self.state = State::Open;
                }
                if self.state == State::Open {
                    if *rings && (self.rings_since.is_none() || *reopens) {
                        self.rings_since = Some(at);
                    }
                    self.told_at = self.rings_since.map(|_| at);
                }
            }
            Change::Updated { sentence, evidence, suppressed } => {
                self.describe(sentence, evidence, at);
                self.suppressed.clone_from(suppressed);
                if suppressed.is_some() {
                    self.ring(None);
                }
            }
            Change::Cleared { raised_at, cleared_at, .. } => self.clear(*raised_at, Some(*cleared_at)),
            Change::HoldsAgain { raised_at } => self.clear(*raised_at, None),
            Change::Rang => self.ring(Some(at)),
            Change::Reminded => self.told_at = Some(at),
            Change::Escalated { to } => {
                self.priority = *to;
                self.told_at = Some(at);
            }
            Change::Acknowledged { by } => self.advance(State::Acknowledged, Some(by), at),
            Change::Dispatched { by } => self.advance(State::Dispatched, Some(by), at),
            Change::Arrived { by } => self.advance(State::OnSite, Some(by), at),
            Change::Resolved { by, outcome, note } => {
                self.advance(State::Resolved, by.as_ref(), at);
                self.outcome = Some(*outcome);
                self.notes.extend(note.clone());
            }
            Change::Reviewed { by, note } => {
                self.advance(State::Reviewed, Some(by), at);
                self.notes.extend(note.clone());
            }
        }
    }

    fn ring(&mut self, since: Option<Timestamp>) {
        self.rings_since = since;
        self.told_at = since;
    }

    fn describe(&mut self, sentence: &Text, evidence: &serde_json::Map<String, serde_json::Value>, at: Timestamp) {
        self.sentence.clone_from(sentence);
        self.evidence.clone_from(evidence);
        self.updated_at = at;
    }

    fn clear(&mut self, raised_at: Timestamp, cleared_at: Option<Timestamp>) {
        if let Some(occurrence) = self.occurrences.iter_mut().find(|o| o.raised_at == raised_at) {
            occurrence.cleared_at = cleared_at;
        }
    }

    fn advance(&mut self, state: State, by: Option<&OperatorId>, at: Timestamp) {
        self.state = state;
        self.done.push(Done { state, by: by.cloned(), at });
    }
}
