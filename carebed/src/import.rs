//! Recordings into the table, through the same door as live data.
//!
//! A recording is a CSV `ts_utc,sensor_id,kind,value`, gzipped or not; a [`meaning::Meaning`] says what its sensors
//! are. Each file becomes the spool of a virtual gateway whose epoch is the file's hash: importing it again offers
//! batches the centre has, so nothing is added. A broken line is told with its place and left out; the rest goes on.

pub mod meaning;
pub mod recording;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use carebed_console::database::Database;
use carebed_console::registry::{Bed, Home, Registry};
use carebed_contract::clock::{Clock as _, SystemClock};
use carebed_contract::digest::Digest;
use carebed_contract::labels::{Labels, Lane};
use carebed_contract::pack::Sealed;
use carebed_contract::quality::Quality;
use carebed_contract::time::Timestamp;
use carebed_contract::topic::{Channel, Topic};
use carebed_pipeline::event::Event;
use carebed_pipeline::ingest::Ingest;
use carebed_pipeline::message::Message;
use carebed_pipeline::store::{Config as StoreConfig, Store};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Format, ImportArguments, complain, say};
use crate::config::Config;
use crate::exit::Exit;
use meaning::Meaning;
use recording::Recording;

/// Meanings that come with the program, named by dataset.
pub const SHIPPED: &[(&str, &str)] = &[
    ("tihm", include_str!("../../deploy/import/tihm.toml")),
    ("ordonez", include_str!("../../deploy/import/ordonez.toml")),
    ("somnofy", include_str!("../../deploy/import/somnofy.toml")),
];

/// Rows of one commit. Files are cut by day, so fewer commits give fewer and larger files; these rows take about 0.5 GiB.
const ROWS_PER_COMMIT: usize = 1_000_000;

/// What became of one recording.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Became {
    /// Its rows are new; those not good by their quality, counted.
    Added(BTreeMap<String, usize>),
    /// The table had them.
    Known,
    /// The table has this file under another meaning.
    Forked,
}

/// What became of the recordings of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Rows added.
    pub rows: usize,
    /// Of them, rows that are not good, as of a value that cannot be; told.
    pub doubtful: usize,
    /// Files whose rows were added.
    pub added: usize,
    /// Files that the table had already.
    pub known: usize,
    /// Lines left out and told.
    pub broken: usize,
    /// Files left out and told.
    pub refused: usize,
}

/// `carebed import`: one bad file or line does not keep the others out.
pub async fn run(arguments: ImportArguments) -> anyhow::Result<Exit> {
    let meaning = match SHIPPED.iter().find(|(name, _)| *name == arguments.meaning) {
        Some((name, text)) => {
            Meaning::parse(name, text).map_err(|e| anyhow::anyhow!("{:?}", miette::Report::new(*e)))?
        }
        None => Meaning::load(Path::new(&arguments.meaning))?,
    };
    let imported = import(&Config::at(arguments.data), &meaning, &arguments.files).await?;
    say(&format!(
        "{} rows added from {} files, {} of them doubtful; {} files were there already; {} lines and {} files left out",
        imported.rows, imported.added, imported.doubtful, imported.known, imported.broken, imported.refused
    ));
    Ok(if imported.broken + imported.refused > 0 { Exit::Refused } else { Exit::Done })
}

/// Imports files into a data folder.
pub async fn import(config: &Config, meaning: &Meaning, files: &[PathBuf]) -> anyhow::Result<Imported> {
    std::fs::create_dir_all(&config.data)
        .with_context(|| format!("failed to make the data folder {}", config.data.display()))?;
    let store = Store::open(StoreConfig::local(&config.lake())?).await.context("failed to open the lake")?;
    let database = Database::open(&config.database()).await.context("failed to open the centre's database")?;
    let registry = Registry::load(&database).await?;
    let mut ingest = Ingest::of_recordings(store.clone()).await?;
    let clock = SystemClock::new();
    let bar = progress(files.len() as u64);
    let (mut imported, mut pending) = (Imported::default(), 0);
    for path in files {
        bar.set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let one = async {
            let recording = Recording::read(path, meaning)?;
            recording.complaints().iter().for_each(|line| bar.suspend(|| complain(line)));
            imported.broken += recording.broken.len();
            if recording.records.is_empty() {
                bail!("{}: none of its lines can be used", path.display());
            }
            if registry.home(&recording.home).is_some() {
                ingest.commit(clock.now()).await.context("failed to commit")?;
                agrees(&registry, &recording, meaning)?;
                is_new(config, &recording).await?;
            }
            let became = offer(&mut ingest, &recording, meaning, clock.now())?;
            if became != Became::Forked {
                register(&registry, &recording, meaning, clock.now()).await?;
            }
            Ok((recording.records.len(), became))
        };
        match one.await {
            Ok((rows, Became::Added(doubtful))) => {
                imported.added += 1;
                imported.rows += rows;
                pending += rows;
                for (quality, n) in doubtful {
                    imported.doubtful += n;
                    bar.suspend(|| complain(&format!("{}: {n} rows are marked {quality}", path.display())));
                }
            }
            Ok((_, Became::Known)) => imported.known += 1,
            Ok((_, Became::Forked)) => {
                imported.refused += 1;
                let line = format!(
                    "{}: imported before under another meaning, and left as it is\nhint: import it into another data folder",
                    path.display()
                );
                bar.suspend(|| complain(&line));
            }
            Err(error) => {
                imported.refused += 1;
                bar.suspend(|| complain(&format!("{error:#}")));
            }
        }
        if pending >= ROWS_PER_COMMIT {
            ingest.commit(clock.now()).await.context("failed to commit")?;
            pending = 0;
        }
        bar.inc(1);
    }
    bar.set_message("committing");
    ingest.commit(clock.now()).await.context("failed to commit")?;
    bar.set_message("merging");
    while store.compact(clock.now()).await.context("failed to merge files")?.is_some() {}
    bar.finish_and_clear();
    Ok(imported)
}

