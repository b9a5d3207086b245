use carebed_contract::finding::Priority;
use carebed_contract::id::{Area, BedId};
use carebed_contract::text::Text;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const MINUTE: i64 = 60;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_772_400_000_000 + seconds * 1000)
}

fn rule(detection: &str, priority: Priority, class: Class, suppressible: bool, wait_s: u64) -> Rule {
    Rule {
        detection: detection.to_owned(),
        priority,
        class,
        title: Text::new("标题", "title"),
        wording: Text::new("{n} 次", "{n} times"),
        words: BTreeMap::new(),
        suppressible,
        wait: Duration::from_secs(wait_s),
    }
}

/// A call (P1, never quiet), a bed exit (P2), a technical one (P3), one that asks the home first (P2).
fn policy() -> Policy {
    Policy::new([
        rule("call", Priority::P1, Class::Care, false, 0),
        rule("exit", Priority::P2, Class::Care, true, 0),
        rule("offline", Priority::P3, Class::Technical, true, 0),
        rule("asked", Priority::P2, Class::Care, true, 300),
    ])
}

fn finding(detection: &str, bed: &str, raised: i64, cleared: Option<i64>) -> Finding {
    Finding {
        detection: detection.to_owned(),
        subject: Subject::Bed(BedId::new(bed).unwrap()),
        home: HomeId::new("h1").unwrap(),
        area: Area::new("a1").unwrap(),
        raised_at: at(raised),
        cleared_at: cleared.map(at),
        evidence: json!({"n": 1}).as_object().unwrap().clone(),
    }
}

fn by(name: &str) -> OperatorId {
    OperatorId::new(name).unwrap()
}

/// A time line: alerts with their log.
struct Line {
    alerts: Alerts,
    log: Vec<Transition>,
}

impl Line {
    fn new() -> Self {
        Self { alerts: Alerts::new(policy()), log: Vec::new() }
    }

    /// All four detections ran over `h1`, whose data is known up to `known`.
    fn evaluated(known: i64) -> Evaluated {
        Evaluated {
            detections: ["call", "exit", "offline", "asked"].map(str::to_owned).into(),
            homes: [(HomeId::new("h1").unwrap(), at(known))].into(),
            since: Timestamp::MIN,
        }
    }

    /// Words for what happened.
    fn take(&mut self, transitions: Vec<Transition>) -> Vec<&'static str> {
        let words = transitions.iter().map(|t| word(&t.change)).collect();
        self.log.extend(transitions);
        words
    }

    fn apply(&mut self, now: i64, findings: &[Finding]) -> Vec<&'static str> {
        self.apply_known(now, now, findings)
    }

    fn apply_known(&mut self, now: i64, known: i64, findings: &[Finding]) -> Vec<&'static str> {
        let out = self.alerts.apply(findings, &Self::evaluated(known), |_| chrono_tz::Asia::Shanghai, at(now));
        self.take(out)
    }

    fn due(&mut self, now: i64) -> Vec<&'static str> {
        let out = self.alerts.due(at(now));
        self.take(out)
    }

    fn act(&mut self, now: i64, act: Act) -> Result<&'static str, Refused> {
        let id = self.only().id.clone();
        let transition = self.alerts.act(&id, act, by("王芳"), at(now))?;
        Ok(self.take(vec![transition])[0])
    }

    fn only(&self) -> &Alert {
        assert_eq!(self.alerts.alerts.len(), 1);
        self.alerts.alerts.values().next().unwrap()
    }
}

fn pressing(detection: &str, raised: i64, priority: &str) -> Finding {
    let evidence = json!({"n": 1, "priority": priority});
    Finding { evidence: evidence.as_object().unwrap().clone(), ..finding(detection, "b1", raised, None) }
}

#[test]
fn a_detection_says_how_pressing_its_finding_is_and_a_worse_one_raises_the_alert() {
    let mut line = Line::new();
    assert_eq!(line.apply(0, &[pressing("exit", 0, "P3")]), ["raised"]);
    assert_eq!(line.only().priority, Priority::P3);
    // P3 waits in its list; what has grown worse since does not.
    assert_eq!(line.due(20 * MINUTE), [""; 0]);
    assert_eq!(line.apply(20 * MINUTE, &[pressing("exit", 0, "P1")]), ["escalated", "updated"]);
    assert_eq!(line.only().priority, Priority::P1);
    // It does not become less pressing by itself.
    line.apply(21 * MINUTE, &[pressing("exit", 0, "P3")]);
    assert_eq!(line.only().priority, Priority::P1);
}

