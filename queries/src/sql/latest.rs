//! `latest`: the last value of every device and quantity, from memory.
//!
//! Files never change, so each is read once: what is remembered of them grows with each commit and stays the same when files are
//! merged. Rows on their way are laid over it for each question. When rows were taken out (an erasure, retention), everything is
//! forgotten and read again.
//!
//! A series is here if it was heard within [`DAYS`] days of the newest row of the lake: a device that is silent for longer is told
//! of by an alert, and nobody has to read years to answer what holds now.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, partition, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMillisecondType};
use carebed_pipeline::view::{DataFile, TableView, View};
use datafusion::common::{DataFusionError, Result};
use datafusion::prelude::col;
use futures::TryStreamExt;
use tokio::sync::Mutex;

use super::{Lake, context};
use crate::engine::Limits;
use crate::episodes::time_type;

/// How far before the newest day of the lake it is looked for values, in days.
pub(super) const DAYS: i32 = 7;
const DAY_MS: i64 = 86_400_000;
/// So many files are read before they count as read.
const FILES_AT_ONCE: usize = 8;

/// What makes a series.
const SERIES: [&str; 4] = ["home_id", "bed_id", "device_id", "quantity"];
/// What is remembered of its last row besides.
const TEXTS: [&str; 5] = ["area", "room", "unit", "text", "quality"];

/// Columns of `latest`.
pub(super) fn schema() -> SchemaRef {
    let mut fields: Vec<Field> =
        SERIES.iter().chain(&TEXTS).map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    fields.push(Field::new("value", DataType::Float64, true));
    fields.extend(["event_time", "received_time"].map(|name| Field::new(name, time_type(), true)));
    Arc::new(Schema::new(fields))
}

/// Remembers the last values of a lake. One is shared by all who ask.
#[derive(Debug, Default)]
pub struct Latest(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Files that were read.
    files: HashSet<Arc<str>>,
    /// How often rows had been taken out of the table then.
    taken_out: u64,
    /// The last rows of files.
    last: Last,
    /// The answer, for as long as the view stays the same.
    answer: Option<(u64, RecordBatch)>,
}

impl Latest {
    /// Forgets everything; the next question reads it again.
    pub async fn forget(&self) {
        *self.0.lock().await = Known::default();
    }

    /// The last rows of a view, one of each series.
    pub(super) async fn rows(&self, lake: &Lake, view: &Arc<View>, limits: Limits) -> Result<RecordBatch> {
        let mut known = self.0.lock().await;
        if let Some((version, rows)) = &known.answer
            && *version == view.version
        {
            return Ok(rows.clone());
        }
        let table = &view.observations;
        if known.taken_out != table.taken_out {
            *known = Known { taken_out: table.taken_out, ..Known::default() };
        }
        let newest = table.files.iter().filter_map(|file| believable_day(file)).max();
        let is_recent = |file: &DataFile| file.day.zip(newest).is_none_or(|(day, newest)| newest - day <= DAYS);
        let recent: Vec<&Arc<DataFile>> = table.files.iter().filter(|file| is_recent(file)).collect();
        let new: Vec<Arc<DataFile>> =
            recent.iter().filter(|file| !known.files.contains(&file.path)).map(|file| Arc::clone(file)).collect();
        let recent: HashSet<Arc<str>> = recent.into_iter().map(|file| Arc::clone(&file.path)).collect();
        known.files.retain(|path| recent.contains(path));
        // Some at a time: whoever has to end before all are read leaves the others less to read.
        for some in new.chunks(FILES_AT_ONCE) {
            read(lake, view, some.to_vec(), limits, &mut known.last).await?;
            known.files.extend(some.iter().map(|file| Arc::clone(&file.path)));
        }
        let mut hot = Last::default();
        for part in table.hot.iter() {
            hot.take(&part.columns()?)?;
        }
        let rows = known.last.under(&hot)?;
        known.answer = Some((view.version, rows.clone()));
        Ok(rows)
    }
}

/// The day of a file's rows; none when it is after the day on which it was written: the clock of a home was wrong.
fn believable_day(file: &DataFile) -> Option<i32> {
    let written = i32::try_from(file.written.millis().div_euclid(DAY_MS)).unwrap_or(i32::MAX);
    file.day.filter(|day| *day <= written.saturating_add(1))
}

