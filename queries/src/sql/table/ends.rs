//! Where in a sorted file the rows of one bed and quantity end. Before an end nothing is the newest of its bed and quantity.
//!
//! Their two columns are read once: files never change, so what they say is remembered, for all sessions over a lake.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, AsArray, DictionaryArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use carebed_contract::time::Timestamp;
use carebed_pipeline::view::DataFile;
use datafusion::common::{Result, internal_err};
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;

use super::beds::Reader;
use super::groups::{Groups, Piece, Section};

const COLUMNS: [&str; 2] = ["bed_id", "quantity"];
/// Remembered at most, over all files; of other files every row is read. Some forty bytes each.
const ENDS_MAX: usize = 1_000_000;
/// A batch of keys: as long as a row group, so that a stretch is seldom divided.
const BATCH_ROWS: usize = 131_072;
/// Files that are read at a time.
const FILES_AT_ONCE: usize = 4;

/// The last row of a stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    bed: Option<Arc<str>>,
    quantity: Option<Arc<str>>,
    row: usize,
}

#[derive(Debug, Clone)]
struct Known {
    ends: Arc<[End]>,
    rows: usize,
}

/// Remembers ends, by the paths of files; of those that were too many for it, that they were. Clones share it.
#[derive(Debug, Clone, Default)]
pub(in crate::sql) struct Ends(Arc<Mutex<Remembered>>);

type Remembered = HashMap<Arc<str>, Option<Known>>;

impl Ends {
    /// What of files has to be read for the newest row of each bed and quantity, in so many groups; none where that would be all of
    /// them. `live` are the files that the table has.
    pub(super) async fn groups(
        &self,
        files: &[Arc<DataFile>],
        live: &[Arc<DataFile>],
        wanted: usize,
        open: impl Fn(&DataFile) -> Result<Reader> + Send + Sync,
    ) -> Result<Option<Groups>> {
        self.forget_all_but(live);
        let of = |file: Arc<DataFile>| self.of(file, &open);
        let known: Vec<_> =
            futures::stream::iter(files.iter().cloned().map(of)).buffered(FILES_AT_ONCE).try_collect().await?;
        if known.iter().all(Option::is_none) {
            return Ok(None);
        }
        // The day on which each was last heard begins here, or earlier.
        let mut newest: HashMap<_, Timestamp> = HashMap::new();
        for (file, known) in files.iter().zip(&known) {
            let (Some(known), Some((least, _))) = (known, file.event_time) else { continue };
            for End { bed, quantity, .. } in known.ends.iter() {
                let newest = newest.entry((bed, quantity)).or_insert(least);
                *newest = least.max(*newest);
            }
        }
        let mut groups = vec![Vec::new(); wanted.max(1)];
        for (n, (file, known)) in files.iter().zip(&known).enumerate() {
            let Some(Known { ends, rows }) = known else {
                let n = n % groups.len();
                groups.get_mut(n).into_iter().for_each(|group| group.push(Piece::whole(Arc::clone(file))));
                continue;
            };
            let is_older = |End { bed, quantity, .. }: &End| {
                file.event_time.zip(newest.get(&(bed, quantity))).is_some_and(|((_, most), newest)| most < *newest)
            };
            let kept: Vec<usize> = ends.iter().filter(|end| !is_older(end)).map(|end| end.row).collect();
            // Each core takes its part of the pages of a file.
            for (group, rows_of) in groups.iter_mut().zip(kept.chunks(kept.len().div_ceil(wanted.max(1)).max(1))) {
                let chosen = RowSelection::from_consecutive_ranges(rows_of.iter().map(|row| *row..row + 1), *rows);
                group.push(Piece { file: Arc::clone(file), section: Section::Chosen(Arc::new(chosen)) });
            }
        }
        groups.retain(|group| !group.is_empty());
        Ok((!groups.is_empty()).then_some(Groups { groups, sorted: false }))
    }

