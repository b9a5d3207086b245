//! Whose rows are erased, and stay so: tombstones that every commit honours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::TimestampMillisecondType;
use arrow::error::ArrowError;
use carebed_contract::id::{BedId, GatewayId, HomeId};
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::streak::{About, Point, Streak};
use crate::view::DataFile;

/// Where tombstones lie, below the lake.
const PLACE: &str = "erasures";

/// What is to be forgotten: all that a home, or one bed in it, observed in a stretch of event time. A person is the beds in
/// which the person lay, each with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Names the erasure in reports; the same id twice is one erasure.
    pub id: String,
    /// The home.
    pub home: HomeId,
    /// The bed; none: the whole home, with its doors and rooms.
    pub bed: Option<BedId>,
    /// From this event time on; none: from the first.
    pub from: Option<Timestamp>,
    /// Up to this event time, without it. What is observed from then on may be somebody else's.
    pub until: Timestamp,
    /// Also what the centre received before this time, however late its event time: of clocks that run ahead.
    #[serde(default)]
    pub received_before: Option<Timestamp>,
    /// When it was asked for.
    pub asked_at: Timestamp,
}

/// Why tombstones could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The store failed.
    #[error("failed to access the erasures of the lake at {path}")]
    Access {
        /// Where.
        path: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// Not a tombstone.
    #[error(
        "{path} is no erasure that carebed wrote: restore it from a backup of the lake, or erased rows may come back"
    )]
    Damaged {
        /// Where.
        path: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// An id that cannot name a file.
    #[error("{0:?} cannot name an erasure: use letters, digits and hyphens")]
    Id(String),
}

/// Columns that tell whether a row is erased.
pub(crate) const COLUMNS: [&str; 4] = ["home_id", "bed_id", "event_time", "received_time"];

impl Erasure {
    fn covers_cell(&self, bed: Option<&str>, event_time: Timestamp, received_time: Timestamp) -> bool {
        self.bed.as_ref().is_none_or(|erased| bed == Some(erased.as_str()))
            && self.from.is_none_or(|from| event_time >= from)
            && (event_time < self.until || self.received_before.is_some_and(|before| received_time < before))
    }

    /// Whether it covers an observation.
    pub(crate) fn covers(&self, row: &Observation) -> bool {
        row.home == self.home
            && self.covers_cell(row.bed.as_ref().map(BedId::as_str), row.event_time, row.received_time)
    }

    /// Whether a file may hold such rows.
    pub(crate) fn may_be_in(&self, file: &DataFile) -> bool {
        let within = |range: &Option<(Arc<str>, Arc<str>)>, word: &str| {
            range.as_ref().is_none_or(|(low, high)| **low <= *word && *word <= **high)
        };
        within(&file.home, self.home.as_str())
            && self.bed.as_ref().is_none_or(|bed| within(&file.bed, bed.as_str()))
            && file.event_time.is_none_or(|(low, high)| {
                (low < self.until || self.received_before.is_some()) && self.from.is_none_or(|from| from <= high)
            })
    }

    /// Whether it covers some of these rows.
    pub(crate) fn covers_some(&self, streaks: &[Streak]) -> bool {
        streaks.iter().any(|streak| streak.points.iter().any(|point| self.covers_point(&streak.about, point)))
    }

    /// What it leaves of these rows.
    pub(crate) fn left_of(&self, streaks: &[Streak]) -> Vec<Streak> {
        let left = streaks.iter().map(|streak| {
            let points = streak.points.iter().filter(|point| !self.covers_point(&streak.about, point));
            Streak { about: streak.about.clone(), points: points.cloned().collect() }
        });
        left.filter(|streak| !streak.points.is_empty()).collect()
    }

    fn covers_point(&self, about: &About, point: &Point) -> bool {
        let bed = about.bed.as_ref().map(BedId::as_str);
        about.home == self.home && self.covers_cell(bed, point.event_time, about.received_time)
    }

    /// Which rows it covers, told from [`COLUMNS`].
    pub(crate) fn rows(&self, batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let [homes, beds, observed, received] = COLUMNS.map(|name| batch.column_by_name(name));
        let texts = |column: Option<&arrow::array::ArrayRef>| column.and_then(|c| c.as_string_opt::<i32>().cloned());
        let times = |column: Option<&arrow::array::ArrayRef>| {
            column.and_then(|c| c.as_primitive_opt::<TimestampMillisecondType>().cloned())
        };
        let (Some(homes), Some(beds), Some(observed), Some(received)) =
            (texts(homes), texts(beds), times(observed), times(received))
        else {
            return Err(ArrowError::SchemaError("rows without home, bed, event time and receive time".to_owned()));
        };
        let covered = (0..batch.num_rows()).map(|row| {
            let bed = beds.is_valid(row).then(|| beds.value(row));
            let [observed, received] = [&observed, &received].map(|times| Timestamp::from_millis(times.value(row)));
            homes.value(row) == self.home.as_str() && self.covers_cell(bed, observed, received)
        });
        Ok(covered.collect::<Vec<bool>>().into())
    }
}

