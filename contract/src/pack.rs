//! The payload of a batch: SenML (RFC 8428) as CBOR or JSON, optionally under zstd.
//!
//! A pack is sealed once and its bytes never change afterwards: the digest chain is over them. Records of one series
//! stand together under a base name and a base time, so a night of a bed mat is a few bytes a value. What SenML has no
//! word for travels under text labels of our own, which SenML tells a parser to ignore:
//!
//! | label | meaning | absent |
//! |---|---|---|
//! | `q` | quality, e.g. `uncertain:clock` | good |
//! | `ck` | clock quality | synchronised |
//! | `gt` | gateway time minus event time, ms | 0 |
//! | `mono` | gateway's monotonic time, ms | – |
//! | `boot` | number of the gateway's boot; on the first record, for the whole pack | – |
//!
//! SenML reads a time below 2²⁸ as relative to the moment of reception. [`RecordTime::BeforeReceive`] uses just that,
//! and an absolute time before 1978 is refused when encoding: no pack carries the time of a clock that was never set.

mod cbor;
mod json;

use std::cell::RefCell;
use std::time::Duration;

use zstd::bulk::Decompressor;

use crate::id::LENGTH_MAX;
use crate::quality::Quality;
use crate::record::{Record, RecordTime, Series, SeriesError};
use crate::time::{ClockQuality, Timestamp};
use crate::value::Value;

/// Most records a pack may hold. A larger one is refused by both ends.
pub const RECORDS_MAX: usize = 10_000;
/// Most bytes a pack may have once decompressed; more is refused, so a small payload cannot fill the memory.
pub const BYTES_MAX: usize = 4 << 20;
/// Longest text value kept, in bytes; a longer one is refused.
pub const TEXT_MAX: usize = 4096;
/// Packs of fewer bytes than this are sent as they are: zstd gains nothing on them (measured on single records).
const COMPRESS_FROM: usize = 256;
/// SenML (RFC 8428 §4.5.3): seconds below this are relative to now.
const RELATIVE_BELOW: f64 = 268_435_456.0;

/// The first instant that an absolute time of a record may be: before it SenML takes seconds for relative ones.
pub const EARLIEST: Timestamp = Timestamp::from_millis(268_435_456_000);

/// The media types a payload may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// `application/senml+cbor`
    Cbor,
    /// `application/senml+cbor+zstd`
    CborZstd,
    /// `application/senml+json`, so that a person can publish by hand.
    Json,
}

impl ContentType {
    /// The text in MQTT 5's Content Type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cbor => "application/senml+cbor",
            Self::CborZstd => "application/senml+cbor+zstd",
            Self::Json => "application/senml+json",
        }
    }

    /// Reads [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Cbor, Self::CborZstd, Self::Json].into_iter().find(|t| t.as_str() == text)
    }
}

/// A pack ready to travel: its bytes never change again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What the bytes are.
    pub content_type: ContentType,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// Observations that travel together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pack {
    /// The gateway's boot in which they were taken.
    pub boot: Option<u64>,
    /// The observations, in the order taken.
    pub records: Vec<Record>,
}

