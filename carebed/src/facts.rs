//! What detections and analysts may know of a home: no names.
//!
//! Where a home needs other numbers than a detection's own, they stand in `params.toml` in the data folder; live
//! detection reads it at start, `sql` and `backtest` each time. `deploy/params.toml` is an example.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use carebed_console::database::Database;
use carebed_console::intervals::Intervals;
use carebed_console::log::Log;
use carebed_console::registry::{Home, Registry};
use carebed_contract::id::HomeId;
use carebed_contract::interval::Interval;
use carebed_contract::time::Timestamp;
use carebed_device_profiles::document::{self, Fields, Mistakes};
use carebed_queries::detection::Source;
use carebed_queries::home::{HomeFacts, Param};
use toml::Spanned;

use crate::alert_times::Times;
use crate::cli::complain;
use crate::config::Config;

/// Homes' own numbers for detections.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Params {
    of_homes: BTreeMap<HomeId, Vec<Param>>,
    /// Where each home is named first.
    places: BTreeMap<HomeId, String>,
}

impl Params {
    /// Reads `params.toml` of a data folder; none when there is no such file. A detection or a number that does not exist is a mistake.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&path.display().to_string(), &text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("failed to read {}", path.display())),
        }
    }

    fn parse(place: &str, text: &str) -> Result<Self, Mistakes> {
        let (detections, _) = Source::builtin();
        document::read(place, text, |f| {
            let mut params = Self::default();
            for entry in f.tables("param") {
                let Some((home, param)) = read(entry, &detections) else { continue };
                let line = text.get(..home.span().start).map_or(0, |before| before.matches('\n').count()) + 1;
                params.places.entry(home.get_ref().clone()).or_insert_with(|| format!("{place}:{line}"));
                params.of_homes.entry(home.into_inner()).or_default().push(param);
            }
            Some(params)
        })
    }

    /// What to tell of homes that nobody knows: they may come later, or the name is a slip of the pen.
    pub fn strangers<'a>(&'a self, known: &'a [HomeId]) -> impl Iterator<Item = String> + 'a {
        let strangers = self.places.iter().filter(|(home, _)| !known.contains(home));
        strangers.map(|(home, place)| {
            let near = document::nearest(home.as_str(), known.iter().map(HomeId::as_str));
            let hint = near.map_or_else(
                || "its numbers count once it is registered".to_owned(),
                |near| format!("did you mean {near:?}?"),
            );
            format!("{place}: home {home} is not registered\nhint: {hint}")
        })
    }

    /// A registered home's facts.
    #[must_use]
    pub fn facts(&self, home: &Home) -> HomeFacts {
        HomeFacts {
            home: home.id.clone(),
            area: home.area.clone(),
            time_zone: home.time_zone,
            residents: home.residents,
            beds: home.beds.iter().map(|bed| bed.id.clone()).collect(),
            params: self.of_homes.get(&home.id).cloned().unwrap_or_default(),
            intervals: Vec::new(),
            alerts: Vec::new(),
            outages: Vec::new(),
        }
    }
}

/// All homes that a data folder knows, also while the centre runs.
pub async fn of_data(config: &Config) -> anyhow::Result<Vec<HomeFacts>> {
    let params = Params::load(&config.params())?;
    if !config.database().exists() {
        return Ok(Vec::new());
    }
    let database = Database::open_read(&config.database()).await?;
    let registry = Registry::load(&database).await.context("failed to read the registry")?;
    params
        .strangers(&registry.homes().iter().map(|home| home.id.clone()).collect::<Vec<_>>())
        .for_each(|line| complain(&line));
    // Whatever the time that is looked back over.
    let since = Timestamp::from_millis(0);
    let intervals = Intervals::load(&database, since).await.context("failed to read absences and visits")?;
    let log = Log::new(database).since(0).await.context("failed to read the alert log")?;
    let mut alerts = Times::of(&log).by_home();
    let facts = registry.homes().into_iter().map(|home| HomeFacts {
        intervals: intervals_of(&intervals, &home.id),
        alerts: alerts.remove(&home.id).unwrap_or_default(),
        ..params.facts(&home)
    });
    Ok(facts.collect())
}