#[test]
fn a_second_finding_that_is_worse_raises_the_alert() {
    let mut line = Line::new();
    line.apply(0, &[pressing("exit", 0, "P2")]);
    let both = [pressing("exit", 0, "P2"), pressing("exit", 60, "P1")];
    assert_eq!(line.apply(60, &both), ["repeated", "escalated"]);
    assert_eq!(line.only().priority, Priority::P1);
}

#[test]
fn a_silent_device_rings_however_late_it_is_heard_of_and_however_little_is_known_of_the_home() {
    let mut line = Line::new();
    assert_eq!(line.apply_known(120 * MINUTE, 0, &[finding("offline", "b1", 0, None)]), ["raised", "rang"]);
    assert!(line.only().rings());
    // A care finding as late as that stays quiet until the home's data is known to be so recent.
    let mut line = Line::new();
    assert_eq!(line.apply_known(120 * MINUTE, 0, &[finding("exit", "b1", 0, None)]), ["raised"]);
    assert!(!line.only().rings());
}

#[test]
fn one_outage_is_one_alert_and_what_is_left_of_it_rings_by_itself() {
    let of = |suppressed: serde_json::Value| {
        let evidence = json!({"n": 1, "suppressed_by": suppressed});
        Finding { evidence: evidence.as_object().unwrap().clone(), ..finding("offline", "b1", 0, None) }
    };
    let mut line = Line::new();
    assert_eq!(line.apply(60, &[of(json!("gateway_outage"))]), ["raised"]);
    assert_eq!(line.only().suppressed.as_deref(), Some("gateway_outage"));
    assert_eq!(line.apply(600, &[of(json!(null))]), ["updated", "rang"]);
    assert!(line.only().rings());
}

fn word(change: &Change) -> &'static str {
    match change {
        Change::Raised(_) => "raised",
        Change::Opened { .. } => "opened",
        Change::Repeated { reopens: true, .. } => "reopened",
        Change::Repeated { .. } => "repeated",
        Change::Updated { .. } => "updated",
        Change::Cleared { reason: ClearReason::Recovered, .. } => "cleared",
        Change::Cleared { reason: ClearReason::LateData, .. } => "withdrawn",
        Change::HoldsAgain { .. } => "holds again",
        Change::Rang => "rang",
        Change::Reminded => "reminded",
        Change::Escalated { .. } => "escalated",
        Change::Acknowledged { .. } => "acknowledged",
        Change::Dispatched { .. } => "dispatched",
        Change::Arrived { .. } => "arrived",
        Change::Resolved { .. } => "resolved",
        Change::Reviewed { .. } => "reviewed",
    }
}

fn resolve() -> Act {
    Act::Resolve { outcome: Outcome::Verified, note: None }
}

#[test]
fn one_alert_from_press_to_review() {
    let mut line = Line::new();
    assert_eq!(line.apply(0, &[finding("call", "b1", 0, None)]), ["raised"]);
    assert_eq!(line.only().sentence, Text::new("1 次", "1 times"));
    assert!(line.only().rings());
    assert_eq!(line.act(10, Act::Acknowledge), Ok("acknowledged"));
    assert!(!line.only().rings());
    assert_eq!(line.act(20, Act::Dispatch), Ok("dispatched"));
    assert_eq!(line.act(30, Act::Arrive), Ok("arrived"));
    assert_eq!(line.apply(40, &[finding("call", "b1", 0, Some(35))]), ["cleared"]);
    assert_eq!(line.act(50, resolve()), Ok("resolved"));
    assert_eq!(line.act(60, Act::Review { note: Some(" 处置及时 ".to_owned()) }), Ok("reviewed"));
    let alert = line.only();
    assert_eq!((alert.state, alert.outcome), (State::Reviewed, Some(Outcome::Verified)));
    assert_eq!(alert.notes, ["处置及时"]);
    assert!(line.alerts.open().is_empty());
    assert_eq!(line.alerts.next_due(), None);
}

