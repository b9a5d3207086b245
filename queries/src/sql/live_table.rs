//! Tables that read from whatever snapshot their session holds when a plan starts: a statement prepared once sees the newest
//! rows each time it runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result, exec_err};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;

use super::made::{self, Asked};
use super::snapshot::{Scope, Seen, Snapshot};
use super::table::Cuts;
use super::{EPISODES, LATEST, lake_table, latest, recent, scoped};
use crate::engine::Limits;
use crate::episodes;
use crate::home::HomeFacts;

#[derive(Debug)]
pub(super) struct LiveTable {
    name: &'static str,
    schema: SchemaRef,
    seen: Arc<Seen>,
    scope: Scope,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Files and rows on their way; of many that are not the newest of their bed and quantity, none.
    Lake { cuts: Cuts, only_newest: bool },
    /// From memory, or made from the observations of the homes asked about.
    Episodes { limits: Limits },
    /// The last values.
    Latest { limits: Limits },
    /// Rows that the snapshot brings.
    Fact,
}

impl LiveTable {
    pub(super) fn lake(name: &'static str, seen: &Arc<Seen>, snapshot: &Snapshot, scope: &Scope) -> Option<Self> {
        let schema = lake_table(&snapshot.lake, &snapshot.view, name)?.schema();
        Some(Self {
            name,
            schema,
            seen: Arc::clone(seen),
            scope: scope.clone(),
            kind: Kind::Lake { cuts: Cuts::default(), only_newest: false },
        })
    }

    /// As [`LakeTable::only_newest`](super::table::LakeTable::only_newest).
    pub(super) fn only_newest(&self) -> Option<Self> {
        let Kind::Lake { cuts, only_newest: false } = &self.kind else { return None };
        let is_sorted = self.name == "observations";
        (is_sorted && self.scope == Scope::All).then(|| Self {
            name: self.name,
            schema: Arc::clone(&self.schema),
            seen: Arc::clone(&self.seen),
            scope: self.scope.clone(),
            kind: Kind::Lake { cuts: cuts.clone(), only_newest: true },
        })
    }

    pub(super) fn episodes(seen: &Arc<Seen>, scope: &Scope, limits: Limits) -> Self {
        let (seen, scope) = (Arc::clone(seen), scope.clone());
        Self { name: EPISODES, schema: episodes::schema(), seen, scope, kind: Kind::Episodes { limits } }
    }

    pub(super) fn latest(seen: &Arc<Seen>, scope: &Scope, limits: Limits) -> Self {
        let (seen, scope) = (Arc::clone(seen), scope.clone());
        Self { name: LATEST, schema: latest::schema(), seen, scope, kind: Kind::Latest { limits } }
    }

    pub(super) fn fact(name: &'static str, schema: SchemaRef, seen: &Arc<Seen>, scope: &Scope) -> Self {
        Self { name, schema, seen: Arc::clone(seen), scope: scope.clone(), kind: Kind::Fact }
    }

