//! What an evaluation found, as a table for people.

use anyhow::Context as _;

use super::case::Case;
use super::references::Reference;
use super::score::{self, Apart, HEAD, Home, Score};
use super::{ACCEPTABLE, OF_BEDS, chart};
use crate::cli::{EvaluateArguments, complain, say};

/// Says how the detection did at each price (the first is its own), beside the detectors from the literature.
pub(super) fn report(
    arguments: &EvaluateArguments,
    cases: &[Case],
    scores: &[(String, Vec<Home>)],
) -> anyhow::Result<()> {
    // Where several live, the quiet of one is hidden by the others: those homes are counted apart.
    let is_alone = |case: &&Case| case.recording.home().residents <= 1;
    let of_alone = |homes: &[Home]| -> Vec<Home> {
        let alone = cases.iter().zip(homes).filter(|(case, _)| is_alone(case));
        alone.map(|(_, home)| home.clone()).collect()
    };
    let of_shared = |homes: &[Home]| -> Vec<Home> {
        let shared = cases.iter().zip(homes).filter(|(case, _)| !is_alone(case));
        shared.map(|(_, home)| home.clone()).collect()
    };
    let of = |homes: &[Home]| Score::of(homes, arguments.seed);
    let alone: Vec<&Case> = cases.iter().filter(is_alone).collect();
    let days: f64 = alone.iter().map(|case| case.grid.days()).sum();
    let silences: usize = alone.iter().map(|case| case.moments.at_home.len()).sum();
    say(&format!("{} homes of one person, {days:.0} home-days, {silences} silences", alone.len()));
    say(HEAD);
    let mut curve = Vec::new();
    for (name, homes) in scores {
        let score = of(&of_alone(homes));
        say(&score.line(name));
        curve.push((name.clone(), score));
    }
    if curve.len() > 1 {
        let scores: Vec<Score> = curve.iter().map(|(_, score)| *score).collect();
        let (mean, how) = score::at(&scores, ACCEPTABLE);
        say(&format!("at {ACCEPTABLE} false alerts a home-day the curve stands at {mean:.2} h: {how}"));
    }
    let mut points = Vec::new();
    for reference in Reference::ALL {
        let homes: Vec<Home> = alone.iter().map(|case| reference.score(&case.grid, &case.moments)).collect();
        say(&of(&homes).line(&reference.name()));
        points.push((reference.name(), of(&homes)));
    }
    let Some((name, own)) = scores.first() else { return Ok(()) };
    let apart = |apart: fn(&Home) -> &Apart| {
        let all = own.iter().map(apart);
        all.fold((0, 0, 0), |(n, found, by_bed), one| (n + one.n, found + one.found, by_bed + one.found_in_bed))
    };
    let (n_door, found, _) = apart(|home| &home.door_last);
    say(&format!(
        "last event at a door, which looks like leaving: {n_door} silences apart; {name} finds {found} within 24 h"
    ));
    let (n_in_bed, found, by_bed) = apart(|home| &home.in_bed);
    if n_in_bed > 0 {
        say(&format!(
            "in bed, which looks like sleep: {n_in_bed} silences apart; {name} finds {found} within 24 h, {OF_BEDS} {by_bed}"
        ));
    }
    let shared = of_shared(own);
    if !shared.is_empty() {
        let (days, silences) = shared.iter().fold((0.0, 0), |(d, n), home| (d + home.days, n + home.delays.len()));
        let score = of(&shared);
        say(&format!(
            "several residents, who hide each other's quiet: {} homes apart, {days:.0} home-days, {silences} silences; {name} is wrong {:.4} times a day and finds {:.1} % within 24 h",
            shared.len(),
            score.false_per_day,
            100.0 * score.found
        ));
    }
    say("");
    say("home            days  false   mean h");
    for (case, home) in cases.iter().zip(own) {
        let score = of(std::slice::from_ref(home));
        say(&format!(
            "{:<14}{:>6.0}{:>7}{:>9.2}",
            case.recording.home().home.as_str(),
            home.days,
            home.n_false,
            score.mean
        ));
    }
    if let Some(path) = &arguments.svg {
        curve.sort_by(|a, b| a.1.false_per_day.total_cmp(&b.1.false_per_day));
        std::fs::write(path, chart::svg(&curve, &points))
            .with_context(|| format!("failed to write {}", path.display()))?;
        complain(&format!("the trade-off is drawn in {}", path.display()));
    }
    Ok(())
}