#[test]
fn steps_out_of_turn_are_refused_with_who_and_when() {
    let already = |state, seconds| Err(Refused::Already { state, by: Some(by("王芳")), at: at(seconds) });
    let too_early = |state, needs| Err(Refused::TooEarly { state, needs });
    let mut line = Line::new();
    line.apply(0, &[finding("call", "b1", 0, None)]);
    assert_eq!(line.act(5, resolve()), too_early(State::Open, State::Acknowledged));
    assert_eq!(line.act(5, Act::Dispatch), too_early(State::Open, State::Acknowledged));
    line.act(10, Act::Acknowledge).unwrap();
    assert_eq!(line.act(11, Act::Acknowledge), already(State::Acknowledged, 10));
    assert_eq!(line.act(12, Act::Review { note: None }), too_early(State::Acknowledged, State::Resolved));
    line.act(20, Act::Arrive).unwrap();
    assert_eq!(line.act(21, Act::Dispatch), already(State::OnSite, 20));
    let recovered = Act::Resolve { outcome: Outcome::Recovered, note: None };
    assert_eq!(line.act(22, recovered), Err(Refused::NotAChoice));
    let long = Act::Resolve { outcome: Outcome::Other, note: Some("长".repeat(NOTE_LENGTH_MAX + 1)) };
    assert_eq!(line.act(22, long), Err(Refused::NoteTooLong));
    line.act(30, resolve()).unwrap();
    assert_eq!(line.act(31, Act::Acknowledge), already(State::Acknowledged, 10));
    assert_eq!(line.act(31, resolve()), already(State::Resolved, 30));
    let unknown = AlertId::of(&finding("call", "b9", 0, None));
    let refused = line.alerts.act(&unknown, Act::Acknowledge, by("王芳"), at(32));
    assert_eq!(refused, Err(Refused::Unknown(unknown)));
}

#[test]
fn a_finding_is_told_once_and_a_resolved_one_never_again() {
    let mut line = Line::new();
    let press = finding("call", "b1", 0, None);
    assert_eq!(line.apply(0, std::slice::from_ref(&press)), ["raised"]);
    assert!(line.apply(0, std::slice::from_ref(&press)).is_empty());
    assert!(line.apply(20, &[press.clone(), press.clone()]).is_empty());
    line.act(30, Act::Acknowledge).unwrap();
    line.act(40, resolve()).unwrap();
    assert!(line.apply(50, std::slice::from_ref(&press)).is_empty(), "a resolved finding came back");
    assert_eq!(line.apply(60, &[press, finding("call", "b1", 55, None)]), ["raised"]);
}

#[test]
fn a_second_press_is_counted_and_told() {
    let mut line = Line::new();
    let first = press(0, Some(1));
    line.apply(0, std::slice::from_ref(&first));
    assert_eq!(line.apply(9, &[first.clone(), press(8, None)]), ["repeated"]);
    assert_eq!((line.only().repeats(), line.only().cleared_at()), (1, None));
    assert!(line.apply(9, &[press(8, None), first.clone()]).is_empty());
    line.act(20, Act::Acknowledge).unwrap();
    // Soon after, the operator is at it; much later, the acknowledgement says nothing about this press.
    let second = press(8, Some(9));
    let third = press(55, None);
    let so_far = [first.clone(), second.clone(), third.clone()];
    assert_eq!(line.apply(60, &so_far), ["cleared", "repeated"]);
    assert_eq!(line.only().state, State::Acknowledged);
    let fourth = press(20 * MINUTE - 5, None);
    assert_eq!(line.apply(20 * MINUTE, &[first, second, third, fourth]), ["reopened"]);
    assert!(line.only().rings());
    assert_eq!(line.due(25 * MINUTE), ["reminded"]);
}

fn press(raised: i64, cleared: Option<i64>) -> Finding {
    let mut press = finding("call", "b1", raised, cleared);
    press.evidence.insert(HAPPENED_AGAIN_AT.to_owned(), json!(at(raised).to_string()));
    press
}

