//! `carebed check`: everything that can be wrong before a centre starts, without starting one.

use std::path::Path;

use crate::cli::say;
use crate::config::Config;
use crate::exit::Exit;
use crate::{detections, facts};

/// `carebed check`
pub async fn run(path: &Path) -> anyhow::Result<Exit> {
    let config = Config::load(path)?;
    let detections = detections::load(carebed_queries::engine::Limits::default()).await?;
    // It tells of what is wrong with the homes' own numbers.
    facts::of_data(&config).await?;
    say(&format!("{}: good", path.display()));
    say(&format!("  data      {}", config.data.display()));
    match &config.broker.address {
        Some(address) => say(&format!("  broker    {address}")),
        None => say(&format!("  broker    embedded, on {}", config.broker.listen)),
    }
    say(&format!("  console   http://{}/", config.console.listen));
    for detection in &detections.list {
        let meaning = &detection.meaning;
        let (title, priority) = (&meaning.title, meaning.priority.as_str());
        say(&format!("  {priority} {:<22} {} · {}", detection.name, title.zh, title.en));
    }
    Ok(if detections.n_refused == 0 { Exit::Done } else { Exit::Refused })
}