    /// None of a file that is not known to be sorted, or when there would be too many.
    async fn of(
        &self,
        file: Arc<DataFile>,
        open: &(impl Fn(&DataFile) -> Result<Reader> + Send + Sync),
    ) -> Result<Option<Known>> {
        if file.part.is_none() {
            return Ok(None);
        }
        if let Some(known) = self.lock().get(&file.path) {
            return Ok(known.clone());
        }
        // What is wrong with a file is told where its rows are read.
        let Ok(made) = read(open(&file)?).await else { return Ok(None) };
        let mut remembered = self.lock();
        remembered.remove(&file.path);
        let n_ends: usize = remembered.values().flatten().map(|known| known.ends.len()).sum();
        let known = (n_ends + made.ends.len() <= ENDS_MAX).then_some(made);
        remembered.insert(Arc::clone(&file.path), known.clone());
        Ok(known)
    }

    /// With files that are gone, what was too much for them.
    fn forget_all_but(&self, live: &[Arc<DataFile>]) {
        let mut remembered = self.lock();
        let (live, n_before) = (live.iter().map(|file| &file.path).collect::<HashSet<_>>(), remembered.len());
        remembered.retain(|path, _| live.contains(path));
        if remembered.len() < n_before {
            remembered.retain(|_, known| known.is_some());
        }
    }

    /// How many files are remembered.
    #[cfg(test)]
    pub(super) fn files(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ends of a file. One more does no harm: the last row of each batch is taken for one.
async fn read(mut reader: Reader) -> Result<Known> {
    let metadata = reader.get_metadata(None).await?;
    let known = ArrowReaderMetadata::try_new(Arc::clone(&metadata), ArrowReaderOptions::new())?;
    // As keys into the dictionaries of the file: thousands of rows have the same.
    let keyed = |field: &Arc<Field>| match COLUMNS.contains(&field.name().as_str()) {
        true => Arc::new(
            field
                .as_ref()
                .clone()
                .with_data_type(DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))),
        ),
        false => Arc::clone(field),
    };
    let schema = Schema::new(known.schema().fields().iter().map(keyed).collect::<Vec<_>>());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    let known = ArrowReaderMetadata::try_new(metadata, options)?;
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, known);
    let only = ProjectionMask::columns(builder.parquet_schema(), COLUMNS);
    let mut batches = builder.with_projection(only).with_batch_size(BATCH_ROWS).build()?;
    let (mut ends, mut before) = (Vec::new(), 0);
    while let Some(batch) = batches.try_next().await? {
        let [bed, quantity] =
            COLUMNS.map(|name| batch.column_by_name(name).and_then(|column| column.as_dictionary_opt()));
        let (Some(bed), Some(quantity)) = (bed, quantity) else {
            return internal_err!("a file of observations has no beds or no quantities");
        };
        let (mut word_of_bed, mut word_of_quantity) = (Word::default(), Word::default());
        for row in changes(bed, quantity) {
            let (bed, quantity) = (word_of_bed.of(bed, row), word_of_quantity.of(quantity, row));
            ends.push(End { bed, quantity, row: before + row });
        }
        before += batch.num_rows();
    }
    Ok(Known { ends: ends.into(), rows: before })
}

/// The rows behind which another bed or quantity, or nothing, comes.
fn changes(bed: &DictionaryArray<Int32Type>, quantity: &DictionaryArray<Int32Type>) -> Vec<usize> {
    let key = |column: &DictionaryArray<Int32Type>, row| column.is_valid(row).then(|| column.keys().value(row));
    let last = bed.len().checked_sub(1);
    let differs = |row: &usize| {
        let differs = |column| key(column, *row) != key(column, row + 1);
        Some(*row) == last || differs(bed) || differs(quantity)
    };
    (0..bed.len()).filter(differs).collect()
}

/// The last word of a column, which the next row is likely to have, too.
#[derive(Default)]
struct Word(Option<Arc<str>>);

impl Word {
    fn of(&mut self, column: &DictionaryArray<Int32Type>, row: usize) -> Option<Arc<str>> {
        let words = column.values().as_string_opt::<i32>()?;
        let word = column.is_valid(row).then(|| words.value(usize::try_from(column.keys().value(row)).unwrap_or(0)));
        if self.0.as_deref() != word {
            self.0 = word.map(Arc::from);
        }
        self.0.clone()
    }
}
