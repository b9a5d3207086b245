//! Rows of the table `baselines`, found by home.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, PrimitiveArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::TimestampMillisecondType;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;

use crate::engine::baselines_schema;

/// For how long what lasts is compared with what was usual when it began; what lasts longer is compared with nothing.
const LASTING_MAX: Duration = Duration::from_secs(7 * 86_400);

/// What is usual in the homes: one batch in order of home, and where each home's rows lie.
#[derive(Debug)]
pub(super) struct Learnt {
    rows: RecordBatch,
    homes: BTreeMap<HomeId, Range<usize>>,
}

impl Default for Learnt {
    fn default() -> Self {
        Self { rows: RecordBatch::new_empty(baselines_schema()), homes: BTreeMap::new() }
    }
}

impl Learnt {
    /// Rows as [`crate::history::learn`] made them, in any order of homes. Rows of no home are nobody's.
    pub(super) fn new(rows: &RecordBatch) -> Self {
        let names = rows.column_by_name("home_id").and_then(|column| column.as_string_opt::<i32>());
        let mut places: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (place, name) in (0..).zip(names.into_iter().flatten()) {
            places.entry(name.unwrap_or_default()).or_default().push(place);
        }
        let (mut order, mut homes) = (Vec::with_capacity(rows.num_rows()), BTreeMap::new());
        for (name, places) in places {
            let Ok(home) = HomeId::new(name) else { continue };
            homes.insert(home, order.len()..order.len() + places.len());
            order.extend(places);
        }
        take_record_batch(rows, &UInt64Array::from(order)).map_or_else(|_| Self::default(), |rows| Self { rows, homes })
    }

    /// The first night of which it knows what was usual then.
    pub(super) fn first_night(&self) -> Option<Timestamp> {
        self.nights().and_then(|nights| nights.iter().flatten().min()).map(Timestamp::from_millis)
    }

    fn nights(&self) -> Option<&PrimitiveArray<TimestampMillisecondType>> {
        self.rows.column_by_name("known_at")?.as_primitive_opt()
    }

    /// With what was known before of these homes, of the nights before its own: what began then and still lasts is compared with it.
    pub(super) fn with_earlier(self, before: &Self, homes: &BTreeSet<HomeId>) -> Self {
        let Some(first) = self.first_night().filter(|_| !homes.is_empty()) else { return self };
        let earlier = Self::new(&before.of(homes));
        let is_kept = |night: Option<i64>| {
            Some(Timestamp::from_millis(night?)).map(|night| night < first && night >= first - LASTING_MAX)
        };
        let kept: Option<BooleanArray> = earlier.nights().map(|nights| nights.iter().map(is_kept).collect());
        let kept = kept.and_then(|kept| filter_record_batch(&earlier.rows, &kept).ok());
        let Some(kept) = kept.filter(|kept| kept.num_rows() > 0) else { return self };
        Self::new(&concat_batches(&self.rows.schema(), [&self.rows, &kept]).expect("both are rows of one table"))
    }

    /// Forgets what is usual in a home.
    pub(super) fn forget(&mut self, home: &HomeId) {
        if let Some(own) = self.homes.get(home).cloned() {
            let others = [self.rows.slice(0, own.start), self.rows.slice(own.end, self.rows.num_rows() - own.end)];
            // A copy: a slice would keep the rows in memory.
            *self =
                Self::new(&concat_batches(&self.rows.schema(), &others).expect("slices of one batch have one schema"));
        }
    }

    /// The rows of these homes.
    pub(super) fn of(&self, homes: &BTreeSet<HomeId>) -> RecordBatch {
        let own = homes.iter().filter_map(|home| self.homes.get(home)).map(|own| self.rows.slice(own.start, own.len()));
        let own: Vec<RecordBatch> = own.collect();
        concat_batches(&self.rows.schema(), &own).expect("slices of one batch have one schema")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    const DAY: i64 = 86_400_000;

    /// One row for each home and night.
    fn rows(of: &[(&str, i64)]) -> RecordBatch {
        let n = of.len();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["inactivity"; n])),
            Arc::new(StringArray::from_iter_values(of.iter().map(|(home, _)| home))),
            Arc::new(StringArray::from(vec![None::<&str>; n])),
            Arc::new(StringArray::from(vec![None::<&str>; n])),
            Arc::new(Int64Array::from(vec![0; n])),
            Arc::new(
                TimestampMillisecondArray::from_iter_values(of.iter().map(|(_, day)| day * DAY)).with_timezone("UTC"),
            ),
            Arc::new(Float64Array::from(vec![120.0; n])),
            Arc::new(Int64Array::from(vec![30; n])),
        ];
        RecordBatch::try_new(baselines_schema(), columns).unwrap()
    }

    #[test]
    fn what_still_lasts_is_compared_with_the_night_it_began_in_and_only_that_home_remembers() {
        let home = |name: &str| name.parse::<HomeId>().unwrap();
        let nights = |learnt: &Learnt, of: &str| {
            let rows = learnt.of(&[home(of)].into());
            let mut nights: Vec<i64> = Learnt::new(&rows).nights().unwrap().iter().flatten().map(|t| t / DAY).collect();
            nights.sort_unstable();
            nights
        };
        let mut learnt = Learnt::new(&rows(&[("h1", 1), ("h1", 2), ("h2", 1), ("h2", 2)]));
        for day in 3..12 {
            let new = Learnt::new(&rows(&[("h1", day - 1), ("h1", day), ("h2", day - 1), ("h2", day)]));
            learnt = new.with_earlier(&learnt, &[home("h1")].into());
            if day == 4 {
                assert_eq!((nights(&learnt, "h1"), nights(&learnt, "h2")), (vec![1, 2, 3, 4], vec![3, 4]));
            }
        }
        // A week of them at most, and none when nothing lasts any more.
        assert_eq!(nights(&learnt, "h1"), [3, 4, 5, 6, 7, 8, 9, 10, 11]);
        let new = Learnt::new(&rows(&[("h1", 11), ("h1", 12)]));
        assert_eq!(nights(&new.with_earlier(&learnt, &BTreeSet::new()), "h1"), [11, 12]);
    }
}
