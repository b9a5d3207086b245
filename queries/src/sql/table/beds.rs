//! Runs cut between beds, all at the same: no bed has rows on both sides, so that windows over beds need not bring them together
//! again.
//!
//! Row groups say which beds they hold. Where a cut falls into one, its column of beds is read, some kilobytes. Files never
//! change, so the last cuts are remembered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use carebed_pipeline::view::DataFile;
use datafusion::common::{DataFusionError, Result};
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use super::groups::{Piece, Section};

/// Reads one file.
pub(super) type Reader = Box<dyn AsyncFileReader>;

/// The column that is cut by: the first of the order.
pub(super) const BED: &str = "bed_id";
/// Cuts that are remembered: those of the last questions over the same files.
const REMEMBERED_MAX: usize = 16;

/// The pieces of runs. Rows of beds before `splits[0]`, and those of no bed, are in the first group, and so on.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) splits: Vec<Arc<str>>,
    /// For each group its part of each run that has one.
    pub(super) groups: Vec<Vec<Vec<Piece>>>,
}

impl Cut {
    /// Runs as they are, in one group.
    pub(super) fn none(runs: Vec<Vec<Arc<DataFile>>>) -> Self {
        let whole = |run: Vec<Arc<DataFile>>| run.into_iter().map(Piece::whole).collect();
        Self { splits: Vec::new(), groups: vec![runs.into_iter().map(whole).collect()] }
    }
}

/// Rows in the order of their beds, cut at the same beds.
pub(super) fn divide(rows: &RecordBatch, splits: &[Arc<str>]) -> Result<Vec<RecordBatch>> {
    let beds = rows.column_by_name(BED).map(|beds| cast(beds, &DataType::Utf8View)).transpose()?;
    let Some(beds) = beds.as_ref().map(|beds| beds.as_string_view()) else { return Ok(vec![rows.clone()]) };
    let (mut parts, mut from) = (Vec::with_capacity(splits.len() + 1), 0);
    for split in splits {
        let belongs = |bed: Option<&str>| bed.is_some_and(|bed| bed >= &**split);
        let to = beds.iter().position(belongs).unwrap_or(rows.num_rows());
        parts.push(rows.slice(from, to - from));
        from = to;
    }
    parts.push(rows.slice(from, rows.num_rows() - from));
    Ok(parts)
}

/// Remembers cuts. Clones share it.
#[derive(Debug, Clone, Default)]
pub(in crate::sql) struct Cuts(Arc<Mutex<VecDeque<Remembered>>>);

/// Files, into how many groups they were to be cut, and how they are.
type Remembered = (Vec<Arc<str>>, usize, Option<Cut>);

