//! What was found, counted for people.

use std::collections::{BTreeMap, BTreeSet};

use carebed_contract::finding::{Finding, SUPPRESSED_BY};
use carebed_contract::id::HomeId;
use carebed_queries::history::Span;
use carebed_queries::home::{HomeFacts, TIME_ZONE_DEFAULT};
use chrono::{DateTime, Timelike as _};
use chrono_tz::Tz;

use super::observed::Observed;

/// Alerts of one detection over the span.
#[derive(Debug, Default, Clone)]
struct Count {
    per_home: BTreeMap<HomeId, usize>,
    /// Found, and nobody would have been told: an absence, a visit or a dead device explains it.
    kept_quiet: usize,
}

/// Why nobody would have been told of a finding.
pub(super) fn suppressed_by(finding: &Finding) -> Option<&str> {
    finding.evidence.get(SUPPRESSED_BY)?.as_str()
}

/// Each detection's alerts in all, then those that found something by home.
pub(super) fn table(
    findings: &[Finding],
    names: &[String],
    failed: &BTreeSet<&str>,
    observed: &Observed,
    span: Span,
) -> Vec<String> {
    let days = observed.home_days();
    let mut counts: BTreeMap<&str, Count> = names.iter().map(|name| (name.as_str(), Count::default())).collect();
    for finding in findings {
        let count = counts.entry(&finding.detection).or_default();
        match suppressed_by(finding) {
            Some(_) => count.kept_quiet += 1,
            None => *count.per_home.entry(finding.home.clone()).or_default() += 1,
        }
    }
    let mut lines = vec![
        format!(
            "{} to {}: {} homes, {days:.1} home-days observed; {:.1} left out, in which nothing was",
            span.from,
            span.to,
            observed.days.len(),
            observed.left_out
        ),
        format!(
            "{:<24}{:>8}{:>16}{:>8}{:>12}  {}",
            "detection", "alerts", "per home-day", "homes", "kept quiet", "worst home (per day)"
        ),
    ];
    for (name, count) in &counts {
        if failed.contains(name) {
            lines.push(format!("{name:<24}{:>8}", "failed"));
            continue;
        }
        let alerts: usize = count.per_home.values().sum();
        let rate = |home: &HomeId, n: usize| per_day(n, observed.days.get(home).copied().unwrap_or_default());
        let worst = count.per_home.iter().map(|(home, n)| (rate(home, *n), home)).max_by(|a, b| a.0.total_cmp(&b.0));
        let worst = worst.map_or_else(|| "-".to_owned(), |(rate, home)| format!("{home} ({rate:.3})"));
        let (rate, n_homes) = (per_day(alerts, days), count.per_home.len());
        lines.push(format!("{name:<24}{alerts:>8}{rate:>16.4}{n_homes:>8}{:>12}  {worst}", count.kept_quiet));
    }
    lines.push(String::new());
    counts.retain(|_, count| !count.per_home.is_empty());
    let header: String = counts.keys().map(|name| format!("{name:>22}")).collect();
    lines.push(format!("{:<12}{:>6}{header}", "home", "days"));
    for (home, days) in &observed.days {
        let cells: String = counts
            .values()
            .map(|count| count.per_home.get(home).copied().unwrap_or_default())
            .map(|n| format!("{n:>22}"))
            .collect();
        lines.push(format!("{:<12}{days:>6.1}{cells}", home.as_str()));
    }
    lines
}

/// Alerts by the hour of the homes' local day.
pub(super) fn hours(findings: &[Finding], names: &[String], homes: &[HomeFacts]) -> Vec<String> {
    let zones: BTreeMap<&HomeId, Tz> = homes.iter().map(|facts| (&facts.home, facts.time_zone)).collect();
    let hour = |finding: &Finding| {
        let zone = zones.get(&finding.home).copied().unwrap_or(TIME_ZONE_DEFAULT);
        DateTime::from_timestamp_millis(finding.raised_at.millis()).map(|utc| utc.with_timezone(&zone).hour())
    };
    let mut lines = vec![
        String::new(),
        format!("{:<24}{}", "by local hour", (0..24).map(|h| format!("{h:>5}")).collect::<String>()),
    ];
    for name in names {
        let mut counts = [0_usize; 24];
        let told = findings.iter().filter(|f| f.detection == *name && suppressed_by(f).is_none());
        for hour in told.filter_map(hour) {
            if let Some(count) = counts.get_mut(hour as usize) {
                *count += 1;
            }
        }
        lines.push(format!("{name:<24}{}", counts.map(|n| format!("{n:>5}")).concat()));
    }
    lines
}

/// Of a home that was observed for less than a day, as if it had been for one.
fn per_day(alerts: usize, days: f64) -> f64 {
    f64::from(u32::try_from(alerts).unwrap_or(u32::MAX)) / days.max(1.0)
}
