//! How each home's gateway is, as far as the centre has heard.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use carebed_contract::id::HomeId;
use carebed_contract::status::Status;
use carebed_contract::text::Text;
use carebed_contract::time::Timestamp;

use serde::Serialize;

use crate::registry::Registry;

/// A detection that cannot say anything about a home now: none of the devices it rests on answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blind {
    /// Which.
    pub detection: String,
    /// What its alerts are called.
    pub title: Text,
    /// Since when.
    pub since: Timestamp,
}

/// What was heard of one home.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// When its gateway last sent anything that was not retained by the broker.
    pub last_heard: Option<Timestamp>,
    /// Its last status.
    pub status: Option<Status>,
}

/// The board; clones share it. It holds registered homes only, in memory: after a start it is empty until the
/// gateways are heard again, and says so by showing no age.
#[derive(Debug, Clone)]
pub struct Board {
    registry: Registry,
    heard: Arc<Mutex<BTreeMap<HomeId, Heard>>>,
    blind: Arc<Mutex<BTreeMap<HomeId, Vec<Blind>>>>,
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, heard: Arc::default(), blind: Arc::default() }
    }

    /// The gateway sent something just now. False when the home is not registered (nothing is kept then).
    pub fn heard(&self, home: &HomeId, at: Timestamp) -> bool {
        self.change(home, |heard| heard.last_heard = heard.last_heard.max(Some(at)))
    }

    /// A status came, live or retained; a retained one is not a sign of life, so tell [`Self::heard`] apart.
    /// False when the home is not registered (nothing is kept then).
    pub fn status(&self, status: Status) -> bool {
        let home = status.home.clone();
        self.change(&home, |heard| heard.status = Some(status))
    }

    /// What cannot be judged now, in all homes: replaces what was said before.
    pub fn set_blind(&self, blind: BTreeMap<HomeId, Vec<Blind>>) {
        *self.blind.lock().unwrap_or_else(PoisonError::into_inner) = blind;
    }

    /// What cannot be judged now in a home.
    #[must_use]
    pub fn blind(&self, home: &HomeId) -> Vec<Blind> {
        self.blind.lock().unwrap_or_else(PoisonError::into_inner).get(home).cloned().unwrap_or_default()
    }

    /// What was heard of a home.
    #[must_use]
    pub fn of(&self, home: &HomeId) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(home).cloned().unwrap_or_default()
    }

    fn change(&self, home: &HomeId, change: impl FnOnce(&mut Heard)) -> bool {
        let is_registered = self.registry.home(home).is_some();
        if is_registered {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            change(heard.entry(home.clone()).or_default());
        }
        is_registered
    }
}
