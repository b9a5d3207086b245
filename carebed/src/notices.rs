//! What the centre is told, or notices of itself, that no detection looks for: losses of calls, troubles of gateways, homes that
//! contradict each other. Each is a technical alert.

use std::collections::BTreeMap;
use std::time::Duration;

use carebed_alerts::Evaluated;
use carebed_alerts::rule::Rule;
use carebed_contract::digest::Digest;
use carebed_contract::finding::{Class, Finding, Priority, Subject};
use carebed_contract::id::{Area, DeviceId, GatewayId, HomeId};
use carebed_contract::status::Status;
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;

/// Calls of a home may be lost.
const CALLS_LOST: &str = "calls_lost";
/// A gateway tells a trouble of its own.
const TROUBLE: &str = "gateway_trouble";
/// A gateway or a bed was taken from another home, or could not be.
const MOVED: &str = "home_moved";

/// How the notices are told.
pub(crate) fn rules() -> [Rule; 3] {
    let rule = |detection: &str, priority, title, wording, words: &[(&str, &str, &str)]| Rule {
        detection: detection.to_owned(),
        priority,
        class: Class::Technical,
        title,
        wording,
        words: words.iter().map(|(word, zh, en)| ((*word).to_owned(), Text::new(*zh, *en))).collect(),
        suppressible: false,
        wait: Duration::ZERO,
    };
    [
        rule(
            CALLS_LOST,
            Priority::P2,
            Text::new("可能丢失呼叫", "Calls may be lost"),
            Text::new(
                "该户网关的紧急数据{trouble}，可能丢失呼叫。请电话联系老人确认平安，再安排检修。",
                "Of the urgent data of this home's gateway {trouble}: calls for help may be lost. Telephone the person, then send a technician.",
            ),
            &[
                ("released", "有一部分未送达即已丢弃", "some was given up before it was sent"),
                ("epoch_left", "因缓存更换而去向不明", "some has gone astray, because its store was replaced"),
                ("unreadable", "有一条无法读取", "a message could not be read"),
            ],
        ),
        rule(
            TROUBLE,
            Priority::P3,
            Text::new("网关自报故障", "A gateway reports a trouble"),
            Text::new(
                "该户网关自报{trouble}。原始信息：{why}。请安排检修。",
                "The gateway of this home reports {trouble}: {why}. Send a technician.",
            ),
            &[
                ("lost", "数据已有丢失", "a loss of data"),
                (
                    "memory_only",
                    "磁盘故障，数据仅存于内存，断电即丢失",
                    "a failed disk: its data is in memory only, and lost when power goes",
                ),
                ("copied", "设备疑似被复制或磁盘被还原", "that it may be a copied box or a restored disk"),
                ("clock", "时钟不准", "a wrong clock"),
                ("settings", "配置变更未生效", "settings that were not taken up"),
                ("other", "异常", "something unusual"),
            ],
        ),
        rule(
            MOVED,
            Priority::P3,
            Text::new("家庭登记冲突", "Homes contradict each other"),
            Text::new(
                "该户{trouble}（{why}）。请核对相关家庭的网关、床位、人员和电话。",
                "{trouble} ({why}). Check the gateways, beds, people and telephone numbers of the homes concerned.",
            ),
            &[
                (
                    "taken",
                    "的网关或床位原属另一户，现已改登记到本户",
                    "The gateway or a bed of this home was another home's until now",
                ),
                ("refused", "上报的家庭资料未能登记", "What this home says of itself could not be registered"),
            ],
        ),
    ]
}

/// A code that a wording names, and what was said in full.
fn finding(
    detection: &str,
    subject: Subject,
    (home, area): (HomeId, Area),
    at: Timestamp,
    said: [(&str, &str); 2],
) -> Finding {
    let evidence = said.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let detection = detection.to_owned();
    Finding { detection, subject, home, area, raised_at: at, cleared_at: None, evidence }
}

/// Urgent data of a gateway is missing or cannot be read: once more each time. `home` is the one that it serves, if that is known.
pub(crate) fn calls_lost(
    gateway: &GatewayId,
    home: Option<HomeId>,
    area: Area,
    at: Timestamp,
    trouble: &str,
) -> Option<Finding> {
    let (subject, home) = match home {
        Some(home) => (Subject::Home(home.clone()), home),
        None => (Subject::Centre(gateway.to_string()), HomeId::new(crate::failing::CENTRE).ok()?),
    };
    Some(finding(CALLS_LOST, subject, (home, area), at, [("trouble", trouble), ("gateway", gateway.as_str())]))
}

/// A home took a gateway or beds from another, or could not.
pub(crate) fn moved(home: HomeId, area: Area, at: Timestamp, trouble: &str, why: &str) -> Finding {
    finding(MOVED, Subject::Home(home.clone()), (home, area), at, [("trouble", trouble), ("why", why)])
}

/// What gateways said last of their troubles. Of registered homes only, so it is as large as the registry.
#[derive(Debug, Default)]
pub(crate) struct Troubles(BTreeMap<HomeId, (Timestamp, Vec<String>)>);

