//! What the gateway tells of itself. Pure.

use std::collections::{BTreeMap, VecDeque};

use carebed_contract::id::HomeId;
use carebed_contract::status::{DeviceStatus, GatewayState, Status};
use carebed_contract::time::{ClockQuality, Timestamp};

use crate::home::HomeFile;

/// Troubles kept; then the oldest goes. The log has all of them.
const TROUBLES_MAX: usize = 20;

/// The slow part of the status: what does not come from the moment it is told.
#[derive(Debug)]
pub struct StatusBoard {
    home: HomeId,
    profiles: BTreeMap<String, String>,
    since: Timestamp,
    troubles: VecDeque<String>,
}

/// The quick part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Now {
    /// Batches not yet receipted.
    pub spool_batches: u64,
    /// Bytes of the spool.
    pub spool_bytes: u64,
    /// How far the clock can be trusted.
    pub clock: ClockQuality,
    /// The devices.
    pub devices: Vec<DeviceStatus>,
}

impl StatusBoard {
    /// For a gateway that came up at `since`.
    #[must_use]
    pub fn new(home: &HomeFile, since: Timestamp) -> Self {
        let profiles = home.boards.iter().map(|board| (board.profile.name.clone(), board.profile.digest.to_string()));
        Self { home: home.home.clone(), profiles: profiles.collect(), since, troubles: VecDeque::new() }
    }

    /// Another home file is in use.
    pub fn serves(&mut self, home: &HomeFile) {
        self.profiles = Self::new(home, self.since).profiles;
    }

    /// Notes what an installer should know. Told with the next status; the same sentence stands there once.
    pub fn trouble(&mut self, what: impl Into<String>) {
        let what = what.into();
        tracing::warn!(trouble = %what);
        self.troubles.retain(|known| *known != what);
        if self.troubles.len() >= TROUBLES_MAX {
            self.troubles.pop_front();
        }
        self.troubles.push_back(what);
    }

    /// The last will: what the broker tells when it loses the gateway.
    #[must_use]
    pub fn lost(&self, since: Timestamp) -> Status {
        let now = Now { spool_batches: 0, spool_bytes: 0, clock: ClockQuality::default(), devices: Vec::new() };
        Status { since, ..self.status(GatewayState::Lost, now) }
    }

    /// The whole status.
    #[must_use]
    pub fn status(&self, state: GatewayState, now: Now) -> Status {
        Status {
            state,
            since: self.since,
            home: self.home.clone(),
            software: concat!("carebed-gateway ", env!("CARGO_PKG_VERSION")).to_owned(),
            profiles: self.profiles.clone(),
            spool_batches: now.spool_batches,
            spool_bytes: now.spool_bytes,
            clock: now.clock,
            devices: now.devices,
            troubles: self.troubles.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_bounded_and_told_once() {
        let home = HomeFile::parse("home.toml", include_str!("../../deploy/gateway/home.toml")).unwrap();
        let mut board = StatusBoard::new(&home, Timestamp::from_millis(1));
        for trouble in (0..TROUBLES_MAX + 3).chain([5, 5]) {
            board.trouble(format!("trouble {trouble}"));
        }
        let status = board.lost(Timestamp::from_millis(2));
        assert_eq!((status.troubles.len(), status.troubles.last().unwrap().as_str()), (TROUBLES_MAX, "trouble 5"));
        assert_eq!((status.state, status.since), (GatewayState::Lost, Timestamp::from_millis(2)));
        assert_eq!(status.profiles.keys().collect::<Vec<_>>(), ["waveshare/modbus-di8"]);
    }
}
