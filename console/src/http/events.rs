//! `GET /api/v1/events`: what happens, as it happens (server-sent events).
//!
//! - `transition`, with the transition's number as id: `{"transition": …, "alert": …}`. `Last-Event-ID` (or `?after=`)
//!   continues behind a number.
//! - `clock`, at once and every [`HEARTBEAT`]: `{"now", "speed"}`, so that a page can tell silence from peace.
//! - `reload`: some were missed for good; read the lists anew.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Sse;
use axum::response::sse::Event;
use carebed_contract::Shutdown;
use carebed_contract::text::Text;
use futures::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::App;
use super::answer::Failure;
use crate::desk::Told;

/// How often a stream shows that it lives, in wire time. Pages cry for help after three of them missed.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
pub(super) struct Start {
    after: Option<u64>,
}

/// What a stream needs as long as it is open.
struct Open {
    app: App,
    shutdown: Shutdown,
    live: Receiver<Arc<Told>>,
    heartbeat: Interval,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn stream(
    State(app): State<App>,
    start: Result<Query<Start>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let Query(start) = start?;
    let permit = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        let message = Text::new("打开的页面过多，请关闭不用的页面。", "Too many pages are open; close some.");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", message)
    })?;
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let subscription = app.desk.subscribe(resumed.or(start.after)).await?;
    let first: Vec<_> = match subscription.missed {
        Some(missed) => missed.iter().filter_map(|told| transition(told)).collect(),
        None => vec![reload()],
    };
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let open = Open { shutdown: app.shutdown.clone(), live: subscription.live, heartbeat, app, _permit: permit };
    let live = stream::unfold(open, |mut open| async move { Some((next(&mut open).await?, open)) });
    Ok(Sse::new(stream::iter(first).chain(live).map(Ok)))
}

async fn next(open: &mut Open) -> Option<Event> {
    tokio::select! {
        () = open.shutdown.cancelled() => None,
        told = open.live.recv() => match told {
            Ok(told) => transition(&told),
            Err(RecvError::Lagged(_)) => Some(reload()),
            Err(RecvError::Closed) => None,
        },
        _ = open.heartbeat.tick() => {
            let clock = json!({ "now": open.app.clock.now(), "speed": open.app.speed });
            Some(Event::default().event("clock").data(clock.to_string()))
        }
    }
}

fn reload() -> Event {
    Event::default().event("reload").data("{}")
}

/// None, which ends the stream so that the page comes back, only if it cannot be written as JSON.
fn transition(told: &Told) -> Option<Event> {
    let data = serde_json::to_string(told).ok()?;
    Some(Event::default().event("transition").id(told.transition.number.to_string()).data(data))
}
