//! What `queries/episodes/*.toml` say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carebed_contract::quantity::Quantity;
use include_dir::{Dir, include_dir};
use serde::Deserialize;

use crate::span;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/episodes");

/// Why a folder of episode definitions cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionsError {
    /// A file does not read.
    #[error("episodes/{file} does not read as an episode definition")]
    Read {
        /// The file.
        file: String,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A file names an episode that no other file defines, or one that is not of the shape `while`.
    #[error("episodes/{file} rests on {of:?}, and no file defines that as an episode of the shape \"while\"")]
    Unknown {
        /// The file.
        file: String,
        /// What it names.
        of: String,
    },
}

/// All kinds of episodes.
#[derive(Debug)]
pub struct Definitions {
    /// Wait for complete data.
    pub(super) steady: Rules,
    /// Do not.
    pub(super) immediate: Rules,
    both_edges: BTreeSet<Quantity>,
    pub(super) restless: Option<Restless>,
}

/// Definitions by shape.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) whiles: Vec<While>,
    pub(super) exits: Vec<Exit>,
    pub(super) silences: Vec<Silence>,
    pub(super) absences: Vec<Absence>,
    pub(super) stays: Vec<Stay>,
    pub(super) missings: Vec<Missing>,
    pub(super) unanswered: Vec<Unanswered>,
    pub(super) unobserved: Vec<Unobserved>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "shape", rename_all = "lowercase")]
enum Shape {
    While(While),
    Exit(Exit),
    Silence(Silence),
    Absence(Absence),
    Stay(Stay),
    Missing(Missing),
    Unanswered {},
    Unobserved(Unobserved),
}

/// What an episode is tracked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Key {
    Home,
    Bed,
    Device,
}

/// Whom it is about, where that is not what it is tracked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum About {
    /// The bed where there is one, else the home.
    Person,
}

/// While a value satisfies a predicate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct While {
    #[serde(skip)]
    pub(super) kind: Arc<str>,
    pub(super) key: Key,
    pub(super) subject: Option<About>,
    #[serde(default)]
    pub(super) states: Vec<Quantity>,
    /// Each is an episode of no length.
    #[serde(default)]
    pub(super) events: Vec<Quantity>,
    pub(super) above: Option<f64>,
    pub(super) below: Option<f64>,
    /// It must last this long to count; known then.
    #[serde(default, deserialize_with = "span::deserialize")]
    pub(super) hold: Duration,
    /// Interruptions shorter than this do not end it; its end is known after this.
    #[serde(default, deserialize_with = "span::deserialize")]
    pub(super) gap: Duration,
    /// The predicate looks at the median of the values of so long, so that one odd value is not believed.
    #[serde(default, deserialize_with = "span::deserialize")]
    pub(super) smooth: Duration,
    /// The predicate looks at how much the value has grown over so long: for a meter's reading. It does not hold before readings reach
    /// back so far.
    #[serde(default, deserialize_with = "span::deserialize")]
    pub(super) over: Duration,
    /// The predicate looks at for how many minutes the device has said the same value, above nothing, again and again.
    #[serde(default)]
    pub(super) unchanged: bool,
    /// The mean of these measures of the bed while it lasts, how many values made it and how far they lay apart (standard deviation)
    /// become attributes of the ended episode: `{"heart_rate":61.2,"heart_rate_n":412,"heart_rate_sd":3.4}`.
    #[serde(default)]
    pub(super) means: Vec<Quantity>,
    /// A value older than this says nothing any more: the episode ends with its last value. For measures, which unlike states are
    /// not told again by a gateway that knows nothing new. Such an episode counts when a value after `hold` confirms it.
    #[serde(default, deserialize_with = "span::deserialize")]
    pub(super) stale: Duration,
    #[serde(default)]
    pub(super) immediate: bool,
    /// Only for those who learn baselines.
    #[serde(default)]
    learning: bool,
}

impl While {
    pub(super) fn holds(&self, value: f64) -> bool {
        self.above.is_none_or(|limit| value > limit) && self.below.is_none_or(|limit| value < limit)
    }
}

/// After somebody who had settled in an episode of another kind left it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exit {
    #[serde(skip)]
    pub(super) kind: Arc<str>,
    pub(super) of: String,
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) settled: Duration,
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) resume: Duration,
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) confirm_before: Duration,
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) confirm_after: Duration,
    /// Unconfirmed exits that began so long before are counted.
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) drop_outs_of: Duration,
}

