//! Runs read side by side as one stream, for each group of beds, in the order of the lake.
//!
//! Every run is sorted alike, and mostly a run is a day: all rows of a bed and quantity in one run come before those in the
//! next. So not row by row is compared, but how far a run goes on before another has to have its turn; such stretches are
//! passed on as they are.
//!
//! The order is declared here and not by what reads the files: DataFusion believes a source only where the statistics of
//! files that are read one behind the other prove it, each column by itself, and a run that is divided within a bed cannot be
//! proven so.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray, TimestampMillisecondArray};
use arrow::compute::{BatchCoalescer, SortOptions};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter_pushdown::{FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use futures::TryStreamExt;

/// A stretch of so many rows is passed on without being copied.
const STRETCH_ROWS: usize = 512;

/// Merges the partitions of each group of its input.
#[derive(Debug)]
pub(super) struct Merged {
    input: Arc<dyn ExecutionPlan>,
    /// Which partitions of the input belong to each group.
    groups: Vec<Vec<usize>>,
    /// The columns by which rows are sorted.
    order: Vec<usize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl Merged {
    /// Merges; `order` are the columns by which every partition is sorted, ascending and nulls first, and `partitioning` says how
    /// the groups are kept apart.
    pub(super) fn try_new(
        input: Arc<dyn ExecutionPlan>,
        groups: Vec<Vec<usize>>,
        order: Vec<usize>,
        partitioning: Partitioning,
    ) -> Result<Self> {
        if groups.iter().flatten().count() != input.output_partitioning().partition_count() {
            return internal_err!("runs were cut again after they were put in groups");
        }
        let mut equivalences: EquivalenceProperties = input.equivalence_properties().clone();
        equivalences.clear_per_partition_constants();
        let schema = input.schema();
        let columns = order.iter().map(|column| {
            let options = SortOptions { descending: false, nulls_first: true };
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(*column).name(), *column));
            PhysicalSortExpr::new(column, options)
        });
        equivalences.add_ordering(columns);
        let properties =
            PlanProperties::new(equivalences, partitioning, input.pipeline_behavior(), input.boundedness());
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { input, groups, order, properties: Arc::new(properties), metrics })
    }
}

impl DisplayAs for Merged {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.groups.iter().map(|group| group.len().to_string()).collect::<Vec<_>>();
        write!(f, "Merged: runs=[{}], partitioning={}", runs.join(", "), self.properties.partitioning)
    }
}

impl ExecutionPlan for Merged {
    fn name(&self) -> &'static str {
        "Merged"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    /// Partitions that came in another order could not be merged.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    /// The groups are as they are meant to be.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("runs are merged from one input");
        };
        let partitioning = self.properties.partitioning.clone();
        Ok(Arc::new(Self::try_new(input, self.groups.clone(), self.order.clone(), partitioning)?))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        FilterDescription::from_children(parent_filters, &self.children())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![if partition.is_none() { ChildStats::At(None) } else { ChildStats::Skip }]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(inputs.first().cloned().unwrap_or_else(|| Arc::new(Statistics::new_unknown(&self.schema()))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(group) = self.groups.get(partition) else { return internal_err!("there is no group {partition}") };
        let mut runs = group.iter().map(|run| self.input.execute(*run, Arc::clone(&context)));
        if group.len() == 1
            && let Some(only) = runs.next()
        {
            return only;
        }
        let runs = runs.map(|stream| Ok(Run { stream: Some(stream?), head: None })).collect::<Result<_>>()?;
        let schema = self.schema();
        let batch_rows = context.session_config().batch_size();
        let out =
            BatchCoalescer::new(Arc::clone(&schema), batch_rows).with_biggest_coalesce_batch_size(Some(STRETCH_ROWS));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let merge = Merge { runs, order: self.order.clone(), out, ended: false, metrics };
        let rows =
            futures::stream::try_unfold(merge, async |mut merge| Ok(merge.next().await?.map(|rows| (rows, merge))));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

struct Merge {
    runs: Vec<Run>,
    order: Vec<usize>,
    out: BatchCoalescer,
    ended: bool,
    metrics: BaselineMetrics,
}

/// One run, and the rows of it that have been read and not passed on.
struct Run {
    stream: Option<SendableRecordBatchStream>,
    head: Option<Head>,
}

struct Head {
    batch: RecordBatch,
    keys: Vec<Key>,
    row: usize,
}

/// A column by which rows are compared.
enum Key {
    Words(StringViewArray),
    Times(TimestampMillisecondArray),
}

impl Merge {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(rows) = self.out.next_completed_batch() {
                self.metrics.record_output(rows.num_rows());
                return Ok(Some(rows));
            }
            if self.ended {
                return Ok(None);
            }
            for run in &mut self.runs {
                run.fill(&self.order).await?;
            }
            let compute = self.metrics.elapsed_compute().clone();
            let _timer = compute.timer();
            self.runs.retain(|run| run.head.is_some());
            self.take()?;
            if self.runs.is_empty() {
                self.out.finish_buffered_batch()?;
                self.ended = true;
            }
        }
    }

    /// Passes on stretches until a run has to be read on, or a batch is full.
    fn take(&mut self) -> Result<()> {
        while self.runs.iter().all(|run| run.head.is_some()) && !self.out.has_completed_batch() {
            let Some((first, next)) = self.first_two() else { return Ok(()) };
            let stretch = {
                let head = |run: usize| self.runs.get(run).and_then(|run| run.head.as_ref());
                let Some(lead) = head(first) else { return Ok(()) };
                match next.and_then(head) {
                    Some(limit) => lead.until(limit),
                    None => lead.row..lead.batch.num_rows(),
                }
            };
            let Some(run) = self.runs.get_mut(first) else { return Ok(()) };
            if let Some(rows) = run.advance(stretch) {
                self.out.push_batch(rows)?;
            }
        }
        Ok(())
    }

    /// The run whose row is due, and the one whose row would be due without it.
    fn first_two(&self) -> Option<(usize, Option<usize>)> {
        let mut due = self.runs.iter().enumerate().filter_map(|(n, run)| Some((n, run.head.as_ref()?)));
        let mut first = due.next()?;
        let mut next: Option<(usize, &Head)> = None;
        for other in due {
            if other.1.compare(first.1) == Ordering::Less {
                next = Some(std::mem::replace(&mut first, other));
            } else if next.as_ref().is_none_or(|next| other.1.compare(next.1) == Ordering::Less) {
                next = Some(other);
            }
        }
        Some((first.0, next.map(|(n, _)| n)))
    }
}

