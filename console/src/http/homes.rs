//! Homes and the console itself: how they are, and since when that is known.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use carebed_contract::id::{Area, BedId, GatewayId, HomeId};
use carebed_contract::status::Status;
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use serde::Serialize;

use super::App;
use super::answer::Failure;
use crate::board::Blind;
use crate::intervals::Entry;

/// One home without its people.
#[derive(Debug, Serialize)]
pub(super) struct HomeShown {
    home: HomeId,
    name: String,
    area: Area,
    area_name: Option<Text>,
    gateway: Option<GatewayId>,
    beds: Vec<BedId>,
    last_heard: Option<Timestamp>,
    last_heard_age_ms: Option<u128>,
    status: Option<Status>,
    /// Detections that cannot say anything now, because nothing they rest on answers.
    not_evaluable: Vec<Blind>,
    /// Absences, visits and the like that last or are to come.
    intervals: Vec<Entry>,
}

#[derive(Debug, Serialize)]
pub(super) struct List {
    now: Timestamp,
    homes: Vec<HomeShown>,
}

/// `GET /api/v1/homes`: gateways and devices, each with its age. No age means: not heard since the centre started.
pub(super) async fn list(State(app): State<App>) -> Json<List> {
    let now = app.clock.now();
    let homes = app.registry.homes().into_iter().map(|home| {
        let heard = app.board.of(&home.id);
        HomeShown {
            home: home.id.clone(),
            name: home.name.clone(),
            area: home.area.clone(),
            area_name: app.registry.area(&home.area),
            gateway: home.gateway.clone(),
            beds: home.beds.iter().map(|bed| bed.id.clone()).collect(),
            last_heard: heard.last_heard,
            last_heard_age_ms: heard.last_heard.map(|at| now.since(at).as_millis()),
            status: heard.status,
            not_evaluable: app.board.blind(&home.id),
            intervals: app.intervals.of(&home.id).into_iter().filter(|e| e.interval.ended_at > now).collect(),
        }
    });
    Json(List { now, homes: homes.collect() })
}

#[derive(Debug, Serialize)]
pub(super) struct Health {
    status: &'static str,
    now: Timestamp,
    open_alerts: usize,
    last_number: u64,
    log_failing_since: Option<Timestamp>,
}

/// `GET /health`: 200 while alerts are worked on and logged, 503 while the log cannot be written.
pub(super) async fn health(State(app): State<App>) -> Result<(StatusCode, Json<Health>), Failure> {
    let overview = app.desk.overview().await?;
    let (code, status) = match overview.log_failing_since {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "log_failing"),
    };
    let health = Health {
        status,
        now: app.clock.now(),
        open_alerts: overview.open.len(),
        last_number: overview.last_number,
        log_failing_since: overview.log_failing_since,
    };
    Ok((code, Json(health)))
}