impl Troubles {
    /// Takes a status. What is new in it, to be told; a trouble that is no longer named is over. None when nothing has changed.
    pub(crate) fn take(&mut self, status: &Status, area: &Area) -> Option<(Vec<Finding>, Evaluated)> {
        let said = (status.since, status.troubles.clone());
        if self.0.get(&status.home) == Some(&said) {
            return None;
        }
        let findings = status.troubles.iter().filter_map(|what| {
            // Each is an alert of its own, the same after a restart of the centre.
            let digest = Digest::of_bytes(what.as_bytes()).to_string();
            let device = DeviceId::new(format!("gateway-{}", digest.get(..8)?)).ok()?;
            let subject = Subject::Device { home: status.home.clone(), device };
            let said = [("trouble", code(what)), ("why", what.as_str())];
            Some(finding(TROUBLE, subject, (status.home.clone(), area.clone()), status.since, said))
        });
        let findings = findings.collect();
        let homes = BTreeMap::from([(status.home.clone(), status.since)]);
        let evaluated = Evaluated { detections: [TROUBLE.to_owned()].into(), homes, since: Timestamp::MIN };
        self.0.insert(status.home.clone(), said);
        Some((findings, evaluated))
    }
}

/// Which of the worded troubles a gateway's sentence is about.
fn code(what: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| what.contains(word));
    if says(&["in memory only"]) {
        "memory_only"
    } else if says(&["copied box"]) {
        "copied"
    } else if says(&["lost", "given up"]) {
        "lost"
    } else if says(&["clock differs"]) {
        "clock"
    } else if says(&["cannot be used", "restart the gateway", "next start only"]) {
        "settings"
    } else {
        "other"
    }
}

#[cfg(test)]
mod tests {
    use carebed_alerts::Alerts;
    use carebed_alerts::policy::Policy;
    use carebed_contract::status::GatewayState;

    use super::*;

    fn status(since: i64, troubles: &[&str]) -> Status {
        let json = serde_json::json!({ "state": "online", "since": since, "home": "h1", "software": "", "troubles": troubles });
        let status: Status = serde_json::from_value(json).unwrap();
        assert_eq!(status.state, GatewayState::Online);
        status
    }

    #[test]
    fn a_trouble_is_told_once_in_both_languages_and_until_it_is_gone() {
        let area: Area = "360702".parse().unwrap();
        let mut alerts = Alerts::new(Policy::new(rules()));
        let mut now = 1_000_000;
        let mut take = |troubles: &mut Troubles, alerts: &mut Alerts, status: &Status| {
            now += 60_000;
            let Some((findings, evaluated)) = troubles.take(status, &area) else { return "nothing".to_owned() };
            alerts.apply(&findings, &evaluated, |_| chrono_tz::Asia::Shanghai, Timestamp::from_millis(now));
            let open = alerts.open();
            let rings = open.iter().filter(|alert| alert.rings() && alert.repeats() == 0).count();
            format!("{} open, {rings} ring", open.len())
        };
        let full = "the spool is full: the oldest observations are given up unsent";
        let disk =
            "EIO; observations are kept in memory only, under a new epoch; replace the disk or make room, then restart";
        let mut troubles = Troubles::default();
        assert_eq!(take(&mut troubles, &mut alerts, &status(1_000, &[])), "0 open, 0 ring");
        assert_eq!(take(&mut troubles, &mut alerts, &status(1_000, &[full])), "1 open, 1 ring");
        assert_eq!(take(&mut troubles, &mut alerts, &status(1_000, &[full])), "nothing");
        assert_eq!(take(&mut troubles, &mut alerts, &status(1_000, &[full, disk])), "2 open, 2 ring");
        let told: Vec<_> = alerts.open().iter().map(|alert| (alert.priority, alert.sentence.clone())).collect();
        assert!(told.iter().all(|(priority, _)| *priority == Priority::P3), "{told:?}");
        assert!(told.iter().any(|(_, text)| text.zh.starts_with("该户网关自报磁盘故障，数据仅存于内存")), "{told:?}");
        assert!(told.iter().any(|(_, text)| text.en.contains("a loss of data: the spool is full")), "{told:?}");
        // The centre is restarted, and hears the same once more.
        let mut troubles = Troubles::default();
        assert_eq!(take(&mut troubles, &mut alerts, &status(1_000, &[full, disk])), "2 open, 2 ring");
        // The gateway is restarted with a new disk.
        assert_eq!(take(&mut troubles, &mut alerts, &status(900_000, &[])), "0 open, 0 ring");
    }

    #[test]
    fn lost_calls_are_told_in_both_languages_each_time_until_somebody_has_telephoned() {
        let mut alerts = Alerts::new(Policy::new(rules()));
        for (minute, trouble) in [(1, "released"), (3, "unreadable"), (5, "epoch_left")] {
            let at = Timestamp::from_millis(60_000 * minute);
            let home = Some("h1".parse().unwrap());
            let lost = calls_lost(&"gw-1".parse().unwrap(), home, "360702".parse().unwrap(), at, trouble).unwrap();
            alerts.apply(&[lost], &Evaluated::default(), |_| chrono_tz::Asia::Shanghai, at);
            let [alert] = alerts.open()[..] else { panic!("{:?}", alerts.open()) };
            assert!(alert.rings() && alert.told_at == Some(at) && alert.priority == Priority::P2, "{alert:?}");
            assert!(alert.sentence.zh.contains("可能丢失呼叫。请电话联系"), "{}", alert.sentence.zh);
            assert!(!format!("{:?}", alert.sentence).contains(trouble), "a code is shown: {:?}", alert.sentence);
        }
        let unknown =
            calls_lost(&"gw-9".parse().unwrap(), None, "360702".parse().unwrap(), Timestamp::RELEASED, "released");
        assert_eq!(unknown.unwrap().subject, Subject::Centre("gw-9".to_owned()));
    }
}
