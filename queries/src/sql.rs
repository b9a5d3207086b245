//! Read-only SQL over one view of the lake, for analysts.
//!
//! Tables: `observations`, `gaps`, `dead_letters` as the view shows them (committed files and rows on their way), `latest` from memory,
//! the homes' facts as `homes`, `beds` and `params`, what the service centre adds, the views of `queries/views`, and `episodes`: beside
//! live detection those that began in the last days come from its memory (`started_at >= …`); others are made from the observations of
//! the homes that a statement asks about, from shortly before `started_at >= …` on. With `home_id = …` that is quick, with neither it
//! takes as long as reading everything.
//!
//! A [`Tables`] stays open and sees the newest snapshot in each statement; a [`SqlSession`] is one over one snapshot.

mod answer;
mod dictionary;
pub mod facts;
mod latest;
mod live_table;
mod made;
mod misread;
mod newest_row;
mod only_newest;
mod recent;
mod scoped;
mod sized;
mod snapshot;
mod table;
mod views;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use datafusion::catalog::view::ViewTable;
use datafusion::execution::runtime_env::RuntimeEnv;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use carebed_pipeline::schema;
use carebed_pipeline::store::Store;
use carebed_pipeline::view::View;
use datafusion::common::utils::datafusion_strsim;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as Sql;
use datafusion::sql::sqlparser::dialect::{GenericDialect, PostgreSqlDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::StreamExt;
use object_store::ObjectStore;
use tokio::time::Instant;
use url::Url;

use crate::engine::{EngineError, Limits, runtime, session};

pub use answer::{Answer, Format, WriteError, Writer, write};
pub use latest::Latest;
use live_table::LiveTable;
pub(crate) use misread::misread;
pub(crate) use newest_row::NewestRow;
pub(crate) use only_newest::OnlyNewest;
pub use recent::Recent;
use snapshot::Seen;
pub use snapshot::{Scope, Snapshot, Source};
pub use views::{ViewFile, reports, views};

/// The catalogue and schema in which analysts' tools find the tables.
pub const CATALOG: &str = "carebed";
const SCHEMA: &str = "public";
const EPISODES: &str = "episodes";
const LATEST: &str = "latest";
const DICTIONARY: &str = "dictionary";
/// Functions whose one answer may be as large as a few digits say: no bound of memory sees it before it is there.
const BOUNDLESS: [&str; 9] = [
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "array_resize",
    "range",
    "generate_series",
    "array_transform",
    "levenshtein",
];
/// Longest statement taken, in bytes and in words: what is nested or chained in one is as deep as it is long, and each level
/// takes a part of a thread's stack.
const STATEMENT_BYTES_MAX: usize = 256 << 10;
const STATEMENT_WORDS_MAX: usize = 10_000;
/// Operators of a kind, which chain, in one statement: to plan a chain takes the square of its length, and nothing can end that.
const STATEMENT_OPERATORS_MAX: usize = 512;
/// The stack of threads that plan and run statements: five thousand levels, unoptimised, stay below half of it.
pub const STACK_BYTES: usize = 64 << 20;
/// The tables of the lake.
const LAKE_TABLES: [&str; 3] = ["observations", "gaps", "dead_letters"];

/// Where a lake's files are read from.
#[derive(Debug, Clone)]
pub struct Lake {
    url: Url,
    store: Arc<dyn ObjectStore>,
    /// What was learnt of its files; clones share it.
    ends: table::Ends,
}

impl Lake {
    /// The lake of a store. Whoever takes many snapshots clones one: what was learnt of its files is kept with it.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        Self { url: store.lake().clone(), store: store.object_store(), ends: table::Ends::default() }
    }

    fn place(&self) -> Result<ObjectStoreUrl, DataFusionError> {
        ObjectStoreUrl::parse(&self.url[..url::Position::BeforePath])
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
    /// It is longer than any that is taken.
    #[error(
        "the statement is too long: {STATEMENT_BYTES_MAX} bytes and {STATEMENT_WORDS_MAX} words are the most, and {STATEMENT_OPERATORS_MAX} operators of a kind; join with a list of VALUES, or ask in parts"
    )]
    TooLong,
    /// It took longer than it may.
    #[error("the statement took longer than {0:?}; narrow it, for instance by event_day and home_id")]
    Time(std::time::Duration),
    /// The session could not be set up.
    #[error("failed to set up SQL over the lake")]
    Engine(#[from] EngineError),
    /// The newest state could not be read.
    #[error("failed to read the newest state")]
    Snapshot(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        let hint = hint_of_file(&error);
        let message = error.strip_backtrace();
        Self::Failed { message: hint.map_or(message.clone(), |hint| format!("{message}\nhint: {hint}")) }
    }
}

