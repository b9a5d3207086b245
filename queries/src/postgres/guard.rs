//! What may be asked: reading, and what sessions need around it.

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::{DataFusionError, ParamValues};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql;
use datafusion::sql::sqlparser::ast::{Query, SetExpr, Statement, Visit, Visitor};
use datafusion_postgres::QueryHook;
use datafusion_postgres::arrow_pg::datatypes::df;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::types::format::FormatOptions;

use super::settings::{Setting, setting};
use crate::sql::{Scope, hint, hint_of_file, misread, read_only};

/// Refuses every statement that is not on the list, before anyone plans it; and whatever plan would do more than read.
#[derive(Debug)]
pub(super) struct Guard {
    /// Whether it may be told how a statement is carried out: that names files and counts rows of other areas.
    explains: bool,
}

impl Guard {
    pub(super) fn new(scope: &Scope) -> Self {
        Self { explains: *scope == Scope::All }
    }
}

/// An error as PostgreSQL's clients know it.
pub(super) fn error(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), code.to_owned(), message.into())))
}

/// `io_error`
const IO_ERROR: &str = "58030";
/// `read_only_sql_transaction`
const READ_ONLY: &str = "25006";
/// `undefined_table`
const UNDEFINED_TABLE: &str = "42P01";
/// `insufficient_privilege`
const NOT_ALLOWED: &str = "42501";
/// `program_limit_exceeded`
pub(super) const TOO_MUCH: &str = "54000";

