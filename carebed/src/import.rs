//! Recordings into the table, through the same door as live data.
//!
//! A recording is a CSV `ts_utc,sensor_id,kind,value`, gzipped or not; a [`meaning::Meaning`] says what its sensors
//! are. Each file becomes the spool of a virtual gateway whose epoch is the file's hash: importing it again offers
//! batches the centre has, so nothing is added. A broken line is told with its place and left out; the rest goes on.

pub mod meaning;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_console::database::Database;
use carebed_console::registry::{Bed, Home, Registry};
use carebed_contract::clock::{Clock as _, SystemClock};
use carebed_contract::digest::Digest;
use carebed_contract::id::{Area, BedId, DeviceId, GatewayId, HomeId, Room};
use carebed_contract::inventory::{Inventory, InventoryBed, InventoryDevice};
use carebed_contract::labels::{Epoch, Labels, Lane};
use carebed_contract::pack::{Pack, Sealed};
use carebed_contract::quality::Quality;
use carebed_contract::record::{Record, RecordTime, Series};
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::topic::{Channel, Topic};
use carebed_pipeline::ingest::Ingest;
use carebed_pipeline::message::Message;
use carebed_pipeline::store::{Config as StoreConfig, Store};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{ImportArguments, complain, say};
use crate::config::Config;
use crate::exit::Exit;
use meaning::Meaning;

/// Meanings that come with the program, named by dataset.
pub const SHIPPED: &[(&str, &str)] = &[
    ("tihm", include_str!("../../deploy/import/tihm.toml")),
    ("ordonez", include_str!("../../deploy/import/ordonez.toml")),
    ("somnofy", include_str!("../../deploy/import/somnofy.toml")),
];

/// Records in one batch: a few tens of kilobytes once compressed.
const RECORDS_PER_BATCH: usize = 5_000;
/// Days that one batch may span; records of one value a day would otherwise reach over years.
const DAYS_PER_BATCH: i64 = 200;
/// Rows of one commit. Files are cut by day, so fewer commits give fewer and larger files; these rows take about 0.5 GiB.
const ROWS_PER_COMMIT: usize = 1_000_000;
/// Largest recording taken, uncompressed: it is held in memory while it is read.
const BYTES_MAX: u64 = 1 << 30;
/// Broken lines told one by one; the rest is counted.
const TOLD_MAX: usize = 20;

/// One line that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Line number in the file, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub reason: String,
}

/// A recording, read and understood.
#[derive(Debug)]
pub struct Recording {
    /// Where it came from.
    pub path: PathBuf,
    /// The home, named by the file.
    pub home: HomeId,
    /// Names the file for ever.
    pub digest: Digest,
    /// Its rows, in the file's order.
    pub records: Vec<Record>,
    /// Lines that could not be used.
    pub broken: Vec<Broken>,
    /// Its sensors as devices with their places.
    devices: BTreeMap<DeviceId, InventoryDevice>,
}

impl Recording {
    /// Reads a file. Fails only when the file as a whole cannot be used.
    pub fn read(path: &Path, meaning: &Meaning) -> anyhow::Result<Self> {
        let home = home_of(path)?;
        let bytes = read_bytes(path)?;
        let digest = Digest::of_bytes(&bytes);
        let mut lines = BufReader::new(bytes.as_slice()).lines();
        let header = lines.next().transpose().with_context(|| format!("{}:1: not text", path.display()))?;
        if header.as_deref().map(str::trim_end) != Some("ts_utc,sensor_id,kind,value") {
            bail!(
                "{}:1: expected the header ts_utc,sensor_id,kind,value, found {:?}\nhint: convert the recording to these four columns",
                path.display(),
                header.unwrap_or_default()
            );
        }
        let mut recording = Self {
            path: path.to_owned(),
            home,
            digest,
            records: Vec::new(),
            broken: Vec::new(),
            devices: BTreeMap::new(),
        };
        let mut rows = csv::ReaderBuilder::new().has_headers(true).flexible(true).from_reader(bytes.as_slice());
        let mut row = csv::StringRecord::new();
        loop {
            let next = rows.read_record(&mut row);
            let line = usize::try_from(rows.position().line()).unwrap_or(usize::MAX);
            match next {
                Ok(false) => break,
                Ok(true) => match recording.understand(&row, meaning) {
                    Ok(record) => recording.records.push(record),
                    Err(reason) => recording.broken.push(Broken { line: place(&row, line), reason }),
                },
                Err(error) => recording.broken.push(Broken { line, reason: error.to_string() }),
            }
        }
        Ok(recording)
    }