/// What to do where a file of the lake could not be read.
pub(crate) fn hint_of_file(error: &DataFusionError) -> Option<&'static str> {
    let is_of_file = matches!(error.find_root(), DataFusionError::ParquetError(_) | DataFusionError::ObjectStore(_));
    is_of_file.then_some(
        "a file of the lake is lost or damaged: `carebed maintain --check` names such files; copy them back from a backup of the lake",
    )
}

/// The tables of one user, for as long as they stay open. Plans made over them read from the snapshot that is put when they run.
pub struct Tables {
    context: SessionContext,
    seen: Arc<Seen>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").finish_non_exhaustive()
    }
}

impl Tables {
    /// Opens what `scope` may read of the tables that `snapshot` has; its rows are seen once it is [put](Self::put).
    ///
    /// # Errors
    /// When the query engine cannot be set up, or a view of `queries/views` does not plan.
    pub async fn open(
        snapshot: &Snapshot,
        scope: &Scope,
        limits: Limits,
        runtime: Arc<RuntimeEnv>,
    ) -> Result<Self, SqlError> {
        let mut state = session(limits, runtime);
        // Before anything is registered: the catalogue of a state is made with it.
        let config = state.config().clone().with_default_catalog_and_schema(CATALOG, SCHEMA);
        state = datafusion::execution::SessionStateBuilder::new_from_existing(state).with_config(config).build();
        let context = sized::bounded(state);
        for function in BOUNDLESS {
            context.deregister_udf(function);
        }
        let seen = Arc::new(Seen::default());
        let tables = Self { context, seen };
        tables.register(snapshot, scope, limits)?;
        tables.register_views().await?;
        tables.register_dictionary().await?;
        Ok(tables)
    }

    fn register(&self, snapshot: &Snapshot, scope: &Scope, limits: Limits) -> Result<(), SqlError> {
        self.context.register_object_store(snapshot.lake.place()?.as_ref(), Arc::clone(&snapshot.lake.store));
        for name in LAKE_TABLES {
            let Some(table) = LiveTable::lake(name, &self.seen, snapshot, scope) else { continue };
            self.context.register_table(name, Arc::new(table))?;
        }
        self.context.register_table(EPISODES, Arc::new(LiveTable::episodes(&self.seen, scope, limits)))?;
        self.context.register_table(LATEST, Arc::new(LiveTable::latest(&self.seen, scope, limits)))?;
        for (name, rows) in &snapshot.facts {
            let table = LiveTable::fact(name, rows.schema(), &self.seen, scope);
            self.context.register_table(*name, Arc::new(table))?;
        }
        Ok(())
    }

    /// Views may read from each other, in any order of their names.
    async fn register_views(&self) -> Result<(), SqlError> {
        let mut waiting = views();
        while !waiting.is_empty() {
            let n_before = waiting.len();
            let mut reason = None;
            for view in std::mem::take(&mut waiting) {
                match self.context.state().create_logical_plan(&view.sql).await {
                    Ok(plan) => {
                        let table = ViewTable::new(plan, Some(view.sql.clone()));
                        self.context.register_table(view.name.as_str(), Arc::new(table))?;
                    }
                    Err(error) => {
                        reason = Some(error.context(format!("view {}", view.name)));
                        waiting.push(view);
                    }
                }
            }
            if let Some(reason) = reason.filter(|_| waiting.len() == n_before) {
                return Err(reason.into());
            }
        }
        Ok(())
    }

    /// What every table and column means, as a table.
    async fn register_dictionary(&self) -> Result<(), SqlError> {
        let mut tables = vec![(DICTIONARY.to_owned(), dictionary::schema())];
        let schema = self.context.catalog(CATALOG).and_then(|catalog| catalog.schema(SCHEMA));
        for name in schema.map(|schema| schema.table_names()).unwrap_or_default() {
            let columns = Arc::new(self.context.table(name.as_str()).await?.schema().as_arrow().clone());
            tables.push((name, columns));
        }
        tables.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.context.register_batch(DICTIONARY, dictionary::table(&tables))?;
        Ok(())
    }

    /// From now on statements see this; none: nothing, and nothing is kept from being removed.
    pub(crate) fn put(&self, snapshot: Option<Arc<Snapshot>>) {
        self.seen.put(snapshot);
    }

    pub(crate) fn context(&self) -> &SessionContext {
        &self.context
    }
}

/// SQL over one snapshot. Hold it as long as the answers are to agree with each other.
pub struct SqlSession {
    tables: Tables,
    limits: Limits,
    rows_max: usize,
}