#[test]
fn an_emergency_under_another_is_told_again_until_somebody_acknowledges_it() {
    let fall = |raised| finding("call", "b1", raised, None);
    let exit = |raised| finding("exit", "b1", raised, None);
    /// What happens, what was done before, what is found then, and whether it is told again.
    type Case = (&'static str, &'static [Act], fn(i64) -> Finding, bool);
    let table: &[Case] = &[
        ("a fall that is seen to", &[Act::Acknowledge], fall, true),
        ("a press that is being called back", &[Act::Acknowledge], |raised| press(raised, None), false),
        ("a press while help is on its way", &[Act::Acknowledge, Act::Dispatch], |raised| press(raised, None), true),
        ("a press while help is there", &[Act::Acknowledge, Act::Arrive], |raised| press(raised, None), true),
        ("a fall while help is there", &[Act::Acknowledge, Act::Dispatch, Act::Arrive], fall, true),
        ("what may be quiet, while help is on its way", &[Act::Acknowledge, Act::Dispatch], exit, false),
    ];
    for (case, steps, finding, is_told) in table {
        let mut line = Line::new();
        line.apply(0, &[finding(0)]);
        for step in *steps {
            line.act(10, step.clone()).unwrap();
        }
        let both = [finding(0), finding(100)];
        assert_eq!(line.apply(100, &both), [if *is_told { "reopened" } else { "repeated" }], "{case}");
        assert_eq!(line.only().rings(), *is_told, "{case}");
        if !is_told {
            continue;
        }
        assert_eq!(line.due(100 + 5 * MINUTE), ["reminded"], "{case}");
        assert_eq!(line.due(100 + 10 * MINUTE), ["reminded"], "{case}");
        line.act(100 + 11 * MINUTE, Act::Acknowledge).unwrap();
        assert_eq!(line.due(100 + 60 * MINUTE), [""; 0], "{case}");
        line.act(100 + 61 * MINUTE, Act::Arrive).unwrap();
        line.act(100 + 62 * MINUTE, resolve()).unwrap();
    }
}

#[test]
fn a_press_that_a_finding_joins_to_the_first_is_told_all_the_same() {
    let call = |last: i64, presses: i64, cleared| {
        let mut finding = finding("call", "b1", 0, cleared);
        finding.evidence.insert(HAPPENED_AGAIN_AT.to_owned(), json!(at(last).to_string()));
        finding.evidence.insert("n".to_owned(), json!(presses));
        finding
    };
    let mut line = Line::new();
    assert_eq!(line.apply(0, &[call(0, 1, None)]), ["raised"]);
    assert_eq!(line.apply(5, &[call(5, 2, None)]), ["repeated"]);
    assert_eq!(line.only().sentence.zh, "2 次");
    assert!(line.apply(6, &[call(5, 2, None)]).is_empty());
    // The press at 5 is still in the finding, though it names a later one now.
    assert_eq!(line.apply(50, &[call(48, 3, None)]), ["repeated"]);
    line.act(60, Act::Acknowledge).unwrap();
    line.act(70, resolve()).unwrap();
    assert!(line.apply(80, &[call(48, 3, None)]).is_empty());
    assert_eq!(line.apply(90, &[call(89, 4, None)]), ["raised"], "a press after the alert was resolved is a new call");
    assert!(line.alerts.open()[0].rings());
    assert!(line.apply(91, &[call(89, 4, None)]).is_empty());
    assert_eq!(line.apply(700, &[call(89, 4, Some(689))]), ["cleared"]);
}

#[test]
fn the_queue_shows_the_pressing_and_the_untouched_first() {
    let mut line = Line::new();
    line.apply(
        100,
        &[finding("exit", "b1", 0, None), finding("call", "b2", 60, None), finding("call", "b3", 80, None)],
    );
    let first = line.alerts.open()[0].id.clone();
    line.alerts.act(&first, Act::Acknowledge, by("王芳"), at(101)).unwrap();
    let order: Vec<_> =
        line.alerts.open().iter().map(|alert| (alert.priority, alert.state, alert.subject.to_string())).collect();
    let of = |priority, state, bed: &str| (priority, state, format!("bed/{bed}"));
    let expected = [
        of(Priority::P1, State::Open, "b3"),
        of(Priority::P1, State::Acknowledged, "b2"),
        of(Priority::P2, State::Open, "b1"),
    ];
    assert_eq!(order, expected);
}

