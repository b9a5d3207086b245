//! What alerts need to know about a detection.

use std::time::Duration;

use carebed_contract::finding::{Class, Priority};
use carebed_contract::text::Text;

/// One detection, as alerts see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The detection's name, as in its findings.
    pub detection: String,
    /// How pressing its alerts are when raised.
    pub priority: Priority,
    /// About the person, or about the equipment.
    pub class: Class,
    /// The alert's title.
    pub title: Text,
    /// The alert's sentence: a template with `{placeholders}`, see [`crate::wording`].
    pub wording: Text,
    /// What the codes in its evidence are called.
    pub words: crate::wording::Words,
    /// Whether an absence, a visit or lateness may keep its alerts quiet. False for calls and hazards: nothing
    /// suppresses those, and they ring even when they come late.
    pub suppressible: bool,
    /// How long a new alert waits for a confirmation in the home before a person is told. Zero for calls and hazards.
    pub wait: Duration,
}

impl Rule {
    /// Whether it is about a person and nothing may keep it quiet: a call, a reported fall, a hazard.
    #[must_use]
    pub fn is_emergency(&self) -> bool {
        !self.suppressible && self.class == Class::Care
    }

    /// Stands in for a detection that has no rule: a finding is never dropped for want of a wording.
    #[must_use]
    pub fn unknown(detection: &str) -> Self {
        Self {
            detection: detection.to_owned(),
            priority: Priority::P2,
            class: Class::Care,
            title: Text::new(format!("检测项 {detection} 有新发现"), format!("Detection {detection} found something")),
            wording: Text::new(
                "该检测项尚未配置文案，请核实老人情况并联系运维人员。",
                "This detection has no wording yet: check on the person and tell the maintainers.",
            ),
            words: crate::wording::Words::new(),
            suppressible: true,
            wait: Duration::ZERO,
        }
    }
}
