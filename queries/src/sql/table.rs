//! A table of a view for the query engine: committed Parquet files and rows on their way, read as one.
//!
//! Files are left out by what the table's log says of them (day, event times, homes, beds), row groups and pages by their own
//! statistics. The order of the rows is declared as the files have it, so that windows over beds need no sorting: the files
//! of a run are read one behind the other, runs side by side, and rows on their way come sorted, too.

mod beds;
mod ends;
mod files;
mod groups;
mod merged;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{SortOptions, cast};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use carebed_contract::time::Timestamp;
use carebed_pipeline::schema::{EVENT_DAY, SORT_ORDER};
use carebed_pipeline::view::{DataFile, TableView};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Result, ScalarValue, SplitPoint, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::{
    CachedParquetFileReaderFactory, ParquetFileReaderFactory as _, ParquetRowSelection,
};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, Partitioning, PhysicalExpr, PhysicalSortExpr, RangePartitioning};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::batch_filter;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::union::UnionExec;
use object_store::path::Path;
use parquet::arrow::arrow_reader::RowSelection;

pub(super) use beds::Cuts;
use beds::{Cut, Reader};
pub(super) use ends::Ends;
use files::Files;
use groups::{Groups, Piece, Section, group, runs, worth};
use merged::Merged;

#[derive(Debug, Clone)]
pub(super) struct LakeTable {
    place: ObjectStoreUrl,
    root: Path,
    /// Columns of the files, without the day.
    files_schema: SchemaRef,
    schema: SchemaRef,
    view: TableView,
    by_day: bool,
    cuts: Cuts,
    ends: Ends,
    /// Only the newest row of each bed and quantity is asked for.
    only_newest: bool,
}

impl LakeTable {
    pub(super) fn new(
        place: ObjectStoreUrl,
        root: Path,
        files_schema: SchemaRef,
        view: TableView,
        by_day: bool,
        ends: &Ends,
    ) -> Self {
        let files_schema = with_views(&files_schema);
        let day = by_day.then(day_field);
        let fields = files_schema.fields().iter().cloned().chain(day);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let (cuts, ends) = (Cuts::default(), ends.clone());
        Self { place, root, files_schema, schema, view, by_day, cuts, ends, only_newest: false }
    }

    /// With cuts that were made before, for whoever makes many tables of one lake.
    pub(super) fn with_cuts(self, cuts: &Cuts) -> Self {
        Self { cuts: cuts.clone(), ..self }
    }

    /// The same for whoever asks for the newest row of each bed and quantity: of the others many are left out. None where that is
    /// no different.
    pub(super) fn only_newest(&self) -> Option<Self> {
        (!self.only_newest && self.order().is_some()).then(|| Self { only_newest: true, ..self.clone() })
    }

