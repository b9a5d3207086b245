//! One connection: its tables, and its statements with their bounds.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::prelude::SessionContext;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse, Response};
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::data::DataRow;
use datafusion_postgres::{DfSessionService, Parser, QueryHook};
use futures::{Sink, Stream};
use tokio::sync::{OnceCell, OwnedSemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::guard::{Guard, TOO_MUCH, error, hinted, told};
use super::startup::Startup;
use super::stops::{Stop, Stops};
use super::users::User;
use super::{Shared, audit, comments, settings};
use crate::sql::{self, CATALOG, Snapshot, Tables};

/// Most bytes of an answer; one with more ends with an error. A row may be as large as what it was made of.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// Most values of a statement that are written down, and most characters of each.
const VALUES_MAX: usize = 64;
const VALUE_CHARS_MAX: usize = 256;
/// `query_canceled`, as for a statement timeout
const TOO_LONG: &str = "57014";
/// `invalid_authorization_specification`
const NOT_SIGNED_IN: &str = "28000";

/// What answers one client.
pub(super) struct Connection {
    pub(super) session: Arc<Session>,
    pub(super) startup: Arc<Startup>,
    pub(super) cancel: Arc<Stops>,
}

impl Connection {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let session =
            Arc::new(Session { shared: Arc::clone(shared), open: OnceCell::new(), signed_in: AtomicBool::new(false) });
        let startup = Arc::new(Startup::new(shared, &session));
        Self { session, startup, cancel: Arc::clone(&shared.stops) }
    }
}

/// A user's session. Its tables are there once the user is known, its statements run once the user has signed in.
pub(super) struct Session {
    shared: Arc<Shared>,
    open: OnceCell<Open>,
    signed_in: AtomicBool,
}

struct Open {
    user: User,
    peer: SocketAddr,
    tables: Arc<Tables>,
    service: DfSessionService,
    parser: Arc<SessionParser>,
}

impl Drop for Open {
    fn drop(&mut self) {
        // The PostgreSQL catalogue holds the catalogue that holds it: cut the circle, or the tables would stay for ever.
        if let Some(catalog) = self.tables.context().catalog(CATALOG) {
            let _gone = catalog.deregister_schema("pg_catalog", true);
        }
    }
}

impl Session {
    pub(super) async fn open(&self, user: User, peer: SocketAddr) -> PgWireResult<()> {
        self.open.get_or_try_init(|| self.make(user, peer)).await.map(drop)
    }

    pub(super) fn sign_in(&self) {
        self.signed_in.store(true, Ordering::Release);
    }

    async fn make(&self, user: User, peer: SocketAddr) -> PgWireResult<Open> {
        let shared = &self.shared;
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| PgWireError::ApiError(error);
        let snapshot = shared.source.snapshot().await.map_err(|e| failed(Box::new(e)))?;
        let tables = Tables::open(&snapshot, &user.scope, shared.config.limits, Arc::clone(&shared.runtime));
        let tables = Arc::new(tables.await.map_err(|e| failed(Box::new(e)))?);
        let context = tables.context().clone();
        setup_pg_catalog(&context, CATALOG, EmptyContextProvider).map_err(|e| failed(e))?;
        context.register_udf(settings::current_setting());
        comments::add(&context).await.map_err(|e| failed(Box::new(e)))?;
        let hooks: Vec<Arc<dyn QueryHook>> =
            vec![Arc::new(Guard::new(&user.scope)), Arc::new(SetShowHook), Arc::new(TransactionStatementHook)];
        let service = DfSessionService::new_with_hooks(Arc::new(context.clone()), hooks);
        let asker = Asker { shared: Arc::clone(shared), user: user.name.clone(), peer: peer.to_string() };
        let parser = Arc::new(SessionParser { inner: Some((service.query_parser(), context, asker)) });
        Ok(Open { user, peer, tables, service, parser })
    }

    fn signed_in(&self) -> PgWireResult<&Open> {
        let open = self.open.get().filter(|_| self.signed_in.load(Ordering::Acquire));
        open.ok_or_else(|| error(NOT_SIGNED_IN, "sign in first"))
    }

    /// Waits for room and takes the newest snapshot.
    async fn begin<C: ClientInfo + Sync>(
        &self,
        client: &C,
        statement: &str,
        parameters: Vec<Option<String>>,
    ) -> PgWireResult<Running> {
        let open = self.signed_in()?;
        let shared = Arc::clone(&self.shared);
        if shared.users.now().get(&open.user.name) != Some(&open.user) {
            return Err(error(NOT_SIGNED_IN, "who may read what has changed: connect again"));
        }
        let begun = Instant::now();
        let limit = settings::statement_timeout(client)
            .map_or(shared.config.limits.time, |asked| asked.min(shared.config.limits.time));
        let deadline = begun + limit;
        let mut report = Report {
            asker: Asker { shared: Arc::clone(&shared), user: open.user.name.clone(), peer: open.peer.to_string() },
            statement: statement.to_owned(),
            parameters,
            begun,
            rows: 0,
            outcome: "stopped".to_owned(),
        };
        let stop = shared.stops.begin(client.pid_and_secret_key());
        let waited = tokio::select! {
            waited = shared.room_and_snapshot(deadline) => waited,
            () = stop.asked().cancelled() => Err(PgWireError::QueryCanceled),
        };
        let (room, snapshot) = waited.inspect_err(|error| report.outcome = outcome_of(error))?;
        let snapshot = Arc::new(snapshot);
        open.tables.put(Some(Arc::clone(&snapshot)));
        let tables = Arc::clone(&open.tables);
        Ok(Running { stop, limit, report, deadline, held: Some((room, snapshot)), tables })
    }
}