impl Run {
    /// Reads on where nothing is left of what was read.
    async fn fill(&mut self, order: &[usize]) -> Result<()> {
        while self.head.is_none() {
            let Some(stream) = &mut self.stream else { return Ok(()) };
            match stream.try_next().await? {
                Some(batch) if batch.num_rows() > 0 => {
                    let keys = order.iter().map(|column| Key::of(batch.column(*column))).collect::<Result<_>>()?;
                    self.head = Some(Head { batch, keys, row: 0 });
                }
                Some(_) => {}
                None => self.stream = None,
            }
        }
        Ok(())
    }

    fn advance(&mut self, stretch: Range<usize>) -> Option<RecordBatch> {
        let head = self.head.as_mut()?;
        let rows = head.batch.slice(stretch.start, stretch.len());
        head.row = stretch.end;
        if head.row == head.batch.num_rows() {
            self.head = None;
        }
        Some(rows)
    }
}

impl Head {
    fn compare(&self, other: &Self) -> Ordering {
        self.compare_at(self.row, other)
    }

    fn compare_at(&self, row: usize, other: &Self) -> Ordering {
        let mut keys = self.keys.iter().zip(&other.keys);
        keys.find_map(|(a, b)| Some(a.compare(row, b, other.row)).filter(|o| o.is_ne())).unwrap_or(Ordering::Equal)
    }

    /// The rows that come before another's, or are equal to it: in steps that double, and then by halves.
    fn until(&self, other: &Self) -> Range<usize> {
        let is_due = |row: usize| self.compare_at(row, other).is_le();
        // The first row is due, or this run would not be the first.
        let (mut low, mut step) = (self.row, 1);
        let end = self.batch.num_rows();
        while low + step < end && is_due(low + step) {
            low += step;
            step *= 2;
        }
        let mut high = end.min(low + step);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if is_due(middle) { low = middle } else { high = middle }
        }
        self.row..high
    }
}

impl Key {
    fn of(column: &ArrayRef) -> Result<Self> {
        match column.data_type() {
            DataType::Utf8View => Ok(Self::Words(column.as_string_view().clone())),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Ok(Self::Times(column.as_primitive::<TimestampMillisecondType>().clone()))
            }
            other => internal_err!("runs cannot be merged by {other}"),
        }
    }

    fn compare(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        fn value<T>(is_null: bool, value: impl FnOnce() -> T) -> Option<T> {
            (!is_null).then(value)
        }
        match (self, other) {
            (Self::Words(a), Self::Words(b)) => {
                let a = value(a.is_null(row), || a.value(row));
                a.cmp(&value(b.is_null(other_row), || b.value(other_row)))
            }
            (Self::Times(a), Self::Times(b)) => {
                let a = value(a.is_null(row), || a.value(row));
                a.cmp(&value(b.is_null(other_row), || b.value(other_row)))
            }
            // Columns of one schema have one type.
            _ => Ordering::Equal,
        }
    }
}