/// One entry: whose number it is, and which.
fn read(mut entry: Fields<'_>, detections: &[Source]) -> Option<(Spanned<HomeId>, Param)> {
    let (home, detection) = (entry.need::<HomeId>("home"), entry.need::<String>("detection"));
    let (key, value) = (entry.need::<String>("key"), entry.need::<f64>("value"));
    let (home, detection, key, value) = (home?, detection?, key?, value?);
    let Some(of) = detections.iter().find(|source| source.name == *detection.get_ref()) else {
        let known = detections.iter().map(|source| source.name.as_str());
        let hint = document::advise(detection.get_ref(), known);
        entry.tell(detection.span(), format!("there is no detection {:?}", detection.get_ref()), hint);
        return None;
    };
    if !of.meaning.params.contains_key(key.get_ref()) {
        let hint = document::advise(key.get_ref(), of.meaning.params.keys().map(String::as_str));
        entry.tell(key.span(), format!("{} has no number {:?}", of.name, key.get_ref()), hint);
        return None;
    }
    if !value.get_ref().is_finite() {
        entry.tell(value.span(), format!("{} is {}", key.get_ref(), value.get_ref()), "give a number");
        return None;
    }
    let param = Param { detection: detection.into_inner(), key: key.into_inner(), value: value.into_inner() };
    Some((home, param))
}

/// What people said of a home.
#[must_use]
pub fn intervals_of(intervals: &Intervals, home: &HomeId) -> Vec<Interval> {
    intervals.of(home).into_iter().map(|entry| entry.interval).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_reads_and_a_wrong_key_is_told_with_its_line() {
        let example = Params::parse("params.toml", include_str!("../../deploy/params.toml")).unwrap();
        assert_eq!(example.of_homes.values().map(Vec::len).sum::<usize>(), 2);
        let wrong = "[[param]]\nhome = \"h1\"\ndetection = \"inactivity_cap\"\nkey = \"hours\"\nvaleu = 8\n\
                     [[param]]\nhome = \"h1\"\ndetection = \"inactivity_kap\"\nkey = \"hours\"\nvalue = 8\n\
                     [[param]]\nhome = \"h1\"\ndetection = \"inactivity_cap\"\nkey = \"hour\"\nvalue = 8\n\
                     [[param]]\nhome = \"h1\"\ndetection = \"hazard\"\nkey = \"hours\"\nvalue = nan\n";
        let told = Params::parse("p.toml", wrong).unwrap_err().to_string();
        for part in [
            "p.toml:1:1: [[param]] lacks value",
            "p.toml:5:1: [[param]] knows no \"valeu\"",
            "did you mean \"value\"?",
            "p.toml:8:13: there is no detection \"inactivity_kap\"",
            "did you mean \"inactivity_cap\"?",
            "p.toml:14:7: inactivity_cap has no number \"hour\"",
            "did you mean \"hours\"?",
            "p.toml:19:7: hazard has no number \"hours\"",
        ] {
            assert!(told.contains(part), "{part} is not told: {told}");
        }
    }

    #[test]
    fn a_home_that_nobody_knows_is_told_with_its_line_and_the_nearest() {
        let text = "[[param]]\nhome = \"h11\"\ndetection = \"inactivity_cap\"\nkey = \"hours\"\nvalue = 8\n";
        let params = Params::parse("p.toml", text).unwrap();
        let told: Vec<String> = params.strangers(&["h1".parse().unwrap()]).collect();
        assert_eq!(told, ["p.toml:2: home h11 is not registered\nhint: did you mean \"h1\"?"]);
        assert!(params.strangers(&["h11".parse().unwrap()]).next().is_none());
    }
}
