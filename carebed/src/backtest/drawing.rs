//! One home's night, from local noon to noon, as a drawing: a lane for each kind of episode, a line for each finding.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use carebed_contract::finding::Finding;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_queries::episodes::Episode;
use carebed_queries::history::Span;
use carebed_queries::home::HomeFacts;
use chrono::{NaiveDate, TimeZone as _};

const LEFT: f64 = 130.0;
const WIDTH: f64 = 960.0;
const LANE: f64 = 22.0;
const TOP: f64 = 30.0;

/// Which home's night is drawn: `h1/2026-03-01`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Night {
    /// The home.
    pub home: HomeId,
    day: NaiveDate,
}

impl std::str::FromStr for Night {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a home and the day on which the night begins, as in h1/2026-03-01");
        let (home, day) = text.rsplit_once('/').ok_or_else(wrong)?;
        let home = home.parse().map_err(|_| wrong())?;
        Ok(Self { home, day: day.parse().map_err(|_| wrong())? })
    }
}

impl Night {
    /// From noon to noon by the home's clock.
    pub fn span(&self, homes: &[HomeFacts]) -> anyhow::Result<Span> {
        let Some(facts) = homes.iter().find(|facts| facts.home == self.home) else {
            bail!("no home is called {}", self.home);
        };
        let noon = |day: NaiveDate| {
            let wall = day.and_hms_opt(12, 0, 0).context("a day beyond the calendar")?;
            let at = facts.time_zone.from_local_datetime(&wall).earliest().context("no noon on that day")?;
            anyhow::Ok(Timestamp::from_millis(at.timestamp_millis()))
        };
        Ok(Span { from: noon(self.day)?, to: noon(self.day.succ_opt().context("a day beyond the calendar")?)? })
    }
}

/// The drawing.
#[must_use]
pub(super) fn svg(span: Span, episodes: &[Episode], findings: &[Finding]) -> String {
    let hours = span.to.since(span.from).as_secs_f64() / 3_600.0;
    let x = |at: Timestamp| LEFT + (at.since(span.from).as_secs_f64() / 3_600.0 / hours).min(1.0) * WIDTH;
    let lane = |e: &Episode| match &e.room {
        Some(room) if &*e.kind == "room_stay" => format!("{} {room}", e.kind),
        _ => e.kind.to_string(),
    };
    let within = |e: &&Episode| e.started_at < span.to && e.ended_at.is_none_or(|end| end > span.from);
    let episodes: Vec<&Episode> = episodes.iter().filter(within).collect();
    let lanes: Vec<String> = episodes.iter().map(|e| lane(e)).collect::<BTreeSet<_>>().into_iter().collect();
    #[expect(clippy::cast_precision_loss, reason = "a few dozen lanes")]
    let y = |place: usize| TOP + LANE * place as f64;
    let bottom = y(lanes.len());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 20.0,
        bottom + 30.0
    );
    for hour in (0..=24_u32).step_by(2) {
        let at = LEFT + f64::from(hour) / hours * WIDTH;
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {TOP}V{bottom:.1}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            TOP - 10.0,
            (12 + hour) % 24
        );
    }
    for (place, name) in lanes.iter().enumerate() {
        let _ = writeln!(out, "<text x=\"8\" y=\"{:.1}\">{name}</text>", y(place) + 15.0);
        for e in episodes.iter().filter(|e| lane(e) == *name) {
            let (from, to) = (x(e.started_at.max(span.from)), x(e.ended_at.unwrap_or(span.to)));
            let _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" fill=\"#58a\"><title>{} – {}</title></rect>",
                y(place) + 4.0,
                (to - from).max(1.0),
                e.started_at,
                e.ended_at.map_or_else(String::new, |t| t.to_string())
            );
        }
    }
    for f in findings.iter().filter(|f| f.raised_at >= span.from && f.raised_at < span.to) {
        let at = x(f.raised_at);
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {TOP}V{bottom:.1}\" stroke=\"#c22\" stroke-width=\"2\"/><text x=\"{at:.1}\" y=\"{:.1}\" fill=\"#c22\">{} {}</text>",
            bottom + 14.0,
            f.detection,
            f.raised_at
        );
    }
    out.push_str("</svg>\n");
    out
}
