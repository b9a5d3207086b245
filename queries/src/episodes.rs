//! From observations to episodes: intervals during which something was so.
//!
//! A home's observations are taken in event order up to the time for which its data is complete; conclusions from silence
//! (a gap that is over, a wait that has passed) go exactly as far and no further. Calls do not wait for anything: their
//! episodes exist as soon as the press arrives. Whatever the order of arrival, the outcome is that of event order: a recent stretch of
//! observations is kept beside a state from before it, and when one comes late that stretch is played again.

mod definition;
mod machine;
mod seen;
mod stream;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use carebed_contract::id::{BedId, DeviceId, HomeId, Room};
use carebed_contract::inventory::InventoryDevice;
use carebed_contract::observation::Observation;
use carebed_contract::time::Timestamp;

use crate::coverage::Sensor;
pub use definition::{Definitions, DefinitionsError};
pub use table::schema;
pub(crate) use table::{time_type, times};

pub(crate) use seen::{Seen, Watch};
use stream::Stream;

/// An interval during which something was so: a row of the table `episodes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    /// About what: `bed/b1`, `home/h1` or `device/h1/d1`.
    pub subject: Arc<str>,
    /// The home.
    pub home: HomeId,
    /// The bed, where it belongs to one.
    pub bed: Option<BedId>,
    /// `in_bed`, `out_of_bed`, `quiet`, `away`, `door_open`, `call`.
    pub kind: Arc<str>,
    /// The room of the device that began it.
    pub room: Option<Room>,
    /// The device that began it, where it was one.
    pub device: Option<DeviceId>,
    /// When it began.
    pub started_at: Timestamp,
    /// From when on one could know that it had begun; never before `started_at`.
    pub start_known_at: Timestamp,
    /// When it ended, or none while it lasts.
    pub ended_at: Option<Timestamp>,
    /// From when on one could know that it had ended.
    pub end_known_at: Option<Timestamp>,
    /// How often late data has changed this row after it was first there.
    pub revision: u32,
    /// More about it: a JSON object, or none.
    pub attributes: Option<Arc<str>>,
}

/// How much longer than asked ended episodes are kept for the sake of one that lasted longer. A bed that nobody has used for a month
/// keeps no more than that.
pub const KEEP_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What became of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It says nothing about any episode, or may not be used.
    Irrelevant,
    /// Taken in.
    Taken,
    /// Already there.
    Duplicate,
    /// Older than the stretch that can be played again. A press still becomes a call; anything else is left to a rebuild from history.
    TooLate,
}

/// The episodes of many homes, kept current while observations arrive.
#[derive(Debug, Clone)]
pub struct Episodes {
    definitions: Arc<Definitions>,
    homes: BTreeMap<HomeId, Stream>,
}

impl Episodes {
    /// None yet.
    #[must_use]
    pub fn new(definitions: Arc<Definitions>) -> Self {
        Self { definitions, homes: BTreeMap::new() }
    }

    /// What makes the episodes.
    #[must_use]
    pub fn definitions(&self) -> Arc<Definitions> {
        Arc::clone(&self.definitions)
    }

    /// Says how many people live in a home, from now on. One, when nothing was said.
    pub fn set_residents(&mut self, home: &HomeId, residents: u8) {
        self.stream(home).set_residents(residents);
    }

    /// Takes an observation of any home, in any order.
    pub fn push(&mut self, observation: &Observation) -> Pushed {
        match Seen::new(observation, &self.definitions) {
            Some(seen) => self.stream(&observation.home).push(seen),
            None => Pushed::Irrelevant,
        }
    }

    /// Takes one already read. For [`crate::history`], which reads rows and not observations.
    pub(crate) fn push_seen(&mut self, home: &HomeId, seen: Seen) -> Pushed {
        self.stream(home).push(seen)
    }

    /// All observations of a home before `complete_to` have been pushed: silence may be judged up to there. Never goes back.
    pub fn advance(&mut self, home: &HomeId, complete_to: Timestamp) {
        self.stream(home).advance(complete_to);
    }

    /// Like [`Self::advance`], and nothing will come late any more: for [`crate::history`], which reads in order.
    pub(crate) fn seal(&mut self, home: &HomeId, complete_to: Timestamp) {
        self.stream(home).seal(complete_to);
    }

    /// How far a home's data is known; none when nothing was said.
    #[must_use]
    pub fn complete_to(&self, home: &HomeId) -> Option<Timestamp> {
        self.homes.get(home).map(Stream::complete_to).filter(|t| *t > Timestamp::MIN)
    }

    /// The episodes of one home, by kind and start.
    pub fn of(&mut self, home: &HomeId) -> Vec<Episode> {
        self.homes.get_mut(home).map(Stream::episodes).unwrap_or_default()
    }

    /// Whether something lasts in a home that began before then.
    #[must_use]
    pub fn lasts_since(&self, home: &HomeId, before: Timestamp) -> bool {
        self.homes.get(home).is_some_and(|stream| stream.lasts_since(before))
    }

    /// The devices of a home, with what each has given.
    #[must_use]
    pub fn sensors(&self, home: &HomeId) -> &[Sensor] {
        self.homes.get(home).map(Stream::sensors).unwrap_or_default()
    }

    /// Takes the word of a home on what it has since `at`: what was observed and is no longer, by a device that was taken out or moved to
    /// another bed, or because consent was withdrawn, is unknown from then on.
    pub fn set_devices(&mut self, home: &HomeId, devices: &[InventoryDevice], at: Timestamp) {
        let Some(stream) = self.homes.get_mut(home) else { return };
        stream.retain_sensors(at, |sensor| {
            let device = devices.iter().find(|device| device.id == sensor.device).ok_or(false)?;
            let observes = device.bed == sensor.bed && device.quantities.contains(&sensor.quantity);
            if observes { Ok(()) } else { Err(true) }
        });
    }

    /// The homes heard of.
    pub fn homes(&self) -> impl Iterator<Item = &HomeId> {
        self.homes.keys()
    }

    /// All episodes, home by home.
    pub fn all(&mut self) -> Vec<Episode> {
        self.homes.values_mut().flat_map(Stream::episodes).collect()
    }

    /// Drops episodes of a home that had ended, and were known to, before `before`. What lasted longer stays, and so does whatever ended since
    /// it began, back to [`KEEP_MAX`] before `before`: a detection weighs the one against the other.
    pub fn forget(&mut self, home: &HomeId, before: Timestamp) {
        if let Some(stream) = self.homes.get_mut(home) {
            stream.forget(before);
        }
    }

    /// Forgets a home, as if it had never been heard of.
    pub fn remove(&mut self, home: &HomeId) {
        self.homes.remove(home);
    }

    /// Takes what `others` know of a home in the place of what was known of it.
    pub fn adopt(&mut self, home: &HomeId, others: &mut Self) {
        self.homes.remove(home);
        self.homes.extend(others.homes.remove_entry(home));
    }

    /// Episodes as a batch of the table `episodes`.
    #[must_use]
    pub fn table(episodes: &[Episode]) -> RecordBatch {
        table::batch(episodes)
    }

    fn stream(&mut self, home: &HomeId) -> &mut Stream {
        if !self.homes.contains_key(home) {
            self.homes.insert(home.clone(), Stream::new(home.clone(), Arc::clone(&self.definitions)));
        }
        self.homes.get_mut(home).expect("it was just put there")
    }
}
