//! Every word of the pages, in both languages.

use carebed_contract::finding::Priority;
use carebed_contract::interval::IntervalKind;
use carebed_contract::status::GatewayState;
use carebed_contract::text::Language;

macro_rules! words {
    ($($name:ident: $zh:literal, $en:literal;)*) => {
        /// The words of one language.
        #[derive(Debug)]
        pub(crate) struct Words {
            $(pub(crate) $name: &'static str,)*
        }

        const ZH: Words = Words { $($name: $zh,)* };
        const EN: Words = Words { $($name: $en,)* };

        #[cfg(test)]
        const ALL: &[(&str, &str, &str)] = &[$((stringify!($name), $zh, $en),)*];
    };
}

words! {
    title: "家庭养老床位 · 值守台", "Family care beds · operator desk";
    skip: "跳到待处理告警", "Skip to the alerts";
    other_language: "English（英文）", "中文 (Chinese)";
    queue: "待处理告警", "Alerts to act on";
    empty: "目前没有待处理的告警。", "No alerts to act on right now.";
    empty_hint: "新告警会自动出现在这里，无需刷新页面。", "New alerts appear here by themselves; no need to reload.";
    more: "还有更多告警未显示，请先处理以上各条。未显示条数：", "More alerts are not shown; work through these first. Not shown:";
    resolved: "最近办结", "Resolved lately";
    homes: "住户与网关", "Homes and gateways";
    no_homes: "尚未登记住户（系统中没有可值守的床位）。", "No homes are registered yet, so no bed is being watched.";
    operator: "值守人员（姓名）", "Operator (your name)";
    operator_missing: "请先在页面上方填写值守人员姓名，再进行操作。", "Enter your name at the top of the page first.";
    sound_is_on: "提示音已开", "Sound is on";
    sound_is_off: "提示音已关，点击打开", "Sound is off: turn on";
    connecting: "正在连接服务中心…", "Connecting to the service centre…";
    connected: "连接正常", "Connected";
    disconnected: "连接中断", "Disconnected";
    lost: "与服务中心的连接已中断！页面内容可能已经过时，新的呼叫不会显示在这里。请立即改用电话值守并联系运维人员。", "Connection to the service centre is lost! This page may be out of date and new calls will not appear. Switch to the telephone and call the maintainers now.";
    lost_since: "最后一次收到数据：", "Last heard:";
    log_failing: "告警日志暂时无法写入磁盘。告警仍会显示，请立即联系运维人员检查磁盘空间。开始时间：", "The alert log cannot be written to disk. Alerts are still shown; ask the maintainers to check the disk now. Since:";
    flood: "告警高峰：近 10 分钟新告警", "Flood of alerts: new within 10 minutes:";
    flood_hint: "条。一名值守人员 10 分钟内难以妥善处置 10 条以上，请立即增派人手，并优先处置 P1。", "One person cannot do justice to more than 10: call for support, and see to P1 first.";
    no_script: "本页面需要启用 JavaScript 才能自动显示新告警。未启用时，请手动刷新，切勿以为无事发生。", "This page needs JavaScript to show new alerts by itself. Without it, reload by hand and do not take silence for peace.";
    ago: "前", "ago";
    lasted: "已", "for";
    unit_second: "秒", "s";
    unit_minute: "分", "min";
    unit_hour: "小时", "h";
    unit_day: "天", "d";
    since: "发生于", "since";
    holds: "信号仍在持续", "still detected";
    cleared: "触发信号已消失（不代表老人平安），时间", "no longer detected (not proof that all is well), since";
    repeats: "重复次数", "Repeats";
    late: "迟到数据：事后补传", "Late: the data came after the fact";
    suppressed: "已屏蔽，原因：", "Quiet because of";
    technical: "设备与系统告警", "Technical";
    person: "老人", "Person";
    phone: "电话", "Phone";
    address: "地址", "Address";
    unregistered: "未登记的住户", "Home that is not registered";
    gateway: "网关", "Gateway";
    heard: "最近通信", "last heard";
    never_heard: "中心启动后尚未收到数据", "not heard since the centre started";
    devices_silent: "无应答设备", "Silent devices";
    acknowledge: "确认", "Acknowledge";
    dispatch: "派单", "Dispatch";
    arrive: "到场", "On site";
    resolve: "办结", "Resolve";
    review: "复核通过", "Reviewed";
    outcome: "处置结果", "Outcome";
    note: "备注（可不填）", "Note (optional)";
    system: "系统", "the system";
    failed: "操作未成功：", "Not done:";
    new_alert: "新告警", "New alert";
    centre: "服务中心", "Service centre";
    area: "片区 ", "Area ";
    why: "告警依据", "What it rests on";
    blind: "无法判断：", "Cannot be judged:";
    until: "至", "until";
    enter_interval: "登记外出、来访、住院、检修", "Enter an absence, a visit, hospital or maintenance";
    interval_kind: "类型", "Kind";
    interval_bed: "床位", "Bed";
    whole_home: "全户", "Whole home";
    interval_hours: "时长（小时）", "Hours";
    interval_source: "来源", "Source";
    source_page: "值守台登记", "entered here";
    source_hotline: "热线来电", "by telephone";
    enter: "登记", "Enter";
    end_interval: "提前结束", "End now";
    register: "修改住户信息", "Change names and telephone";
    home_name: "住户名称", "Home";
    bed_name: "床位", "Bed";
    save: "保存", "Save";
}

impl Words {
    pub(crate) fn of(language: Language) -> &'static Self {
        match language {
            Language::Zh => &ZH,
            Language::En => &EN,
        }
    }
}

