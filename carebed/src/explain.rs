//! `carebed explain`: why an alert is there. The sentence and the numbers that were logged with it, what people did, and the rows of
//! the lake that it rests on, read anew.

use anyhow::{Context as _, bail};
use carebed_alerts::Alerts;
use carebed_alerts::alert::Alert;
use carebed_alerts::policy::Policy;
use carebed_alerts::transition::Transition;
use carebed_console::database::Database;
use carebed_console::evidence;
use carebed_console::log::Log;
use carebed_console::registry::TIME_ZONE;
use carebed_contract::time::Timestamp;
use carebed_queries::episodes::{Definitions, Episode};
use carebed_queries::history::{self, Span};
use carebed_queries::home::HomeFacts;
use carebed_queries::sql::Lake;
use chrono::DateTime;
use chrono_tz::Tz;

use crate::cli::{ExplainArguments, Format, say};
use crate::config::Config;
use crate::exit::Exit;
use crate::{detections, facts, sql};

/// Observations shown before the alert, and how far back they are looked for.
const ROWS: usize = 40;
const ROWS_WITHIN_MINUTES: i64 = 12 * 60;

/// `carebed explain`
pub async fn run(arguments: ExplainArguments) -> anyhow::Result<Exit> {
    let config = Config::at(arguments.data.clone());
    if !config.database().exists() {
        bail!("{} holds no alerts\nhint: name the data folder of a centre", arguments.data.display());
    }
    let database = Database::open_read(&config.database()).await?;
    let (alert, steps) = find(&Log::new(database).since(0).await?, &arguments.alert)?;
    let homes = facts::of_data(&config).await?;
    let home = homes.iter().find(|facts| facts.home == alert.home);
    let zone = home.map_or(TIME_ZONE, |facts| facts.time_zone);
    logged(&alert, &steps, zone);
    let loaded = detections::load(carebed_queries::engine::Limits::default()).await?;
    let window = loaded.list.iter().find(|d| d.name == alert.detection).map(|d| d.meaning.window);
    if let (Some(home), Some(window)) = (home, window) {
        rows(&arguments, &alert, home, window, loaded).await?;
    }
    Ok(Exit::Done)
}

/// The alert of this id, or the only one whose id begins so, with its log.
fn find(log: &[Transition], id: &str) -> anyhow::Result<(Alert, Vec<Transition>)> {
    let mut found: Vec<_> = log.iter().map(|t| &t.alert).filter(|alert| alert.as_str().starts_with(id)).collect();
    found.sort();
    found.dedup();
    let id = match found.as_slice() {
        [only] => *only,
        [] => bail!(
            "there is no alert {id}\nhint: its id stands in the page's address and in the answers of /api/v1/alerts"
        ),
        many => bail!("{} alerts begin with {id}; give more of the id", many.len()),
    };
    let mut steps: Vec<Transition> = log.iter().filter(|t| t.alert == *id).cloned().collect();
    let mut alerts = Alerts::new(Policy::new([]));
    for step in &steps {
        alerts.resume(step).context("the alert's log contradicts itself")?;
    }
    let alert = alerts.get(id).cloned().context("the alert is too old to be remembered")?;
    steps.sort_by_key(|step| step.number);
    Ok((alert, steps))
}

fn logged(alert: &Alert, steps: &[Transition], zone: Tz) {
    say(&format!("{} {} · {}", alert.priority.as_str(), alert.title.zh, alert.title.en));
    say(&format!("  {}", alert.sentence.zh));
    say(&format!("  {}", alert.sentence.en));
    say(&format!("  id {} · detection {} · {} · home {}", alert.id, alert.detection, alert.subject, alert.home));
    if let Some(reason) = &alert.suppressed {
        say(&format!("  quiet because of {reason}"));
    }
    say("\nevidence 依据");
    for (name, value) in &alert.evidence {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let text = Timestamp::parse(&text).map_or(text, |at| local(at, zone));
        let called =
            evidence::name(name).map_or_else(|| name.clone(), |called| format!("{} · {}", called.zh, called.en));
        say(&format!("  {called}: {text}"));
    }
    say("\nlog 经过");
    for step in steps {
        let json = serde_json::to_value(&step.change).unwrap_or_default();
        let word = json.get("change").and_then(|word| word.as_str()).unwrap_or("?");
        let by = json.get("by").and_then(|by| by.as_str()).map(|by| format!(" {by}")).unwrap_or_default();
        say(&format!("  {} {word}{by}", local(step.at, zone)));
    }
}