    fn understand(&mut self, row: &csv::StringRecord, meaning: &Meaning) -> Result<Record, String> {
        let (Some(time), Some(sensor), Some(kind), Some(text), None) =
            (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
        else {
            return Err(format!("expected 4 columns, found {}", row.len()));
        };
        let at = Timestamp::parse(time)
            .ok_or_else(|| format!("{time:?} is not a time; write it as 2026-03-01T22:15:00Z"))?;
        let rule = meaning.rule(sensor, kind).ok_or_else(|| {
            format!("the meaning does not say what sensor {sensor:?} of kind {kind:?} is; add a [[sensor]] for it")
        })?;
        let value = rule.value(text).ok_or_else(|| format!("{text:?} is not a value of {}", rule.quantity))?;
        let bed = rule.bed.then(|| BedId::new(format!("{}-bed", self.home))).transpose().map_err(|e| e.to_string())?;
        let device = DeviceId::new(sensor).map_err(|e| e.to_string())?;
        let known = self.devices.entry(device.clone()).or_insert_with(|| InventoryDevice {
            id: device.clone(),
            bed: bed.clone(),
            room: rule.room.clone(),
            profile: "import".to_owned(),
            quantities: Vec::new(),
            actions: Vec::new(),
        });
        if !known.quantities.contains(&rule.quantity) {
            known.quantities.push(rule.quantity.clone());
        }
        Ok(Record {
            series: Series { home: self.home.clone(), bed, device, quantity: rule.quantity.clone() },
            time: RecordTime::At(at),
            value,
            unit: None,
            quality: Quality::Good,
            clock: ClockQuality::Synchronised,
            gateway_time: None,
            monotonic: None,
        })
    }

    /// The epoch of the virtual gateway's only spool: the file's hash.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        let [a, b, c, d, e, f, g, h, ..] = *self.digest.as_bytes();
        Epoch::new(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The virtual gateway, one per file: two files of one home are two spools, not one with a lost tail.
    pub fn gateway(&self) -> anyhow::Result<GatewayId> {
        Ok(GatewayId::new(format!("import-{}", self.epoch()))?)
    }

    /// The file's batches with their labels, in order.
    ///
    /// Only the last says up to when the home is complete: a recording is whole or nothing.
    pub fn batches(&self) -> impl Iterator<Item = anyhow::Result<(Labels, Sealed)>> + '_ {
        let epoch = self.epoch();
        let batches = cut(&self.records);
        let n_batches = batches.len();
        let end = self.records.iter().filter_map(|r| match r.time {
            RecordTime::At(at) => Some(at),
            RecordTime::BeforeReceive(_) => None,
        });
        let complete_to = end.max().map_or(Timestamp::MIN, |last| last + Duration::from_millis(1));
        let mut prev = Digest::ORIGIN;
        batches.into_iter().enumerate().map(move |(index, records)| {
            let sealed = Pack { boot: None, records: records.to_vec() }
                .seal()
                .with_context(|| format!("failed to pack {}", self.path.display()))?;
            let seq = index as u64;
            let labels = Labels {
                complete_to: if index + 1 == n_batches { complete_to } else { Timestamp::MIN },
                ..Labels::of(epoch, Lane::Routine, seq, prev)
            };
            prev = Digest::of_batch(epoch, Lane::Routine, seq, prev, sealed.content_type.as_str(), &sealed.bytes);
            Ok((labels, sealed))
        })
    }

    /// What is where in the home, as far as the meaning says.
    pub fn inventory(&self, meaning: &Meaning) -> anyhow::Result<Inventory> {
        let unknown = Room::new("unknown")?;
        let bed_rooms: BTreeMap<&BedId, &Room> = self
            .devices
            .values()
            .filter_map(|d| Some((d.bed.as_ref()?, d.room.as_ref().unwrap_or(&unknown))))
            .collect();
        let mut rooms: Vec<Room> = self.devices.values().filter_map(|d| d.room.clone()).collect();
        rooms.sort();
        rooms.dedup();
        Ok(Inventory {
            version: self.digest.to_string(),
            since: Timestamp::MIN,
            area: meaning.area.clone(),
            gateway: self.gateway()?,
            home: self.home.clone(),
            time_zone: meaning.time_zone.name().to_owned(),
            residents: meaning.residents,
            rooms,
            beds: bed_rooms.into_iter().map(|(id, room)| InventoryBed { id: id.clone(), room: room.clone() }).collect(),
            devices: self.devices.values().cloned().collect(),
            withheld: Vec::new(),
        })
    }

    /// What to tell a person about the lines left out; empty when there are none.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let path = self.path.display();
        let mut told: Vec<String> =
            self.broken.iter().take(TOLD_MAX).map(|b| format!("{path}:{}: {}", b.line, b.reason)).collect();
        if self.broken.len() > TOLD_MAX {
            told.push(format!("{path}: and {} more lines left out", self.broken.len() - TOLD_MAX));
        }
        told
    }
}

