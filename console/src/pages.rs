//! The operator's page: the queue, rendered here; what moves on it is `static/console.js`.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use carebed_alerts::alert::{Alert, Done, Outcome, State as Stage};
use carebed_contract::finding::{Class, Subject};
use carebed_contract::id::HomeId;
use carebed_contract::interval::IntervalKind;
use carebed_contract::status::{GatewayState, Health};
use carebed_contract::text::{Language, Text};
use carebed_contract::time::Timestamp;
use chrono_tz::Tz;
use serde::Deserialize;

use crate::desk::Overview;
use crate::evidence::{self, local};
use crate::http::{App, Failure};
use crate::registry::{Home, TIME_ZONE};
use crate::texts::{self, Words};

/// Most cards on a page; how many are not shown is said.
const CARDS_MAX: usize = 100;

/// Most homes listed beside the queue, those in trouble first.
const HOMES_MAX: usize = 60;

/// A gateway that was not heard for so long is shown in trouble, whatever it said last (five minutes: a heartbeat
/// and two retries of a batch have gone by).
const QUIET: std::time::Duration = std::time::Duration::from_secs(300);

/// More new alerts than this within so long are a flood for one person (ISA-18.2).
const FLOOD: usize = 10;
const FLOOD_WITHIN: std::time::Duration = std::time::Duration::from_secs(600);

#[derive(Debug, Deserialize)]
pub(crate) struct Wish {
    lang: Option<Language>,
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    w: &'static Words,
    q: Queue,
    language: &'static str,
    other: &'static str,
    now: Timestamp,
    speed: u32,
}

#[derive(Template)]
#[template(path = "queue.html")]
struct QueueFragment {
    w: &'static Words,
    q: Queue,
}

struct Queue {
    cards: Vec<Card>,
    n_hidden: usize,
    n_open: usize,
    /// How many have begun to ring of late, where those are too many for one person.
    flood: Option<usize>,
    resolved: Vec<Card>,
    homes: Vec<HomeLine>,
    last_number: u64,
    log_failing_since: Option<Timestamp>,
    outcomes: Vec<(&'static str, String)>,
    kinds: Vec<(&'static str, &'static str)>,
}

struct Card {
    id: String,
    priority: &'static str,
    shape: &'static str,
    asks: &'static str,
    title: String,
    sentence: String,
    /// What it rests on: the values of the finding.
    evidence: Vec<(String, String)>,
    place: String,
    person: Option<(String, String, String)>,
    raised_at: Timestamp,
    raised_local: String,
    is_technical: bool,
    is_late: bool,
    suppressed: Option<String>,
    repeats: usize,
    cleared_local: Option<String>,
    state: &'static str,
    state_text: String,
    steps: Vec<String>,
    outcome: Option<String>,
    notes: Vec<String>,
    rings: bool,
    /// Name of the next step in the API and its word.
    next: Vec<(&'static str, &'static str)>,
    can_resolve: bool,
    can_review: bool,
    gateway: HomeLine,
}

struct HomeLine {
    name: String,
    state: &'static str,
    is_well: bool,
    last_heard: Option<Timestamp>,
    n_silent: usize,
    /// None for a home that is not registered.
    id: String,
    /// What cannot be judged.
    blind: Vec<String>,
    intervals: Vec<IntervalLine>,
    bed_ids: String,
    beds: Vec<BedLine>,
}

struct IntervalLine {
    id: i64,
    text: String,
}

struct BedLine {
    id: String,
    name: String,
    person: String,
    phone: String,
    address: String,
}

/// `GET /`: the page. `?lang=en` or `?lang=zh` is remembered.
pub(crate) async fn page(
    State(app): State<App>,
    wish: Result<Query<Wish>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Query(wish) = wish?;
    let language = choose(&wish, &headers);
    let (tag, other) = match language {
        Language::Zh => ("zh-CN", "en"),
        Language::En => ("en", "zh"),
    };
    let q = see(&app, app.desk.overview().await?, language);
    let page = Page { w: Words::of(language), q, language: tag, other, now: app.clock.now(), speed: app.speed };
    let mut response = html(&page);
    if wish.lang.is_some() {
        let cookie = match language {
            Language::Zh => "lang=zh; Path=/; Max-Age=31536000; SameSite=Lax; HttpOnly",
            Language::En => "lang=en; Path=/; Max-Age=31536000; SameSite=Lax; HttpOnly",
        };
        response.headers_mut().insert(header::SET_COOKIE, HeaderValue::from_static(cookie));
    }
    Ok(response)
}

/// `GET /queue`: only what changes, for the page to put in its place.
pub(crate) async fn queue(
    State(app): State<App>,
    wish: Result<Query<Wish>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Query(wish) = wish?;
    let language = choose(&wish, &headers);
    let q = see(&app, app.desk.overview().await?, language);
    Ok(html(&QueueFragment { w: Words::of(language), q }))
}

/// `GET /static/{file}`: what the page needs, compiled in.
pub(crate) async fn asset(Path(file): Path<String>) -> Result<Response, Failure> {
    let (kind, text) = match file.as_str() {
        "console.js" => ("text/javascript; charset=utf-8", include_str!("../static/console.js")),
        "console.css" => ("text/css; charset=utf-8", include_str!("../static/console.css")),
        "icon.svg" => ("image/svg+xml", include_str!("../static/icon.svg")),
        _ => {
            let message = Text::new("没有这个文件。", "There is no such file.");
            return Err(Failure::new(StatusCode::NOT_FOUND, "not_found", message));
        }
    };
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response())
}

fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a page could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn choose(wish: &Wish, headers: &HeaderMap) -> Language {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let is_english = |cookies: &str| cookies.split(';').any(|cookie| cookie.trim() == "lang=en");
    let remembered = if cookies.into_iter().any(is_english) { Language::En } else { Language::Zh };
    wish.lang.unwrap_or(remembered)
}

fn see(app: &App, overview: Overview, language: Language) -> Queue {
    let now = app.clock.now();
    let card = |alert: &Alert| {
        let home = app.registry.home(&alert.home);
        Card::of(alert, home.as_deref(), line(app, &alert.home, home.as_deref(), language, now), language)
    };
    let mut homes: Vec<_> =
        app.registry.homes().iter().map(|home| line(app, &home.id, Some(home), language, now)).collect();
    homes.sort_by_key(|line| line.is_well);
    homes.truncate(HOMES_MAX);
    Queue {
        n_open: overview.open.len(),
        n_hidden: overview.open.len().saturating_sub(CARDS_MAX),
        flood: Some(n_new(&overview, now)).filter(|n| *n > FLOOD),
        cards: overview.open.iter().take(CARDS_MAX).map(card).collect(),
        resolved: overview.resolved.iter().map(card).collect(),
        homes,
        last_number: overview.last_number,
        log_failing_since: overview.log_failing_since,
        kinds: IntervalKind::ALL.map(|kind| (kind.as_str(), texts::interval(kind, language))).to_vec(),
        outcomes: Outcome::CHOICES.map(|o| (o.as_str(), o.text().get(language).to_owned())).to_vec(),
    }
}

fn n_new(overview: &Overview, now: Timestamp) -> usize {
    let alerts = overview.open.iter().chain(&overview.resolved);
    alerts.filter(|alert| alert.rings_since.is_some_and(|at| now.since(at) < FLOOD_WITHIN)).count()
}

