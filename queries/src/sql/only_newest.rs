//! Who asks for the newest row of each bed and quantity, or of each bed, is given those rows only that may be it.
//!
//! Files are sorted by bed, quantity and time: a row behind which another one of its bed and quantity lies is never the newest
//! of anything, as long as nothing but bed and quantity, or a time from which on, says which rows are asked for.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, Operator, TableScan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use super::live_table::LiveTable;
use super::table::LakeTable;

/// What rows of one stretch have in common, and what orders them.
const ALIKE: [&str; 2] = ["bed_id", "quantity"];
const TIME: &str = "event_time";

#[derive(Debug)]
pub(crate) struct OnlyNewest;

impl OptimizerRule for OnlyNewest {
    fn name(&self) -> &str {
        "only_newest"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        if !wants_newest(aggregate) {
            return Ok(Transformed::no(plan));
        }
        match of_newest(&aggregate.input)? {
            Some(input) => Ok(Transformed::yes(plan.with_new_exprs(plan.expressions(), vec![input])?)),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// Whether each group is rows alike, and nothing but its newest row counts. Of rows of the same instant any is the newest. What
/// is asked of all rows together the log may know.
fn wants_newest(aggregate: &Aggregate) -> bool {
    let keys = &aggregate.group_expr;
    !keys.is_empty()
        && keys.iter().all(|key| is_column(key, &ALIKE))
        && aggregate.aggr_expr.iter().all(|what| is_of_newest(what, keys))
}

fn is_of_newest(expression: &Expr, keys: &[Expr]) -> bool {
    let function = match expression {
        Expr::Alias(alias) => return is_of_newest(&alias.expr, keys),
        Expr::AggregateFunction(function) => function,
        _ => return false,
    };
    let AggregateFunction { func, params } = function;
    if params.filter.is_some() || params.distinct || params.null_treatment.is_some() {
        return false;
    }
    // Within a group its keys order nothing.
    let mut order = params.order_by.iter().filter(|by| !keys.contains(&by.expr));
    let (first, second) = (order.next(), order.next());
    let by_time =
        |ascending| first.is_some_and(|by| is_column(&by.expr, &[TIME]) && by.asc == ascending) && second.is_none();
    match func.name() {
        "first_value" => by_time(false),
        "last_value" => by_time(true),
        "max" => params.args.iter().all(|argument| is_column(argument, &[TIME])),
        _ => false,
    }
}

fn is_column(expression: &Expr, names: &[&str]) -> bool {
    matches!(expression, Expr::Column(column) if names.contains(&column.name()))
}

/// The same rows, but for some that are not the newest; none where not only bed, quantity and a first time choose them.
fn of_newest(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    let input = match plan {
        LogicalPlan::TableScan(scan) => return of_table(scan),
        LogicalPlan::Filter(filter) if keeps_newest(&filter.predicate) => &filter.input,
        LogicalPlan::SubqueryAlias(alias) => &alias.input,
        LogicalPlan::Projection(projection) if projection.expr.iter().all(keeps_names) => &projection.input,
        _ => return Ok(None),
    };
    let Some(input) = of_newest(input)? else { return Ok(None) };
    plan.with_new_exprs(plan.expressions(), vec![input]).map(Some)
}

/// Whether a row that passes leaves those behind it to pass, too.
fn keeps_newest(predicate: &Expr) -> bool {
    split_conjunction(predicate).into_iter().all(|part| {
        let is_from = match part {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Gt | Operator::GtEq, right }) => {
                is_column(left, &[TIME]) && matches!(right.as_ref(), Expr::Literal(..))
            }
            _ => false,
        };
        is_from || (part.column_refs().iter().all(|column| ALIKE.contains(&column.name())) && is_plain(part))
    })
}

/// Whether a column keeps its name, and nothing else takes it.
fn keeps_names(expression: &Expr) -> bool {
    let (_, name) = expression.qualified_name();
    matches!(expression, Expr::Column(_)) || (!ALIKE.contains(&name.as_str()) && name != TIME && is_plain(expression))
}

/// Says the same of the same values each time, without asking elsewhere.
fn is_plain(expression: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let asks = expression.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::ScalarVariable(..)
                | Expr::Unnest(_)
        ))
    });
    !expression.is_volatile() && matches!(asks, Ok(false))
}

fn of_table(scan: &TableScan) -> Result<Option<LogicalPlan>> {
    if scan.fetch.is_some() || !scan.filters.iter().all(keeps_newest) {
        return Ok(None);
    }
    let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
    let live = provider.downcast_ref::<LiveTable>().and_then(LiveTable::only_newest);
    let lake = provider.downcast_ref::<LakeTable>().and_then(LakeTable::only_newest);
    let newest: Arc<dyn TableProvider> = match (live, lake) {
        (Some(live), _) => Arc::new(live),
        (_, Some(lake)) => Arc::new(lake),
        _ => return Ok(None),
    };
    let source = provider_as_source(newest);
    Ok(Some(LogicalPlan::TableScan(TableScan { source, ..scan.clone() })))
}