#[test]
fn a_stuck_button_does_not_fill_the_log() {
    let mut line = Line::new();
    let presses: Vec<_> = (0..1500).map(|s| finding("call", "b1", s, Some(s))).collect();
    line.apply(1500, &presses);
    assert_eq!(line.log.len(), 1 + REPEATS_MAX);
    line.act(1501, Act::Acknowledge).unwrap();
    line.act(1502, resolve()).unwrap();
    assert!(line.apply(1503, &presses).is_empty(), "what was not counted came back as new");
    assert_eq!(line.apply(1510, &[finding("call", "b1", 1505, None)]), ["raised"]);
}

#[test]
fn a_call_that_nobody_answers_is_told_again_when_the_standard_wants_it_answered() {
    let mut line = Line::new();
    line.apply(0, &[finding("call", "b1", 0, None)]);
    let mut told = Vec::new();
    for second in 0..1_000 {
        let due = line.due(second);
        assert!(due.is_empty() || due == ["reminded"], "{due:?}");
        told.extend((!due.is_empty()).then_some(second));
    }
    assert_eq!(told, [60, 180, 480, 780]);
}

#[test]
fn nobody_acts() {
    let mut line = Line::new();
    line.apply(0, &[finding("exit", "b1", 0, None)]);
    assert_eq!(line.alerts.next_due(), Some(at(300)));
    assert!(line.due(299).is_empty());
    assert_eq!(line.due(300), ["escalated"]);
    assert_eq!(line.only().priority, Priority::P1);
    assert!(line.due(599).is_empty());
    assert_eq!(line.due(600), ["reminded"]);
    // The centre slept for hours: one reminder, not one for each that was missed.
    assert_eq!(line.due(20_000), ["reminded"]);
    assert_eq!(line.alerts.next_due(), Some(at(20_300)));
    line.act(20_010, Act::Acknowledge).unwrap();
    assert_eq!(line.alerts.next_due(), None);
    assert!(line.due(30_000).is_empty());
}

#[test]
fn care_latches_and_equipment_recovers() {
    let mut line = Line::new();
    line.apply(0, &[finding("exit", "b1", 0, None)]);
    assert_eq!(line.apply(60, &[finding("exit", "b1", 0, Some(50))]), ["cleared"]);
    assert_eq!((line.only().state, line.only().cleared_at()), (State::Open, Some(at(50))));
    assert_eq!(line.due(300), ["escalated"], "a cleared care alert still wants an acknowledgement");
    let mut line = Line::new();
    line.apply(0, &[finding("offline", "b1", 0, None)]);
    assert_eq!(line.apply(60, &[finding("offline", "b1", 0, Some(50))]), ["cleared", "resolved"]);
    assert_eq!(line.only().outcome, Some(Outcome::Recovered));
}

#[test]
fn late_data_withdraws_only_what_was_looked_at() {
    let mut line = Line::new();
    line.apply(0, &[finding("exit", "b1", 0, None)]);
    let out = line.alerts.apply(&[], &Evaluated::default(), |_| chrono_tz::UTC, at(10));
    assert!(out.is_empty(), "nothing was evaluated, so nothing is over");
    let elsewhere = Evaluated { homes: [(HomeId::new("h2").unwrap(), at(10))].into(), ..Line::evaluated(10) };
    assert!(line.alerts.apply(&[], &elsewhere, |_| chrono_tz::UTC, at(10)).is_empty());
    let not_so_far_back = Evaluated { since: at(1), ..Line::evaluated(10) };
    assert!(
        line.alerts.apply(&[], &not_so_far_back, |_| chrono_tz::UTC, at(10)).is_empty(),
        "a restart forgets no alert"
    );
    assert_eq!(line.apply(20, &[]), ["withdrawn"]);
    assert_eq!(line.only().state, State::Open, "a care alert waits for a person all the same");
    assert_eq!(line.apply(30, &[finding("exit", "b1", 0, None)]), ["holds again"]);
}