/// Takes in the rows of files.
async fn read(lake: &Lake, view: &Arc<View>, files: Vec<Arc<DataFile>>, limits: Limits, last: &mut Last) -> Result<()> {
    let observations = TableView { files: files.into(), hot: Arc::default(), ..view.observations.clone() };
    let only = Arc::new(View { observations, ..View::clone(view) });
    let external = |error| DataFusionError::External(Box::new(error));
    let context = context(lake, &only, limits).map_err(external)?;
    let columns: Vec<_> = schema().fields().iter().map(|field| col(field.name().as_str())).collect();
    let mut rows = context.table("observations").await?.select(columns)?.execute_stream().await?;
    while let Some(batch) = rows.try_next().await? {
        last.take(&batch)?;
    }
    Ok(())
}

/// The last row of each series.
#[derive(Debug, Default)]
struct Last {
    places: BTreeMap<Series, Place>,
    /// Rows, some of them of no use any more.
    rows: Vec<RecordBatch>,
    n_rows: usize,
}

/// Home, bed, device, quantity.
type Series = [Option<Box<str>>; 4];

/// When it was, and where it lies among all rows.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: (i64, i64),
    row: usize,
}

impl Last {
    /// Takes in rows in any order.
    fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = as_latest(batch)?;
        let series: Vec<ArrayRef> =
            SERIES.iter().filter_map(|name| batch.column_by_name(name).map(Arc::clone)).collect();
        let times = |name| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<TimestampMillisecondType>());
        let (Some(events), Some(received)) = (times("event_time"), times("received_time")) else { return Ok(()) };
        let mut kept: Vec<u32> = Vec::new();
        for range in partition(&series)?.ranges() {
            let start = range.start;
            let Some(row) = range.max_by_key(|row| (events.value(*row), received.value(*row))) else { continue };
            let at = (events.value(row), received.value(row));
            let name: Series = std::array::from_fn(|n| {
                let words = series.get(n)?.as_string_opt::<i32>()?;
                words.is_valid(start).then(|| words.value(start).into())
            });
            let place = Place { at, row: self.n_rows + kept.len() };
            let is_newer = self.places.get(&name).is_none_or(|known| known.at <= at);
            if is_newer {
                self.places.insert(name, place);
                kept.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
        }
        if !kept.is_empty() {
            self.n_rows += kept.len();
            self.rows.push(take_record_batch(&batch, &UInt32Array::from(kept))?);
        }
        // What was replaced goes when it is as much as what counts.
        if self.n_rows > 2 * self.places.len() + 100_000 {
            self.rows()?;
        }
        Ok(())
    }

    /// One row of each series, from here or, where it is newer, from `hot`.
    fn under(&mut self, hot: &Self) -> Result<RecordBatch> {
        let rows = self.rows()?;
        let mut keep = vec![true; rows.num_rows()];
        let mut over: Vec<u32> = Vec::new();
        for (series, new) in &hot.places {
            let old = self.places.get(series);
            if old.is_some_and(|old| old.at > new.at) {
                continue;
            }
            if let Some(old) = old.and_then(|old| keep.get_mut(old.row)) {
                *old = false;
            }
            over.push(u32::try_from(new.row).unwrap_or(u32::MAX));
        }
        if over.is_empty() {
            return Ok(rows);
        }
        let over = take_record_batch(&concat_batches(&schema(), &hot.rows)?, &UInt32Array::from(over))?;
        Ok(concat_batches(&schema(), &[filter_record_batch(&rows, &keep.into())?, over])?)
    }

    /// One row of each series, in their order.
    fn rows(&mut self) -> Result<RecordBatch> {
        let all = concat_batches(&schema(), &self.rows)?;
        let order: UInt32Array = self.places.values().map(|place| u32::try_from(place.row).ok()).collect();
        let rows = take_record_batch(&all, &order)?;
        for (row, place) in self.places.values_mut().enumerate() {
            place.row = row;
        }
        (self.rows, self.n_rows) = (vec![rows.clone()], rows.num_rows());
        Ok(rows)
    }
}

/// The columns of [`schema`], whatever form a reader gave them.
fn as_latest(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = schema();
    let column = |field: &Arc<Field>| {
        let place = batch.schema().index_of(field.name())?;
        Ok(cast(batch.column(place), field.data_type())?)
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}
