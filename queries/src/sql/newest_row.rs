//! The newest row of each: `row_number() OVER (PARTITION BY a ORDER BY t DESC) = 1`, as everybody writes it.
//!
//! Taken literally all rows are sorted the other way round and numbered. An aggregate that keeps one row of each partition says
//! the same, and reads sorted files as they lie.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::functions_aggregate::first_last::first_value;
use datafusion::logical_expr::expr::WindowFunctionParams;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Window, col, lit,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// The row that is kept, as one value: all its columns come from the same row.
const ROW: &str = "__newest_row";

#[derive(Debug)]
pub(crate) struct NewestRow;

impl OptimizerRule for NewestRow {
    fn name(&self) -> &str {
        "newest_row"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let rewritten = match &plan {
            LogicalPlan::Filter(filter) => match filter.input.as_ref() {
                LogicalPlan::Window(window) => rewritten(filter, window)?,
                // Columns that nobody asks for further up were left out between.
                LogicalPlan::Projection(Projection { expr, input, .. }) if expr.iter().all(is_plain) => {
                    let LogicalPlan::Window(window) = input.as_ref() else { return Ok(Transformed::no(plan)) };
                    let kept = rewritten(filter, window)?;
                    kept.map(|kept| LogicalPlanBuilder::from(kept).project(expr.clone())?.build()).transpose()?
                }
                _ => None,
            },
            _ => None,
        };
        Ok(rewritten.map_or_else(|| Transformed::no(plan), Transformed::yes))
    }
}

fn is_plain(expression: &Expr) -> bool {
    matches!(expression, Expr::Column(_))
}

fn rewritten(filter: &Filter, window: &Window) -> Result<Option<LogicalPlan>> {
    let ([numbering], Some((_, number))) = (window.window_expr.as_slice(), window.schema.iter().last()) else {
        return Ok(None);
    };
    let Some(params) = numbering_of(numbering).filter(|_| is_first(&filter.predicate, number.name())) else {
        return Ok(None);
    };
    let input = window.input.schema();
    let is_key = |column: &Column| params.partition_by.contains(&Expr::Column(column.clone()));
    let others: Vec<Column> = input.columns().into_iter().filter(|column| !is_key(column)).collect();
    if others.is_empty() {
        return Ok(None);
    }
    let fields = others.iter().enumerate().flat_map(|(n, column)| [lit(format!("c{n}")), Expr::Column(column.clone())]);
    let newest = first_value(named_struct(fields.collect()), params.order_by.clone()).alias(ROW);
    let kept =
        LogicalPlanBuilder::from(window.input.as_ref().clone()).aggregate(params.partition_by.clone(), [newest])?;
    let mut columns = Vec::new();
    for column in input.columns() {
        columns.push(match others.iter().position(|other| *other == column) {
            Some(n) => get_field(col(ROW), format!("c{n}")).alias_qualified(column.relation.clone(), &column.name),
            None => Expr::Column(column),
        });
    }
    columns.push(lit(ScalarValue::UInt64(Some(1))).alias(number.name()));
    kept.project(columns)?.build().map(Some)
}

/// A plain `row_number()` over partitions that are columns, in some order.
fn numbering_of(expression: &Expr) -> Option<&WindowFunctionParams> {
    let expression = match expression {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::WindowFunction(function) = expression else { return None };
    let params = &function.params;
    let is_plain = function.fun.name() == "row_number" && params.filter.is_none() && !params.distinct;
    let by_columns = params.partition_by.iter().all(|key| matches!(key, Expr::Column(_)));
    (is_plain && by_columns && !params.partition_by.is_empty() && !params.order_by.is_empty()).then_some(params)
}

/// Whether a predicate says that the number is the first, and nothing else.
fn is_first(predicate: &Expr, number: &str) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = predicate else { return false };
    let (Expr::Column(column), Expr::Literal(ScalarValue::UInt64(Some(value)), _)) = (left.as_ref(), right.as_ref())
    else {
        return false;
    };
    column.name == number && matches!((op, value), (Operator::Eq | Operator::LtEq, 1) | (Operator::Lt, 2))
}
