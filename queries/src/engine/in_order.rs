//! Grouping and windows over rows that come in the order of their groups, as a lake's do.
//!
//! The engine knows the order and uses it to keep little in memory, but looks every row's group up in a hash table, and asks
//! a window function row by row. Where rows come sorted neither is needed: a group ends where a key changes, and a window
//! function answers for all rows of a bed at once. The plan stays the engine's; only how two of its steps run is other.

mod groups;
mod windows;

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, OrderingRequirements, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::BoundedWindowAggExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;

/// The last rule: takes over the steps whose rows come in order.
#[derive(Debug)]
pub(super) struct UseOrder;

impl PhysicalOptimizerRule for UseOrder {
    fn name(&self) -> &str {
        "use_order"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let taken = plan.transform_up(|step| {
            let comes_in_order = step.downcast_ref::<AggregateExec>().is_some_and(groups::can)
                || step.downcast_ref::<BoundedWindowAggExec>().is_some_and(windows::can);
            Ok(if comes_in_order { Transformed::yes(Arc::new(InOrder::new(step)) as _) } else { Transformed::no(step) })
        })?;
        Ok(taken.data)
    }
}

/// A step of the engine that runs in our way.
#[derive(Debug)]
struct InOrder {
    step: Arc<dyn ExecutionPlan>,
    metrics: ExecutionPlanMetricsSet,
}

impl InOrder {
    fn new(step: Arc<dyn ExecutionPlan>) -> Self {
        Self { step, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for InOrder {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InOrder ")?;
        self.step.fmt_as(format, f)
    }
}

impl ExecutionPlan for InOrder {
    fn name(&self) -> &'static str {
        "InOrder"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.step.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.step.children()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.step.maintains_input_order()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.step.input_distribution_requirements().into_per_child()
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        self.step.required_input_ordering()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.step.apply_expressions(f)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(Arc::clone(&self.step).replace_children(children, options)?)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        if let Some(step) = self.step.downcast_ref::<AggregateExec>() {
            let input = step.input().execute(partition, Arc::clone(&context))?;
            return Ok(run(input, groups::Groups::new(step, &context)?, self.schema(), metrics));
        }
        if let Some(step) = self.step.downcast_ref::<BoundedWindowAggExec>() {
            let input = step.input().execute(partition, Arc::clone(&context))?;
            return Ok(run(input, windows::Windows::new(step, &context), self.schema(), metrics));
        }
        self.step.execute(partition, context)
    }
}

/// Takes rows as they come, and gives others.
trait Work: Send + 'static {
    fn take(&mut self, rows: RecordBatch) -> Result<Option<RecordBatch>>;
    /// No more come.
    fn end(&mut self) -> Result<Option<RecordBatch>>;
}

fn run(
    input: SendableRecordBatchStream,
    work: impl Work,
    schema: SchemaRef,
    metrics: BaselineMetrics,
) -> SendableRecordBatchStream {
    let rows = futures::stream::try_unfold((Some(input), work, metrics), async |(mut input, mut work, metrics)| {
        while let Some(rows) = &mut input {
            let rows = rows.try_next().await?;
            let timer = metrics.elapsed_compute().timer();
            let given = match rows {
                Some(rows) if rows.num_rows() == 0 => None,
                Some(rows) => work.take(rows)?,
                None => {
                    input = None;
                    work.end()?
                }
            };
            if let Some(given) = given {
                metrics.record_output(given.num_rows());
                drop(timer);
                return Ok(Some((given, (input, work, metrics))));
            }
        }
        Ok(None)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// The values of some columns in the rows of a batch.
fn values<'a>(
    expressions: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>,
    batch: &RecordBatch,
) -> Result<Vec<ArrayRef>> {
    let value = |expression: &Arc<dyn PhysicalExpr>| expression.evaluate(batch)?.into_array(batch.num_rows());
    expressions.into_iter().map(value).collect()
}

/// The last row of these columns, by itself.
fn last_row(columns: &[ArrayRef]) -> Vec<ArrayRef> {
    columns.iter().map(|column| column.slice(column.len().saturating_sub(1), 1)).collect()
}

/// Whether the first rows of these columns hold the same; two nulls do.
fn begin_alike(a: &[ArrayRef], b: &[ArrayRef]) -> Result<bool> {
    for (a, b) in a.iter().zip(b) {
        if arrow::array::make_comparator(a, b, SortOptions::default())?(0, 0).is_ne() {
            return Ok(false);
        }
    }
    Ok(true)
}