pub(super) fn check(statement: &Statement) -> PgWireResult<()> {
    let allowed = match statement {
        Statement::Query(_) | Statement::Explain { .. } => only_selects(statement),
        // datafusion-postgres 0.19 answers FETCH without describing its rows, which crashes psycopg 3.3.
        Statement::Declare { .. } | Statement::Fetch { .. } => {
            return Err(error("0A000", "there are no cursors here: ask for the rows at once, or in parts with LIMIT"));
        }
        Statement::ExplainTable { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::ShowSchemas { .. }
        | Statement::ShowDatabases { .. }
        | Statement::ShowVariable { .. }
        | Statement::ShowVariables { .. }
        | Statement::ShowFunctions { .. }
        | Statement::Set(_)
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Close { .. }
        | Statement::Deallocate { .. }
        | Statement::Discard { .. }
        | Statement::Reset(_) => true,
        _ => false,
    };
    if allowed {
        return misread(statement).map_or(Ok(()), |what| Err(error("0A000", what)));
    }
    let what: Vec<_> = statement.to_string().split_whitespace().take(2).map(str::to_owned).collect();
    Err(error(READ_ONLY, format!("nothing can be changed here; {} is not run, only reading is", what.join(" "))))
}

/// A query can hide an INSERT in a WITH, and a SELECT can make a table INTO which it selects.
fn only_selects(statement: &Statement) -> bool {
    struct Selects;
    impl Visitor for Selects {
        type Break = ();
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            let reads = |body: &SetExpr| match body {
                SetExpr::Select(select) => select.into.is_none(),
                SetExpr::Query(_) | SetExpr::SetOperation { .. } | SetExpr::Values(_) | SetExpr::Table(_) => true,
                _ => false,
            };
            let mut bodies = vec![&*query.body];
            while let Some(body) = bodies.pop() {
                if !reads(body) {
                    return ControlFlow::Break(());
                }
                if let SetExpr::SetOperation { left, right, .. } = body {
                    bodies.extend([&**left, &**right]);
                }
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
            match statement {
                Statement::Query(_) | Statement::Explain { .. } => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        }
    }
    statement.visit(&mut Selects).is_continue()
}

impl Guard {
    fn check(&self, statement: &Statement) -> PgWireResult<()> {
        if matches!(statement, Statement::Explain { .. }) && !self.explains {
            let told = "EXPLAIN tells how much there is of other areas: only users who may read all areas get it";
            return Err(error(NOT_ALLOWED, told));
        }
        check(statement)
    }

    /// What needs no plan: refusals, and settings that mean nothing.
    fn answer(&self, statement: &Statement) -> Option<PgWireResult<Response>> {
        if let Err(refused) = self.check(statement) {
            return Some(Err(refused));
        }
        let set = match statement {
            Statement::Set(set) => set,
            // The query engine would undo what the server has set.
            Statement::Reset(_) => return Some(Ok(Response::Execution(Tag::new("RESET")))),
            // Where they are kept they are closed by what the client sent.
            Statement::Deallocate { .. } => return Some(Ok(Response::Execution(Tag::new("DEALLOCATE")))),
            Statement::Discard { .. } => return Some(Ok(Response::Execution(Tag::new("DISCARD")))),
            _ => return None,
        };
        match setting(set) {
            Setting::Followed => None,
            Setting::Ignored => Some(Ok(Response::Execution(Tag::new("SET")))),
            Setting::Refused => {
                Some(Err(error(NOT_ALLOWED, "what a statement may use is set by the centre's [sql] alone")))
            }
        }
    }
}

/// The same error; of one about a table that is not there, with the one that may be meant.
pub(super) fn hinted(error: PgWireError, context: &SessionContext) -> PgWireError {
    let Some(hint) = hint(&error.to_string(), context) else { return error };
    let mut info = ErrorInfo::from(error);
    UNDEFINED_TABLE.clone_into(&mut info.code);
    info.hint = Some(hint);
    PgWireError::UserError(Box::new(info))
}

/// The same error; of one about a file that cannot be read, with what to do.
pub(super) fn told(error: PgWireError) -> PgWireError {
    let PgWireError::ApiError(cause) = &error else { return error };
    let Some(hint) = cause.downcast_ref::<DataFusionError>().and_then(hint_of_file) else { return error };
    let mut info = ErrorInfo::from(error);
    IO_ERROR.clone_into(&mut info.code);
    info.hint = Some(hint.to_owned());
    PgWireError::UserError(Box::new(info))
}

/// Plans what the parser understood, not what it would understand of its own words, and runs it if all of it reads.
async fn run(statement: &Statement, context: &SessionContext, client: &dyn HookClient) -> PgWireResult<Response> {
    let failed = |error: DataFusionError| hinted(PgWireError::ApiError(Box::new(error)), context);
    let statement = sql::parser::Statement::Statement(Box::new(statement.clone()));
    let plan = context.state().statement_to_plan(statement).await.map_err(failed)?;
    read_only().verify_plan(&plan).map_err(failed)?;
    let frame = context.execute_logical_plan(plan).await.map_err(failed)?;
    let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
    Ok(Response::Query(df::encode_dataframe(frame, &Format::UnifiedText, Some(options)).await?))
}

#[async_trait]
impl QueryHook for Guard {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        context: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        match (self.answer(statement), statement) {
            (None, Statement::Query(_) | Statement::Explain { .. }) => Some(run(statement, context, client).await),
            (answer, _) => answer,
        }
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _context: &SessionContext,
        _client: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        self.check(statement).err().map(Err)
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        plan: &LogicalPlan,
        _params: &ParamValues,
        _context: &SessionContext,
        _client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        let reads = read_only().verify_plan(plan).map_err(|error| PgWireError::ApiError(Box::new(error)));
        reads.err().map(Err).or_else(|| self.answer(statement))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::check;

    #[test]
    fn only_reading_is_let_through() {
        for (sql, allowed) in [
            ("SELECT 1", true),
            ("WITH a AS (SELECT 1) SELECT * FROM a UNION ALL VALUES (2)", true),
            ("EXPLAIN ANALYZE SELECT 1", true),
            ("VALUES (1)", true),
            ("SHOW search_path", true),
            ("SET application_name = 'psql'", true),
            ("BEGIN", true),
            ("COMMIT", true),
            (
                "SELECT sum(a) OVER (PARTITION BY b), sum(a) OVER w FROM t WINDOW w AS (ORDER BY b ROWS 1 PRECEDING)",
                true,
            ),
            ("SELECT * FROM (SELECT sum(a) OVER (w ROWS 1 PRECEDING) FROM t WINDOW w AS (ORDER BY b)) x", false),
            ("SELECT 1 INTO a", false),
            ("SELECT * FROM (SELECT 1 INTO a) x", false),
            ("WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a", false),
            ("WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a", false),
            ("EXPLAIN ANALYZE INSERT INTO t VALUES (1)", false),
            ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", false),
            ("INSERT INTO t VALUES (1)", false),
            ("DELETE FROM observations", false),
            ("CREATE TABLE t (a int)", false),
            ("CREATE EXTERNAL TABLE t (a int) STORED AS CSV LOCATION '/etc/passwd'", false),
            ("COPY observations TO '/tmp/x'", false),
            ("DROP TABLE observations", false),
            ("DECLARE c CURSOR FOR SELECT 1", false),
            ("VACUUM", false),
        ] {
            let Ok(statements) = Parser::parse_sql(&PostgreSqlDialect {}, sql) else {
                assert!(!allowed, "{sql} was not understood");
                continue;
            };
            assert!(!statements.is_empty());
            assert_eq!(statements.iter().all(|s| check(s).is_ok()), allowed, "{sql}");
        }
    }
}
