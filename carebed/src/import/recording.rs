//! One recording: a CSV `ts_utc,sensor_id,kind,value`, read, understood, and made into the batches of a virtual gateway.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_contract::digest::Digest;
use carebed_contract::id::{BedId, DeviceId, GatewayId, HomeId, Room};
use carebed_contract::inventory::{Inventory, InventoryBed, InventoryDevice};
use carebed_contract::labels::{Epoch, Labels, Lane};
use carebed_contract::pack::{EARLIEST, Pack, Sealed};
use carebed_contract::quality::Quality;
use carebed_contract::record::{Record, RecordTime, Series};
use carebed_contract::time::{ClockQuality, Timestamp};
use carebed_contract::value::Value;

use super::meaning::Meaning;

/// Records in one batch: a few tens of kilobytes once compressed.
const RECORDS_PER_BATCH: usize = 5_000;
/// Days that one batch may span; records of one value a day would otherwise reach over years.
const DAYS_PER_BATCH: i64 = 200;
/// Largest recording taken, uncompressed: it is held in memory while it is read.
const BYTES_MAX: u64 = 1 << 30;
/// Kinds of broken lines told; the rest is counted.
const TOLD_MAX: usize = 20;
/// Characters of a cell that a message shows.
const SHOWN_MAX: usize = 60;

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
    /// Lines that said once more what a line before them said; they are left out.
    pub repeated: usize,
    /// Its sensors as devices with their places.
    devices: BTreeMap<DeviceId, InventoryDevice>,
}

impl Recording {
    /// Reads a file. Fails only when the file as a whole cannot be used.
    pub fn read(path: &Path, meaning: &Meaning) -> anyhow::Result<Self> {
        let home = home_of(path)?;
        let bytes = read_bytes(path)?;
        let digest = Digest::of_bytes(&bytes);
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        let header = BufReader::new(text).lines().next().transpose();
        let header = header.with_context(|| format!("{}:1: not text", path.display()))?;
        let columns = header.as_deref().unwrap_or_default().replace('"', "");
        if columns.trim_end() != "ts_utc,sensor_id,kind,value" {
            bail!(
                "{}:1: expected the header ts_utc,sensor_id,kind,value, found {}\nhint: convert the recording to these four columns",
                path.display(),
                shown(&header.unwrap_or_default())
            );
        }
        let mut recording = Self {
            path: path.to_owned(),
            home,
            digest,
            records: Vec::new(),
            broken: Vec::new(),
            repeated: 0,
            devices: BTreeMap::new(),
        };
        // Without quoting a line is a row, whatever stands in it: an open quote would swallow all that follows.
        let mut rows = csv::ReaderBuilder::new().quoting(false).flexible(true).from_reader(text);
        let mut row = csv::StringRecord::new();
        let mut said = HashSet::new();
        loop {
            match rows.read_record(&mut row) {
                Ok(false) => break,
                Ok(true) => match recording.understand(&row, meaning) {
                    Ok(record) => {
                        let Series { device, quantity, .. } = &record.series;
                        if said.insert((device.clone(), quantity.clone(), millis(&record), bits(&record.value))) {
                            recording.records.push(record);
                        } else {
                            recording.repeated += 1;
                        }
                    }
                    Err(reason) => recording.broken.push(Broken { line: line(row.position()), reason }),
                },
                Err(error) => {
                    recording
                        .broken
                        .push(Broken { line: line(error.position()), reason: "not text (UTF-8)".to_owned() });
                }
            }
        }
        Ok(recording)
    }

