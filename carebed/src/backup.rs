//! `carebed backup` and `carebed restore`: everything a centre needs, as plain files with their checksums.
//!
//! A backup is one consistent state of the lake, also while the centre runs: what the last commit named, the log up to it,
//! the watermarks and the tombstones; and the database of alerts and registry as SQLite itself copies it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use carebed_console::database::Database;
use carebed_pipeline::store::{Config as StoreConfig, Store};
use serde::{Deserialize, Serialize};

use crate::checksum;
use crate::cli::say;
use crate::config::Config;
use crate::exit::Exit;
use crate::fresh::Fresh;

const FORMAT: &str = "carebed-backup 1";
const MANIFEST: &str = "manifest.json";
/// The log may be summed up while it is copied; then the copy is made again, at most so often.
const ATTEMPTS_MAX: usize = 5;

/// Where from and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct BackupArguments {
    /// The centre's data folder.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
    /// A folder that is empty or not there, outside of the data folder.
    #[arg(long)]
    pub to: PathBuf,
}

/// Where from and where to.
#[derive(Debug, Clone, clap::Args)]
pub struct RestoreArguments {
    /// A folder that `carebed backup` made.
    #[arg(long)]
    pub from: PathBuf,
    /// The data folder to make; it must be empty or not there.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
}

/// What is in a backup.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: String,
    /// Version of the table `observations`, and its rows.
    version: u64,
    rows: u64,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
}

/// `carebed backup`
pub async fn run(arguments: BackupArguments) -> anyhow::Result<Exit> {
    let BackupArguments { data, to } = arguments;
    let fresh = Fresh::begin(&to, &data)?;
    let mut attempt = 1;
    let manifest = loop {
        match copy(&data, &to).await {
            Ok(manifest) => break manifest,
            Err(error) if attempt < ATTEMPTS_MAX && is_gone(&error) => attempt += 1,
            Err(error) => return Err(error),
        }
    };
    std::fs::write(to.join(MANIFEST), serde_json::to_vec_pretty(&manifest)?)?;
    sync(&to.join(MANIFEST))?;
    // What cannot be opened is no backup.
    let rows = rows_of(&to).await.context("the backup cannot be read; make it again")?;
    ensure!(rows == manifest.rows, "the backup holds {rows} rows instead of {}; make it again", manifest.rows);
    fresh.whole();
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    say(&format!("{} rows, {} files, {bytes} bytes in {}", manifest.rows, manifest.files.len(), to.display()));
    Ok(Exit::Done)
}

/// `carebed restore`
pub async fn restore(arguments: RestoreArguments) -> anyhow::Result<Exit> {
    let RestoreArguments { from, data } = arguments;
    let place = from.join(MANIFEST);
    let text = std::fs::read(&place).with_context(|| format!("{} is no backup", from.display()))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", place.display()))?;
    ensure!(manifest.format == FORMAT, "{} is of another format ({})", place.display(), manifest.format);
    let fresh = Fresh::begin(&data, &from)?;
    for entry in &manifest.files {
        let path = inside(&entry.path)?;
        let found = copy_file(&from.join(&path), &data.join(&path))?;
        ensure!(
            found.sha256 == entry.sha256,
            "{} is damaged: nothing of this backup should be used; take another one",
            from.join(path).display()
        );
    }
    let rows = rows_of(&data).await.context("the restored lake cannot be read")?;
    ensure!(rows == manifest.rows, "the restored lake holds {rows} rows instead of {}", manifest.rows);
    fresh.whole();
    say(&format!(
        "{rows} rows restored to {}; gateways whose later data the centre had received open a new epoch, and what is gone \
         is declared in gaps",
        data.display()
    ));
    Ok(Exit::Done)
}

async fn copy(data: &Path, to: &Path) -> anyhow::Result<Manifest> {
    let config = Config::at(data.to_owned());
    let store = crate::sql::open(data).await?;
    let view = store.view();
    let lake = config.lake();
    // What changes soonest goes first.
    let mut files = Vec::new();
    for part in ["watermarks", "erasures"] {
        below(&lake.join(part), &mut files)?;
    }
    for (table, part) in
        [("observations", &view.observations), ("gaps", &view.gaps), ("dead_letters", &view.dead_letters)]
    {
        let mut log = Vec::new();
        below(&lake.join(table).join("_delta_log"), &mut log)?;
        files.extend(log.into_iter().filter(|path| is_up_to(path, part.version)));
        files.extend(part.files.iter().map(|file| lake.join(table).join(&*file.path)));
    }
    let mut entries = Vec::with_capacity(files.len() + 2);
    for path in files {
        let below = path.strip_prefix(data).context("a file of the lake lies outside the data folder")?;
        entries.push(Entry { path: below.display().to_string(), ..copy_file(&path, &to.join(below))? });
    }
    let params = config.params();
    if params.is_file() {
        entries.push(Entry { path: "params.toml".into(), ..copy_file(&params, &to.join("params.toml"))? });
    }
    if config.database().is_file() {
        let copy = to.join("centre.sqlite");
        drop(std::fs::remove_file(&copy));
        Database::open_read(&config.database()).await?.copy_to(&copy).await.context("failed to copy the database")?;
        entries.push(Entry { path: "centre.sqlite".into(), ..entry(&copy)? });
    }
    let rows = view.observations.files.iter().filter_map(|file| file.rows).sum();
    Ok(Manifest { format: FORMAT.to_owned(), version: view.observations.version, rows, files: entries })
}

/// Whether a file of the log is needed for a version: entries and checkpoints up to it. The hint at the last checkpoint is
/// left out: it may be ahead, and readers do without.
fn is_up_to(path: &Path, version: u64) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()?.split_once('.')?.0.parse::<u64>().ok());
    number.is_some_and(|number| number <= version)
}

fn is_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    })
}

/// All files below a folder; none where there is no such folder.
fn below(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let reading = || format!("failed to read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        // Names with a # are files that are being written.
        if path.is_dir() {
            below(&path, files)?;
        } else if !path.to_string_lossy().contains('#') {
            files.push(path);
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> anyhow::Result<Entry> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    }
    std::fs::copy(from, to).with_context(|| format!("failed to copy {} to {}", from.display(), to.display()))?;
    sync(to)?;
    entry(to)
}

fn entry(path: &Path) -> anyhow::Result<Entry> {
    let (bytes, sha256) = checksum::of_file(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(Entry { path: String::new(), bytes, sha256 })
}

fn sync(path: &Path) -> anyhow::Result<()> {
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.with_context(|| format!("failed to put {} on stable storage", path.display()))
}

/// A path of a manifest, which must stay inside the folder.
fn inside(path: &str) -> anyhow::Result<PathBuf> {
    let path = PathBuf::from(path);
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    ensure!(plain, "{} points outside the backup", path.display());
    Ok(path)
}

async fn rows_of(data: &Path) -> anyhow::Result<u64> {
    let store = Store::open_read(StoreConfig::local(&Config::at(data.to_owned()).lake())?).await?;
    Ok(store.view().observations.files.iter().filter_map(|file| file.rows).sum())
}
