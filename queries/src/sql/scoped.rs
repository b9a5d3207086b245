//! The rows of some areas, and nothing that a statement says of them lets others be guessed.
//!
//! A filter may fail on a row, and its error then names a value: `CAST(text AS int) > 0` shows the text. So the filters of a
//! statement see rows of its areas only. Those that cannot fail are used before, to leave out files and pages.

use std::fmt;
use std::sync::Arc;

use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchema, Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};

use super::snapshot::Scope;
use super::table::LakeTable;

/// Whether a filter compares columns with constants and does nothing else: it fails on no row.
pub(super) fn is_harmless(filter: &Expr) -> bool {
    let is_plain = |side: &Expr| matches!(side, Expr::Column(_) | Expr::Literal(..));
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            is_harmless(left) && is_harmless(right)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
            matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq) && is_plain(left) && is_plain(right)
        }
        Expr::Not(inner) => is_harmless(inner),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => is_plain(inner),
        Expr::Between(between) => [&between.expr, &between.low, &between.high].into_iter().all(|side| is_plain(side)),
        Expr::InList(list) => is_plain(&list.expr) && list.list.iter().all(is_plain),
        _ => false,
    }
}

/// Reads what a scope holds of a table; `filters` are harmless.
pub(super) async fn scan(
    table: &LakeTable,
    scope: &Scope,
    state: &dyn Session,
    projection: Option<&Vec<usize>>,
    filters: &[Expr],
    limit: Option<usize>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(kept) = scope.filter() else { return table.scan(state, projection, filters, limit).await };
    let area = table.schema().index_of("area")?;
    let mut columns = projection.cloned().unwrap_or_else(|| (0..table.schema().fields().len()).collect());
    let n_asked = columns.len();
    if !columns.contains(&area) {
        columns.push(area);
    }
    let mut filters = filters.to_vec();
    filters.push(kept);
    let input = table.scan(state, Some(&columns), &filters, None).await?;
    let Some(filter) = conjunction(filters) else { return internal_err!("a scope is a filter") };
    let schema = input.schema();
    let filter = state.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(&schema))?)?;
    let mut kept: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(filter, input)?);
    if n_asked < columns.len() {
        let asked = schema.fields().iter().take(n_asked).map(|field| {
            let column = datafusion::physical_expr::expressions::col(field.name(), &schema)?;
            Ok((column, field.name().clone()))
        });
        kept = Arc::new(ProjectionExec::try_new(asked.collect::<Result<Vec<_>>>()?, kept)?);
    }
    Ok(Arc::new(Behind { rows: kept }))
}

/// Rows that no filter from above reaches before they have passed.
#[derive(Debug)]
struct Behind {
    rows: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for Behind {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OfAreas")
    }
}

/// Filters from above are not pushed down: that is the engine's way with plans that say nothing of it.
impl ExecutionPlan for Behind {
    fn name(&self) -> &'static str {
        "OfAreas"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.rows.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.rows]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(rows), true) => Ok(Arc::new(Self { rows })),
            _ => internal_err!("rows of areas come from one input"),
        }
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

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, inputs: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        Ok(inputs.first().cloned().unwrap_or_else(|| Arc::new(Statistics::new_unknown(&self.schema()))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.rows.execute(partition, context)
    }
}
