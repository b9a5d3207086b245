//! What happened to an alert: facts that are only ever appended.

use carebed_contract::finding::{Class, Priority, Subject};
use carebed_contract::id::{Area, HomeId};
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::{AlertId, Occurrence, OperatorId, Outcome, State};

/// One fact in the log. Its JSON is kept for years: fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// Its place in the log: 1, 2, 3, …
    pub number: u64,
    /// When the centre noted it.
    pub at: Timestamp,
    /// Which alert.
    pub alert: AlertId,
    /// What.
    #[serde(flatten)]
    pub change: Change,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A new alert.
    Raised(Box<Raised>),
    /// The home did not answer in its time.
    Opened {
        /// Whether people are told.
        rings: bool,
    },
    /// It happened again: a second press, a second exit.
    Repeated {
        /// The new finding.
        occurrence: Occurrence,
        /// The sentence now.
        sentence: Text,
        /// The evidence now.
        evidence: serde_json::Map<String, serde_json::Value>,
        /// Whether this one rings (it is neither late nor suppressed).
        rings: bool,
        /// The earlier acknowledgement no longer stands.
        reopens: bool,
    },
    /// The finding's evidence changed.
    Updated {
        /// The sentence now.
        sentence: Text,
        /// The evidence now.
        evidence: serde_json::Map<String, serde_json::Value>,
        /// Why it is quiet, when something explains it.
        suppressed: Option<String>,
    },
    /// The condition is over. A care alert stays until a person resolves it.
    Cleared {
        /// Which finding.
        raised_at: Timestamp,
        /// Since when, in event time.
        cleared_at: Timestamp,
        /// Why.
        reason: ClearReason,
    },
    /// Late data took the clearing back.
    HoldsAgain {
        /// Which finding.
        raised_at: Timestamp,
    },
    /// A quiet alert rings after all: what explained it is gone, or its condition is known to hold now.
    Rang,
    /// Nobody acknowledged it: told again.
    Reminded,
    /// Nobody acknowledged it in time: more pressing now.
    Escalated {
        /// The new priority.
        to: Priority,
    },
    /// An operator sees it and acts.
    Acknowledged {
        /// Who.
        by: OperatorId,
    },
    /// A responder is on the way.
    Dispatched {
        /// Who sent them.
        by: OperatorId,
    },
    /// The responder is there.
    Arrived {
        /// Who noted it.
        by: OperatorId,
    },
    /// Done.
    Resolved {
        /// Who; none when it resolved itself.
        by: Option<OperatorId>,
        /// What it turned out to be.
        outcome: Outcome,
        /// In the operator's words.
        note: Option<String>,
    },
    /// A second person looked at it.
    Reviewed {
        /// Who.
        by: OperatorId,
        /// In the reviewer's words.
        note: Option<String>,
    },
}

/// Why a condition is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClearReason {
    /// It ended.
    Recovered,
    /// Data that came later shows that it was not so.
    LateData,
}

/// Everything about a new alert, so that the log needs no rules to be understood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Raised {
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
    /// How pressing.
    pub priority: Priority,
    /// What it is, in a few words.
    pub title: Text,
    /// What was found, in a sentence.
    pub sentence: Text,
    /// The numbers and times behind the sentence.
    pub evidence: serde_json::Map<String, serde_json::Value>,
    /// When the condition began, in event time.
    pub raised_at: Timestamp,
    /// When it was over, if it already is.
    pub cleared_at: Option<Timestamp>,
    /// Until when the home may answer before people are told; none tells them at once.
    pub opens_at: Option<Timestamp>,
    /// It came later than the freshness limit.
    pub late: bool,
    /// Why it is quiet, when something explains it.
    pub suppressed: Option<String>,
    /// Whether people are told.
    pub rings: bool,
}

impl Change {
    /// The state that a person's step (or the program's resolving) leads to; none for everything else.
    #[must_use]
    pub fn leads_to(&self) -> Option<State> {
        match self {
            Self::Acknowledged { .. } => Some(State::Acknowledged),
            Self::Dispatched { .. } => Some(State::Dispatched),
            Self::Arrived { .. } => Some(State::OnSite),
            Self::Resolved { .. } => Some(State::Resolved),
            Self::Reviewed { .. } => Some(State::Reviewed),
            _ => None,
        }
    }
}
