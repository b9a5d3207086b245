//! For how long each home was observed: what alerts are counted against.

use std::collections::BTreeMap;
use std::path::Path;

use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_queries::episodes::Episode;
use carebed_queries::history::Span;

use crate::cli::Format;
use crate::sql;

/// Days in which each home was observed, and in which none was that had been and would be again.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Observed {
    /// By home.
    pub(super) days: BTreeMap<HomeId, f64>,
    /// Of all homes: gateways that were off, holes of recordings, outages.
    pub(super) left_out: f64,
}

impl Observed {
    /// From the first to the last observation of each home within the span, without the stretches in which nothing was.
    pub(super) async fn within(span: Span, data: &Path, unobserved: &[Episode]) -> anyhow::Result<Self> {
        let statement = format!(
            "SELECT home_id, CAST(arrow_cast(min(event_time), 'Timestamp(Millisecond, Some(\"UTC\"))') AS BIGINT), \
             CAST(arrow_cast(max(event_time), 'Timestamp(Millisecond, Some(\"UTC\"))') AS BIGINT) FROM observations \
             WHERE event_time >= TIMESTAMP '{}' AND event_time < TIMESTAMP '{}' GROUP BY home_id",
            span.from, span.to
        );
        let csv = sql::answer(data, &statement, Format::Csv).await?;
        let heard = csv.lines().skip(1).filter_map(|line| {
            let mut cells = line.split(',');
            let home = HomeId::new(cells.next()?).ok()?;
            let mut time = || Some(Timestamp::from_millis(cells.next()?.parse().ok()?));
            Some((home, Span { from: time()?, to: time()? }))
        });
        Ok(Self::of(heard, unobserved))
    }

    fn of(heard: impl IntoIterator<Item = (HomeId, Span)>, unobserved: &[Episode]) -> Self {
        let mut observed = Self::default();
        for (home, Span { from, to }) in heard {
            let own = unobserved.iter().filter(|episode| episode.home == home);
            let own = own.map(|e| days(e.started_at.max(from), e.ended_at.unwrap_or(to).min(to)));
            let not: f64 = own.sum();
            observed.left_out += not;
            observed.days.insert(home, days(from, to) - not);
        }
        observed
    }

    /// Home-days of all homes together.
    pub(super) fn home_days(&self) -> f64 {
        self.days.values().sum()
    }
}

/// None, when it ends before it begins.
fn days(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64() / 86_400.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_counts_for_no_day_of_its_home() {
        let at = |day: i64| Timestamp::from_millis(day * 86_400_000);
        let hole = |home: &str, from, to| Episode {
            subject: format!("home/{home}").into(),
            home: home.parse().unwrap(),
            bed: None,
            kind: "unobserved".into(),
            room: None,
            device: None,
            started_at: at(from),
            start_known_at: at(from),
            ended_at: Some(at(to)),
            end_known_at: Some(at(to)),
            revision: 0,
            attributes: None,
        };
        let heard = ["h1", "h2"].map(|home| (home.parse().unwrap(), Span { from: at(10), to: at(40) }));
        // One that began before the span, one within, one of another home.
        let observed = Observed::of(heard, &[hole("h1", 5, 12), hole("h1", 20, 23), hole("h3", 1, 99)]);
        assert_eq!(observed.days.values().copied().collect::<Vec<_>>(), [25.0, 30.0]);
        assert_eq!((observed.home_days(), observed.left_out), (55.0, 5.0));
    }
}
