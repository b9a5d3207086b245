//! `carebed evaluate`: how good a detection of silence is, on real homes, beside what is published.
//!
//! The detection's own SQL runs over unmodified history: what it raises there is false, for nothing happened in these recordings. Then, at every full
//! hour at which somebody is at home, the sensors fall silent for 24 h, and the same SQL says when it would have noticed. The price that the baseline
//! puts on a false alert is varied, which gives the whole trade-off.

mod case;
mod chart;
mod protocol;
mod references;
mod report;
mod score;

use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_queries::engine::Engine;
use carebed_queries::history::{self, Recording};
use carebed_queries::sql::Lake;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{EvaluateArguments, complain};
use crate::config::Config;
use crate::detections::OVER_HISTORY as LIMITS;
use crate::exit::{Exit, Misuse};
use crate::{detections, facts, outages, sql};
use case::Case;
use report::report;

/// Recordings shorter than this many whole days are left out.
const DAYS_MIN: usize = 28;

/// The prices tried for the trade-off, in hours of delay for one false alert; beside them the detection's own.
const PRICES: [f64; 10] = [20.0, 50.0, 80.0, 160.0, 320.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0];

/// What looks after those who lie in bed: for detections of silence they are at rest.
const OF_BEDS: &str = "bed_overstay";

/// What a provider called acceptable: 0.14 false alerts a resident a month (README of github.com/nadeeg/DataAnalysisBox).
const ACCEPTABLE: f64 = 0.005;

/// `carebed evaluate`
pub async fn run(arguments: EvaluateArguments) -> anyhow::Result<Exit> {
    let spinner = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let engine = Engine::new(LIMITS).context("failed to set up the query engine")?;
    let (found, baselines) = detections::with(&engine, arguments.with.as_deref()).await?;
    let named = |name: &str| found.iter().find(|d| d.name == name).cloned();
    let Some(detection) = named(&arguments.detection) else {
        bail!(Misuse(format!("there is no detection {} that can be used", arguments.detection)));
    };
    let of_beds = named(OF_BEDS);
    let baselines: Vec<_> = baselines.into_iter().filter(|b| detection.meaning.baselines.contains(&b.name)).collect();
    let store = sql::open(&arguments.data).await?;
    let (lake, view) = (Lake::of(&store), store.view());
    let Some(span) = history::extent(&lake, &view, LIMITS).await? else {
        bail!("{} holds no observations", arguments.data.display());
    };
    let outages = arguments.outages.as_deref().map(outages::read).transpose()?.unwrap_or_default();
    let days_min = arguments.days_min.unwrap_or(DAYS_MIN);
    let (mut cases, mut left_out) = (Vec::new(), Vec::new());
    for facts in facts::of_data(&Config::at(arguments.data.clone())).await? {
        spinner.set_message(format!("reading {}", facts.home));
        let recording = Recording::read(&lake, &view, span, &facts, LIMITS).await?;
        match Case::new(recording, &outages, &detection, days_min)? {
            Some(case) => cases.push(case),
            None => left_out.push(facts.home.to_string()),
        }
    }
    if !left_out.is_empty() && !cases.is_empty() {
        complain(&format!(
            "left out, with fewer than {days_min} whole days or a thousand minutes in which something moved: {}",
            left_out.join(", ")
        ));
    }
    if cases.is_empty() {
        bail!(
            "no home has {days_min} whole days with a thousand minutes in which something moved\nhint: --days-min asks for fewer days"
        );
    }
    let prices: Vec<Option<f64>> = match arguments.curve {
        true => std::iter::once(None).chain(PRICES.map(Some)).collect(),
        false => vec![None],
    };
    let mut scores = Vec::new();
    for price in prices {
        let name = price.map_or_else(|| detection.name.clone(), |price| format!("{} at {price} h", detection.name));
        let mut homes = Vec::with_capacity(cases.len());
        for case in &cases {
            spinner.set_message(format!("{name}: {}", case.recording.home().home));
            homes.push(case.score(&engine, &detection, of_beds.as_ref(), &baselines, price).await?);
        }
        scores.push((name, homes));
    }
    spinner.finish_and_clear();
    report(&arguments, &cases, &scores)?;
    Ok(Exit::Done)
}