impl Shared {
    async fn room_and_snapshot(&self, deadline: Instant) -> PgWireResult<(OwnedSemaphorePermit, Snapshot)> {
        let room = tokio::time::timeout_at(deadline, Arc::clone(&self.statements).acquire_owned()).await;
        let Ok(Ok(room)) = room else {
            return Err(error(TOO_LONG, "too many statements are running: try again later"));
        };
        let snapshot = self.source.snapshot().await.map_err(|e| PgWireError::ApiError(Box::new(e)))?;
        Ok((room, snapshot))
    }
}

/// A statement on its way. When it is dropped the session lets go of its snapshot, and the audit log gets its line.
struct Running {
    report: Report,
    limit: Duration,
    deadline: Instant,
    stop: Stop,
    tables: Arc<Tables>,
    held: Option<(OwnedSemaphorePermit, Arc<Snapshot>)>,
}

/// Who asks, for the audit log.
struct Asker {
    shared: Arc<Shared>,
    user: String,
    peer: String,
}

impl Asker {
    fn write_down(&self, statement: &str, parameters: &[Option<String>], (rows, took): (u64, Duration), outcome: &str) {
        self.shared.audit.write(audit::Entry {
            time: self.shared.clock.now(),
            user: &self.user,
            peer: &self.peer,
            statement,
            parameters,
            rows,
            millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            outcome,
        });
    }
}

struct Report {
    asker: Asker,
    statement: String,
    parameters: Vec<Option<String>>,
    begun: Instant,
    rows: u64,
    outcome: String,
}

impl Running {
    /// Runs up to the first row, within the statement's time.
    async fn within<T>(mut self, work: impl Future<Output = PgWireResult<T>>) -> PgWireResult<(T, Self)> {
        let outcome = tokio::select! {
            outcome = tokio::time::timeout_at(self.deadline, work) => outcome.unwrap_or_else(|_| Err(too_long(self.limit))),
            () = self.stop.asked().cancelled() => Err(PgWireError::QueryCanceled),
        };
        match outcome {
            Ok(value) => Ok((value, self)),
            Err(error) => {
                let error = told(error);
                self.report.outcome = outcome_of(&error);
                Err(error)
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tables.put(None);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let cost = (self.rows, self.begun.elapsed());
        self.asker.write_down(&self.statement, &self.parameters, cost, &self.outcome);
    }
}

/// What went wrong, in short: its code, and what the client was told.
fn outcome_of(error: &PgWireError) -> String {
    match error {
        PgWireError::UserError(info) => format!("{}: {}", info.code, info.message),
        other => other.to_string(),
    }
}

/// The values of a statement, for people: numbers and times in binary as hexadecimal digits.
fn values(parameters: &[Option<impl AsRef<[u8]>>]) -> Vec<Option<String>> {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.chars().take(VALUE_CHARS_MAX).collect(),
        _ => bytes.iter().take(VALUE_CHARS_MAX / 2).fold("\\x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    };
    parameters.iter().take(VALUES_MAX).map(|value| value.as_ref().map(|value| text(value.as_ref()))).collect()
}

fn too_long(limit: Duration) -> PgWireError {
    error(
        TOO_LONG,
        format!("the statement took longer than {limit:?}; narrow it, for instance by event_day and home_id"),
    )
}

/// Rows that are still to come; none when their time was over.
type Rows = Arc<std::sync::Mutex<Option<Pin<Box<dyn Stream<Item = PgWireResult<DataRow>> + Send>>>>>;

/// The rows of an answer, up to the bounds.
struct Bounded {
    rows: Rows,
    /// Ends with this.
    _watch: Option<JoinSet<()>>,
    running: Arc<std::sync::Mutex<Running>>,
    sleep: Pin<Box<Sleep>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    left: usize,
    /// Given so far.
    bytes: usize,
    over: bool,
}

/// When a statement's time is over, whatever it holds is free, also while its client asks for no more rows.
fn watch(deadline: Instant, rows: &Rows, running: &Arc<std::sync::Mutex<Running>>) -> JoinSet<()> {
    let (rows, running) = (Arc::downgrade(rows), Arc::downgrade(running));
    let mut watch = JoinSet::new();
    watch.spawn(async move {
        tokio::time::sleep_until(deadline).await;
        if let Some(rows) = rows.upgrade() {
            drop(lock(&rows).take());
        }
        if let Some(running) = running.upgrade() {
            drop(lock(&running).held.take());
        }
    });
    watch
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Rows are given up to the bounds, at once or `in_parts`; what else there is to say is said.
fn bounded(response: Response, running: &Arc<std::sync::Mutex<Running>>, in_parts: bool) -> Response {
    match response {
        Response::Query(QueryResponse { command_tag, row_schema, data_rows, .. }) => {
            let (deadline, stop, left) = {
                let running = lock(running);
                (running.deadline, running.stop.asked().clone(), running.report.asker.shared.config.rows_max)
            };
            let rows = Arc::new(std::sync::Mutex::new(Some(data_rows)));
            let watch = in_parts.then(|| watch(deadline, &rows, running));
            let (sleep, stop) = (Box::pin(tokio::time::sleep_until(deadline)), Box::pin(stop.cancelled_owned()));
            let running = Arc::clone(running);
            let rows = Bounded { rows, _watch: watch, running, sleep, stop, left, bytes: 0, over: false };
            let mut response = QueryResponse::new(row_schema, rows);
            response.set_command_tag(&command_tag);
            Response::Query(response)
        }
        other => {
            lock(running).report.outcome = "done".to_owned();
            other
        }
    }
}

impl Stream for Bounded {
    type Item = PgWireResult<DataRow>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let mut rows = lock(&this.rows);
        let rows = rows.as_mut().filter(|_| this.sleep.as_mut().poll(context).is_pending());
        let next = if let Some(rows) = rows {
            let next = match this.stop.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(PgWireError::QueryCanceled))),
                Poll::Pending => rows.as_mut().poll_next(context),
            };
            match next {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(_))) if this.left == 0 => Some(Err(error(
                    TOO_MUCH,
                    "the answer has more rows than this server gives: narrow it or aggregate",
                ))),
                Poll::Ready(Some(Ok(row))) if this.bytes + row.data.len() > ANSWER_BYTES_MAX => {
                    Some(Err(error(TOO_MUCH, "the answer is larger than this server gives: narrow it or aggregate")))
                }
                Poll::Ready(next) => next.map(|row| row.map_err(told)),
            }
        } else {
            Some(Err(too_long(lock(&this.running).limit)))
        };
        let mut running = lock(&this.running);
        match &next {
            Some(Ok(row)) => {
                this.bytes += row.data.len();
                this.left -= 1;
                running.report.rows += 1;
            }
            Some(Err(error)) => {
                this.over = true;
                running.report.outcome = outcome_of(error);
            }
            None => {
                this.over = true;
                running.report.outcome = "done".to_owned();
            }
        }
        Poll::Ready(next)
    }
}

