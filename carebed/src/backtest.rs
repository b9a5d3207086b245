//! `carebed backtest`: what the detections would have said over a span of history, counted per home-day.

mod drawing;
mod observed;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_contract::finding::Finding;
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::View;
use carebed_queries::engine::{Baseline, Detection};
use carebed_queries::history::{self, Backtest, HalfHours, Span, Told};
use carebed_queries::home::HomeFacts;
use carebed_queries::sql::Lake;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{BacktestArguments, Format, complain, say};
use crate::config::Config;
use crate::detections;
use crate::exit::{Exit, Misuse};
use crate::{facts, outages, sql};
pub use drawing::Night;
use observed::Observed;
use table::{hours, suppressed_by, table};

/// `carebed backtest`
pub async fn run(arguments: BacktestArguments) -> anyhow::Result<Exit> {
    let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner.set_message("reading history");
    let store = sql::open(&arguments.data).await?;
    let mut loaded = detections::load(detections::OVER_HISTORY).await?;
    if !arguments.detections.is_empty() {
        let known: Vec<String> = loaded.list.iter().map(|d| d.name.clone()).collect();
        if let Some(unknown) = arguments.detections.iter().find(|name| !known.contains(name)) {
            bail!(Misuse(format!("there is no detection {unknown}; known are {}", known.join(", "))));
        }
        loaded.list.retain(|d| arguments.detections.contains(&d.name));
    }
    let mut homes = facts::of_data(&Config::at(arguments.data.clone())).await?;
    let outages = arguments.outages.as_deref().map(outages::read).transpose()?.unwrap_or_default();
    homes.iter_mut().for_each(|facts| facts.outages.clone_from(&outages));
    let (lake, view) = (Lake::of(&store), store.view());
    let limits = loaded.engine.limits();
    let Some(all) = history::extent(&lake, &view, limits).await? else {
        bail!("{} holds no observations", arguments.data.display());
    };
    let span = Span { from: day(arguments.from.as_deref(), all.from)?, to: day(arguments.to.as_deref(), all.to)? };
    if span.from >= span.to {
        bail!("the span from {} to {} is empty; the data reaches from {} to {}", span.from, span.to, all.from, all.to);
    }
    let find = async |list: &[Detection], baselines: &[Baseline]| {
        history::backtest(&loaded.engine, &lake, &view, span, &homes, list, baselines).await
    };
    if arguments.as_received {
        spinner.finish_and_clear();
        return as_received(&arguments, &loaded, (&lake, &view), span, &homes).await;
    }
    let Backtest { mut round, unobserved } = find(&loaded.list, &loaded.baselines).await?;
    // What the changed ones find takes the place of what those of the same name find now, and is compared with it.
    let mut differences = Vec::new();
    if let Some(folder) = &arguments.with {
        let (mut changed, baselines) = detections::with(&loaded.engine, Some(folder)).await?;
        let named = |d: &Detection| arguments.detections.is_empty() || arguments.detections.contains(&d.name);
        changed.retain(|d| named(d));
        let then = find(&changed, &baselines).await?.round;
        differences = difference(&round.findings, &then.findings);
        loaded.list = changed;
        round = then;
    }
    let observed = Observed::within(span, &arguments.data, &unobserved).await?;
    spinner.finish_and_clear();
    for error in &round.failed {
        complain(&format!("error: {error}"));
    }
    let mut findings = round.findings;
    findings.sort_by(|a, b| (a.raised_at, &a.home, &a.detection).cmp(&(b.raised_at, &b.home, &b.detection)));
    if let Some(night) = &arguments.draw {
        let (shown, own) = (night.span(&homes)?, homes.iter().filter(|facts| facts.home == night.home));
        let own: Vec<HomeFacts> = own.cloned().collect();
        // What began a day before may still last.
        let read = Span { from: shown.from - Duration::from_secs(86_400), to: shown.to };
        let definitions = Arc::clone(&loaded.definitions);
        let mut episodes = history::episodes(&lake, &view, read, &own, definitions, limits).await?;
        let of_home: Vec<Finding> = findings.iter().filter(|f| f.home == night.home).cloned().collect();
        std::fs::write(&arguments.svg, drawing::svg(shown, &episodes.all(), &of_home))
            .with_context(|| format!("failed to write {}", arguments.svg.display()))?;
        complain(&format!("the night is drawn in {}", arguments.svg.display()));
    }
    match arguments.format {
        Format::Table => {
            let names: Vec<String> = loaded.list.iter().map(|d| d.name.clone()).collect();
            let failed: BTreeSet<&str> = round.failed.iter().map(|error| error.detection()).collect();
            table(&findings, &names, &failed, &observed, span).iter().for_each(|line| say(line));
            hours(&findings, &names, &homes).iter().for_each(|line| say(line));
            if arguments.with.is_some() {
                say(&format!("\n{} findings differ from those of the version in use", differences.len()));
            }
            differences.iter().for_each(|line| say(line));
        }
        Format::Csv => {
            say("detection,subject,home_id,raised_at,cleared_at,suppressed_by");
            for f in &findings {
                let cleared = f.cleared_at.map(|t| t.to_string()).unwrap_or_default();
                let quiet = suppressed_by(f).unwrap_or_default();
                say(&format!("{},{},{},{},{cleared},{quiet}", f.detection, f.subject, f.home, f.raised_at));
            }
        }
        Format::Json => say(&serde_json::to_string_pretty(&findings)?),
        Format::Jsonl => {
            for finding in &findings {
                say(&serde_json::to_string(finding)?);
            }
        }
        Format::Parquet => bail!("findings are written as a table, csv, json or jsonl"),
    }
    Ok(if round.failed.is_empty() { Exit::Done } else { Exit::Refused })
}

