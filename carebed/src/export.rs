//! `carebed export`: what an upper tier, another system or a researcher is given, with counts and checksums.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use carebed_contract::time::Timestamp;
use carebed_queries::engine::Limits;
use carebed_queries::export::{self, Areas, Selection};
use carebed_queries::history::Span;
use carebed_queries::sql::Lake;
use chrono_tz::Tz;
use clap::ValueEnum;
use serde::Serialize;

use crate::checksum;
use crate::cli::say;
use crate::exit::Exit;
use crate::fresh::Fresh;

/// Nobody's calls wait for an export: it is a process of its own.
const LIMITS: Limits = Limits { memory_bytes: 2 << 30, partitions: 2, time: std::time::Duration::from_secs(24 * 3600) };

/// The checksums once more, as `sha256sum -c` reads them.
const SUMS: &str = "SHA256SUMS";

/// Whom an export is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// One folder with all that is selected.
    All,
    /// A folder a district: the first six digits of the areas' codes.
    District,
    /// A folder a street or township: the first nine digits.
    Street,
    /// A folder an area.
    Community,
}

impl Tier {
    /// How much of an area's code names the tier; none: nothing of it.
    fn digits(self) -> usize {
        match self {
            Self::All => 0,
            Self::District => 6,
            Self::Street => 9,
            Self::Community => usize::MAX,
        }
    }

    /// The folders, and the areas of which each holds the rows: every area is in one of them. An area whose code is too short
    /// for the tier has a folder of its own.
    fn folders(self, areas: impl IntoIterator<Item = String>) -> BTreeMap<String, Vec<String>> {
        let mut folders = BTreeMap::<_, Vec<_>>::new();
        for area in areas {
            let code = area.get(..self.digits()).unwrap_or(&area).to_owned();
            folders.entry(code).or_default().push(area);
        }
        folders
    }
}

/// What to export.
#[derive(Debug, Clone, clap::Args)]
pub struct ExportArguments {
    /// The centre's data folder.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
    /// A folder that is empty or not there, outside of the data folder.
    #[arg(long)]
    pub to: PathBuf,
    /// Only areas whose code begins so.
    #[arg(long, default_value = "")]
    pub area: String,
    /// A folder for each of these.
    #[arg(long, value_enum, default_value_t = Tier::All)]
    pub tier: Tier,
    /// First day (UTC), e.g. 2026-03-01; all data when absent.
    #[arg(long, value_parser = day)]
    pub from: Option<Timestamp>,
    /// Day after the last (UTC).
    #[arg(long, value_parser = day)]
    pub to_day: Option<Timestamp>,
    /// Also nightly vitals as FHIR R5 Observations (NDJSON).
    #[arg(long)]
    pub fhir: bool,
    /// Where nights are counted.
    #[arg(long, default_value = "Asia/Shanghai", value_parser = zone)]
    pub zone: Tz,
}

fn day(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(&format!("{text}T00:00:00Z"))
        .ok_or_else(|| format!("{text:?} is not a day; write it as 2026-03-01"))
}

fn zone(text: &str) -> Result<Tz, String> {
    text.parse().map_err(|_| format!("{text:?} is no time zone; write it as Asia/Shanghai"))
}

/// What is in an export.
#[derive(Debug, Serialize)]
struct Manifest {
    format: &'static str,
    /// Version of the table `observations`.
    version: u64,
    area: String,
    from: Option<String>,
    to: Option<String>,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    path: String,
    rows: u64,
    bytes: u64,
    sha256: String,
}