#[test]
fn who_presses_again_is_taken_before_who_pressed_once() {
    let mut line = Line::new();
    line.apply(0, &[finding("call", "b1", 0, Some(1))]);
    line.apply(10, &[finding("call", "b1", 0, Some(1)), finding("call", "b2", 10, Some(11))]);
    let order = |line: &Line| line.alerts.open().iter().map(|a| a.subject.to_string()).collect::<Vec<_>>();
    assert_eq!(order(&line), ["bed/b1", "bed/b2"]);
    let pressed =
        [finding("call", "b1", 0, Some(1)), finding("call", "b2", 10, Some(11)), finding("call", "b2", 30, None)];
    line.apply(30, &pressed);
    assert_eq!(order(&line), ["bed/b2", "bed/b1"]);
}

#[test]
fn what_somebody_said_is_not_unsaid_by_what_comes_later() {
    // After a restart a press from a wrong clock is not found again where it rang.
    let mut line = Line::new();
    line.apply(0, &[finding("call", "b1", 0, None)]);
    assert!(line.apply(20, &[]).is_empty());
    assert_eq!(line.only().cleared_at(), None);
    // A hazard that must last to count rests on more than a word.
    let mut water = finding("call", "b1", 0, None);
    water.evidence.insert(PRIORITY.to_owned(), json!("P2"));
    let mut line = Line::new();
    line.apply(0, &[water]);
    assert_eq!(line.apply(20, &[]), ["withdrawn"]);
}

#[test]
fn what_comes_late_rings_only_if_it_matters_now() {
    let late = 40 * MINUTE;
    for (detection, cleared, known, rings) in [
        ("exit", Some(600), late, false),          // over: recorded
        ("exit", None, 5 * MINUTE, false),         // the backlog is still coming in: who knows
        ("exit", None, late, true),                // known to hold now
        ("call", Some(1), 5 * MINUTE, true),       // a call always rings
        ("exit", None, late - 30 * MINUTE, true),  // known to hold shortly before
        ("exit", None, late - 31 * MINUTE, false), // known to hold too long before
    ] {
        let mut line = Line::new();
        line.apply_known(late, known, &[finding(detection, "b1", 0, cleared)]);
        assert!(line.only().late);
        assert_eq!(line.only().rings(), rings, "{detection} cleared {cleared:?} known to {known}");
        assert_eq!(line.alerts.next_due().is_some(), rings);
    }
    let mut line = Line::new();
    line.apply(30 * MINUTE, &[finding("exit", "b1", 0, Some(600))]);
    assert!(line.only().rings() && !line.only().late, "exactly at the limit is not late");
    // A quiet late alert does not swallow a fresh one.
    let mut line = Line::new();
    let old = finding("exit", "b1", 0, Some(60));
    line.apply(late, std::slice::from_ref(&old));
    line.apply(late + 10, &[old, finding("exit", "b1", late + 5, Some(late + 8))]);
    assert!(line.only().rings());
}

#[test]
fn suppression_keeps_quiet_what_may_be_quiet() {
    let away = |detection| {
        let mut finding = finding(detection, "b1", 0, None);
        finding.evidence.insert(SUPPRESSED_BY.to_owned(), json!("away"));
        finding
    };
    let mut line = Line::new();
    assert_eq!(line.apply(0, &[away("exit")]), ["raised"]);
    assert_eq!((line.only().rings(), line.only().suppressed.as_deref()), (false, Some("away")));
    assert_eq!(line.apply(1, &[finding("exit", "b1", 0, None)]), ["updated", "rang"]);
    assert!(line.only().rings());
    assert_eq!(line.apply(2, &[away("exit")]), ["updated"]);
    assert!(!line.only().rings());
    let mut line = Line::new();
    line.apply(0, &[away("call")]);
    assert_eq!((line.only().rings(), line.only().suppressed.as_deref()), (true, None), "nothing suppresses a call");
}

