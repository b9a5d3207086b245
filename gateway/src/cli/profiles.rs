//! `profiles`: what can be connected.

use std::fmt::Write as _;

use carebed_device_profiles::shipped;

use super::{Exit, print};

pub(super) fn profiles() -> anyhow::Result<Exit> {
    let mut table = String::new();
    for shipped in shipped::all() {
        let about = &shipped.profile.identification;
        let tested = if about.tested_on_hardware { "tested on hardware" } else { "not tested on hardware" };
        let _never = writeln!(
            table,
            "{:<24} {} · {} (confidence {:?}, {tested})",
            shipped.profile.name, about.title.zh, about.title.en, about.confidence
        );
    }
    print(&table)
}