/// Why bytes are not a pack.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Another media type.
    #[error("content type {0:?} is not one of senml+cbor, senml+cbor+zstd, senml+json")]
    ContentType(String),
    /// Not zstd, or larger than [`BYTES_MAX`] once decompressed.
    #[error("failed to decompress the payload (at most {BYTES_MAX} bytes)")]
    Compression(#[source] std::io::Error),
    /// Not CBOR of the expected shape.
    #[error("failed to read CBOR")]
    Cbor(#[from] minicbor::decode::Error),
    /// Not JSON of the expected shape.
    #[error("failed to read JSON")]
    Json(#[from] serde_json::Error),
    /// A limit of this contract.
    #[error("the pack exceeds the limit of {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// The name of a record.
    #[error("record {index}: bad name")]
    Name {
        /// Position in the pack, from 0.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: SeriesError,
    },
    /// Something else about one record.
    #[error("record {index}: {what}")]
    Record {
        /// Position in the pack, from 0.
        index: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Why a pack cannot be sealed: a mistake of the caller, since all of it could be checked before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// An absolute time that only a clock that was never set can show.
    #[error("{series} carries the absolute time {time}, which an unset clock shows; send it relative to reception")]
    UnsetClock {
        /// Of which series.
        series: String,
        /// The time.
        time: Timestamp,
    },
    /// A number that is not finite.
    #[error("{0} carries a number that is not finite")]
    NotFinite(String),
    /// A limit of this contract.
    #[error("the pack exceeds the limit of {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
}

impl Pack {
    /// Checks and encodes, compressing when that pays.
    pub fn seal(&self) -> Result<Sealed, SealError> {
        let plain = self.encode()?;
        if plain.len() >= COMPRESS_FROM {
            // Level 3 is zstd's default; packs are small, so higher levels gain little for their time.
            if let Ok(packed) = zstd::bulk::compress(&plain, 3)
                && packed.len() < plain.len()
            {
                return Ok(Sealed { content_type: ContentType::CborZstd, bytes: packed });
            }
        }
        Ok(Sealed { content_type: ContentType::Cbor, bytes: plain })
    }

    /// Checks and encodes as plain SenML-CBOR.
    pub fn encode(&self) -> Result<Vec<u8>, SealError> {
        if self.records.len() > RECORDS_MAX {
            return Err(SealError::TooLarge { what: "records", limit: RECORDS_MAX });
        }
        for record in &self.records {
            let series = || record.series.to_string();
            match record.time {
                RecordTime::At(time) if seconds(time) < RELATIVE_BELOW => {
                    return Err(SealError::UnsetClock { series: series(), time });
                }
                _ => {}
            }
            match &record.value {
                Value::Number(number) if !number.is_finite() => return Err(SealError::NotFinite(series())),
                Value::Text(text) if text.len() > TEXT_MAX => {
                    return Err(SealError::TooLarge { what: "bytes of text", limit: TEXT_MAX });
                }
                _ => {}
            }
        }
        let bytes = cbor::encode(self);
        if bytes.len() > BYTES_MAX {
            return Err(SealError::TooLarge { what: "bytes", limit: BYTES_MAX });
        }
        Ok(bytes)
    }

    /// Reads a payload of any of the three media types, as [`read`] does.
    ///
    /// ```
    /// use carebed_contract::pack::Pack;
    /// let by_hand = br#"[{"n":"h1/b1/call-1/call_button","vb":true}]"#;
    /// let pack = Pack::decode("application/senml+json", by_hand)?;
    /// assert_eq!(pack.records.len(), 1);
    /// # Ok::<(), carebed_contract::pack::DecodeError>(())
    /// ```
    pub fn decode(content_type: &str, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut records = Vec::new();
        let boot = read(content_type, bytes, |entry| {
            let Entry { series, time, value, unit, quality, clock, gateway_time, monotonic } = entry;
            let (series, unit) = (series.clone(), unit.map(str::to_owned));
            records.push(Record { series, time, value, unit, quality, clock, gateway_time, monotonic });
        })?;
        Ok(Self { boot, records })
    }
}

/// One record of a payload: what a [`Record`] holds, without copies of what many have in common.
#[derive(Debug)]
pub struct Entry<'a> {
    /// See [`Record::series`].
    pub series: &'a Series,
    /// See [`Record::time`].
    pub time: RecordTime,
    /// See [`Record::value`].
    pub value: Value,
    /// See [`Record::unit`].
    pub unit: Option<&'a str>,
    /// See [`Record::quality`].
    pub quality: Quality,
    /// See [`Record::clock`].
    pub clock: ClockQuality,
    /// See [`Record::gateway_time`].
    pub gateway_time: Option<Timestamp>,
    /// See [`Record::monotonic`].
    pub monotonic: Option<Duration>,
}

/// Reads a payload of any of the three media types, record by record, and says its boot. Arbitrary bytes give an error, never
/// a panic; what was read of them before is the caller's to forget.
pub fn read(content_type: &str, bytes: &[u8], each: impl FnMut(Entry<'_>)) -> Result<Option<u64>, DecodeError> {
    if bytes.len() > BYTES_MAX {
        return Err(DecodeError::TooLarge { what: "bytes", limit: BYTES_MAX });
    }
    let mut reader = Reader::new(each);
    match ContentType::parse(content_type) {
        Some(ContentType::Cbor) => cbor::decode(bytes, |raw| reader.take(&raw))?,
        Some(ContentType::CborZstd) => {
            let plain = decompress(bytes).map_err(DecodeError::Compression)?;
            cbor::decode(&plain, |raw| reader.take(&raw))?;
        }
        Some(ContentType::Json) => json::decode(bytes, |raw| reader.take(&raw))?,
        None => return Err(DecodeError::ContentType(content_type.to_owned())),
    }
    Ok(reader.boot)
}

/// Small packs come by the thousand a second: neither the decompressor nor room for the largest pack is made for each.
fn decompress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let told = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten();
    let room = told.and_then(|size| usize::try_from(size).ok()).map_or(BYTES_MAX, |size| size.min(BYTES_MAX));
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress(bytes, room)
    })
}

fn seconds(time: Timestamp) -> f64 {
    // Milliseconds of this century need 41 bits: exact in a double.
    #[expect(clippy::cast_precision_loss, reason = "times of observations stay far below 2^53 ms")]
    let millis = time.millis() as f64;
    millis / 1000.0
}

