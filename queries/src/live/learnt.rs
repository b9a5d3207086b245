//! Rows of the table `baselines`, found by home.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use carebed_contract::id::HomeId;

use crate::engine::baselines_schema;

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
