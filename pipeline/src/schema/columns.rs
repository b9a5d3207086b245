//! Accepted rows as columns, in the order of files.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray, StringViewArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{Field, Schema, UInt32Type};
use arrow::error::ArrowError;
use carebed_contract::id::BedId;
use carebed_contract::quantity::Quantity;

use super::{number, observations, optional_times, times};
use crate::streak::{About, Point, Streak};

/// Rows that have all but time and value in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) about: &'a About,
    pub(crate) points: &'a [Point],
}

impl<'a> Piece<'a> {
    pub(crate) fn of(streak: &'a Streak) -> Self {
        Self { about: &streak.about, points: &streak.points }
    }
}

/// How words stand in columns: each is spelled once a piece, and rows refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// As views, which the query engine computes with.
    Views,
    /// As keys, which a file's writer takes for the words.
    Keys,
}

/// The columns of [`observations()`], sorted as [`super::SORT_ORDER`] says; rows of one instant keep their order.
pub(crate) fn sorted(pieces: &[Piece<'_>], words: Words) -> Result<RecordBatch, ArrowError> {
    let (keys, points) = in_file_order(pieces);
    let columns = Columns { pieces, keys: keys.into(), words };
    let points = || points.iter().copied();
    let arrays: Vec<ArrayRef> = vec![
        columns.words(|about| about.area.as_str().into())?,
        columns.words(|about| about.home.as_str().into())?,
        columns.optional_words(|about| about.bed.as_ref().map(AsRef::as_ref))?,
        columns.words(|about| about.device.as_str().into())?,
        columns.optional_words(|about| about.room.as_ref().map(AsRef::as_ref))?,
        columns.words(|about| about.quantity.as_str().into())?,
        columns.words(|about| (*about.unit).into())?,
        times(points().map(|point| point.event_time)),
        Arc::new(points().map(|point| point.value.number()).collect::<Float64Array>()),
        match words {
            Words::Views => Arc::new(points().map(|point| point.value.text()).collect::<StringViewArray>()),
            Words::Keys => Arc::new(points().map(|point| point.value.text()).collect::<StringArray>()),
        },
        columns.words(|about| about.quality.to_string().into())?,
        columns.words(|about| about.clock.as_str().into())?,
        columns.words(|about| about.gateway.as_str().into())?,
        columns.each(|about| about.boot.and_then(|boot| i64::try_from(boot).ok()))?,
        columns.words(|about| about.epoch.to_string().into())?,
        columns.words(|about| about.lane.as_str().into())?,
        columns.each(|about| Some(number(about.seq)))?,
        optional_times(points().map(|point| (point.gateway_time != point.event_time).then_some(point.gateway_time))),
        take(&times(pieces.iter().map(|piece| piece.about.received_time)), &columns.keys, None)?,
    ];
    let schema = observations();
    let fields = schema.fields().iter().zip(&arrays);
    let fields = fields.map(|(field, array)| Field::new(field.name(), array.data_type().clone(), field.is_nullable()));
    RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), arrays)
}

/// Rows, each with the number of its piece.
type Numbered<'a> = Vec<(u32, &'a Point)>;

/// Of each row, its piece and itself. Comparing the texts of any two rows would cost as much as writing them: pieces of a series
/// come together first, and mostly follow each other in time.
fn in_file_order<'a>(pieces: &[Piece<'a>]) -> (Vec<u32>, Vec<&'a Point>) {
    let mut of_series = BTreeMap::<(Option<&BedId>, &Quantity), Numbered<'a>>::new();
    for (number, piece) in (0..).zip(pieces) {
        let rows = of_series.entry((piece.about.bed.as_ref(), &piece.about.quantity)).or_default();
        rows.extend(piece.points.iter().map(|point| (number, point)));
    }
    let n_rows = of_series.values().map(Vec::len).sum();
    let (mut keys, mut points) = (Vec::with_capacity(n_rows), Vec::with_capacity(n_rows));
    for mut rows in of_series.into_values() {
        rows.sort_by_key(|(_, point)| point.event_time);
        keys.extend(rows.iter().map(|(number, _)| *number));
        points.extend(rows.iter().map(|(_, point)| *point));
    }
    (keys, points)
}

struct Columns<'a> {
    pieces: &'a [Piece<'a>],
    /// The piece of each row.
    keys: UInt32Array,
    words: Words,
}

impl<'a> Columns<'a> {
    fn words(&self, of: impl Fn(&'a About) -> Cow<'a, str>) -> Result<ArrayRef, ArrowError> {
        let words = self.pieces.iter().map(|piece| of(piece.about));
        Ok(match self.words {
            Words::Views => take(&StringViewArray::from_iter_values(words), &self.keys, None)?,
            Words::Keys => {
                let words = Arc::new(StringArray::from_iter_values(words));
                Arc::new(DictionaryArray::<UInt32Type>::try_new(self.keys.clone(), words)?)
            }
        })
    }

    fn optional_words(&self, of: impl Fn(&'a About) -> Option<&'a str>) -> Result<ArrayRef, ArrowError> {
        let words: Vec<Option<&str>> = self.pieces.iter().map(|piece| of(piece.about)).collect();
        Ok(match self.words {
            Words::Views => take(&words.iter().collect::<StringViewArray>(), &self.keys, None)?,
            Words::Keys => {
                let is_there =
                    |key: &u32| usize::try_from(*key).is_ok_and(|key| matches!(words.get(key), Some(Some(_))));
                let keys = self.keys.values().iter().map(|key| Some(*key).filter(is_there)).collect();
                let words = StringArray::from_iter_values(words.iter().map(|word| word.unwrap_or_default()));
                Arc::new(DictionaryArray::<UInt32Type>::try_new(keys, Arc::new(words))?)
            }
        })
    }

    fn each(&self, of: impl Fn(&About) -> Option<i64>) -> Result<ArrayRef, ArrowError> {
        take(&self.pieces.iter().map(|piece| of(piece.about)).collect::<Int64Array>(), &self.keys, None)
    }
}