/// Between two activities of a home.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Silence {
    #[serde(skip)]
    pub(super) kind: Arc<str>,
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) hold: Duration,
    /// Only for those who learn baselines.
    #[serde(default)]
    learning: bool,
}

/// After an outer door moved and nobody stirred inside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Absence {
    #[serde(skip)]
    pub(super) kind: Arc<str>,
    pub(super) bed: String,
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) wait: Duration,
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) expires: Duration,
    pub(super) residents_max: u8,
    /// A press of one of these says at once that the home will be empty, whoever lives there.
    #[serde(default)]
    pub(super) buttons: Vec<Quantity>,
    /// What stirs within this time of such a press is the one who is leaving.
    #[serde(default, deserialize_with = "span::deserialize")]
    pub(super) grace: Duration,
}

/// From the first activity in a room to the next elsewhere.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stay {
    #[serde(skip)]
    pub(super) kind: Arc<str>,
    pub(super) residents_max: u8,
}

/// While something holds of a bed and a quantity that the bed has given before does not come.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Missing {
    #[serde(skip)]
    pub(super) kind: Arc<str>,
    pub(super) of: String,
    pub(super) quantities: Vec<Quantity>,
    /// Only values above this count as given.
    pub(super) above: Option<f64>,
    /// What shows as well that all is well with a bed that has given one of them, above this. It alone is never missed.
    #[serde(default)]
    pub(super) signs: Vec<Quantity>,
    #[serde(default)]
    pub(super) signs_above: f64,
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) after: Duration,
    /// Of a bed that gives it often it is missed sooner: after twice the longest wait between its last values, and after this at the soonest.
    #[serde(default, deserialize_with = "span::deserialize")]
    pub(super) soonest: Duration,
}

/// From a device's first missing answer to its next value.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) kind: Arc<str>,
}

/// A gateway that was off saw nothing: from the last observation of one boot to the first of the next.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unobserved {
    #[serde(skip)]
    pub(super) kind: Arc<str>,
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) longer_than: Duration,
}

/// A body that moves about, and what it spoils.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Restless {
    pub(super) movement: Quantity,
    /// More than this is moving about.
    pub(super) above: f64,
    /// For so long after it what is spoiled is no value.
    #[serde(deserialize_with = "span::deserialize")]
    pub(super) lasts: Duration,
    pub(super) spoils: Vec<Quantity>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActivityFile {
    both_edges: BTreeSet<Quantity>,
}

impl Definitions {
    /// Those compiled in, without what only baselines are learnt from.
    ///
    /// # Errors
    /// When one of the files is wrong; a test holds that none is.
    pub fn builtin() -> Result<Self, DefinitionsError> {
        let mut definitions = Self::learning()?;
        definitions.steady.silences.retain(|silence| !silence.learning);
        definitions.steady.whiles.retain(|rule| !rule.learning);
        Ok(definitions)
    }

    /// Those compiled in, with what only baselines are learnt from.
    ///
    /// # Errors
    /// When one of the files is wrong; a test holds that none is.
    pub fn learning() -> Result<Self, DefinitionsError> {
        Self::read(FILES.files().filter_map(|file| Some((file.path().to_str()?, file.contents_utf8()?))))
    }

