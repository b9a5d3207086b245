//! From SQL to a plan that can be run again and again, each time over other rows and at another time.

use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, plan_err};
use datafusion::datasource::ViewTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use tokio::sync::Mutex;

use super::slot::Slot;
use super::{Engine, inputs, shared};
use crate::detection::{Refused, Written};

/// A planned query and the place from which it reads.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) name: String,
    pub(super) plan: Arc<dyn ExecutionPlan>,
    pub(super) slot: Arc<Slot>,
    /// Held while the plan runs: it has one slot.
    pub(super) running: Arc<Mutex<()>>,
}

/// What a query must return.
#[derive(Clone, Copy)]
pub(super) struct Returns {
    pub(super) check: fn(&arrow::datatypes::Schema) -> Result<(), String>,
    /// For those who write one.
    pub(super) help: &'static str,
}

/// The parameter of every detection.
const NOW: &str = "$now";

impl Engine {
    /// Plans a query over the tables that detections read, and the views that it names.
    pub(super) async fn plan(&self, written: &Written, returns: Returns) -> Result<Query, Refused> {
        let slot = Arc::new(Slot::default());
        let refuse = |error: DataFusionError| refused(written, &error);
        // A catalogue of its own: its tables read from this query's slot.
        let names = &self.state.config_options().catalog;
        let catalog = Arc::new(MemoryCatalogProvider::new());
        catalog.register_schema(&names.default_schema, Arc::new(MemorySchemaProvider::new())).map_err(refuse)?;
        let catalogs = Arc::new(MemoryCatalogProviderList::new());
        catalogs.register_catalog(names.default_catalog.clone(), catalog);
        let state = SessionStateBuilder::new_from_existing(self.state.clone()).with_catalog_list(catalogs).build();
        let context = SessionContext::new_with_state(state);
        for (name, schema) in inputs::tables() {
            let table = slot.table(name, schema).map_err(refuse)?;
            context.register_table(name, Arc::new(table)).map_err(refuse)?;
        }
        for view in shared::named_in(&written.sql) {
            let refuse = |error: DataFusionError| refused(view, &error);
            let plan = context.state().create_logical_plan(&view.sql).await.map_err(refuse)?;
            let plan = with_now(plan, &slot).map_err(refuse)?;
            let table = ViewTable::new(plan, Some(view.sql.clone()));
            context.register_table(view.name.as_str(), Arc::new(table)).map_err(refuse)?;
        }
        let state = context.state();
        let statement =
            state.sql_to_statement(&written.sql, &state.config_options().sql_parser.dialect).map_err(refuse)?;
        if !matches!(&statement, Statement::Statement(sql) if matches!(&**sql, Sql::Query(_))) {
            let refused = Refused::new(&written.name, &written.file, &written.sql, "it is not one SELECT statement");
            return Err(refused.help("it only reads; what it has to say are the rows it returns"));
        }
        let plan = state.statement_to_plan(statement).await.map_err(refuse)?;
        let plan = with_now(plan, &slot).map_err(refuse)?;
        let plan = state.optimize(&plan).map_err(refuse)?;
        (returns.check)(plan.schema().as_arrow())
            .map_err(|message| Refused::new(&written.name, &written.file, &written.sql, message).help(returns.help))?;
        let plan = state.query_planner().create_physical_plan(&plan, &state).await.map_err(refuse)?;
        Ok(Query { name: written.name.clone(), plan, slot, running: Arc::default() })
    }
}

/// Puts the time of the evaluation where `$now` stands. Any other parameter is a mistake.
fn with_now(plan: LogicalPlan, slot: &Arc<Slot>) -> Result<LogicalPlan, DataFusionError> {
    let now = slot.now();
    let plan = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expression| {
            let name = names.save(&expression);
            let replaced = expression.transform_up(|expression| match expression {
                Expr::Placeholder(Placeholder { id, .. }) if id == NOW => {
                    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&now), vec![]))))
                }
                Expr::Placeholder(Placeholder { id, .. }) => {
                    plan_err!("there is no parameter {id}; a detection has {NOW} only")
                }
                other => Ok(Transformed::no(other)),
            })?;
            Ok(replaced.update_data(|expression| name.restore(expression)))
        })?;
        node.map_data(LogicalPlan::recompute_schema)
    })?;
    Ok(plan.data)
}

/// Points to the place in the SQL that the engine complains about, where it says one.
pub(super) fn refused(written: &Written, error: &DataFusionError) -> Refused {
    let refused = Refused::new(&written.name, &written.file, &written.sql, error.strip_backtrace());
    let place = match error.diagnostic().and_then(|d| d.span) {
        Some(span) => Some((span.start.line, span.start.column)),
        None => place_in_text(&error.to_string()),
    };
    match place {
        Some((line, column)) => refused.at_line(line, column),
        None => refused,
    }
}

/// Reads the parser's `Line: 3, Column: 5`.
fn place_in_text(text: &str) -> Option<(u64, u64)> {
    let (_, rest) = text.split_once("Line: ")?;
    let (line, rest) = rest.split_once(", Column: ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((line.parse().ok()?, rest.get(..digits)?.parse().ok()?))
}
