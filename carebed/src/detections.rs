//! The detections and episodes that come with the program, planned and ready.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use carebed_queries::engine::{Detection, Engine, Limits};
use carebed_queries::episodes::Definitions;

/// What finds something.
#[derive(Debug)]
pub struct Detections {
    /// Plans and runs them.
    pub engine: Arc<Engine>,
    /// How observations become episodes.
    pub definitions: Arc<Definitions>,
    /// The detections that can be used.
    pub list: Vec<Detection>,
    /// How many could not; each was told.
    pub n_refused: usize,
}

/// Loads and plans all. One that cannot be used is told and left out; without any there is nothing to run.
pub async fn load() -> anyhow::Result<Detections> {
    let engine = Engine::new(Limits::default()).context("failed to set up the query engine")?;
    let (list, refused) = engine.builtin().await;
    for refusal in &refused {
        tracing::error!(place = refusal.place(), "{refusal}");
    }
    if list.is_empty() {
        bail!("no detection can be used");
    }
    let definitions = Definitions::builtin().context("failed to read the episodes")?;
    Ok(Detections { engine: Arc::new(engine), definitions: Arc::new(definitions), list, n_refused: refused.len() })
}