    /// Reads files given as (name, content).
    ///
    /// # Errors
    /// The first mistake found, with its file.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, DefinitionsError> {
        let mut definitions =
            Self { steady: Rules::default(), immediate: Rules::default(), both_edges: BTreeSet::new(), restless: None };
        let mut rests_on = Vec::new();
        for (file, content) in files {
            let wrong = |source| DefinitionsError::Read { file: file.to_owned(), source: Box::new(source) };
            let kind = file.strip_suffix(".toml").unwrap_or(file);
            if kind == "activity" {
                definitions.both_edges = toml::from_str::<ActivityFile>(content).map_err(wrong)?.both_edges;
                continue;
            }
            if kind == "restless" {
                definitions.restless = Some(toml::from_str(content).map_err(wrong)?);
                continue;
            }
            let kind: Arc<str> = Arc::from(kind);
            let rules = &mut definitions.steady;
            match toml::from_str(content).map_err(wrong)? {
                Shape::While(rule) => {
                    let rules = if rule.immediate { &mut definitions.immediate } else { rules };
                    rules.whiles.push(While { kind, ..rule });
                }
                Shape::Exit(rule) => {
                    rests_on.push((file.to_owned(), rule.of.clone()));
                    rules.exits.push(Exit { kind, ..rule });
                }
                Shape::Silence(rule) => rules.silences.push(Silence { kind, ..rule }),
                Shape::Absence(rule) => {
                    rests_on.push((file.to_owned(), rule.bed.clone()));
                    rules.absences.push(Absence { kind, ..rule });
                }
                Shape::Stay(rule) => rules.stays.push(Stay { kind, ..rule }),
                Shape::Missing(rule) => {
                    rests_on.push((file.to_owned(), rule.of.clone()));
                    rules.missings.push(Missing { kind, ..rule });
                }
                Shape::Unanswered {} => rules.unanswered.push(Unanswered { kind }),
                Shape::Unobserved(rule) => rules.unobserved.push(Unobserved { kind, ..rule }),
            }
        }
        for (file, of) in rests_on {
            if !definitions.steady.whiles.iter().any(|rule| *rule.kind == *of) {
                return Err(DefinitionsError::Unknown { file, of });
            }
        }
        Ok(definitions)
    }

    /// Whether both edges of this state count as activity.
    pub(super) fn both_edges(&self, quantity: &Quantity) -> bool {
        self.both_edges.contains(quantity)
    }

    /// Whether some episode is made from this quantity.
    pub(crate) fn uses(&self, quantity: &Quantity) -> bool {
        let named = |rules: &Rules| {
            rules
                .whiles
                .iter()
                .any(|w| w.states.contains(quantity) || w.events.contains(quantity) || w.means.contains(quantity))
                || rules.missings.iter().any(|m| m.quantities.contains(quantity) || m.signs.contains(quantity))
                || rules.absences.iter().any(|a| a.buttons.contains(quantity))
        };
        quantity.definition().is_some_and(|d| d.activity.is_some())
            || self.restless.as_ref().is_some_and(|restless| restless.movement == *quantity)
            || named(&self.steady)
            || named(&self.immediate)
    }

    /// Whether an episode that waits for nothing is made from this quantity.
    pub(crate) fn is_immediate(&self, quantity: &Quantity) -> bool {
        self.immediate.whiles.iter().any(|w| w.states.contains(quantity) || w.events.contains(quantity))
    }

    /// States from which an episode is made that waits for nothing.
    pub(crate) fn immediate_states(&self) -> impl Iterator<Item = &Quantity> {
        self.immediate.whiles.iter().flat_map(|rule| &rule.states)
    }

    /// All quantities some episode is made from.
    pub(crate) fn quantities(&self) -> impl Iterator<Item = Quantity> {
        carebed_contract::quantity::vocabulary().keys().filter_map(|name| Quantity::new(name)).filter(|q| self.uses(q))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_definitions_read() {
        let definitions = Definitions::builtin().unwrap();
        let kinds = |rules: &Rules| rules.whiles.iter().map(|w| w.kind.to_string()).collect::<Vec<_>>();
        assert_eq!(kinds(&definitions.immediate), ["call", "fall_reported", "gas", "smoke", "water_leak"]);
        let steady = kinds(&definitions.steady);
        assert!(["door_open", "in_bed", "heart_rate_high"].iter().all(|k| steady.iter().any(|s| s == k)), "{steady:?}");
        for name in ["bed_occupancy", "call_event", "door_event", "motion"] {
            assert!(definitions.uses(&Quantity::new(name).unwrap()), "{name}");
        }
        assert!(!definitions.uses(&Quantity::new("humidity").unwrap()));
    }

    #[test]
    fn mistakes_name_their_file() {
        let error = Definitions::read([("x.toml", "shape = 'while'\nkey = 'bad'")]).unwrap_err();
        assert!(error.to_string().contains("x.toml"), "{error}");
        let exit = "shape='exit'\nof='lying'\nsettled='1m'\nresume='1m'\nconfirm_before='1m'\nconfirm_after='1m'\ndrop_outs_of='1h'";
        let error = Definitions::read([("y.toml", exit)]).unwrap_err();
        assert!(error.to_string().contains("\"lying\""), "{error}");
    }
}