fn line(app: &App, id: &HomeId, home: Option<&Home>, language: Language, now: Timestamp) -> HomeLine {
    let heard = app.board.of(id);
    let status = heard.status.as_ref();
    let is_recent = heard.last_heard.is_some_and(|at| now.since(at) <= QUIET);
    let n_silent = status.map_or(0, |s| s.devices.iter().filter(|d| d.health == Health::Silent).count());
    let zone = home.map_or(TIME_ZONE, |home| home.time_zone);
    let intervals = app.intervals.of(id).into_iter().filter(|entry| entry.interval.ended_at > now);
    let intervals = intervals.map(|entry| {
        let until = local(entry.interval.ended_at, zone);
        let bed = entry.interval.bed.as_ref();
        let bed = bed.and_then(|id| home?.beds.iter().find(|bed| bed.id == *id)).map_or("", |bed| bed.name.as_str());
        let what = [bed, texts::interval(entry.interval.kind, language), Words::of(language).until, &until];
        let text = what.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        IntervalLine { id: entry.id, text }
    });
    let blind = app.board.blind(id).into_iter();
    let blind =
        blind.map(|b| format!("{} ({})", b.title.get(language), local(b.since, zone))).map(|text| match language {
            Language::Zh => text.replace(" (", "（").replace(')', "）"),
            Language::En => text,
        });
    let beds = home.map_or(&[][..], |home| &home.beds).iter().map(|bed| {
        let person = bed.person.as_ref();
        let text = |of: fn(&crate::registry::Person) -> &str| person.map_or_else(String::new, |p| of(p).to_owned());
        let (id, name) = (bed.id.to_string(), bed.name.clone());
        BedLine { id, name, person: text(|p| &p.name), phone: text(|p| &p.phone), address: text(|p| &p.address) }
    });
    let beds: Vec<_> = beds.collect();
    HomeLine {
        id: home.map_or_else(String::new, |home| home.id.to_string()),
        blind: blind.collect(),
        intervals: intervals.collect(),
        bed_ids: beds.iter().map(|bed| bed.id.as_str()).collect::<Vec<_>>().join(" "),
        beds,
        name: home.map_or_else(|| id.to_string(), |home| home.name.clone()),
        state: status.map_or("", |status| texts::gateway(status.state, language)),
        is_well: is_recent && status.is_none_or(|status| status.state == GatewayState::Online) && n_silent == 0,
        last_heard: heard.last_heard,
        n_silent,
    }
}

impl Card {
    fn of(alert: &Alert, home: Option<&Home>, gateway: HomeLine, language: Language) -> Self {
        let w = Words::of(language);
        let zone = home.map_or(TIME_ZONE, |home| home.time_zone);
        let bed = home.and_then(|home| home.bed(&alert.subject));
        let place = match (home, bed) {
            _ if matches!(alert.subject, Subject::Area(_)) => alert.subject.to_string().replace("area/", w.area),
            (Some(home), Some(bed)) => format!("{} · {}", home.name, bed.name),
            (Some(home), None) => home.name.clone(),
            (None, _) => match (&alert.subject, language) {
                (Subject::Centre(part), _) => format!("{} · {part}", w.centre),
                (_, Language::Zh) => format!("{}（{}）", w.unregistered, alert.home),
                (_, Language::En) => format!("{} ({})", w.unregistered, alert.home),
            },
        };
        let person = bed.and_then(|bed| bed.person.as_ref());
        let mut next = Vec::new();
        match alert.state {
            Stage::Open => next.push(("acknowledge", w.acknowledge)),
            Stage::Acknowledged => next.extend([("dispatch", w.dispatch), ("arrive", w.arrive)]),
            Stage::Dispatched => next.push(("arrive", w.arrive)),
            Stage::Waiting | Stage::OnSite | Stage::Resolved | Stage::Reviewed => {}
        }
        Self {
            id: alert.id.to_string(),
            priority: alert.priority.as_str(),
            shape: texts::shape(alert.priority),
            asks: texts::priority(alert.priority, language),
            title: alert.title.get(language).to_owned(),
            sentence: alert.sentence.get(language).to_owned(),
            evidence: evidence::rows(&alert.evidence, zone, language),
            place,
            person: person.map(|p| (p.name.clone(), p.phone.clone(), p.address.clone())),
            raised_at: alert.raised_at,
            raised_local: local(alert.raised_at, zone),
            is_technical: alert.class == Class::Technical,
            is_late: alert.late,
            suppressed: alert.suppressed.as_deref().map(|reason| texts::reason(reason, language).to_owned()),
            repeats: alert.repeats(),
            cleared_local: alert.cleared_at().map(|at| local(at, zone)),
            state: alert.state.as_str(),
            state_text: alert.state.text().get(language).to_owned(),
            steps: alert.done.iter().map(|done| step(done, zone, language)).collect(),
            outcome: alert.outcome.map(|outcome| outcome.text().get(language).to_owned()),
            notes: alert.notes.clone(),
            rings: alert.rings(),
            next,
            can_resolve: (Stage::Acknowledged..=Stage::OnSite).contains(&alert.state),
            can_review: alert.state == Stage::Resolved,
            gateway,
        }
    }
}

fn step(done: &Done, zone: Tz, language: Language) -> String {
    let who = done.by.as_ref().map_or(Words::of(language).system, |by| by.as_str());
    let what = done.state.text();
    format!("{} {} {who}", local(done.at, zone), what.get(language))
}