impl fmt::Debug for SqlSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlSession").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl SqlSession {
    /// A session over `snapshot`. An answer of more than `rows_max` rows is cut and says so.
    ///
    /// # Errors
    /// When the query engine cannot be set up.
    pub async fn open(snapshot: Snapshot, limits: Limits, rows_max: usize) -> Result<Self, SqlError> {
        let tables = Tables::open(&snapshot, &Scope::All, limits, runtime(limits)?).await?;
        tables.put(Some(Arc::new(snapshot)));
        Ok(Self { tables, limits, rows_max })
    }

    pub(crate) fn context(&self) -> &SessionContext {
        self.tables.context()
    }

    /// What statements from now on see; its tables have the same columns. What the session remembers of files stays of use.
    pub fn see(&self, snapshot: Snapshot) {
        self.tables.put(Some(Arc::new(snapshot)));
    }

    /// Runs one statement that reads.
    ///
    /// # Errors
    /// When it would change something, is wrong, or goes over a limit; the session stays usable.
    pub async fn run(&self, sql: &str) -> Result<Answer, SqlError> {
        self.run_with(sql, &[]).await
    }

    /// Runs one statement that reads, with values for its `$parameters`.
    ///
    /// # Errors
    /// As [`Self::run`], and when a parameter has no value.
    pub async fn run_with(&self, sql: &str, values: &[(String, String)]) -> Result<Answer, SqlError> {
        let mut rows = self.rows(sql, values).await?;
        let mut answer = Answer { schema: Arc::clone(rows.schema()), batches: Vec::new(), cut: false };
        let mut room = self.rows_max;
        while let Some(batch) = rows.next().await? {
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

    /// The same, row by row and however many: an answer need not fit into memory.
    ///
    /// # Errors
    /// As [`Self::run_with`].
    pub async fn rows(&self, sql: &str, values: &[(String, String)]) -> Result<Rows, SqlError> {
        let (limit, begun) = (self.limits.time, Instant::now());
        let stream = tokio::time::timeout(limit, self.begin(sql, values)).await;
        let stream = stream.map_err(|_| SqlError::Time(limit))??;
        Ok(Rows { schema: stream.schema(), stream, left: limit.saturating_sub(begun.elapsed()), limit })
    }

    async fn begin(&self, sql: &str, values: &[(String, String)]) -> Result<SendableRecordBatchStream, SqlError> {
        check_size(sql)?;
        let state = self.tables.context.state();
        let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
        check_reads(&statement)?;
        let plan = state.statement_to_plan(statement).await;
        let mut plan = plan.map_err(|error| with_hint(error, &self.tables.context))?;
        if !values.is_empty() {
            let text = |value: &String| ScalarValue::Utf8(Some(value.clone()));
            let values: Vec<_> = values.iter().map(|(name, value)| (name.clone(), text(value))).collect();
            plan = plan.with_param_values(values)?;
        }
        read_only().verify_plan(&plan)?;
        Ok(self.tables.context.execute_logical_plan(plan).await?.execute_stream().await?)
    }
}

/// The rows of an answer, as they come.
pub struct Rows {
    schema: SchemaRef,
    stream: SendableRecordBatchStream,
    /// Of its time. What whoever reads them takes for themselves is not counted.
    left: std::time::Duration,
    limit: std::time::Duration,
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Rows {
    /// Their columns.
    #[must_use]
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next of them; none after the last.
    ///
    /// # Errors
    /// When the statement fails, or takes longer than it may.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, SqlError> {
        let asked = Instant::now();
        let next = tokio::time::timeout(self.left, self.stream.next()).await;
        self.left = self.left.saturating_sub(asked.elapsed());
        Ok(next.map_err(|_| SqlError::Time(self.limit))?.transpose()?)
    }
}

/// What is wrong with a statement, and which table may be meant.
fn with_hint(error: DataFusionError, context: &SessionContext) -> SqlError {
    let message = error.strip_backtrace();
    match hint(&message, context) {
        Some(hint) => SqlError::Failed { message: format!("{message}\nhint: {hint}") },
        None => SqlError::Failed { message },
    }
}

/// Which table a statement may mean that names one that is not there, as the query engine's message tells.
pub(crate) fn hint(message: &str, context: &SessionContext) -> Option<String> {
    let (_, rest) = message.split_once("table '")?;
    let (name, _) = rest.split_once("' not found")?;
    let name = name.rsplit('.').next().unwrap_or(name);
    let tables = context.catalog(CATALOG)?.schema(SCHEMA)?.table_names();
    let distance = |table: &String| datafusion_strsim::levenshtein(&name.to_lowercase(), table);
    let near = tables.iter().filter(|table| distance(table) <= 1 + name.len() / 4).min_by_key(|table| distance(table));
    Some(match near {
        Some(near) => format!("did you mean {near}?"),
        None => "SHOW TABLES lists those that are there".to_owned(),
    })
}

/// A context with the three tables of a view.
pub(crate) fn context(lake: &Lake, view: &Arc<View>, limits: Limits) -> Result<SessionContext, EngineError> {
    let setup = |error| EngineError::Setup(Box::new(error));
    let context = SessionContext::new_with_state(session(limits, runtime(limits)?));
    context.register_object_store(lake.place().map_err(setup)?.as_ref(), Arc::clone(&lake.store));
    for name in LAKE_TABLES {
        if let Some(table) = lake_table(lake, view, name) {
            context.register_table(name, Arc::new(table)).map_err(setup)?;
        }
    }
    Ok(context)
}

/// A table of a view; none when a lake has no table of this name.
fn lake_table(lake: &Lake, view: &View, name: &'static str) -> Option<table::LakeTable> {
    let (schema, part, by_day) = match name {
        "observations" => (schema::observations(), &view.observations, true),
        "gaps" => (schema::gaps(), &view.gaps, false),
        "dead_letters" => (schema::dead_letters(), &view.dead_letters, false),
        _ => return None,
    };
    let prefix = object_store::path::Path::from_url_path(lake.url.path()).ok()?;
    Some(table::LakeTable::new(lake.place().ok()?, prefix.join(name), schema, part.clone(), by_day, &lake.ends))
}

/// A statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// As it is understood.
    pub sql: String,
    /// In which line of the text it begins, from 1 on.
    pub line: u64,
}

