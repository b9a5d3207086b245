//! `carebed backtest`: what the detections would have said over a span of history, counted per home-day.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_contract::finding::Finding;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_queries::history::{self, Span};
use carebed_queries::sql::Lake;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{BacktestArguments, Format, complain, say};
use crate::config::Config;
use crate::detections;
use crate::exit::Exit;
use crate::{facts, sql};

/// Alerts of one detection over the span.
#[derive(Debug, Default, Clone)]
struct Count {
    per_home: BTreeMap<HomeId, usize>,
}

/// `carebed backtest`
pub async fn run(arguments: BacktestArguments) -> anyhow::Result<Exit> {
    let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner.set_message("reading history");
    let store = sql::open(&arguments.data).await?;
    let mut loaded = detections::load().await?;
    if !arguments.detections.is_empty() {
        let known: Vec<String> = loaded.list.iter().map(|d| d.name.clone()).collect();
        if let Some(unknown) = arguments.detections.iter().find(|name| !known.contains(name)) {
            bail!("there is no detection {unknown}; known are {}", known.join(", "));
        }
        loaded.list.retain(|d| arguments.detections.contains(&d.name));
    }
    let homes = facts::of_data(&Config::at(arguments.data.clone())).await?;
    let (lake, view) = (Lake::of(&store), store.view());
    let limits = loaded.engine.limits();
    let Some(all) = history::extent(&lake, &view, limits).await? else {
        bail!("{} holds no observations", arguments.data.display());
    };
    let span = Span { from: day(arguments.from.as_deref(), all.from)?, to: day(arguments.to.as_deref(), all.to)? };
    if span.from >= span.to {
        bail!("the span from {} to {} is empty; the data reaches from {} to {}", span.from, span.to, all.from, all.to);
    }
    let round = history::backtest(&loaded.engine, &lake, &view, span, &homes, &loaded.list).await?;
    let home_days = home_days(&arguments, span).await?;
    spinner.finish_and_clear();
    for error in &round.failed {
        complain(&format!("error: {error}"));
    }
    let mut findings = round.findings;
    findings.sort_by(|a, b| (a.raised_at, &a.home, &a.detection).cmp(&(b.raised_at, &b.home, &b.detection)));
    match arguments.format {
        Format::Table => {
            let names: Vec<String> = loaded.list.iter().map(|d| d.name.clone()).collect();
            table(&findings, &names, &home_days, span).iter().for_each(|line| say(line));
        }
        Format::Csv => {
            say("detection,subject,home_id,raised_at,cleared_at");
            for f in &findings {
                let cleared = f.cleared_at.map(|t| t.to_string()).unwrap_or_default();
                say(&format!("{},{},{},{},{cleared}", f.detection, f.subject, f.home, f.raised_at));
            }
        }
        Format::Json => say(&serde_json::to_string_pretty(&findings)?),
    }
    Ok(if round.failed.is_empty() { Exit::Done } else { Exit::Refused })
}

/// Midnight UTC of a day such as `2026-03-01`.
fn day(text: Option<&str>, otherwise: Timestamp) -> anyhow::Result<Timestamp> {
    match text {
        None => Ok(otherwise),
        Some(text) => Timestamp::parse(&format!("{text}T00:00:00Z"))
            .with_context(|| format!("{text:?} is not a day; write it as 2026-03-01")),
    }
}

/// Days on which each home was heard: what alerts are counted against.
async fn home_days(arguments: &BacktestArguments, span: Span) -> anyhow::Result<BTreeMap<String, usize>> {
    let statement = format!(
        "SELECT home_id, count(DISTINCT event_day) FROM observations \
         WHERE event_time >= TIMESTAMP '{}' AND event_time < TIMESTAMP '{}' GROUP BY home_id",
        span.from, span.to
    );
    let csv = sql::answer(&arguments.data, &statement, Format::Csv).await?;
    let rows = csv.lines().skip(1).filter_map(|line| line.rsplit_once(','));
    Ok(rows.filter_map(|(home, days)| Some((home.to_owned(), days.parse().ok()?))).collect())
}

fn table(findings: &[Finding], names: &[String], home_days: &BTreeMap<String, usize>, span: Span) -> Vec<String> {
    let days: usize = home_days.values().sum();
    let mut counts: BTreeMap<&str, Count> = names.iter().map(|name| (name.as_str(), Count::default())).collect();
    for finding in findings {
        let count = counts.entry(&finding.detection).or_default();
        *count.per_home.entry(finding.home.clone()).or_default() += 1;
    }
    let mut lines = vec![
        format!("{} to {}: {} homes, {days} home-days with observations", span.from, span.to, home_days.len()),
        format!("{:<24}{:>8}{:>16}{:>8}  {}", "detection", "alerts", "per home-day", "homes", "worst home (per day)"),
    ];
    for (name, count) in &counts {
        let alerts: usize = count.per_home.values().sum();
        let rate = |home: &HomeId, n: usize| per_day(n, home_days.get(home.as_str()).copied().unwrap_or(1));
        let worst = count.per_home.iter().map(|(home, n)| (rate(home, *n), home)).max_by(|a, b| a.0.total_cmp(&b.0));
        let worst = worst.map_or_else(|| "-".to_owned(), |(rate, home)| format!("{home} ({rate:.3})"));
        lines.push(format!("{name:<24}{alerts:>8}{:>16.4}{:>8}  {worst}", per_day(alerts, days), count.per_home.len()));
    }
    lines.push(String::new());
    let header: String = counts.keys().map(|name| format!("{name:>22}")).collect();
    lines.push(format!("{:<12}{:>6}{header}", "home", "days"));
    for (home, days) in home_days {
        let cells: String = counts
            .values()
            .map(|c| c.per_home.iter().find(|(h, _)| h.as_str() == home).map_or(0, |(_, n)| *n))
            .map(|n| format!("{n:>22}"))
            .collect();
        lines.push(format!("{home:<12}{days:>6}{cells}"));
    }
    lines
}

fn per_day(alerts: usize, days: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of alerts and days are far below 2^52")]
    let rate = alerts as f64 / days.max(1) as f64;
    rate
}
