//! Alerts over HTTP: list, one, its log, and the steps people take.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use carebed_alerts::Act;
use carebed_alerts::alert::{Alert, AlertId, OperatorId, Outcome};
use carebed_alerts::transition::Transition;
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::App;
use super::answer::Failure;

/// An alert with what follows from it.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    #[serde(flatten)]
    alert: Alert,
    repeats: usize,
    cleared_at: Option<Timestamp>,
}

impl From<Alert> for Shown {
    fn from(alert: Alert) -> Self {
        Self { repeats: alert.repeats(), cleared_at: alert.cleared_at(), alert }
    }
}

/// A list, and the instant at which it is true.
#[derive(Debug, Serialize)]
pub(super) struct List {
    now: Timestamp,
    /// The last transition it contains: events after this number are news.
    last_number: u64,
    alerts: Vec<Shown>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    state: Option<String>,
}

/// `GET /api/v1/alerts?state=open|resolved`: alerts to act on (the default), or the last resolved ones.
pub(super) async fn list(
    State(app): State<App>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<List>, Failure> {
    let Query(filter) = filter?;
    let overview = app.desk.overview().await?;
    let alerts = match filter.state.as_deref() {
        None | Some("open") => overview.open,
        Some("resolved") => overview.resolved,
        Some(_) => {
            let message = Text::new("state 只能是 open 或 resolved。", "state must be open or resolved.");
            return Err(Failure::bad_request("unknown_state", message));
        }
    };
    let alerts = alerts.into_iter().map(Shown::from).collect();
    Ok(Json(List { now: app.clock.now(), last_number: overview.last_number, alerts }))
}

fn parse(id: String) -> Result<AlertId, Failure> {
    AlertId::try_from(id).map_err(|_| no_such_alert())
}

fn no_such_alert() -> Failure {
    let message = Text::new("没有这条告警。", "There is no such alert.");
    Failure::new(StatusCode::NOT_FOUND, "unknown_alert", message)
}

/// `GET /api/v1/alerts/{id}`
pub(super) async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Shown>, Failure> {
    let alert = app.desk.alert(parse(id)?).await?.ok_or_else(no_such_alert)?;
    Ok(Json(alert.into()))
}

/// `GET /api/v1/alerts/{id}/log`: everything that happened to it, in order.
pub(super) async fn log(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Vec<Transition>>, Failure> {
    let log = app.desk.log(&parse(id)?).await?;
    if log.is_empty() { Err(no_such_alert()) } else { Ok(Json(log)) }
}

/// Who takes the step, and for resolving with what outcome.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    by: String,
    outcome: Option<Outcome>,
    note: Option<String>,
}

/// `POST /api/v1/alerts/{id}/acknowledge|dispatch|arrive|resolve|review`
pub(super) async fn step(
    State(app): State<App>,
    Path((id, step)): Path<(String, String)>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Shown>, Failure> {
    let id = parse(id)?;
    let taken: Step = serde_json::from_slice(&body?).map_err(|error| {
        let message = Text::new(
            format!("请求内容有误（{error}）。应为 {{\"by\": \"值守人员\", \"outcome\": \"verified\", \"note\": \"…\"}}。"),
            format!("The request is wrong ({error}). Send {{\"by\": \"operator\", \"outcome\": \"verified\", \"note\": \"…\"}}."),
        );
        Failure::bad_request("bad_step", message)
    })?;
    let by = OperatorId::new(&taken.by).map_err(|_| {
        let message =
            Text::new("请先填写值守人员姓名（1–40 字）。", "Enter the operator's name first (1 to 40 characters).");
        Failure::bad_request("no_operator", message)
    })?;
    let act = match (step.as_str(), taken.outcome) {
        ("acknowledge", None) => Act::Acknowledge,
        ("dispatch", None) => Act::Dispatch,
        ("arrive", None) => Act::Arrive,
        ("review", None) => Act::Review { note: taken.note },
        ("resolve", Some(outcome)) => Act::Resolve { outcome, note: taken.note },
        ("resolve", None) => {
            let message = Text::new("办结时须选择处置结果。", "Resolving needs an outcome.");
            return Err(Failure::bad_request("no_outcome", message));
        }
        ("acknowledge" | "dispatch" | "arrive" | "review", Some(_)) => {
            let message = Text::new("只有办结时才填写处置结果。", "Only resolving takes an outcome.");
            return Err(Failure::bad_request("outcome_too_early", message));
        }
        _ => return Err(super::answer::no_such_page().await),
    };
    let home = app.desk.alert(id.clone()).await?.map(|alert| alert.home);
    let zone = home.map_or(crate::registry::TIME_ZONE, |home| app.registry.zone(&home));
    let told = app.desk.act(id, act, by).await.map_err(|error| Failure::of(&error, zone))?;
    Ok(Json(told.alert.clone().into()))
}