/// What became of one recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    /// Its rows are new.
    Added,
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
        None => {
            Meaning::load(Path::new(&arguments.meaning)).context("give a file, or one of tihm, ordonez, somnofy")?
        }
    };
    let imported = import(&Config::at(arguments.data), &meaning, &arguments.files).await?;
    say(&format!(
        "{} rows added from {} files; {} files were there already; {} lines and {} files left out",
        imported.rows, imported.added, imported.known, imported.broken, imported.refused
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
    let mut ingest = Ingest::new(store.clone()).await?;
    let clock = SystemClock::new();
    let bar = progress(files.len() as u64);
    let (mut imported, mut pending) = (Imported::default(), 0);
    for path in files {
        bar.set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        match Recording::read(path, meaning) {
            Ok(recording) => {
                recording.complaints().iter().for_each(|line| bar.suspend(|| complain(line)));
                imported.broken += recording.broken.len();
                register(&registry, &recording, meaning, clock.now()).await?;
                match offer(&mut ingest, &recording, meaning, clock.now())? {
                    Became::Added => {
                        imported.added += 1;
                        imported.rows += recording.records.len();
                        pending += recording.records.len();
                    }
                    Became::Known => imported.known += 1,
                    Became::Forked => {
                        imported.refused += 1;
                        let line = format!(
                            "{}: imported before under another meaning, and left as it is\nhint: import it into another data folder",
                            path.display()
                        );
                        bar.suspend(|| complain(&line));
                    }
                }
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
    ingest.offer(message, now);
    let batches = topic(Channel::Batch(Lane::Routine))?;
    let mut became = Became::Known;
    for batch in recording.batches() {
        let (labels, Sealed { content_type, bytes }) = batch?;
        let digest =
            Digest::of_batch(labels.epoch, labels.lane, labels.seq, labels.prev, content_type.as_str(), &bytes);
        let content_type = content_type.as_str().to_owned();
        let message = Message::read(batches.clone(), Some(&labels.encode()), content_type, bytes.into());
        let offered = ingest.offer(message, now);
        match offered.receipt {
            None => became = Became::Added,
            Some((_, receipt)) if receipt.next == labels.seq + 1 && receipt.digest != digest => {
                return Ok(Became::Forked);
            }
            Some((_, receipt)) if receipt.next <= labels.seq => return Ok(Became::Forked),
            Some(_) => {}
        }
    }
    Ok(became)
}

async fn register(registry: &Registry, recording: &Recording, meaning: &Meaning, now: Timestamp) -> anyhow::Result<()> {
    let inventory = recording.inventory(meaning)?;
    if registry.home(&recording.home).is_some() {
        return Ok(());
    }
    let home = Home {
        id: recording.home.clone(),
        area: Area::clone(&inventory.area),
        gateway: inventory.gateway,
        name: recording.home.to_string(),
        time_zone: meaning.time_zone,
        residents: meaning.residents,
        lamp: None,
        beds: inventory
            .beds
            .into_iter()
            .map(|bed| Bed { name: bed.id.to_string(), id: bed.id, person: None })
            .collect(),
    };
    Ok(crate::live::put(registry, home, now).await?)
}

fn progress(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} files, {msg} ({eta} left)");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Cuts records into batches by number and by the days they span: the centre takes no batch that reaches over years.
fn cut(records: &[Record]) -> Vec<&[Record]> {
    let day = |record: &Record| match record.time {
        RecordTime::At(at) => at.millis().div_euclid(86_400_000),
        RecordTime::BeforeReceive(_) => 0,
    };
    let mut batches = Vec::new();
    let mut rest = records;
    while let Some(first) = rest.first() {
        let near = |record: &&Record| (day(record) - day(first)).abs() < DAYS_PER_BATCH;
        let length = rest.iter().take(RECORDS_PER_BATCH).take_while(near).count();
        let (batch, behind) = rest.split_at(length.max(1));
        batches.push(batch);
        rest = behind;
    }
    batches
}

/// The line a row began on; the reader's own position is already behind it.
fn place(row: &csv::StringRecord, otherwise: usize) -> usize {
    row.position().map_or(otherwise, |p| usize::try_from(p.line()).unwrap_or(usize::MAX))
}

/// The home is named by the file: everything before the first dot.
fn home_of(path: &Path) -> anyhow::Result<HomeId> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    HomeId::new(stem)
        .with_context(|| format!("{}: the file's name up to the first dot must be the home's id", path.display()))
}

fn read_bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let failed = || format!("failed to read {}", path.display());
    let file = std::fs::File::open(path).with_context(failed)?;
    let mut bytes = Vec::new();
    let zipped = path.extension().is_some_and(|e| e == "gz");
    let read = if zipped {
        flate2::read::MultiGzDecoder::new(file).take(BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes)
    };
    read.with_context(failed)?;
    if bytes.len() as u64 > BYTES_MAX {
        bail!("{} is larger than {BYTES_MAX} bytes\nhint: split it by day", path.display());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> anyhow::Result<Recording> {
        let folder = std::env::temp_dir().join(format!("carebed-import-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        let meaning = Meaning::parse(SHIPPED[0].0, SHIPPED[0].1).unwrap();
        let recording = Recording::read(&path, &meaning);
        std::fs::remove_dir_all(folder).unwrap();
        recording
    }

    const HEADER: &str = "ts_utc,sensor_id,kind,value\n";

    #[test]
    fn a_broken_line_is_told_with_its_place_and_the_rest_goes_on() {
        let text = format!(
            "{HEADER}2019-04-02T12:00:00Z,kitchen,motion,1\nyesterday,kitchen,motion,1\n2019-04-02T12:01:00Z,attic,ghost,1\n\
             2019-04-02T12:02:00Z,kitchen,motion\n2019-04-02T12:03:00Z,kitchen,motion,7\n2019-04-02T12:04:00Z,front-door,door,1\n"
        );
        let recording = read("h1.csv", &text).unwrap();
        assert_eq!((recording.home.as_str(), recording.records.len()), ("h1", 2));
        let told: Vec<(usize, &str)> = recording.broken.iter().map(|b| (b.line, b.reason.as_str())).collect();
        let expected =
            [(3, "is not a time"), (4, "does not say what sensor"), (5, "expected 4 columns"), (6, "is not a value")];
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for ((line, reason), (at, part)) in told.into_iter().zip(expected) {
            assert!(line == at && reason.contains(part), "{line}: {reason}");
        }
    }

    #[test]
    fn a_file_of_another_kind_is_refused_as_a_whole() {
        for (name, text, part) in
            [("h1.csv", "time,value\n1,2\n", ":1: expected the header"), ("h 1.csv", HEADER, "home's id")]
        {
            assert!(format!("{:#}", read(name, text).unwrap_err()).contains(part), "{name}");
        }
    }

    #[test]
    fn batches_chain_and_span_no_years() {
        let rows: String = (0..900)
            .map(|day| {
                let date = chrono::NaiveDate::from_ymd_opt(2017, 1, 1).unwrap() + chrono::Duration::days(day);
                format!("{date}T08:00:00Z,weight,weight,70\n")
            })
            .collect();
        let recording = read("h1.csv", &format!("{HEADER}{rows}")).unwrap();
        let batches: Vec<(Labels, Sealed)> = recording.batches().collect::<anyhow::Result<_>>().unwrap();
        assert_eq!(batches.len(), 5);
        assert!(batches.iter().enumerate().all(|(seq, (labels, _))| labels.seq == seq as u64));
        assert_eq!(
            batches.iter().filter(|(labels, _)| labels.complete_to > Timestamp::MIN).count(),
            1,
            "only the last one"
        );
    }
}
