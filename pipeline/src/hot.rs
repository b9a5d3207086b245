//! Accepted rows whose file is not committed yet, as readers see them.
//!
//! Taking rows in costs readers' work nothing: columns are laid out and sorted when somebody asks for them, once for all who do.

use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use carebed_contract::observation::Observation;

use crate::schema::{Piece, Words, sorted};
use crate::store::Erasure;
use crate::streak::{self, Streak};

/// A part of the rows on their way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Hot(Arc<Chunk>);

#[derive(Debug, Default)]
struct Chunk {
    /// Of each batch of a gateway.
    batches: Vec<Arc<[Streak]>>,
    n_rows: usize,
    columns: OnceLock<RecordBatch>,
}

impl Hot {
    pub(crate) fn new(batches: Vec<Arc<[Streak]>>) -> Self {
        let n_rows = batches.iter().flat_map(|batch| batch.iter()).map(|streak| streak.points.len()).sum();
        Self(Arc::new(Chunk { batches, n_rows, columns: OnceLock::new() }))
    }

    /// How many rows it has.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.0.n_rows
    }

    /// Its rows as columns, sorted as [`crate::schema::SORT_ORDER`] says, those of one instant as they were accepted. Words are
    /// views.
    pub fn columns(&self) -> Result<RecordBatch, ArrowError> {
        if let Some(columns) = self.0.columns.get() {
            return Ok(columns.clone());
        }
        let pieces: Vec<Piece<'_>> = self.streaks().map(Piece::of).collect();
        let columns = sorted(&pieces, Words::Views)?;
        // Somebody else may have been quicker, with the same.
        Ok(self.0.columns.get_or_init(|| columns).clone())
    }

    /// Its rows, as they were accepted.
    pub fn rows(&self) -> impl Iterator<Item = Observation> {
        self.streaks().flat_map(Streak::observations)
    }

    /// The rows of both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self::new(self.0.batches.iter().chain(&other.0.batches).cloned().collect())
    }

    /// What an erasure leaves of it.
    pub(crate) fn without(&self, erasure: &Erasure) -> Self {
        let left = |batch: &Arc<[Streak]>| {
            if erasure.covers_some(batch) { erasure.left_of(batch).into() } else { Arc::clone(batch) }
        };
        Self::new(self.0.batches.iter().map(left).collect())
    }

    fn streaks(&self) -> impl Iterator<Item = &Streak> {
        self.0.batches.iter().flat_map(|batch| batch.iter())
    }
}

impl From<Vec<Observation>> for Hot {
    fn from(rows: Vec<Observation>) -> Self {
        Self::new(vec![streak::streaks(rows).into()])
    }
}
