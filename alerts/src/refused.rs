//! Why a step was not taken, in words for the one who tried it.

use carebed_contract::text::{Language, Text};
use carebed_contract::time::Timestamp;
use chrono::DateTime;
use chrono_tz::Tz;

use crate::alert::{AlertId, NOTE_LENGTH_MAX, OperatorId, State};

/// A step that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such alert is remembered.
    #[error("there is no alert {0}")]
    Unknown(AlertId),
    /// Somebody was there first, or the alert is past that step.
    #[error("the alert is already {}", state.as_str())]
    Already {
        /// The state it is in, or was brought to.
        state: State,
        /// By whom; none when the program did it.
        by: Option<OperatorId>,
        /// When.
        at: Timestamp,
    },
    /// An earlier step has to come first.
    #[error("the alert is {} and must be {} first", state.as_str(), needs.as_str())]
    TooEarly {
        /// The state it is in.
        state: State,
        /// The state it must reach before.
        needs: State,
    },
    /// The note is too long.
    #[error("a note has at most {NOTE_LENGTH_MAX} characters")]
    NoteTooLong,
    /// The outcome is the program's to give.
    #[error("an alert that a person resolves is verified, false_alarm, test or other")]
    NotAChoice,
}

impl Refused {
    /// A word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown_alert",
            Self::Already { .. } => "already_done",
            Self::TooEarly { .. } => "too_early",
            Self::NoteTooLong => "note_too_long",
            Self::NotAChoice => "not_an_outcome",
        }
    }

    /// For people: what is so, since when and by whom, and what to do. Times are in `zone`.
    #[must_use]
    pub fn text(&self, zone: Tz) -> Text {
        match self {
            Self::Unknown(id) => Text::new(
                format!("没有编号为 {id} 的告警。请刷新页面后重试。"),
                format!("There is no alert {id}. Reload the page and try again."),
            ),
            Self::Already { state, by, at } => {
                let time = DateTime::from_timestamp_millis(at.millis())
                    .map_or_else(String::new, |t| t.with_timezone(&zone).format("%H:%M:%S").to_string());
                let state = state.text();
                let zh_by = by.as_ref().map_or("系统", OperatorId::as_str);
                let en_by = by.as_ref().map_or("the system", OperatorId::as_str);
                Text::new(
                    format!("该告警{}：{zh_by}，{time}。无需重复操作。", state.get(Language::Zh)),
                    format!("This alert is already {}: by {en_by} at {time}. Nothing to do.", state.get(Language::En)),
                )
            }
            Self::TooEarly { state, needs } => {
                let (state, needs) = (state.text(), needs.text());
                Text::new(
                    format!("该告警目前为“{}”，须先“{}”才能进行此操作。", state.zh, needs.zh),
                    format!("This alert is {}; it has to be {} first.", state.en, needs.en),
                )
            }
            Self::NoteTooLong => Text::new(
                format!("备注不能超过 {NOTE_LENGTH_MAX} 字，请缩短后重试。"),
                format!("A note has at most {NOTE_LENGTH_MAX} characters; please shorten it."),
            ),
            Self::NotAChoice => Text::new(
                "处置结果须为：情况属实、误报、测试或其他。",
                "The outcome must be verified, false_alarm, test or other.",
            ),
        }
    }
}
