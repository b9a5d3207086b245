//! Read-only SQL over one view of the lake, for analysts.
//!
//! Tables: `observations`, `gaps`, `dead_letters` as the view shows them (committed files and rows on their way), the homes' facts as
//! `homes`, `beds` and `params`, the views of `queries/views`, and `episodes`, which for now is made from the view's
//! observations each time a statement names it.

mod answer;
mod table;
mod views;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use carebed_contract::time::Timestamp;
use carebed_pipeline::schema;
use carebed_pipeline::store::Store;
use carebed_pipeline::view::View;
use datafusion::catalog::view::ViewTable;
use datafusion::common::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use futures::StreamExt;
use object_store::ObjectStore;
use url::Url;

use crate::engine::{EngineError, Inputs, Limits, runtime, session};
use crate::episodes::{Definitions, Episodes};
use crate::history::{self, HistoryError, Span};
use crate::home::HomeFacts;

pub use answer::{Answer, Format, WriteError, write};
pub use views::{ViewFile, views};

/// Where a lake's files are read from.
#[derive(Debug, Clone)]
pub struct Lake {
    url: Url,
    store: Arc<dyn ObjectStore>,
}

impl Lake {
    /// The lake of a store.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        Self { url: store.lake().clone(), store: store.object_store() }
    }
}

/// Why a statement gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// It would change something.
    #[error("only SELECT, EXPLAIN, SHOW and DESCRIBE are run here, one statement at a time; this is {what}")]
    NotReading {
        /// What it is.
        what: String,
    },
    /// It is wrong, or failed, or needed more memory than it may.
    #[error("the statement failed: {message}")]
    Failed {
        /// What the query engine says, without its own source places.
        message: String,
    },
    /// It took longer than it may.
    #[error("the statement took longer than {0:?}; narrow it, for instance by event_day and home_id")]
    Time(std::time::Duration),
    /// The session could not be set up.
    #[error("failed to set up SQL over the lake")]
    Engine(#[from] EngineError),
    /// `episodes` could not be made.
    #[error("failed to make the table episodes from the observations")]
    Episodes(#[from] Box<HistoryError>),
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        Self::Failed { message: error.strip_backtrace() }
    }
}

/// SQL over one view. Hold it as long as the answers are to agree with each other.
pub struct SqlSession {
    context: SessionContext,
    lake: Lake,
    view: Arc<View>,
    homes: Vec<HomeFacts>,
    limits: Limits,
    rows_max: usize,
}

impl fmt::Debug for SqlSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlSession")
            .field("view", &self.view.version)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl SqlSession {
    /// A session over `view`. An answer of more than `rows_max` rows is cut and says so.
    ///
    /// # Errors
    /// When the query engine cannot be set up.
    pub fn open(
        lake: &Lake,
        view: Arc<View>,
        homes: &[HomeFacts],
        limits: Limits,
        rows_max: usize,
    ) -> Result<Self, SqlError> {
        let context = context(lake, &view, limits)?;
        let complete = homes.iter().map(|facts| (facts, view.complete.get(&facts.home).map(|c| c.complete_to)));
        for (name, batch) in Inputs::new(&[], complete).into_facts() {
            context.register_batch(name, batch)?;
        }
        Ok(Self { context, lake: lake.clone(), view, homes: homes.to_vec(), limits, rows_max })
    }

    /// Runs one statement that reads.
    ///
    /// # Errors
    /// When it would change something, is wrong, or goes over a limit; the session stays usable.
    pub async fn run(&self, sql: &str) -> Result<Answer, SqlError> {
        let limit = self.limits.time;
        tokio::time::timeout(limit, self.run_unlimited(sql)).await.map_err(|_| SqlError::Time(limit))?
    }

    async fn run_unlimited(&self, sql: &str) -> Result<Answer, SqlError> {
        let state = self.context.state();
        let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
        check_reads(&statement)?;
        let names = state.resolve_table_references(&statement)?;
        if names.iter().any(|name| name.table() == "episodes") && !self.context.table_exist("episodes")? {
            self.make_episodes().await?;
        }
        self.make_views().await?;
        let plan = self.context.state().statement_to_plan(statement).await?;
        read_only().verify_plan(&plan)?;
        self.collect(plan).await
    }

    async fn collect(&self, plan: LogicalPlan) -> Result<Answer, SqlError> {
        let frame = self.context.execute_logical_plan(plan).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let mut stream = frame.execute_stream().await?;
        let mut answer = Answer { schema, batches: Vec::new(), cut: false };
        let mut room = self.rows_max;
        while let Some(batch) = stream.next().await {
            let batch: RecordBatch = batch?;
            if batch.num_rows() > room {
                answer.batches.push(batch.slice(0, room));
                answer.cut = true;
                break;
            }
            room -= batch.num_rows();
            answer.batches.push(batch);
        }
        Ok(answer)
    }

    async fn make_episodes(&self) -> Result<(), SqlError> {
        let definitions = Arc::new(Definitions::builtin().map_err(EngineError::from)?);
        let all = Span { from: Timestamp::MIN, to: Timestamp::MAX };
        let episodes = history::episodes(&self.lake, &self.view, all, &self.homes, definitions, self.limits).await;
        let mut episodes = episodes.map_err(Box::new)?;
        self.context.register_batch("episodes", Episodes::table(&episodes.all()))?;
        Ok(())
    }

    async fn make_views(&self) -> Result<(), SqlError> {
        for view in views() {
            if !self.context.table_exist(view.name.as_str())? {
                let plan = self.context.state().create_logical_plan(&view.sql).await?;
                self.context
                    .register_table(view.name.as_str(), Arc::new(ViewTable::new(plan, Some(view.sql.clone()))))?;
            }
        }
        Ok(())
    }
}

/// A context with the three tables of a view.
pub(crate) fn context(lake: &Lake, view: &Arc<View>, limits: Limits) -> Result<SessionContext, EngineError> {
    let setup = |error| EngineError::Setup(Box::new(error));
    let context = SessionContext::new_with_state(session(limits, runtime(limits)?));
    let place = ObjectStoreUrl::parse(&lake.url[..url::Position::BeforePath]).map_err(setup)?;
    context.register_object_store(place.as_ref(), Arc::clone(&lake.store));
    let prefix = object_store::path::Path::from_url_path(lake.url.path())
        .map_err(|error| setup(DataFusionError::External(Box::new(error))))?;
    let tables = [
        ("observations", schema::observations(), &view.observations, true),
        ("gaps", schema::gaps(), &view.gaps, false),
        ("dead_letters", schema::dead_letters(), &view.dead_letters, false),
    ];
    for (name, schema, part, by_day) in tables {
        let table = table::LakeTable::new(place.clone(), prefix.clone().join(name), schema, part.clone(), by_day);
        context.register_table(name, Arc::new(table)).map_err(setup)?;
    }
    Ok(context)
}

fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

fn check_reads(statement: &Statement) -> Result<(), SqlError> {
    let refuse = |what: &dyn std::fmt::Display| {
        let what = what.to_string().split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Err(SqlError::NotReading { what })
    };
    match statement {
        Statement::Statement(sql) => match &**sql {
            Sql::Query(_)
            | Sql::Explain { .. }
            | Sql::ExplainTable { .. }
            | Sql::ShowTables { .. }
            | Sql::ShowColumns { .. }
            | Sql::ShowVariable { .. }
            | Sql::ShowFunctions { .. } => Ok(()),
            other => refuse(other),
        },
        Statement::Explain(explain) => check_reads(&explain.statement),
        other => refuse(other),
    }
}