    fn predicate(&self, state: &dyn Session, filters: &[Expr]) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let Some(filter) = conjunction(filters.to_vec()) else { return Ok(None) };
        let columns = DFSchema::try_from(Arc::clone(&self.schema))?;
        state.create_physical_expr(filter, &columns).map(Some)
    }

    /// Files that may hold such rows.
    fn relevant(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Result<Vec<Arc<DataFile>>> {
        let files = &self.view.files;
        let Some(predicate) = predicate else { return Ok(files.to_vec()) };
        let predicate = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(&self.schema))
            .try_build(Arc::clone(predicate))?;
        let keep = predicate.prune(&Files(files))?;
        Ok(files.iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| Arc::clone(file)).collect())
    }

    /// How the rows of sorted files lie; none for a table that is not sorted.
    fn order(&self) -> Option<LexOrdering> {
        let options = SortOptions { descending: false, nulls_first: true };
        let columns = SORT_ORDER.map(|name| {
            let column = Column::new_with_schema(name, &self.schema).ok()?;
            Some(PhysicalSortExpr::new(Arc::new(column), options))
        });
        LexOrdering::new(columns.into_iter().collect::<Option<Vec<_>>>()?)
    }

    /// Reads files, whose ends are read once: files never change.
    fn reader(&self, state: &dyn Session) -> Result<CachedParquetFileReaderFactory> {
        let runtime = state.runtime_env();
        let store = runtime.object_store(&self.place)?;
        Ok(CachedParquetFileReaderFactory::new(store, runtime.cache_manager.get_file_metadata_cache()))
    }

    fn partitioned(&self, file: &DataFile) -> PartitionedFile {
        PartitionedFile::new(format!("{}/{}", self.root, file.path), file.size)
    }

    /// The newest row of each bed and quantity of files, and others; none where not enough is known of them.
    async fn scan_newest(
        &self,
        state: &dyn Session,
        files: &[Arc<DataFile>],
        filters: &[Expr],
        projection: Option<&Vec<usize>>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        // The pages of one bed are few.
        if !self.only_newest || filters.iter().any(asks_for_one) {
            return Ok(None);
        }
        let reader = self.reader(state)?;
        let open = |file: &DataFile| -> Result<Reader> {
            Ok(reader.create_reader(0, self.partitioned(file), None, &ExecutionPlanMetricsSet::new())?)
        };
        let wanted = state.config().target_partitions();
        let Some(groups) = self.ends.groups(files, &self.view.files, wanted, open).await? else { return Ok(None) };
        let unknown = Statistics::new_unknown(&self.schema);
        self.scan_files(state, groups, None, unknown, projection, None).map(Some)
    }

    /// Runs in groups between which no bed is divided.
    async fn cut(&self, state: &dyn Session, runs: &[Vec<Arc<DataFile>>], wanted: usize) -> Result<Option<Cut>> {
        let reader = self.reader(state)?;
        let open = |file: &DataFile| -> Result<Reader> {
            Ok(reader.create_reader(0, self.partitioned(file), None, &ExecutionPlanMetricsSet::new())?)
        };
        self.cuts.of(runs, wanted, open).await
    }

    /// All that is relevant as one sorted stream for each group of beds; none where beds are not asked for, or only one is, whose
    /// days are then better read by several cores.
    async fn scan_beds(
        &self,
        state: &dyn Session,
        files: &[Arc<DataFile>],
        hot: &[RecordBatch],
        filters: &[Expr],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let place = |name: &&str| {
            let column = self.schema.index_of(name).ok()?;
            projection.map_or(Some(column), |asked| asked.iter().position(|other| *other == column))
        };
        let columns: Vec<usize> = SORT_ORDER.iter().map_while(place).collect();
        let (Some(order), Some(runs), Some(bed)) = (self.order(), runs(files), columns.first()) else {
            return Ok(None);
        };
        let n_sources = runs.len() + hot.len();
        let wanted = worth(files, state.config().target_partitions());
        if runs.is_empty() || (n_sources > 1 && filters.iter().any(asks_for_one)) || (n_sources == 1 && wanted == 1) {
            return Ok(None);
        }
        let cut = if wanted > 1 { self.cut(state, &runs, wanted).await? } else { None };
        let Cut { splits, groups } = match cut {
            Some(cut) => cut,
            // Runs that cannot be cut are better read by several cores than merged by one.
            None if wanted > 1 => return Ok(None),
            None => Cut::none(runs),
        };
        let mut parts: Vec<Vec<usize>> = Vec::with_capacity(groups.len());
        for group in &groups {
            let before = parts.iter().map(Vec::len).sum();
            parts.push((before..before + group.len()).collect());
        }
        let n_parts = parts.iter().map(Vec::len).sum::<usize>();
        let read = Groups { groups: groups.into_iter().flatten().collect(), sorted: true };
        let statistics = self.statistics(files);
        // With an order, so that no idle core takes another's files.
        let mut input = self.scan_files(state, read, Some(order.clone()), statistics, projection, limit)?;
        let mut divided = Vec::new();
        for hot in hot {
            let before = n_parts + divided.len();
            parts.iter_mut().enumerate().for_each(|(group, parts)| parts.push(before + group));
            divided.extend(beds::divide(hot, &splits)?);
        }
        if !divided.is_empty() {
            let hot = self.scan_hot(divided, Some(order), projection)?;
            input = UnionExec::try_new(vec![input, hot])?;
        }
        let bed = Arc::new(Column::new(beds::BED, *bed));
        let partitioning = by_beds(bed, splits).unwrap_or(Partitioning::UnknownPartitioning(1));
        Ok(Some(Arc::new(Merged::try_new(input, parts, columns, partitioning)?)))
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        Groups { groups, .. }: Groups,
        order: Option<LexOrdering>,
        statistics: Statistics,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let part = |Piece { file, section }: &Piece| {
            let mut part = self.partitioned(file);
            match section {
                Section::Whole => {}
                Section::Bytes(from, to) => {
                    let place = |byte: &u64| i64::try_from(*byte).unwrap_or(i64::MAX);
                    part = part.with_range(place(from), place(to));
                }
                Section::Rows { from, to, of } => {
                    let rows = RowSelection::from_consecutive_ranges(std::iter::once(*from..*to), *of);
                    part = part.with_extension(ParquetRowSelection::new(rows));
                }
                Section::Chosen(rows) => {
                    part = part.with_extension(ParquetRowSelection::new(RowSelection::clone(rows)));
                }
            }
            if self.by_day {
                part = part.with_partition_values(vec![ScalarValue::Date32(file.day)]);
            }
            // A file stays on the storage for as long as somebody holds it: here, the plan.
            part.with_extension(Arc::clone(file))
        };
        let groups = groups.iter().map(|group| FileGroup::new(group.iter().map(part).collect())).collect();
        let days = if self.by_day { vec![day_field()] } else { vec![] };
        let source = ParquetSource::new(
            TableSchema::builder(Arc::clone(&self.files_schema)).with_table_partition_cols(days).build(),
        )
        .with_table_parquet_options(state.default_table_options().parquet)
        .with_parquet_file_reader_factory(Arc::new(self.reader(state)?));
        let config = FileScanConfigBuilder::new(self.place.clone(), Arc::new(source))
            .with_file_groups(groups)
            .with_output_ordering(order.into_iter().collect())
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// What is known of these files together: enough to count them without reading.
    fn statistics(&self, files: &[Arc<DataFile>]) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let rows: Option<u64> = files.iter().map(|file| file.rows).sum();
        if let Some(rows) = rows.and_then(|rows| usize::try_from(rows).ok()) {
            statistics.num_rows = Precision::Exact(rows);
        }
        let times: Option<Vec<(Timestamp, Timestamp)>> = files.iter().map(|file| file.event_time).collect();
        let column = self.schema.index_of("event_time").ok().and_then(|at| statistics.column_statistics.get_mut(at));
        if let (Some(times), Some(column)) = (times, column) {
            let scalar = |time: Timestamp| ScalarValue::TimestampMillisecond(Some(time.millis()), Some("UTC".into()));
            let (least, most) = (times.iter().map(|(low, _)| *low).min(), times.iter().map(|(_, high)| *high).max());
            if let (Some(least), Some(most)) = (least, most) {
                column.min_value = Precision::Exact(scalar(least));
                column.max_value = Precision::Exact(scalar(most));
                column.null_count = Precision::Exact(0);
            }
        }
        statistics
    }

    /// Rows on their way that are asked for, in parts that are each sorted. Their columns are laid out once a part and not for every
    /// question.
    fn hot(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Result<Vec<RecordBatch>> {
        let mut parts = Vec::new();
        for hot in self.view.hot.iter() {
            let batch = hot.columns()?;
            let mut columns = batch.columns().to_vec();
            if self.by_day {
                let time = batch.schema().index_of("event_time")?;
                columns.push(cast(batch.column(time), &DataType::Date32)?);
            }
            let mut rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            if let Some(predicate) = predicate {
                rows = batch_filter(&rows, predicate)?;
            }
            parts.extend(Some(rows).filter(|rows| rows.num_rows() > 0));
        }
        Ok(parts)
    }

    fn scan_hot(
        &self,
        parts: Vec<RecordBatch>,
        order: Option<LexOrdering>,
        projection: Option<&Vec<usize>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let parts: Vec<_> = parts.into_iter().map(|part| vec![part]).collect();
        let source = MemorySourceConfig::try_new(&parts, Arc::clone(&self.schema), projection.cloned())?;
        let source = source.try_with_sort_information(order.into_iter().collect())?;
        Ok(DataSourceExec::from_data_source(source))
    }
}

