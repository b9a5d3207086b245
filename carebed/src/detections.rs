//! The detections and episodes that come with the program, planned and ready.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_alerts::rule::Rule;
use carebed_contract::finding::{Class, Priority};
use carebed_contract::text::Text;
use carebed_queries::baselines::Source as BaselineSource;
use carebed_queries::detection::{Refused, Source};
use carebed_queries::engine::{Baseline, Detection, Engine, Limits};
use carebed_queries::episodes::Definitions;

/// The detection under which it is told that another cannot be used.
pub const OFF: &str = "detection_off";

/// How that is told.
#[must_use]
pub fn off_rule() -> Rule {
    Rule {
        detection: OFF.to_owned(),
        priority: Priority::P3,
        class: Class::Technical,
        title: Text::new("检测项停用", "A detection is off"),
        wording: Text::new(
            "检测项 {part} 已停用，其负责的情况目前无人看护，其余检测照常运行。原因：{why}。请联系运维人员修复。",
            "Detection {part} is off: what it looks for is not looked for now; the others go on. Why: {why}. Tell the maintainers.",
        ),
        words: carebed_alerts::wording::Words::new(),
        suppressible: false,
        wait: Duration::ZERO,
    }
}

/// What finds something.
#[derive(Debug)]
pub struct Detections {
    /// Plans and runs them.
    pub engine: Arc<Engine>,
    /// How observations become episodes.
    pub definitions: Arc<Definitions>,
    /// The detections that can be used.
    pub list: Vec<Detection>,
    /// The baselines that can be used.
    pub baselines: Vec<Baseline>,
    /// The urgent ones once more, planned apart for the short way of a call.
    pub urgent: Vec<Detection>,
    /// What could not be used, and where and why.
    pub off: Vec<(String, String)>,
    /// How many could not; each was told.
    pub n_refused: usize,
}

/// What a look over years of history may take: nobody waits for it as for a live round.
pub const OVER_HISTORY: Limits = Limits { memory_bytes: 2 << 30, partitions: 2, time: Duration::from_secs(600) };

/// Loads and plans all, within these limits. One that cannot be used is told and left out; without any there is nothing to
/// run.
pub async fn load(limits: Limits) -> anyhow::Result<Detections> {
    let engine = Engine::new(limits).context("failed to set up the query engine")?;
    let (list, mut refused) = engine.builtin().await;
    let (baselines, unlearnt) = engine.baselines().await;
    refused.extend(unlearnt);
    let (urgent, _) = {
        let (mut sources, _) = Source::builtin();
        sources.retain(|source| source.meaning.urgent);
        engine.prepare_all(sources, Vec::new()).await
    };
    for refusal in &refused {
        tracing::error!(place = refusal.place(), "{refusal}");
    }
    if list.is_empty() {
        bail!("no detection can be used");
    }
    let definitions = Definitions::builtin().context("failed to read the episodes")?;
    let off = refused
        .iter()
        .map(|refusal| (refusal.name.clone(), format!("{}: {}", refusal.place(), refusal.message)))
        .collect();
    Ok(Detections {
        engine: Arc::new(engine),
        definitions: Arc::new(definitions),
        list,
        baselines,
        urgent,
        off,
        n_refused: refused.len(),
    })
}

/// Those that come with the program, with the ones of a folder (detections and baselines) in place of those of the same name. Unlike
/// [`load`], one that cannot be used is an error: somebody is trying it out.
pub async fn with(engine: &Engine, folder: Option<&Path>) -> anyhow::Result<(Vec<Detection>, Vec<Baseline>)> {
    let (mut list, _) = engine.builtin().await;
    let (mut baselines, _) = engine.baselines().await;
    let Some(folder) = folder else { return Ok((list, baselines)) };
    let entries = std::fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut n_read = 0;
    for entry in entries {
        let path = entry.with_context(|| format!("failed to list {}", folder.display()))?.path();
        let told = |refusal: Refused| anyhow::anyhow!("{}: {refusal}", refusal.place());
        if path.join("baseline.sql").is_file() {
            let source = BaselineSource::load(&path).map_err(told)?;
            let baseline = engine.prepare_baseline(source).await.map_err(told)?;
            baselines.retain(|b| b.name != baseline.name);
            baselines.push(baseline);
        } else if path.join("detection.sql").is_file() {
            let detection = engine.try_out(Source::load_one(&path).map_err(told)?).await.map_err(told)?;
            list.retain(|d| d.name != detection.name);
            list.push(detection);
        } else {
            continue;
        }
        n_read += 1;
    }
    if n_read == 0 {
        bail!("{} holds no folder with detection.sql or baseline.sql", folder.display());
    }
    Ok((list, baselines))
}

#[cfg(test)]
mod timelines;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_sentence_names_is_called_something_on_the_page() {
        let (sources, _) = Source::builtin();
        assert!(sources.len() > 20, "{}", sources.len());
        let mut unnamed = Vec::new();
        for source in sources {
            let Text { zh, en } = source.meaning.wording;
            for sentence in [zh, en] {
                let names = sentence.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0.to_owned()));
                // These stand for whom the finding is about, and for when.
                let of_evidence =
                    names.filter(|n| !["home", "bed", "device", "area", "raised_at"].contains(&n.as_str()));
                let new = of_evidence.filter(|name| !carebed_console::evidence::is_worded(name));
                unnamed.extend(new.map(|name| format!("{}: {name}", source.name)));
            }
        }
        assert!(unnamed.is_empty(), "add a name to console/src/evidence.rs: {unnamed:?}");
    }
}
