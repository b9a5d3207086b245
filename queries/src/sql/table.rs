//! A table of a view for the query engine: committed Parquet files and rows on their way, read as one.
//!
//! Files are left out by what the table's log says of them (day, event times, homes, beds), row groups and pages by
//! their own statistics. No order is declared: files overlap each other, and hot rows are not sorted.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Date32Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use carebed_contract::time::Timestamp;
use carebed_pipeline::schema::EVENT_DAY;
use carebed_pipeline::view::{DataFile, TableView};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use object_store::path::Path;

use crate::episodes::times;

#[derive(Debug)]
pub(super) struct LakeTable {
    place: ObjectStoreUrl,
    root: Path,
    /// Columns of the files, without the day.
    files_schema: SchemaRef,
    schema: SchemaRef,
    view: TableView,
    by_day: bool,
}

impl LakeTable {
    pub(super) fn new(
        place: ObjectStoreUrl,
        root: Path,
        files_schema: SchemaRef,
        view: TableView,
        by_day: bool,
    ) -> Self {
        let day = by_day.then(day_field);
        let fields = files_schema.fields().iter().cloned().chain(day);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { place, root, files_schema, schema, view, by_day }
    }

    /// Files that may hold rows for these filters.
    fn relevant(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<Arc<DataFile>>> {
        let files = self.view.files.to_vec();
        let Some(filter) = conjunction(filters.to_vec()) else { return Ok(files) };
        let columns = DFSchema::try_from(Arc::clone(&self.schema))?;
        let predicate = PruningPredicateBuilder::new()
            .with_file_schema(Arc::clone(&self.schema))
            .try_build(state.create_physical_expr(filter, &columns)?)?;
        let keep = predicate.prune(&Files(&files))?;
        Ok(files.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect())
    }

    fn scan_files(
        &self,
        files: &[Arc<DataFile>],
        partitions: usize,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut groups = vec![Vec::new(); partitions.clamp(1, files.len().max(1))];
        let n = groups.len();
        for (number, file) in files.iter().enumerate() {
            let mut part = PartitionedFile::new(format!("{}/{}", self.root, file.path), file.size);
            if self.by_day {
                part = part.with_partition_values(vec![ScalarValue::Date32(file.day)]);
            }
            if let Some(group) = groups.get_mut(number % n) {
                group.push(part);
            }
        }
        let days = if self.by_day { vec![day_field()] } else { vec![] };
        let source = ParquetSource::new(
            TableSchema::builder(Arc::clone(&self.files_schema)).with_table_partition_cols(days).build(),
        );
        let config = FileScanConfigBuilder::new(self.place.clone(), Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn hot(&self) -> Result<Vec<RecordBatch>> {
        let batches = self.view.hot.iter();
        batches
            .map(|batch| {
                let mut columns = batch.columns().to_vec();
                if self.by_day {
                    let time = batch.schema().index_of("event_time")?;
                    columns.push(cast(batch.column(time), &DataType::Date32)?);
                }
                Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
            })
            .collect()
    }
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
        let files = self.relevant(state, filters)?;
        let hot = self.hot()?;
        let partitions = state.config().target_partitions();
        let cold = self.scan_files(&files, partitions, projection, limit)?;
        if hot.is_empty() {
            return Ok(cold);
        }
        let hot: Arc<dyn ExecutionPlan> =
            MemorySourceConfig::try_new_exec(&[hot], Arc::clone(&self.schema), projection.cloned())?;
        if files.is_empty() { Ok(hot) } else { UnionExec::try_new(vec![cold, hot]) }
    }
}

/// The lowest and highest word of a column.
type Words = (Arc<str>, Arc<str>);

/// What the table's log says of its files.
struct Files<'a>(&'a [Arc<DataFile>]);

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