    fn understand(&mut self, row: &csv::StringRecord, meaning: &Meaning) -> Result<Record, String> {
        let (Some(time), Some(sensor), Some(kind), Some(text), None) =
            (cell(row, 0), cell(row, 1), cell(row, 2), cell(row, 3), cell(row, 4))
        else {
            return Err(format!("expected 4 columns, found {}", row.len()));
        };
        let at = Timestamp::parse(time)
            .ok_or_else(|| format!("{} is not a time; write it as 2026-03-01T22:15:00Z", shown(time)))?;
        if at < EARLIEST {
            return Err(format!("{at} is before {EARLIEST}, as a clock shows that was never set"));
        }
        let rule = meaning.rule(sensor, kind).ok_or_else(|| {
            format!(
                "the meaning does not say what sensor {} of kind {} is; add a [[sensor]] for it",
                shown(sensor),
                shown(kind)
            )
        })?;
        let value = rule.value(text).ok_or_else(|| format!("{} is not a value of {}", shown(text), rule.quantity))?;
        let bed = rule.bed.then(|| BedId::new(format!("{}-bed", self.home))).transpose().map_err(|e| e.to_string())?;
        let device = DeviceId::new(sensor).map_err(|_| {
            format!("{} cannot be the id of a sensor; use letters, digits, dots, dashes and underscores", shown(sensor))
        })?;
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

    /// What to tell a person about the lines left out, each kind of mistake once; empty when there are none.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let path = self.path.display();
        let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for Broken { line, reason } in &self.broken {
            kinds.entry(reason).or_insert((*line, 0)).1 += 1;
        }
        let mut kinds: Vec<_> = kinds.into_iter().map(|(reason, (first, n))| (first, reason, n)).collect();
        kinds.sort_unstable();
        let mut told: Vec<String> = Vec::new();
        for (first, reason, n) in kinds.iter().take(TOLD_MAX) {
            let others = if *n > 1 { format!(" (and {} lines more like it)", n - 1) } else { String::new() };
            told.push(format!("{path}:{first}: {reason}{others}"));
        }
        let rest: usize = kinds.iter().skip(TOLD_MAX).map(|(.., n)| n).sum();
        if rest > 0 {
            told.push(format!("{path}: and {rest} more lines left out"));
        }
        if self.repeated > 0 {
            told.push(format!(
                "{path}: {} lines say once more what a line before them said, and count once",
                self.repeated
            ));
        }
        told
    }
}

/// A cell, without the quotation marks that some programs put around every one.
fn cell(row: &csv::StringRecord, index: usize) -> Option<&str> {
    let text = row.get(index)?;
    Some(text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text))
}

/// A cell as a message shows it.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_MAX).collect();
    if start.len() < text.len() { format!("{start:?}…") } else { format!("{start:?}") }
}

/// When it was, in milliseconds since 1970.
pub(super) fn millis(record: &Record) -> i64 {
    match record.time {
        RecordTime::At(at) => at.millis(),
        RecordTime::BeforeReceive(_) => 0,
    }
}

/// A value that can be looked up.
fn bits(value: &Value) -> u64 {
    match value {
        Value::Number(number) => number.to_bits(),
        Value::Flag(flag) => u64::from(*flag),
        Value::Text(_) | Value::Missing => 0,
    }
}

/// The line of a row, from 1.
fn line(position: Option<&csv::Position>) -> usize {
    position.map_or(0, |at| usize::try_from(at.line()).unwrap_or(usize::MAX))
}

/// Cuts records into batches by number and by the days they span: the centre takes no batch that reaches over years.
fn cut(records: &[Record]) -> Vec<&[Record]> {
    let day = |record: &Record| millis(record).div_euclid(86_400_000);
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
        let meaning = Meaning::parse(super::super::SHIPPED[0].0, super::super::SHIPPED[0].1).unwrap();
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
    fn what_other_programs_write_is_read_all_the_same() {
        let marked = format!("\u{feff}{HEADER}2019-04-02T12:00:00Z,kitchen,motion,1\n");
        let crlf = marked.replace('\n', "\r\n");
        let quoted = "\"ts_utc\",\"sensor_id\",\"kind\",\"value\"\n\"2019-04-02T12:00:00Z\",\"kitchen\",\"motion\",1\n";
        for text in [&marked, &crlf, quoted] {
            let recording = read("h1.csv", text).unwrap();
            assert_eq!((recording.records.len(), recording.broken), (1, vec![]), "{text:?}");
        }
    }

    #[test]
    fn an_open_quote_an_early_clock_and_a_repeated_line_take_nothing_else_with_them() {
        let long = "x".repeat(10_000);
        let text = format!(
            "{HEADER}2019-04-02T12:00:00Z,kit\"chen,motion,1\n1970-01-01T00:00:07Z,kitchen,motion,1\n\
             2019-04-02T12:01:00Z,kitchen,motion,1\n2019-04-02T12:01:00Z,kitchen,motion,1\n\
             2019-04-02T12:02:00Z,kitchen,{long},1\n2019-04-02T12:03:00Z,kitchen,{long},1\n"
        );
        let recording = read("h1.csv", &text).unwrap();
        assert_eq!((recording.records.len(), recording.repeated, recording.broken.len()), (1, 1, 4));
        let told = recording.complaints();
        for (part, line) in ["h1.csv:2:", "h1.csv:3: 1970", "h1.csv:6:", "1 lines say once more"].into_iter().zip(&told)
        {
            assert!(line.contains(part) && line.len() < 400, "{part} is not in {line}");
        }
        assert!(told[2].contains("1 lines more like it") && told.len() == 4, "{told:#?}");
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