/// Words as views into the dictionaries of pages: thousands of rows share one word, and none of them copies it.
fn with_views(schema: &Schema) -> SchemaRef {
    let view = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        _ => Arc::clone(field),
    };
    Arc::new(Schema::new(schema.fields().iter().map(view).collect::<Vec<_>>()))
}

/// Groups between which no bed is divided.
fn by_beds(bed: Arc<dyn PhysicalExpr>, splits: Vec<Arc<str>>) -> Option<Partitioning> {
    let options = SortOptions { descending: false, nulls_first: true };
    let order = LexOrdering::new([PhysicalSortExpr::new(bed, options)])?;
    let point = |split: Arc<str>| SplitPoint::new(vec![ScalarValue::Utf8View(Some(split.to_string()))]);
    let splits: Vec<SplitPoint> = splits.into_iter().map(point).collect();
    if splits.is_empty() { None } else { RangePartitioning::try_new(order, splits).ok().map(Partitioning::Range) }
}

/// Whether a filter leaves one bed or one home.
fn asks_for_one(filter: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return false };
    let is_name = |side: &Expr| matches!(side, Expr::Column(column) if ["bed_id", "home_id"].contains(&column.name()));
    let is_value = |side: &Expr| matches!(side, Expr::Literal(..));
    (is_name(left) && is_value(right)) || (is_value(left) && is_name(right))
}

fn day_field() -> Arc<Field> {
    Arc::new(Field::new(EVENT_DAY, DataType::Date32, true))
}

#[async_trait]
impl TableProvider for LakeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Filters choose files here; rows are filtered by the engine, which also hands the filters to the Parquet reader.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let predicate = self.predicate(state, filters)?;
        let files = self.relevant(predicate.as_ref())?;
        let hot = self.hot(predicate.as_ref())?;
        let newest = self.scan_newest(state, &files, filters, projection).await?;
        if newest.is_none()
            && let Some(plan) = self.scan_beds(state, &files, &hot, filters, projection, limit).await?
        {
            return Ok(plan);
        }
        let statistics = self.statistics(&files);
        let groups = group(files, state.config().target_partitions());
        // Rows of both are sorted alike, or nobody is told so.
        let order = self.order().filter(|_| groups.sorted && newest.is_none());

        let mut parts = Vec::new();
        match newest {
            Some(newest) => parts.push(newest),
            None if groups.groups.is_empty() => {}
            None => parts.push(self.scan_files(state, groups, order.clone(), statistics, projection, limit)?),
        }
        if !hot.is_empty() {
            parts.push(self.scan_hot(hot, order, projection)?);
        }
        match parts.len() {
            0 => {
                let schema = match projection {
                    Some(columns) => Arc::new(self.schema.project(columns)?),
                    None => Arc::clone(&self.schema),
                };
                Ok(Arc::new(EmptyExec::new(schema)))
            }
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }
}

#[cfg(test)]
mod tables_agree;
#[cfg(test)]
mod tests;