/// The statements of a text.
///
/// # Errors
/// When it is not SQL.
pub fn statements(text: &str) -> Result<Vec<Written>, SqlError> {
    check_words(text)?;
    let dialect = GenericDialect {};
    let statements = DFParser::parse_sql_with_dialect(text, &dialect)?;
    let words = Tokenizer::new(&dialect, text).tokenize_with_location().unwrap_or_default();
    let begins = words.split(|word| word.token == Token::SemiColon).filter_map(|words| {
        let first = words.iter().find(|word| !matches!(word.token, Token::Whitespace(_) | Token::EOF))?;
        Some(first.span.start.line)
    });
    let lines = begins.chain(std::iter::repeat(1));
    Ok(statements.iter().zip(lines).map(|(statement, line)| Written { sql: statement.to_string(), line }).collect())
}

pub(crate) fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

/// Whether a statement is of a size that is taken. Nothing is built of one that is not.
pub(crate) fn check_size(sql: &str) -> Result<(), SqlError> {
    if sql.len() > STATEMENT_BYTES_MAX { Err(SqlError::TooLong) } else { check_words(sql) }
}

/// The same for each of several statements, however many there are.
fn check_words(sql: &str) -> Result<(), SqlError> {
    // What cannot be cut into words is the parser's to tell.
    let words = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().unwrap_or_default();
    let mut statements = words.split(|word| matches!(word, Token::SemiColon));
    let is_too_long = |words: &[Token]| {
        let count = |of: fn(&Token) -> bool| words.iter().filter(|word| of(word)).count();
        count(|word| !matches!(word, Token::Whitespace(_))) > STATEMENT_WORDS_MAX
            || count(joins) > STATEMENT_OPERATORS_MAX
            || count(compares) > STATEMENT_OPERATORS_MAX
    };
    if statements.any(is_too_long) { Err(SqlError::TooLong) } else { Ok(()) }
}

fn joins(word: &Token) -> bool {
    match word {
        Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat => true,
        Token::Ampersand | Token::Pipe | Token::Caret | Token::ShiftLeft | Token::ShiftRight => true,
        Token::Word(word) => matches!(word.keyword, Keyword::AND | Keyword::OR | Keyword::XOR),
        _ => false,
    }
}

fn compares(word: &Token) -> bool {
    matches!(word, Token::Eq | Token::DoubleEq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq)
}

fn check_reads(statement: &Statement) -> Result<(), SqlError> {
    let refuse = |what: &dyn std::fmt::Display| {
        let what = what.to_string().split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Err(SqlError::NotReading { what })
    };
    match statement {
        Statement::Statement(sql) => match &**sql {
            Sql::Query(_) | Sql::Explain { .. } => match misread(sql) {
                Some(what) => Err(SqlError::Failed { message: what.to_owned() }),
                None => Ok(()),
            },
            Sql::ExplainTable { .. }
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