/// What a priority asks for.
pub(crate) fn priority(priority: Priority, language: Language) -> &'static str {
    match (priority, language) {
        (Priority::P1, Language::Zh) => "紧急 · 立即处置",
        (Priority::P1, Language::En) => "URGENT · act now",
        (Priority::P2, Language::Zh) => "优先 · 5 分钟内",
        (Priority::P2, Language::En) => "High · within 5 min",
        (Priority::P3, Language::Zh) => "一般 · 当班处理",
        (Priority::P3, Language::En) => "Normal · this shift",
        (Priority::P4, Language::Zh) => "提示 · 日常清单",
        (Priority::P4, Language::En) => "Note · daily list",
    }
}

/// A sign for each priority, so that it is told apart without colour.
pub(crate) fn shape(priority: Priority) -> &'static str {
    match priority {
        Priority::P1 => "▲",
        Priority::P2 => "◆",
        Priority::P3 => "■",
        Priority::P4 => "○",
    }
}

/// What people say about a home's time.
pub(crate) fn interval(kind: IntervalKind, language: Language) -> &'static str {
    match (kind, language) {
        (IntervalKind::Away, Language::Zh) => "外出",
        (IntervalKind::Away, Language::En) => "away",
        (IntervalKind::Visit, Language::Zh) => "有人来访",
        (IntervalKind::Visit, Language::En) => "visit",
        (IntervalKind::Hospital, Language::Zh) => "住院",
        (IntervalKind::Hospital, Language::En) => "in hospital",
        (IntervalKind::Maintenance, Language::Zh) => "设备检修",
        (IntervalKind::Maintenance, Language::En) => "maintenance",
    }
}

/// Why an alert is quiet; a reason that has no word is shown as it is.
pub(crate) fn reason(reason: &str, language: Language) -> &str {
    match (reason, language) {
        ("not_evaluable", Language::Zh) => "相关设备无响应，无法判断",
        ("not_evaluable", Language::En) => "no device answers that could tell",
        ("gateway_outage", Language::Zh) => "片区网关大面积失联",
        ("gateway_outage", Language::En) => "an outage of the whole area",
        _ => {
            IntervalKind::ALL.into_iter().find(|kind| kind.as_str() == reason).map_or(reason, |k| interval(k, language))
        }
    }
}

/// How a gateway says it is.
pub(crate) fn gateway(state: GatewayState, language: Language) -> &'static str {
    match (state, language) {
        (GatewayState::Online, Language::Zh) => "在线",
        (GatewayState::Online, Language::En) => "online",
        (GatewayState::Stopped, Language::Zh) => "已停止",
        (GatewayState::Stopped, Language::En) => "stopped",
        (GatewayState::Lost, Language::Zh) => "离线",
        (GatewayState::Lost, Language::En) => "offline",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, zh: &str, en: &str) {
        let is_cjk = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
        assert!(zh.chars().any(is_cjk), "{name}: {zh:?} is not Chinese");
        let plain = en.replace("中文", "");
        assert!(!plain.trim().is_empty() && !plain.chars().any(is_cjk), "{name}: {en:?} is not English");
    }

    #[test]
    fn every_text_exists_in_both_languages() {
        use carebed_alerts::alert::{AlertId, Outcome, State};
        use carebed_alerts::refused::Refused;
        for (name, zh, en) in ALL {
            check(name, zh, en);
        }
        for p in [Priority::P1, Priority::P2, Priority::P3, Priority::P4] {
            check(p.as_str(), priority(p, Language::Zh), priority(p, Language::En));
        }
        for state in [GatewayState::Online, GatewayState::Stopped, GatewayState::Lost] {
            check("gateway", gateway(state, Language::Zh), gateway(state, Language::En));
        }
        for state in [
            State::Waiting,
            State::Open,
            State::Acknowledged,
            State::Dispatched,
            State::OnSite,
            State::Resolved,
            State::Reviewed,
        ] {
            let text = state.text();
            check("state", &text.zh, &text.en);
        }
        for outcome in Outcome::CHOICES.into_iter().chain([Outcome::Recovered]) {
            let text = outcome.text();
            check("outcome", &text.zh, &text.en);
        }
        let at = carebed_contract::time::Timestamp::from_millis(0);
        for refused in [
            Refused::Unknown(AlertId::try_from("0".repeat(24)).unwrap()),
            Refused::Already { state: State::Acknowledged, by: None, at },
            Refused::TooEarly { state: State::Open, needs: State::Acknowledged },
            Refused::NoteTooLong,
            Refused::NotAChoice,
        ] {
            let text = refused.text(chrono_tz::UTC);
            check(refused.code(), &text.zh, &text.en);
        }
    }
}