#[test]
fn the_home_is_asked_first() {
    let mut line = Line::new();
    assert_eq!(line.apply(0, &[finding("asked", "b1", 0, None)]), ["raised"]);
    assert_eq!((line.only().state, line.alerts.open().len()), (State::Waiting, 0));
    let refused = line.act(10, Act::Acknowledge);
    assert_eq!(refused, Err(Refused::TooEarly { state: State::Waiting, needs: State::Open }));
    assert_eq!(line.due(300), ["opened"]);
    assert!(line.only().rings());
    let mut line = Line::new();
    line.apply(0, &[finding("asked", "b1", 0, None)]);
    assert_eq!(line.apply(100, &[finding("asked", "b1", 0, Some(90))]), ["cleared", "resolved"]);
    assert_eq!(line.alerts.next_due(), None);
}

#[test]
fn evidence_that_counts_does_not_fill_the_log() {
    let mut line = Line::new();
    let mut n_told = 0;
    for second in 0..300 {
        let mut finding = finding("exit", "b1", 0, None);
        finding.evidence.insert("n".to_owned(), json!(second));
        n_told += line.apply(second, &[finding]).len();
    }
    assert_eq!(n_told, 1 + 9);
    assert_eq!(line.only().sentence.zh, "270 次");
}

#[test]
fn a_detection_without_a_rule_is_not_dropped() {
    let mut line = Line::new();
    line.apply(0, &[finding("new_one", "b1", 0, None)]);
    assert!(line.only().rings() && line.only().title.zh.contains("new_one"));
}

#[test]
fn resolved_alerts_are_forgotten_and_their_findings_stay_history() {
    let mut line = Line::new();
    let press = finding("call", "b1", 0, Some(1));
    line.apply(0, std::slice::from_ref(&press));
    line.act(1, Act::Acknowledge).unwrap();
    line.act(2, resolve()).unwrap();
    let later = i64::try_from(MEMORY.as_secs()).unwrap() + 10;
    let new = finding("call", "b2", later, None);
    assert_eq!(line.apply(later, &[press.clone(), new.clone()]), ["raised"]);
    assert_eq!((line.alerts.alerts.len(), line.alerts.seen.len()), (1, 1));
    assert!(line.apply(later + 1, &[press, new]).is_empty());
}

#[test]
fn a_log_that_contradicts_itself_is_refused() {
    let mut line = Line::new();
    line.apply(0, &[finding("call", "b1", 0, None)]);
    line.act(1, Act::Acknowledge).unwrap();
    let [raised, acknowledged] = line.log.try_into().unwrap();
    let replay = |log: &[&Transition]| Alerts::replay(policy(), log.iter().copied());
    assert!(matches!(replay(&[&raised, &raised]), Err(ReplayError::Order { last: 1, found: 1 })));
    assert!(matches!(replay(&[&acknowledged]), Err(ReplayError::NeverRaised { number: 2, .. })));
}

/// What may happen, in any order.
#[derive(Debug, Clone)]
enum Event {
    /// Findings as (detection, bed, seconds before now, cleared?, evidence), and how far behind the home is known.
    Apply(Vec<(usize, usize, i64, bool, u8)>, i64),
    Due,
    Act(usize, Act),
}

fn event() -> impl Strategy<Value = Event> {
    let finding = (0usize..4, 0usize..3, 0i64..4000, any::<bool>(), 0u8..3);
    prop_oneof![
        3 => (prop::collection::vec(finding, 0..5), 0i64..4000).prop_map(|(f, behind)| Event::Apply(f, behind)),
        1 => Just(Event::Due),
        3 => (any::<usize>(), act()).prop_map(|(alert, act)| Event::Act(alert, act)),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Acknowledge),
        Just(Act::Dispatch),
        Just(Act::Arrive),
        Just(Act::Resolve { outcome: Outcome::FalseAlarm, note: Some("猫".to_owned()) }),
        Just(Act::Review { note: None }),
    ]
}