/// The episodes and the last observations before the alert, as the lake has them now.
async fn rows(
    arguments: &ExplainArguments,
    alert: &Alert,
    home: &HomeFacts,
    window: std::time::Duration,
    loaded: detections::Detections,
) -> anyhow::Result<()> {
    let store = sql::open(&arguments.data).await?;
    let until = alert.cleared_at().unwrap_or(alert.raised_at).max(alert.raised_at) + std::time::Duration::from_secs(60);
    let span = Span { from: alert.raised_at - window, to: until };
    let definitions = std::sync::Arc::new(Definitions::builtin().context("failed to read the episodes")?);
    let (lake, view) = (Lake::of(&store), store.view());
    let mut episodes =
        history::episodes(&lake, &view, span, std::slice::from_ref(home), definitions, loaded.engine.limits()).await?;
    let mut told: Vec<Episode> = episodes.of(&home.home);
    told.retain(|e| {
        e.ended_at.is_none_or(|ended| ended >= alert.raised_at - std::time::Duration::from_secs(12 * 3_600))
    });
    told.sort_by_key(|e| e.started_at);
    say("\nepisodes 片段（12 h）");
    for e in &told {
        let end = e.ended_at.map_or_else(|| "…".to_owned(), |at| local(at, home.time_zone));
        let place = e.room.as_ref().map(|room| format!(" {room}")).unwrap_or_default();
        let device = e.device.as_ref().map(|device| format!(" {device}")).unwrap_or_default();
        let more = e.attributes.as_deref().map(|more| format!(" {more}")).unwrap_or_default();
        say(&format!("  {} – {end} {}{place}{device}{more}", local(e.started_at, home.time_zone), e.kind));
    }
    say(&format!("\nobservations 观测（{ROWS}）"));
    let from = Timestamp::from_millis(alert.raised_at.millis() - ROWS_WITHIN_MINUTES * 60_000);
    let statement = format!(
        "SELECT * FROM (SELECT local_time(event_time, '{zone}') AS local_time, device_id, room, quantity, value, text, quality \
         FROM observations WHERE home_id = '{home}' AND event_time >= TIMESTAMP '{from}' AND event_time <= TIMESTAMP '{until}' \
         ORDER BY event_time DESC LIMIT {ROWS}) ORDER BY local_time",
        zone = home.time_zone.name(),
        home = home.home,
    );
    say(sql::answer(&arguments.data, &statement, Format::Table).await?.trim_end());
    Ok(())
}

fn local(at: Timestamp, zone: Tz) -> String {
    DateTime::from_timestamp_millis(at.millis())
        .map_or_else(|| at.to_string(), |at| at.with_timezone(&zone).format("%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use carebed_alerts::Evaluated;
    use carebed_contract::finding::{Finding, Subject};

    use super::*;

    #[test]
    fn an_alert_is_found_by_the_beginning_of_its_id() {
        let at = Timestamp::from_millis(1_000_000);
        let mut alerts = Alerts::new(Policy::new([]));
        let finding = |home: &str| Finding {
            detection: "d".to_owned(),
            subject: Subject::Home(home.parse().unwrap()),
            home: home.parse().unwrap(),
            area: "a1".parse().unwrap(),
            raised_at: at,
            cleared_at: None,
            evidence: serde_json::Map::new(),
        };
        let log = alerts.apply(&[finding("h1"), finding("h2")], &Evaluated::default(), |_| TIME_ZONE, at);
        let id = log[0].alert.as_str().to_owned();
        let (alert, steps) = find(&log, &id[..20]).unwrap();
        assert_eq!((alert.id.as_str(), steps.len()), (id.as_str(), 1));
        assert!(find(&log, "zz").unwrap_err().to_string().contains("hint"));
        assert!(find(&log, "").unwrap_err().to_string().contains("2 alerts"));
    }
}