impl Cuts {
    /// Runs in so many groups of about as many rows; none where their files do not say enough, or hold too few beds.
    pub(super) async fn of(
        &self,
        runs: &[Vec<Arc<DataFile>>],
        wanted: usize,
        open: impl Fn(&DataFile) -> Result<Reader> + Send + Sync,
    ) -> Result<Option<Cut>> {
        let files: Vec<Arc<str>> = runs.iter().flatten().map(|file| Arc::clone(&file.path)).collect();
        let known = |(of, n, _): &&Remembered| *of == files && *n == wanted;
        if let Some((.., cut)) = self.lock().iter().find(known) {
            return Ok(cut.clone());
        }
        let made = cut(runs, wanted, open).await?;
        let mut remembered = self.lock();
        remembered.truncate(REMEMBERED_MAX - 1);
        remembered.push_front((files, wanted, made.clone()));
        Ok(made)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn cut(
    runs: &[Vec<Arc<DataFile>>],
    wanted: usize,
    open: impl Fn(&DataFile) -> Result<Reader> + Send + Sync,
) -> Result<Option<Cut>> {
    let mut ends = Vec::new();
    for file in runs.iter().flatten() {
        ends.push(open(file)?.get_metadata(None).await?);
    }
    let Some(splits) = splits(&ends, wanted) else { return Ok(None) };
    let mut groups = vec![Vec::new(); wanted];
    let mut ends = ends.iter();
    for run in runs {
        let mut parts = vec![Vec::new(); wanted];
        for (file, end) in run.iter().zip(&mut ends) {
            let total = rows(end.row_groups());
            let mut from = 0;
            for (number, part) in parts.iter_mut().enumerate() {
                let to = match splits.get(number) {
                    Some(split) => first_row_of(split, file, end, &open).await?,
                    None => total,
                };
                if from < to {
                    let section =
                        if (from, to) == (0, total) { Section::Whole } else { Section::Rows { from, to, of: total } };
                    part.push(Piece { file: Arc::clone(file), section });
                }
                from = to.max(from);
            }
        }
        for (group, part) in groups.iter_mut().zip(parts) {
            group.extend((!part.is_empty()).then_some(part));
        }
    }
    Ok(groups.iter().all(|group| !group.is_empty()).then_some(Cut { splits, groups }))
}

/// Beds at which to cut, strictly ascending, so that as many groups as are wanted have about as many rows.
fn splits(ends: &[Arc<ParquetMetaData>], wanted: usize) -> Option<Vec<Arc<str>>> {
    let mut groups: Vec<&RowGroupMetaData> = ends.iter().flat_map(|end| end.row_groups()).collect();
    groups.sort_by(|a, b| beds(a).map(|(least, _)| least).cmp(&beds(b).map(|(least, _)| least)));
    let total: usize = groups.iter().map(|group| rows([*group])).sum();
    let (mut splits, mut before) = (Vec::<Arc<str>>::new(), 0);
    for group in groups {
        let within = rows([group]);
        // The cut after the last one, should it fall into this group.
        let at = total * (splits.len() + 1) / wanted;
        if splits.len() + 1 < wanted && at < before + within {
            let (least, most) = beds(group)?;
            // Nearer to the beginning of the group, or to its end?
            let split = if at - before.min(at) < within / 2 { least } else { most };
            if splits.last().is_some_and(|last| **last >= *split) {
                return None;
            }
            splits.push(split.into());
        }
        before += within;
    }
    (splits.len() + 1 == wanted).then_some(splits)
}

/// How many rows of a file come before a bed's.
async fn first_row_of(
    bed: &str,
    file: &DataFile,
    end: &ParquetMetaData,
    open: &(impl Fn(&DataFile) -> Result<Reader> + Send + Sync),
) -> Result<usize> {
    let unsorted = || DataFusionError::Internal(format!("{} does not say which beds it holds", file.path));
    let mut before = 0;
    for (number, group) in end.row_groups().iter().enumerate() {
        // A group without bounds holds rows of no bed only: `splits` has looked at those that matter.
        let (least, most) = match beds(group) {
            Some(bounds) => bounds,
            None if nulls(group) == Some(rows([group])) => {
                before += rows([group]);
                continue;
            }
            None => return Err(unsorted()),
        };
        if most < bed {
            before += rows([group]);
        } else if least >= bed && nulls(group) == Some(0) {
            return Ok(before);
        } else {
            return Ok(before + first_row_within(bed, open(file)?, number).await?);
        }
    }
    Ok(before)
}

async fn first_row_within(bed: &str, reader: Reader, group: usize) -> Result<usize> {
    let builder = ParquetRecordBatchStreamBuilder::new(reader).await?;
    let only = ProjectionMask::columns(builder.parquet_schema(), [BED]);
    let mut batches = builder.with_projection(only).with_row_groups(vec![group]).build()?;
    let mut before = 0;
    while let Some(batch) = batches.try_next().await? {
        let beds = cast(batch.column(0), &DataType::Utf8View)?;
        let beds = beds.as_string_view();
        // Sorted: rows of no bed first.
        match beds.iter().position(|other| other.is_some_and(|other| other >= bed)) {
            Some(row) => return Ok(before + row),
            None => before += batch.num_rows(),
        }
    }
    Ok(before)
}

fn rows<'a>(groups: impl IntoIterator<Item = &'a RowGroupMetaData>) -> usize {
    groups.into_iter().map(|group| usize::try_from(group.num_rows()).unwrap_or(0)).sum()
}

fn statistics(group: &RowGroupMetaData) -> Option<&Statistics> {
    group.columns().iter().find(|column| column.column_path().string() == BED)?.statistics()
}

/// How many rows are of no bed.
fn nulls(group: &RowGroupMetaData) -> Option<usize> {
    usize::try_from(statistics(group)?.null_count_opt()?).ok()
}

/// The first and the last bed of a row group.
fn beds(group: &RowGroupMetaData) -> Option<(&str, &str)> {
    let Statistics::ByteArray(beds) = statistics(group).filter(|s| s.min_is_exact() && s.max_is_exact())? else {
        return None;
    };
    Some((beds.min_opt()?.as_utf8().ok()?, beds.max_opt()?.as_utf8().ok()?))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::{Field, Schema};
    use carebed_contract::time::Timestamp;
    use datafusion::datasource::listing::PartitionedFile;
    use datafusion::datasource::physical_plan::parquet::{
        DefaultParquetFileReaderFactory, ParquetFileReaderFactory as _,
    };
    use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    use proptest::prelude::*;

    use super::*;

    /// Beds in order as the files of a run, in row groups of so many rows.
    async fn run(
        beds: &[Option<String>],
        rows_a_file: usize,
        rows_a_group: usize,
    ) -> (Arc<InMemory>, Vec<Arc<DataFile>>) {
        let (store, mut files) = (Arc::new(InMemory::new()), Vec::new());
        let schema = Arc::new(Schema::new(vec![Field::new(BED, DataType::Utf8, true)]));
        for (number, beds) in beds.chunks(rows_a_file).enumerate() {
            let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows_a_group)).build();
            let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties)).unwrap();
            let column = beds.iter().map(Option::as_deref).collect::<StringArray>();
            writer.write(&RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap()).unwrap();
            let bytes = writer.into_inner().unwrap();
            let path: Arc<str> = format!("{number}").into();
            let size = bytes.len() as u64;
            store.put(&path.as_ref().into(), bytes.into()).await.unwrap();
            files.push(Arc::new(DataFile {
                path,
                size,
                rows: None,
                day: None,
                event_time: None,
                home: None,
                bed: None,
                part: None,
                written: Timestamp::MIN,
            }));
        }
        (store, files)
    }

    proptest! {
        #[test]
        fn no_bed_is_divided_and_no_row_is_lost(
            lengths in proptest::collection::vec(1..40_usize, 1..12),
            nobody in 0..30_usize,
            rows_a_file in 7..120_usize,
            rows_a_group in 3..40_usize,
            wanted in 2..5_usize,
        ) {
            let named = lengths.iter().enumerate().flat_map(|(n, length)| vec![Some(format!("b{n:02}")); *length]);
            let beds: Vec<Option<String>> = std::iter::repeat_n(None, nobody).chain(named).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let cut = runtime.block_on(async {
                let (store, files) = run(&beds, rows_a_file, rows_a_group).await;
                let reader = DefaultParquetFileReaderFactory::new(store);
                let open = |file: &DataFile| -> Result<Reader> {
                    let file = PartitionedFile::new(file.path.as_ref(), file.size);
                    Ok(reader.create_reader(0, file, None, &ExecutionPlanMetricsSet::new())?)
                };
                let cuts = Cuts::default();
                let runs = [files];
                let cut = cuts.of(&runs, wanted, open).await.unwrap();
                let unread = |file: &DataFile| -> Result<Reader> { panic!("{} was read again", file.path) };
                assert_eq!(cuts.of(&runs, wanted, unread).await.unwrap().is_some(), cut.is_some());
                cut
            });
            let Some(Cut { splits, groups }) = cut else { return Ok(()) };
            prop_assert_eq!((splits.len() + 1, groups.len()), (wanted, wanted));
            let mut next = 0;
            for (number, group) in groups.iter().enumerate() {
                for Piece { file, section } in group.iter().flatten() {
                    let first = file.path.parse::<usize>().unwrap() * rows_a_file;
                    let (from, to) = match *section {
                        Section::Whole => (first, (first + rows_a_file).min(beds.len())),
                        Section::Rows { from, to, .. } => (first + from, first + to),
                        Section::Bytes(..) | Section::Chosen(_) => panic!("cut otherwise"),
                    };
                    prop_assert_eq!(from, next, "every row once, in order");
                    next = to;
                    for bed in &beds[from..to] {
                        let of = splits.iter().filter(|split| bed.as_deref().is_some_and(|bed| bed >= &***split)).count();
                        prop_assert_eq!(of, number, "{:?} {:?}", bed, splits);
                    }
                }
            }
            prop_assert_eq!(next, beds.len());
        }
    }
}