/// What would have been told while the data came as it did.
async fn as_received(
    arguments: &BacktestArguments,
    loaded: &detections::Detections,
    (lake, view): (&Lake, &Arc<View>),
    span: Span,
    homes: &[HomeFacts],
) -> anyhow::Result<Exit> {
    let (learnt, mut failed) =
        history::learn(&loaded.engine, lake, view, span, homes, &loaded.baselines, HalfHours::OfLongQuiets).await?;
    // What happened within the span may have come later.
    let received = Span { from: span.from, to: if arguments.to.is_some() { span.to } else { Timestamp::MAX } };
    let (told, also) = history::as_received(&loaded.engine, lake, view, received, homes, &loaded.list, &learnt).await?;
    failed.extend(also);
    for error in &failed {
        complain(&format!("error: {error}"));
    }
    let line = |told: &Told| {
        let Told { finding: f, told_at, taken_back_at } = told;
        let after = told_at.since(f.raised_at).as_secs() / 60;
        let back = taken_back_at.map(|at| format!("  taken back {at}")).unwrap_or_default();
        format!(
            "{told_at}  {:<24}{:<28}raised {}  after {after} min{back}",
            f.detection,
            f.subject.to_string(),
            f.raised_at
        )
    };
    match arguments.format {
        Format::Json => say(&serde_json::to_string_pretty(&told.iter().map(json).collect::<Vec<_>>())?),
        Format::Jsonl => told.iter().for_each(|told| say(&json(told).to_string())),
        Format::Table => told.iter().for_each(|told| say(&line(told))),
        Format::Csv | Format::Parquet => bail!("what was told is written as a table, json or jsonl"),
    }
    let back = told.iter().filter(|told| told.taken_back_at.is_some()).count();
    let within = history::LOOK_EVERY.as_secs() / 60;
    complain(&format!(
        "{} findings told (looked at every {within} minutes), {back} of them taken back by later data",
        told.len()
    ));
    Ok(if failed.is_empty() { Exit::Done } else { Exit::Refused })
}

fn json(told: &Told) -> serde_json::Value {
    serde_json::json!({ "finding": told.finding, "told_at": told.told_at, "taken_back_at": told.taken_back_at })
}

/// What only the version in use finds (`-`), and what only the changed one does (`+`).
fn difference(now: &[Finding], then: &[Finding]) -> Vec<String> {
    let of = |list: &[Finding]| -> BTreeSet<(Timestamp, String, String)> {
        list.iter().map(|f| (f.raised_at, f.detection.clone(), f.subject.to_string())).collect()
    };
    let (now, then) = (of(now), of(then));
    let line = |sign: char, (at, detection, subject): &(Timestamp, String, String)| {
        format!("{sign} {at} {detection} {subject}")
    };
    let gone = now.difference(&then).map(|f| line('-', f));
    gone.chain(then.difference(&now).map(|f| line('+', f))).collect()
}

/// Midnight UTC of a day such as `2026-03-01`.
fn day(text: Option<&str>, otherwise: Timestamp) -> anyhow::Result<Timestamp> {
    match text {
        None => Ok(otherwise),
        Some(text) => Timestamp::parse(&format!("{text}T00:00:00Z"))
            .ok_or_else(|| Misuse(format!("{text:?} is not a day; write it as 2026-03-01")).into()),
    }
}