/// Offers a recording as its gateway would: what is where, then batch after batch. All or nothing, since the digest
/// chain begins at the first batch.
fn offer(ingest: &mut Ingest, recording: &Recording, meaning: &Meaning, now: Timestamp) -> anyhow::Result<Became> {
    let topic = |channel| Ok::<_, anyhow::Error>(Topic::new(meaning.area.clone(), recording.gateway()?, channel));
    let inventory = serde_json::to_vec(&recording.inventory(meaning)?)?;
    let message = Message::read(topic(Channel::Inventory)?, None, "application/json".to_owned(), inventory.into());
    let batches = recording.batches().collect::<anyhow::Result<Vec<_>>>()?;
    ingest.offer(message, now);
    let topic = topic(Channel::Batch(Lane::Routine))?;
    let (mut is_new, mut doubtful) = (false, BTreeMap::new());
    for (labels, Sealed { content_type, bytes }) in batches {
        let Labels { epoch, lane, seq, prev, .. } = labels;
        let digest = Digest::of_batch(epoch, lane, seq, prev, content_type.as_str(), &bytes);
        let content_type = content_type.as_str().to_owned();
        let message = Message::read(topic.clone(), Some(&labels.encode()), content_type, bytes.into());
        let offered = ingest.offer(message, now);
        match offered.receipt {
            None => is_new = true,
            Some((_, receipt)) if receipt.next == seq + 1 && receipt.digest != digest => return Ok(Became::Forked),
            Some((_, receipt)) if receipt.next <= seq => return Ok(Became::Forked),
            Some(_) => {}
        }
        for event in &offered.events {
            let Event::Accepted { rows, .. } = event else { continue };
            for row in rows.iter().filter(|row| row.quality != Quality::Good) {
                *doubtful.entry(row.quality.to_string()).or_insert(0) += 1;
            }
        }
    }
    Ok(if is_new { Became::Added(doubtful) } else { Became::Known })
}

/// What is registered of the home must be what the meaning says of it: its days and its rooms hang on that.
fn agrees(registry: &Registry, recording: &Recording, meaning: &Meaning) -> anyhow::Result<()> {
    let Some(home) = registry.home(&recording.home) else { return Ok(()) };
    if (&home.area, home.time_zone, home.residents) == (&meaning.area, meaning.time_zone, meaning.residents) {
        return Ok(());
    }
    bail!(
        "{}: home {} is registered in area {}, time zone {}, with {} residents, and the meaning says {}, {}, {}\n\
         hint: make the meaning say the same, or import into another data folder",
        recording.path.display(),
        home.id,
        home.area,
        home.time_zone,
        home.residents,
        meaning.area,
        meaning.time_zone,
        meaning.residents
    );
}

/// A file that repeats what another one brought, as a longer export does, would double it.
async fn is_new(config: &Config, recording: &Recording) -> anyhow::Result<()> {
    let (own, home) = (recording.gateway()?, &recording.home);
    let statement = format!(
        "SELECT gateway_id, device_id, quantity, CAST(arrow_cast(event_time, 'Timestamp(Millisecond, Some(\"UTC\"))') AS BIGINT) \
         FROM observations WHERE home_id = '{home}'"
    );
    let there = crate::sql::answer(&config.data, &statement, Format::Csv).await?;
    let there: HashSet<&str> = there.lines().skip(1).collect();
    if there.iter().any(|row| row.split(',').next() == Some(own.as_str())) {
        return Ok(());
    }
    let there: HashSet<&str> = there.into_iter().filter_map(|row| Some(row.split_once(',')?.1)).collect();
    let n_there = recording.records.iter().filter(|record| {
        let row = format!("{},{},{}", record.series.device, record.series.quantity, recording::millis(record));
        there.contains(row.as_str())
    });
    match n_there.count() {
        0 => Ok(()),
        n => bail!(
            "{}: {n} of its {} rows are in the table already, from another file\n\
             hint: leave them out of this file, or import it into another data folder",
            recording.path.display(),
            recording.records.len()
        ),
    }
}

async fn register(registry: &Registry, recording: &Recording, meaning: &Meaning, now: Timestamp) -> anyhow::Result<()> {
    if registry.home(&recording.home).is_some() {
        return Ok(());
    }
    let inventory = recording.inventory(meaning)?;
    let beds = inventory.beds.into_iter().map(|bed| Bed { name: bed.id.to_string(), id: bed.id, person: None });
    let home = Home {
        id: inventory.home,
        area: inventory.area,
        gateway: Some(inventory.gateway),
        name: recording.home.to_string(),
        time_zone: meaning.time_zone,
        residents: meaning.residents,
        lamp: None,
        beds: beds.collect(),
    };
    Ok(crate::live::put(registry, home, now).await?)
}

fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} files, {msg} ({eta} left)");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
