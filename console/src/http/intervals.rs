//! Absences, visits, hospital stays and maintenance over HTTP, and what the registry knows of a home's people.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use carebed_alerts::alert::{NOTE_LENGTH_MAX, OperatorId};
use carebed_contract::id::{BedId, HomeId};
use carebed_contract::interval::{IntervalKind, Source};
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::App;
use super::answer::Failure;
use crate::intervals::{Entry, IntervalError, Wanted};
use crate::registry::{Home, Person, RegistryError};

/// Longest name, phone number and address kept, in characters.
const TEXT_LENGTH_MAX: usize = 120;

/// What somebody enters about a home's time. Times are milliseconds since 1970 UTC, as everywhere in this API; `from` is now when absent, `until` the usual length.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entering {
    kind: IntervalKind,
    bed: Option<BedId>,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    /// How long it is to last, in hours, where that is easier to say than `until`.
    hours: Option<u32>,
    by: String,
    #[serde(default)]
    source: Source,
    note: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ending {
    by: String,
}

/// What a home, a bed and its person are called.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    by: String,
    name: Option<String>,
    #[serde(default)]
    beds: Vec<NamedBed>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedBed {
    id: BedId,
    name: Option<String>,
    person: Option<NamedPerson>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedPerson {
    name: String,
    #[serde(default)]
    phone: String,
    #[serde(default)]
    address: String,
}

fn body<T: DeserializeOwned>(bytes: Result<Bytes, BytesRejection>) -> Result<T, Failure> {
    serde_json::from_slice(&bytes?).map_err(|error| {
        let message = Text::new(format!("请求内容有误：{error}。"), format!("The request is wrong: {error}."));
        Failure::bad_request("bad_request", message)
    })
}

fn operator(name: &str) -> Result<OperatorId, Failure> {
    OperatorId::new(name).map_err(|_| {
        let message =
            Text::new("请先填写值守人员姓名（1–40 字）。", "Enter the operator's name first (1 to 40 characters).");
        Failure::bad_request("no_operator", message)
    })
}

fn home_id(app: &App, id: &str) -> Result<HomeId, Failure> {
    let known = HomeId::new(id).ok().filter(|id| app.registry.home(id).is_some());
    known.ok_or_else(|| {
        let message = Text::new("没有登记这户家庭。", "There is no such home.");
        Failure::new(StatusCode::NOT_FOUND, "unknown_home", message)
    })
}

fn unknown_bed() -> Failure {
    Failure::bad_request("unknown_bed", Text::new("该户没有这张床位。", "The home has no such bed."))
}

fn too_long() -> Failure {
    let message = Text::new(
        format!("文字过长：备注不超过 {NOTE_LENGTH_MAX} 字，姓名、电话、地址各不超过 {TEXT_LENGTH_MAX} 字。"),
        format!(
            "Too long: a note has at most {NOTE_LENGTH_MAX} characters, a name, phone number or address {TEXT_LENGTH_MAX}."
        ),
    );
    Failure::bad_request("too_long", message)
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Database(error) => error.into(),
            other => {
                tracing::warn!(error = %other, "a home was not renamed");
                let message = Text::new("登记未成功，请核对内容。", "Not registered: check what was entered.");
                Self::bad_request("refused", message)
            }
        }
    }
}

impl From<IntervalError> for Failure {
    fn from(error: IntervalError) -> Self {
        match error {
            IntervalError::Length(kind) => {
                let hours = kind.longest().as_secs() / 3_600;
                let message = Text::new(
                    format!("时间有误：结束须晚于开始，最长 {hours} 小时，且须在一年之内开始。"),
                    format!(
                        "Wrong times: the end comes after the beginning, at most {hours} hours later, and it begins within a year."
                    ),
                );
                Self::bad_request("bad_times", message)
            }
            IntervalError::Unknown(_) => {
                let message = Text::new("该登记不存在或已经结束。", "There is no such entry, or it is over.");
                Self::new(StatusCode::NOT_FOUND, "unknown_interval", message)
            }
            IntervalError::Database(error) => error.into(),
        }
    }
}

/// `GET /api/v1/homes/{home}/intervals`
pub(super) async fn list(State(app): State<App>, Path(home): Path<String>) -> Result<Json<Vec<Entry>>, Failure> {
    let home = home_id(&app, &home)?;
    Ok(Json(app.intervals.of(&home)))
}

/// `POST /api/v1/homes/{home}/intervals`
pub(super) async fn enter(
    State(app): State<App>,
    Path(home): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Entry>), Failure> {
    let home = home_id(&app, &home)?;
    let said: Entering = body(bytes)?;
    let note = said.note.map(|note| note.trim().to_owned()).filter(|note| !note.is_empty());
    if note.as_ref().is_some_and(|note| note.chars().count() > NOTE_LENGTH_MAX) {
        return Err(too_long());
    }
    let now = app.clock.now();
    let hours = said.hours.map(|hours| std::time::Duration::from_secs(u64::from(hours) * 3_600));
    let until = said.until.or(hours.map(|hours| said.from.unwrap_or(now) + hours));
    let (bed, kind, from, source, by) = (said.bed, said.kind, said.from, said.source, operator(&said.by)?);
    let has = |bed: &BedId| app.registry.home(&home).is_some_and(|home| home.beds.iter().any(|known| known.id == *bed));
    if bed.as_ref().is_some_and(|bed| !has(bed)) {
        return Err(unknown_bed());
    }
    let wanted = Wanted { home, bed, kind, from, until, by, source, note };
    Ok((StatusCode::CREATED, Json(app.intervals.enter(wanted, now).await?)))
}

/// `POST /api/v1/intervals/{id}/end`
pub(super) async fn end(
    State(app): State<App>,
    Path(id): Path<i64>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Entry>, Failure> {
    let Ending { by } = body(bytes)?;
    Ok(Json(app.intervals.end(id, &operator(&by)?, app.clock.now()).await?))
}

/// `POST /api/v1/homes/{home}`: what the home, its beds and the people in them are called. What is not named stays as it is.
pub(super) async fn name(
    State(app): State<App>,
    Path(home): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Failure> {
    let id = home_id(&app, &home)?;
    let named: Named = body(bytes)?;
    let by = operator(&named.by)?;
    app.registry.change_home(&id, app.clock.now(), |home| rename(home, named)).await?;
    // Who changed what the registry says is told to the log; the names themselves are not.
    tracing::info!(home = %id, by = %by, "the registry's entry of a home was changed");
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a home, its beds and their people the names that were said.
fn rename(home: &mut Home, named: Named) -> Result<(), Failure> {
    let short = |text: &str| text.chars().count() <= TEXT_LENGTH_MAX;
    if let Some(name) = named.name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()) {
        home.name = name;
    }
    for bed in named.beds {
        let known = home.beds.iter_mut().find(|known| known.id == bed.id).ok_or_else(unknown_bed)?;
        if let Some(name) = bed.name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()) {
            known.name = name;
        }
        if let Some(NamedPerson { name, phone, address }) = bed.person {
            if ![&name, &phone, &address].into_iter().all(|text| short(text)) {
                return Err(too_long());
            }
            let name = name.trim().to_owned();
            known.person = (!name.is_empty()).then_some(Person { name, phone, address });
        }
    }
    if !short(&home.name) || !home.beds.iter().all(|bed| short(&bed.name)) {
        return Err(too_long());
    }
    Ok(())
}