/// `carebed export`
pub async fn run(arguments: ExportArguments) -> anyhow::Result<Exit> {
    let ExportArguments { data, to, area, tier, from, to_day, fhir, zone } = arguments;
    if let (Some(from), Some(to_day)) = (from, to_day)
        && from >= to_day
    {
        bail!("nothing lies between --from {from} and --to-day {to_day}\nhint: --to-day is the day after the last");
    }
    let fresh = Fresh::begin(&to, &data)?;
    let store = crate::sql::open(&data).await?;
    let (lake, view) = (Lake::of(&store), store.view());
    let session = crate::sql::session_over(&data, &store, LIMITS).await?;
    let span = Span { from: from.unwrap_or(Timestamp::MIN), to: to_day.unwrap_or(Timestamp::MAX) };
    let all = Areas::Beginning(area.clone());
    let folders: BTreeMap<String, Areas> = match tier {
        Tier::All => BTreeMap::from([(String::new(), all)]),
        _ => {
            let areas = export::areas(&session, &Selection { areas: all, span }).await?;
            tier.folders(areas).into_iter().map(|(code, areas)| (code, Areas::These(areas))).collect()
        }
    };
    let mut files = Vec::new();
    for (folder, areas) in folders {
        let (selection, folder) = (Selection { areas, span }, PathBuf::from(folder));
        std::fs::create_dir_all(to.join(&folder)).with_context(|| format!("failed to make {}", to.display()))?;
        for table in export::TABLES {
            let [parquet, lines] = ["parquet", "jsonl"].map(|form| folder.join(format!("{}.{form}", table.name)));
            let (mut parquet_out, mut lines_out) = (create(&to.join(&parquet))?, create(&to.join(&lines))?);
            let rows = export::rows(&session, table, &selection, &mut parquet_out, &mut lines_out).await?;
            for (path, out) in [(parquet, parquet_out), (lines, lines_out)] {
                files.push(finish(&to, &path, out, rows)?);
            }
        }
        if fhir {
            let path = folder.join("nightly-vitals.ndjson");
            let mut out = create(&to.join(&path))?;
            let rows = export::nightly_vitals(&lake, &view, &selection, zone, LIMITS, &mut out).await?;
            files.push(finish(&to, &path, out, rows)?);
        }
    }
    let rows: u64 = files.iter().filter(|file| file.path.ends_with(".parquet")).map(|file| file.rows).sum();
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let version = view.observations.version;
    let manifest =
        Manifest { format: "carebed-export 1", version, area: area.clone(), from: text(from), to: text(to_day), files };
    if rows == 0 && !area.is_empty() {
        let ever = Span { from: Timestamp::MIN, to: Timestamp::MAX };
        let selection = Selection { areas: Areas::Beginning(area.clone()), span: ever };
        if export::areas(&session, &selection).await?.is_empty() {
            bail!(
                "no area whose code begins with {area} has any data\nhint: carebed sql -c \"SELECT DISTINCT area FROM observations\""
            );
        }
    }
    write(&to.join("manifest.json"), &serde_json::to_vec_pretty(&manifest)?)?;
    let sums = manifest.files.iter().map(|Entry { path, sha256, .. }| format!("{sha256}  {path}\n"));
    write(&to.join(SUMS), sums.collect::<String>().as_bytes())?;
    fresh.whole();
    say(&format!("{rows} rows, {} files in {}", manifest.files.len(), to.display()));
    Ok(Exit::Done)
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("failed to make {}", path.display()))?))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}

/// Ends a file and says what is in it.
fn finish(root: &Path, path: &Path, mut out: BufWriter<File>, rows: u64) -> anyhow::Result<Entry> {
    let full = root.join(path);
    let written = out.flush().and_then(|()| out.get_ref().sync_all());
    written.with_context(|| format!("failed to write {}", full.display()))?;
    let (bytes, sha256) = checksum::of_file(&full).with_context(|| format!("failed to read {}", full.display()))?;
    Ok(Entry { path: path.display().to_string(), rows, bytes, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_area_is_in_one_folder_however_long_its_code() {
        let areas = ["310104", "310104001", "310104001001", "310104001002", "310105"].map(str::to_owned).to_vec();
        for (tier, expected) in [
            (Tier::District, vec![("310104", 4), ("310105", 1)]),
            (Tier::Street, vec![("310104", 1), ("310104001", 3), ("310105", 1)]),
            (
                Tier::Community,
                vec![("310104", 1), ("310104001", 1), ("310104001001", 1), ("310104001002", 1), ("310105", 1)],
            ),
        ] {
            let folders = tier.folders(areas.clone());
            let found: Vec<_> = folders.iter().map(|(code, areas)| (code.as_str(), areas.len())).collect();
            assert_eq!(found, expected, "{tier:?}");
        }
    }
}