/// An erasure as it lies in the lake, for ever.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tombstone {
    #[serde(flatten)]
    pub(crate) erasure: Erasure,
    /// The gateways that had served the home: such rows may be in their spools yet.
    #[serde(default)]
    pub(crate) gateways: Vec<GatewayId>,
}

/// All tombstones of a lake. Grows by one an erasure; looking one up costs the same however many there are.
#[derive(Debug, Clone, Default)]
pub struct Erasures {
    of_home: BTreeMap<HomeId, Vec<Erasure>>,
    /// Ids and homes of what each gateway's spool may hold.
    by_gateway: BTreeMap<GatewayId, BTreeSet<(HomeId, String)>>,
}

impl Erasures {
    /// Whether an observation is erased, and must not be stored, shown or passed on.
    #[must_use]
    pub fn cover(&self, row: &Observation) -> bool {
        let of_home = self.of_home.get(&row.home).into_iter().flatten();
        let bed = row.bed.as_ref().map(BedId::as_str);
        of_home.into_iter().any(|erasure| erasure.covers_cell(bed, row.event_time, row.received_time))
    }

    /// What they leave of rows.
    pub(crate) fn left_of(&self, rows: &Arc<[Streak]>) -> Arc<[Streak]> {
        let mut left = Arc::clone(rows);
        let concerned = rows.iter().filter_map(|streak| self.of_home.get(&streak.about.home));
        for erasure in concerned.flatten() {
            if erasure.covers_some(&left) {
                left = erasure.left_of(&left).into();
            }
        }
        left
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Erasure> {
        self.of_home.values().flatten()
    }

    /// Those whose rows may be in a gateway's spool: it served their home when they were asked for, or serves it now.
    pub fn in_spool_of(&self, gateway: &GatewayId, home: &HomeId) -> impl Iterator<Item = &Erasure> {
        let served = self.by_gateway.get(gateway);
        let of_home = self.of_home.get(home).into_iter().flatten();
        let of_others = served.into_iter().flatten().filter(move |(other, _)| other != home);
        of_home.chain(of_others.filter_map(|(home, id)| self.of_home.get(home)?.iter().find(|known| known.id == *id)))
    }

    /// Adds one; the same id replaces the older.
    pub(crate) fn add(&mut self, Tombstone { erasure, gateways }: Tombstone) {
        for gateway in gateways {
            self.by_gateway.entry(gateway).or_default().insert((erasure.home.clone(), erasure.id.clone()));
        }
        let of_home = self.of_home.entry(erasure.home.clone()).or_default();
        of_home.retain(|other| other.id != erasure.id);
        of_home.push(erasure);
    }

    pub(crate) async fn load(store: &dyn ObjectStore) -> Result<Self, ErasureError> {
        let access = |source| ErasureError::Access { path: PLACE.to_owned(), source };
        let files: Vec<_> = store.list(Some(&Path::from(PLACE))).try_collect().await.map_err(access)?;
        let mut all = Self::default();
        for file in files.into_iter().filter(|file| file.location.extension() == Some("json")) {
            let path = file.location.to_string();
            let bytes = async { store.get(&file.location).await?.bytes().await }.await;
            let bytes = bytes.map_err(|source| ErasureError::Access { path: path.clone(), source })?;
            all.add(serde_json::from_slice(&bytes).map_err(|source| ErasureError::Damaged { path, source })?);
        }
        Ok(all)
    }
}

/// Puts a tombstone on stable storage.
pub(crate) async fn write(store: &dyn ObjectStore, tombstone: &Tombstone) -> Result<(), ErasureError> {
    let name = &tombstone.erasure.id;
    if name.is_empty() || name.len() > 100 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(ErasureError::Id(name.clone()));
    }
    let path = Path::from(format!("{PLACE}/{name}.json"));
    let json = serde_json::to_vec(tombstone).expect("an erasure is a map of texts and numbers");
    let put = store.put(&path, json.into()).await;
    put.map(drop).map_err(|source| ErasureError::Access { path: path.to_string(), source })
}
