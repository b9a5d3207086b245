//! What the table's log says of files, for leaving out those that cannot hold what is asked for.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Date32Array, StringArray};
use carebed_contract::time::Timestamp;
use carebed_pipeline::schema::EVENT_DAY;
use carebed_pipeline::view::DataFile;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, ScalarValue};

use crate::episodes::times;

/// The lowest and highest word of a column.
type Words = (Arc<str>, Arc<str>);

/// What the table's log says of its files.
pub(super) struct Files<'a>(pub(super) &'a [Arc<DataFile>]);

impl Files<'_> {
    fn bound(&self, column: &Column, low: bool) -> Option<ArrayRef> {
        fn side<T: Clone>(pair: Option<&(T, T)>, low: bool) -> Option<T> {
            pair.map(|(min, max)| if low { min.clone() } else { max.clone() })
        }
        let words = |pick: fn(&DataFile) -> Option<&Words>| -> ArrayRef {
            Arc::new(self.0.iter().map(|file| side(pick(file), low)).collect::<StringArray>())
        };
        match column.name.as_str() {
            EVENT_DAY => Some(Arc::new(self.0.iter().map(|file| file.day).collect::<Date32Array>())),
            "event_time" => Some(times(self.0.iter().map(|file| side::<Timestamp>(file.event_time.as_ref(), low)))),
            "home_id" => Some(words(|file| file.home.as_ref())),
            "bed_id" => Some(words(|file| file.bed.as_ref())),
            _ => None,
        }
    }
}

impl PruningStatistics for Files<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, true)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, false)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