/// One SenML record as it stands in the payload, before base values are applied.
#[derive(Debug, Default)]
struct Raw<'a> {
    base_name: Option<&'a str>,
    base_time: Option<f64>,
    base_unit: Option<&'a str>,
    base_value: Option<f64>,
    name: Option<&'a str>,
    unit: Option<&'a str>,
    value: Option<f64>,
    text: Option<&'a str>,
    flag: Option<bool>,
    time: Option<f64>,
    quality: Option<&'a str>,
    clock: Option<&'a str>,
    gateway_offset: Option<i64>,
    monotonic: Option<u64>,
    boot: Option<u64>,
    must_understand: bool,
}

/// Applies base values (RFC 8428 §4.6) to one record after the other.
struct Reader<F> {
    each: F,
    /// Of the record that comes next, from 0.
    index: usize,
    boot: Option<u64>,
    base_name: String,
    base_time: f64,
    base_unit: Option<String>,
    base_value: f64,
    /// What the base name alone says, read once for all the records under it.
    under_base: Option<Series>,
}

impl<F: FnMut(Entry<'_>)> Reader<F> {
    fn new(each: F) -> Self {
        let (base_name, base_unit, under_base) = (String::new(), None, None);
        Self { each, index: 0, boot: None, base_name, base_time: 0.0, base_unit, base_value: 0.0, under_base }
    }

    fn take(&mut self, r: &Raw<'_>) -> Result<(), DecodeError> {
        let index = self.index;
        self.index += 1;
        let wrong = |what| DecodeError::Record { index, what };
        if index == 0 {
            self.boot = r.boot;
        }
        if r.must_understand {
            return Err(wrong("a label that must be understood (it ends in _) is not known"));
        }
        if let Some(name) = r.base_name {
            (self.base_name, self.under_base) = (name.to_owned(), None);
        }
        self.base_time = r.base_time.unwrap_or(self.base_time);
        if let Some(unit) = r.base_unit {
            // An empty base unit ends the one before.
            self.base_unit = Some(unit).filter(|u| !u.is_empty()).map(str::to_owned);
        }
        self.base_value = r.base_value.unwrap_or(self.base_value);
        if self.base_name.len() + r.name.map_or(0, str::len) > 4 * LENGTH_MAX + 3 {
            return Err(wrong("the name is too long"));
        }
        let value = match (r.value, r.flag, r.text) {
            (Some(number), None, None) => Value::Number(self.base_value + number),
            (None, Some(flag), None) => Value::Flag(flag),
            (None, None, Some("")) => Value::Missing,
            (None, None, Some(text)) if text.len() <= TEXT_MAX => Value::Text(text.to_owned()),
            (None, None, Some(_)) => return Err(wrong("the text is too long")),
            (None, None, None) if r.name.is_none() => return Ok(()), // only base values: allowed, says nothing
            (None, None, None) => return Err(wrong("no value")),
            _ => return Err(wrong("more than one value")),
        };
        if value.number().is_some_and(|n| !n.is_finite()) {
            return Err(wrong("the number is not finite"));
        }
        let time = record_time(self.base_time + r.time.unwrap_or(0.0)).ok_or_else(|| wrong("an impossible time"))?;
        let gateway_time = match (time, r.gateway_offset) {
            (RecordTime::At(at), Some(offset)) => Some(Timestamp::from_millis(at.millis().saturating_add(offset))),
            _ => None,
        };
        let clock = match r.clock {
            None => ClockQuality::Synchronised,
            Some(word) => ClockQuality::parse(word).unwrap_or(ClockQuality::Unsynchronised),
        };
        let read = |name: &str| Series::parse(name).map_err(|source| DecodeError::Name { index, source });
        let own;
        let series = match (r.name, &mut self.under_base) {
            (Some(name), _) => {
                own = read(&format!("{}{name}", self.base_name))?;
                &own
            }
            (None, Some(series)) => series,
            (None, none) => none.insert(read(&self.base_name)?),
        };
        (self.each)(Entry {
            series,
            time,
            value,
            unit: r.unit.or(self.base_unit.as_deref()),
            quality: r.quality.map_or(Quality::Good, Quality::parse),
            clock,
            gateway_time,
            monotonic: r.monotonic.map(Duration::from_millis),
        });
        Ok(())
    }
}

/// Seconds as SenML means them; none when no calendar holds them.
fn record_time(seconds: f64) -> Option<RecordTime> {
    if !seconds.is_finite() || seconds.abs() > 2.0e11 {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded above: at most 2e14")]
    let millis = (seconds * 1000.0).round() as i64;
    Some(if seconds < RELATIVE_BELOW {
        // A time after reception cannot have been observed; it is taken as the reception itself.
        RecordTime::BeforeReceive(Duration::from_millis(u64::try_from(-millis).unwrap_or(0)))
    } else {
        RecordTime::At(Timestamp::from_millis(millis))
    })
}

#[cfg(test)]
mod tests;