#[async_trait]
impl SimpleQueryHandler for Session {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        check_size(query)?;
        let running = self.begin(client, query, Vec::new()).await?;
        let service = &self.signed_in()?.service;
        let query = comments::plannable(query);
        let work = SimpleQueryHandler::do_query(service, client, &query);
        let (responses, running) = running.within(work).await?;
        let running = Arc::new(std::sync::Mutex::new(running));
        Ok(responses.into_iter().map(|response| bounded(response, &running, false)).collect())
    }
}

#[async_trait]
impl ExtendedQueryHandler for Session {
    type Statement = <DfSessionService as ExtendedQueryHandler>::Statement;
    type QueryParser = SessionParser;

    fn query_parser(&self) -> Arc<SessionParser> {
        match self.signed_in() {
            Ok(open) => Arc::clone(&open.parser),
            Err(_) => Arc::new(SessionParser { inner: None }),
        }
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Self::Statement>,
        max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let running = self.begin(client, &portal.statement.statement.0, values(&portal.parameters)).await?;
        let service = &self.signed_in()?.service;
        let work = ExtendedQueryHandler::do_query(service, client, portal, max_rows);
        let (response, running) = running.within(work).await?;
        Ok(bounded(response, &Arc::new(std::sync::Mutex::new(running)), max_rows > 0))
    }
}

fn check_size(statement: &str) -> PgWireResult<()> {
    sql::check_size(statement).map_err(|too_large| error(TOO_MUCH, too_large.to_string()))
}

/// Parses for those who have signed in.
pub(super) struct SessionParser {
    inner: Option<(Arc<Parser>, SessionContext, Asker)>,
}

impl SessionParser {
    fn inner(&self) -> PgWireResult<&(Arc<Parser>, SessionContext, Asker)> {
        self.inner.as_ref().ok_or_else(|| error(NOT_SIGNED_IN, "sign in first"))
    }
}

#[async_trait]
impl QueryParser for SessionParser {
    type Statement = <Parser as QueryParser>::Statement;

    async fn parse_sql<C>(&self, client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Self::Statement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let (parser, context, asker) = self.inner()?;
        check_size(sql)?;
        let parsed = parser.parse_sql(client, sql, types).await.map_err(|error| hinted(error, context));
        parsed.inspect_err(|error| asker.write_down(sql, &[], (0, Duration::ZERO), &outcome_of(error)))
    }

    fn get_parameter_types(&self, statement: &Self::Statement) -> PgWireResult<Vec<Type>> {
        self.inner()?.0.get_parameter_types(statement)
    }

    fn get_result_schema(&self, statement: &Self::Statement, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        self.inner()?.0.get_result_schema(statement, format)
    }
}
