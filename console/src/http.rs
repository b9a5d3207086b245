//! What the console serves: an API for programs, an event stream, and the operator's pages.

mod alerts;
mod answer;
mod events;
mod guard;
mod homes;
mod intervals;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use carebed_contract::Shutdown;
use carebed_contract::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::board::Board;
use crate::desk::Desk;
use crate::intervals::Intervals;
use crate::pages;
use crate::registry::Registry;

pub(crate) use answer::Failure;

/// Longest request body, in bytes; a longer one is refused.
const BODY_MAX: usize = 16 * 1024;

/// Most event streams at a time; a further one is answered 503 and may try again.
const STREAMS_MAX: usize = 64;

/// What every handler may use.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) desk: Desk,
    pub(crate) registry: Registry,
    pub(crate) intervals: Intervals,
    pub(crate) board: Board,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) speed: u32,
    streams: Arc<Semaphore>,
    shutdown: Shutdown,
}

impl App {
    pub(crate) fn new(
        desk: Desk,
        registry: Registry,
        intervals: Intervals,
        board: Board,
        clock: Arc<dyn Clock>,
        speed: u32,
    ) -> Self {
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { desk, registry, intervals, board, clock, speed, streams, shutdown: Shutdown::new() }
    }
}

/// Serves until `shutdown`.
pub(crate) async fn serve(listener: TcpListener, app: App, shutdown: Shutdown) -> Result<(), std::io::Error> {
    let app = App { shutdown: shutdown.clone(), ..app };
    axum::serve(listener, router(app)).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

fn router(app: App) -> Router {
    Router::new()
        .route("/", get(pages::page))
        .route("/queue", get(pages::queue))
        .route("/static/{file}", get(pages::asset))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/{id}", get(alerts::one))
        .route("/api/v1/alerts/{id}/log", get(alerts::log))
        .route("/api/v1/alerts/{id}/{step}", post(alerts::step))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/homes", get(homes::list))
        .route("/api/v1/homes/{home}", post(intervals::name))
        .route("/api/v1/homes/{home}/intervals", get(intervals::list).post(intervals::enter))
        .route("/api/v1/intervals/{id}/end", post(intervals::end))
        .route("/health", get(homes::health))
        .fallback(answer::no_such_page)
        .method_not_allowed_fallback(answer::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn(guard::guard))
        .with_state(app)
}
