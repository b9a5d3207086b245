//! From a wording template and a finding's evidence to a sentence.
//!
//! `{name}` is replaced by the evidence of that name; `{home}`, `{bed}` and `{raised_at}` come from the finding
//! itself. A text that is an RFC 3339 time becomes local time of day (with the date when it is not the day of
//! `raised_at`), a number loses needless decimals, a flag becomes 是/否, a code is called what the rule's words call it.
//! What is not there becomes 未知.

use std::collections::BTreeMap;

use carebed_contract::finding::{Finding, Subject};
use carebed_contract::text::{Language, Text};
use carebed_contract::time::Timestamp;
use chrono::{DateTime, Datelike as _};
use chrono_tz::Tz;
use serde_json::Value;

/// Longest sentence kept, in characters; what is over is cut and ends in `…`.
pub const LENGTH_MAX: usize = 500;

/// What a detection's codes are called: evidence whose text is one of these is worded.
pub type Words = BTreeMap<String, Text>;

/// Renders a template in both languages, times in `zone`.
#[must_use]
pub fn render(template: &Text, words: &Words, finding: &Finding, zone: Tz) -> Text {
    let fill = |language| cut(&fill(template.get(language), words, finding, zone, language));
    Text::new(fill(Language::Zh), fill(Language::En))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn fill(template: &str, words: &Words, finding: &Finding, zone: Tz, language: Language) -> String {
    let mut sentence = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, opened)) = rest.split_once('{') {
        sentence.push_str(before);
        let Some((name, after)) = opened.split_once('}') else {
            // A brace that nobody closes is text.
            sentence.push('{');
            rest = opened;
            continue;
        };
        sentence.push_str(&value(name, words, finding, zone, language));
        rest = after;
    }
    sentence.push_str(rest);
    sentence
}

fn value(name: &str, words: &Words, finding: &Finding, zone: Tz, language: Language) -> String {
    let unknown = || Text::new("未知", "unknown").get(language).to_owned();
    match finding.evidence.get(name) {
        Some(Value::String(text)) => match Timestamp::parse(text) {
            Some(at) => local(at, finding.raised_at, zone, language).unwrap_or_else(unknown),
            None => match words.get(text) {
                Some(word) => word.get(language).to_owned(),
                None if name == "room" => room(text).map_or_else(|| text.clone(), |word| word.get(language).to_owned()),
                None => text.clone(),
            },
        },
        Some(Value::Number(number)) => match number.as_f64() {
            Some(number) if number.fract().abs() < 0.05 => format!("{number:.0}"),
            Some(number) => format!("{number:.1}"),
            None => number.to_string(),
        },
        Some(Value::Bool(flag)) => yes_or_no(*flag).get(language).to_owned(),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) => unknown(),
        None => match (name, &finding.subject) {
            ("home", _) => finding.home.to_string(),
            ("bed", Subject::Bed(bed)) => bed.to_string(),
            ("device", Subject::Device { device, .. }) => device.to_string(),
            ("area", _) => finding.area.to_string(),
            ("raised_at", _) => local(finding.raised_at, finding.raised_at, zone, language).unwrap_or_else(unknown),
            _ => unknown(),
        },
    }
}

/// Whether something is so.
#[must_use]
pub fn yes_or_no(is_so: bool) -> Text {
    if is_so { Text::new("是", "yes") } else { Text::new("否", "no") }
}

/// What the rooms of most home files are called; none for a name of one's own.
#[must_use]
pub fn room(id: &str) -> Option<Text> {
    let (zh, en) = match id {
        "bathroom" | "toilet" => ("卫生间", "bathroom"),
        "bedroom" => ("卧室", "bedroom"),
        "living" => ("客厅", "living room"),
        "kitchen" => ("厨房", "kitchen"),
        "entrance" => ("门厅", "entrance"),
        _ => return None,
    };
    Some(Text::new(zh, en))
}

fn local(at: Timestamp, reference: Timestamp, zone: Tz, language: Language) -> Option<String> {
    let zoned = |t: Timestamp| DateTime::from_timestamp_millis(t.millis()).map(|t| t.with_timezone(&zone));
    let (at, reference) = (zoned(at)?, zoned(reference)?);
    let time = at.format("%H:%M");
    Some(match language {
        _ if at.date_naive() == reference.date_naive() => time.to_string(),
        Language::Zh => format!("{}月{}日 {time}", at.month(), at.day()),
        Language::En => format!("{} {time}", at.format("%-d %b")),
    })
}

#[cfg(test)]
mod tests {
    use carebed_contract::id::{Area, BedId, HomeId};
    use serde_json::json;

    use super::*;

    fn check(template: &str, zh: &str) {
        let evidence = json!({
            "exit_at": "2026-03-01T22:15:00Z", "minutes": 31.0, "hours": 12.25, "confirmed": false, "room": "卧室",
            "nested": {"a": 1}, "what": "smoke", "place": "kitchen",
        });
        let finding = Finding {
            detection: "d".to_owned(),
            subject: Subject::Bed(BedId::new("b1").unwrap()),
            home: HomeId::new("h1").unwrap(),
            area: Area::new("a1").unwrap(),
            raised_at: Timestamp::parse("2026-03-01T16:45:00Z").unwrap(),
            cleared_at: None,
            evidence: evidence.as_object().unwrap().clone(),
        };
        let zone = chrono_tz::Asia::Shanghai;
        let words = Words::from([("smoke".to_owned(), Text::new("烟雾", "smoke"))]);
        assert_eq!(render(&Text::new(template, template), &words, &finding, zone).zh, zh);
    }

    #[test]
    fn templates_become_sentences() {
        check("{exit_at} 离床，已 {minutes} 分钟", "06:15 离床，已 31 分钟");
        check("{hours} 小时，{room}，已证实：{confirmed}", "12.2 小时，卧室，已证实：否");
        check("{what}，{place}", "烟雾，kitchen");
        check("{home}/{bed} {raised_at}", "h1/b1 00:45");
        check("{nothing} {nested}", "未知 未知");
        check("{open 和 }", "未知");
        check("没有 {", "没有 {");
        check(&"长".repeat(600), &format!("{}…", "长".repeat(500)));
    }

    #[test]
    fn another_day_is_named() {
        let at = Timestamp::parse("2026-02-28T01:00:00Z").unwrap();
        let now = Timestamp::parse("2026-03-01T01:00:00Z").unwrap();
        let zone = chrono_tz::Asia::Shanghai;
        assert_eq!(local(at, now, zone, Language::Zh).unwrap(), "2月28日 09:00");
        assert_eq!(local(at, now, zone, Language::En).unwrap(), "28 Feb 09:00");
    }
}