/// One finding per name, as a detection returns them; raised on whole minutes, so that the same comes again.
fn findings(now: i64, drawn: Vec<(usize, usize, i64, bool, u8)>) -> Vec<Finding> {
    let mut findings = BTreeMap::new();
    for (detection, bed, ago, cleared, n) in drawn {
        let raised = (now - ago).div_euclid(60) * 60;
        let detection = ["call", "exit", "offline", "asked"][detection];
        let mut finding = finding(detection, ["b1", "b2", "b3"][bed], raised, cleared.then_some(raised + 30));
        finding.evidence.insert("n".to_owned(), json!(n));
        if n == 2 {
            finding.evidence.insert(SUPPRESSED_BY.to_owned(), json!("away"));
        }
        if detection == "call" {
            finding.evidence.insert(HAPPENED_AGAIN_AT.to_owned(), json!(at(raised + 60 * i64::from(n)).to_string()));
        }
        findings.insert((detection, bed, raised), finding);
    }
    findings.into_values().collect()
}

/// Numbers have no gap; one alert at a time per detection and subject; nothing comes back after resolving; care that
/// was told is resolved by a person who acknowledged it.
fn check_log(line: &Line) {
    let mut states: BTreeMap<&AlertId, State> = BTreeMap::new();
    let mut standing: BTreeMap<Key, &AlertId> = BTreeMap::new();
    for (place, transition) in line.log.iter().enumerate() {
        assert_eq!(transition.number, place as u64 + 1);
        let before = states.get(&transition.alert).copied();
        let after = match &transition.change {
            Change::Raised(raised) => {
                let key = (raised.detection.clone(), raised.subject.clone());
                assert!(standing.insert(key, &transition.alert).is_none(), "two alerts stand for one thing");
                assert!(before.is_none(), "one alert was raised twice");
                if raised.opens_at.is_some() { State::Waiting } else { State::Open }
            }
            Change::Opened { .. } | Change::Repeated { reopens: true, .. } => State::Open,
            change => change.leads_to().or(before).unwrap(),
        };
        if before.is_some_and(|before| before >= State::Resolved) {
            assert_eq!(after, State::Reviewed, "a resolved alert moved");
        }
        if let Change::Resolved { by, .. } = &transition.change {
            let alert = line.alerts.get(&transition.alert).unwrap();
            standing.remove(&(alert.detection.clone(), alert.subject.clone()));
            if alert.class == Class::Care && before != Some(State::Waiting) {
                assert!(by.is_some() && before >= Some(State::Acknowledged), "a latched alert let go");
            }
        }
        states.insert(&transition.alert, after);
    }
    for (id, state) in states {
        assert_eq!(line.alerts.get(id).unwrap().state, state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn any_history_keeps_the_rules(events in prop::collection::vec((event(), 0i64..1500), 1..60)) {
        let mut line = Line::new();
        let mut now = 0;
        for (event, pause) in events {
            now += pause;
            match event {
                Event::Apply(drawn, behind) => {
                    let findings = findings(now, drawn);
                    line.apply_known(now, now - behind, &findings);
                    prop_assert!(line.apply_known(now, now - behind, &findings).is_empty(), "apply twice added something");
                    let reversed: Vec<_> = findings.iter().rev().cloned().collect();
                    prop_assert!(line.apply_known(now, now - behind, &reversed).is_empty(), "the order of findings matters");
                }
                Event::Due => {
                    // Each round raises a priority, opens, or moves a timer into the future: it ends.
                    let rounds = (0..10).take_while(|_| !line.due(now).is_empty()).count();
                    prop_assert!(rounds < 10);
                    prop_assert!(line.alerts.next_due().is_none_or(|due| due > at(now)));
                }
                Event::Act(which, act) => {
                    let ids: Vec<_> = line.alerts.alerts.keys().cloned().collect();
                    if let Some(id) = ids.get(which % ids.len().max(1))
                        && let Ok(transition) = line.alerts.act(id, act, by("李强"), at(now))
                    {
                        line.take(vec![transition]);
                    }
                }
            }
        }
        // The log alone gives the same state; through JSON, as it is kept.
        let json: Vec<_> = line.log.iter().map(|t| serde_json::to_string(t).unwrap()).collect();
        let kept: Vec<Transition> = json.iter().map(|t| serde_json::from_str(t).unwrap()).collect();
        prop_assert_eq!(&kept, &line.log);
        prop_assert_eq!(&Alerts::replay(policy(), &kept).unwrap(), &line.alerts);
        check_log(&line);
    }
}