    fn rows_scan(&self, rows: Vec<RecordBatch>, projection: Option<&Vec<usize>>) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = MemorySourceConfig::try_new_exec(&[rows], Arc::clone(&self.schema), projection.cloned())?;
        Ok(plan)
    }

    /// The rows of a fact table that the session's user may see.
    fn visible(&self, rows: &RecordBatch, snapshot: &Snapshot) -> Result<RecordBatch> {
        if self.scope == Scope::All {
            return Ok(rows.clone());
        }
        let column = |name: &str| rows.column_by_name(name).map(|c| cast(c, &DataType::Utf8)).transpose();
        let keep: BooleanArray = if let Some(column) = column("area")? {
            column.as_string::<i32>().iter().map(|area| Some(area.is_some_and(|area| self.scope.holds(area)))).collect()
        } else if let Some(column) = column("home_id")? {
            let homes: BTreeSet<&str> =
                snapshot.homes.iter().filter(|f| self.scope.holds(f.area.as_str())).map(|f| f.home.as_str()).collect();
            column.as_string::<i32>().iter().map(|home| Some(home.is_some_and(|h| homes.contains(h)))).collect()
        } else {
            BooleanArray::from(vec![false; rows.num_rows()])
        };
        Ok(filter_record_batch(rows, &keep)?)
    }

    /// The homes whose episodes a statement can ask for: those of the scope that its filters on `home_id` leave.
    fn homes_asked(&self, state: &dyn Session, snapshot: &Snapshot, filters: &[Expr]) -> Result<Vec<HomeFacts>> {
        let homes: Vec<&HomeFacts> = snapshot.homes.iter().filter(|f| self.scope.holds(f.area.as_str())).collect();
        let Some(filter) = conjunction(filters.iter().filter(|f| only_home(f)).cloned()) else {
            return Ok(homes.into_iter().cloned().collect());
        };
        let schema = Arc::new(Schema::new(vec![Field::new("home_id", DataType::Utf8, false)]));
        let ids = StringArray::from_iter_values(homes.iter().map(|f| f.home.as_str()));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(ids)])?;
        let filter = state.create_physical_expr(unqualified(filter)?, &DFSchema::try_from(schema)?)?;
        let keep = filter.evaluate(&rows)?.into_array(rows.num_rows())?;
        let keep = keep.as_boolean();
        let kept = homes.into_iter().zip(keep.iter()).filter(|(_, keep)| keep.unwrap_or(false));
        Ok(kept.map(|(facts, _)| facts.clone()).collect())
    }
}

/// Whether a filter speaks of `home_id` and of nothing else.
fn only_home(filter: &Expr) -> bool {
    let columns = filter.column_refs();
    columns.len() == 1 && columns.iter().all(|column| column.name == "home_id")
}

/// The filter with plain column names.
fn unqualified(filter: Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let plain = filter.transform(|expression| match expression {
        Expr::Column(column) => Ok(Transformed::yes(datafusion::logical_expr::col(column.name))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plain.data)
}

#[async_trait]
impl TableProvider for LiveTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let useful = |filter: &Expr| match self.kind {
            Kind::Lake { .. } => self.scope == Scope::All || scoped::is_harmless(filter),
            Kind::Episodes { .. } => only_home(filter) || recent::is_from(filter),
            Kind::Latest { .. } | Kind::Fact => false,
        };
        let support = |filter: &&Expr| match useful(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(held) = self.seen.get() else {
            return exec_err!("{} was read outside of a statement", self.name);
        };
        let snapshot = &held.snapshot;
        match &self.kind {
            Kind::Lake { cuts, only_newest } => match lake_table(&snapshot.lake, &snapshot.view, self.name) {
                Some(table) => {
                    let table = table.with_cuts(cuts);
                    let newest = if *only_newest { table.only_newest() } else { None };
                    scoped::scan(newest.as_ref().unwrap_or(&table), &self.scope, state, projection, filters, limit)
                        .await
                }
                None => exec_err!("the lake has no table {}", self.name),
            },
            Kind::Episodes { limits } => {
                let (homes, from) = (self.homes_asked(state, snapshot, filters)?, recent::from(filters));
                if let (Some(recent), Some(from)) = (&snapshot.recent, from)
                    && let Some(rows) = recent::rows(recent.as_ref(), &homes, from).await
                {
                    return self.rows_scan(vec![rows], projection);
                }
                // A lake that no registry goes with: all homes that are in it.
                let everybody = homes.is_empty() && snapshot.homes.is_empty() && self.scope == Scope::All;
                let asked = Asked { homes: &homes, everybody, from };
                let pool = &state.runtime_env().memory_pool;
                self.rows_scan(made::rows(&held, asked, *limits, pool).await?, projection)
            }
            Kind::Latest { limits } => {
                let rows = snapshot.latest.rows(&snapshot.lake, &snapshot.view, *limits).await?;
                self.rows_scan(vec![self.visible(&rows, snapshot)?], projection)
            }
            Kind::Fact => match snapshot.fact(self.name) {
                Some(rows) => self.rows_scan(vec![self.visible(rows, snapshot)?], projection),
                None => exec_err!("the snapshot has no table {}", self.name),
            },
        }
    }
}
