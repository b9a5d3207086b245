//! What a finding rests on, as a person reads it: the names of its numbers and times in both languages.

use carebed_alerts::wording;
use carebed_contract::text::{Language, Text};
use carebed_contract::time::Timestamp;
use chrono::DateTime;
use chrono_tz::Tz;
use serde_json::{Map, Value};

/// Codes that the alert's title and sentence word, and what the page shows elsewhere.
const SAID_ELSEWHERE: [&str; 7] = ["band", "duty", "figure", "hazard", "trouble", "priority", "suppressed_by"];

/// What the evidence of this name is called; none for what is said elsewhere, and for names of detections of one's own.
#[must_use]
pub fn name(evidence: &str) -> Option<Text> {
    let (zh, en) = match evidence {
        "confirmed" => ("同时有其他活动", "other activity seen"),
        "days" => ("约定天数", "agreed days"),
        "entered_at" => ("进入时间", "went in"),
        "exits" => ("离床次数", "exits from bed"),
        "first_at" => ("首次时间", "first"),
        "first_exit_at" => ("首次离床", "first exit"),
        "gateway" => ("网关", "gateway"),
        "hours" => ("时长（小时）", "hours"),
        "in_bed_since" => ("上床时间", "in bed since"),
        "last_activity_at" => ("最后活动", "last activity"),
        "last_at" => ("最后一次信号", "last signal"),
        "last_heard_at" => ("最后通信", "last heard"),
        "last_in_bed_at" => ("最后在床", "last in bed"),
        "last_moved_at" => ("最后翻身", "last moved"),
        "last_press_at" => ("最近一次按下", "last press"),
        "last_visit_at" => ("最近一次探访", "last visit"),
        "lately" => ("近几天", "lately"),
        "left_at" => ("离开时间", "left"),
        "minutes" => ("阈值（分钟）", "limit (minutes)"),
        "n_days" => ("参考天数", "days compared with"),
        "n_figures" => ("变化的指标数", "figures that changed"),
        "n_homes" => ("户数", "homes"),
        "opened_at" => ("开门时间", "opened"),
        "own_limit" => ("本人平时界限", "own usual limit"),
        "part" => ("停用项", "what is off"),
        "pauses" => ("呼吸暂停次数", "pauses in breathing"),
        "planned" => ("事先报备", "said beforehand"),
        "presses" => ("按下次数", "presses"),
        "room" => ("房间", "room"),
        "since" => ("开始时间", "since"),
        "usual" => ("以往", "usual"),
        "went_out" => ("已出门", "went out"),
        "why" => ("原因", "why"),
        _ => return None,
    };
    Some(Text::new(zh, en))
}

/// Whether the evidence of this name is worded where people read it.
#[must_use]
pub fn is_worded(evidence: &str) -> bool {
    SAID_ELSEWHERE.contains(&evidence) || name(evidence).is_some()
}

/// What the finding rests on: names and values, times where the home is.
#[must_use]
pub(crate) fn rows(evidence: &Map<String, Value>, zone: Tz, language: Language) -> Vec<(String, String)> {
    let told = evidence.iter().filter(|(of, value)| !SAID_ELSEWHERE.contains(&of.as_str()) && !value.is_null());
    let called = |of: &str| name(of).map_or_else(|| of.to_owned(), |name| name.get(language).to_owned());
    told.map(|(of, value)| (called(of), worded(of, value, zone, language))).collect()
}

fn worded(name: &str, value: &Value, zone: Tz, language: Language) -> String {
    match value {
        Value::String(text) if name == "room" => {
            wording::room(text).map_or_else(|| text.clone(), |room| room.get(language).to_owned())
        }
        Value::String(text) => Timestamp::parse(text).map_or_else(|| text.clone(), |at| local(at, zone)),
        Value::Bool(is_so) => wording::yes_or_no(*is_so).get(language).to_owned(),
        // As people write it: 15, and 19.2.
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        other => other.to_string(),
    }
}

/// Month, day and time of day where the home is.
pub(crate) fn local(at: Timestamp, zone: Tz) -> String {
    DateTime::from_timestamp_millis(at.millis())
        .map_or_else(String::new, |at| at.with_timezone(&zone).format("%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use chrono_tz::Asia::Shanghai;

    use super::*;

    #[test]
    fn numbers_and_times_are_named_in_both_languages_and_codes_are_left_to_the_sentence() {
        let evidence = serde_json::json!({
            "last_press_at": "2026-03-01T14:00:25Z", "presses": 2, "room": "bedroom", "confirmed": true, "planned": null,
            "band": "heart_rate_high", "priority": "P1", "own": "x", "minutes": 15.0, "own_limit": 19.2
        });
        let told = |language| {
            let rows = rows(evidence.as_object().unwrap(), Shanghai, language).into_iter();
            rows.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>()
        };
        let zh = [
            "同时有其他活动 是",
            "最近一次按下 03-01 22:00:25",
            "阈值（分钟） 15",
            "own x",
            "本人平时界限 19.2",
            "按下次数 2",
            "房间 卧室",
        ];
        assert_eq!(told(Language::Zh), zh);
        let en = [
            "other activity seen yes",
            "last press 03-01 22:00:25",
            "limit (minutes) 15",
            "own x",
            "own usual limit 19.2",
            "presses 2",
            "room bedroom",
        ];
        assert_eq!(told(Language::En), en);
    }
}
