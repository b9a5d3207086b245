//! Changed files while the gateway runs.

use std::sync::Arc;

use super::Reload;
use super::gateway::Gateway;
use crate::actions::Actions;
use crate::config::Config;
use crate::device::Device;
use crate::gather::Gather;
use crate::home::{Board, HomeFile};
use crate::known::Known;
use crate::signals::Signals;

impl Gateway {
    /// Whether changed files can be gone on with. Who the gateway is, where it sends to and where its spool lies hold for
    /// as long as it runs.
    pub(super) fn accept(&mut self, reload: Reload) -> Option<(Config, HomeFile)> {
        let (config, home) = match reload {
            Reload::Read(read) => *read,
            Reload::Refused(mistakes) => {
                self.trouble(format!("changed files cannot be used, the gateway goes on as before: {mistakes}"));
                return None;
            }
        };
        let identity = |home: &HomeFile| (home.home.clone(), home.gateway.clone(), home.area.clone());
        if identity(&home) != identity(&self.home) {
            self.trouble("the home file names another home, gateway or area: restart the gateway for that".to_owned());
            return None;
        }
        let fixed =
            |config: &Config| (config.broker.clone(), config.spool_directory.clone(), config.spool, config.clock);
        if fixed(&config) != fixed(&self.config) {
            self.trouble("broker, spool and clock of the configuration change with the next start only".to_owned());
        }
        Some((config, home))
    }

    /// Goes on with changed files; links whose boards have changed have ended and everything they said was taken. A device
    /// whose wiring is unchanged keeps its state; of the others, what was told of an input that is still there is remembered,
    /// so that a held button does not call anew.
    pub(super) fn reload(&mut self, config: Config, home: HomeFile, boards: &[Arc<Board>]) {
        let now = self.now();
        let old = std::mem::take(&mut self.devices);
        let device = |board: &Arc<_>| {
            let mut device = Device::new(&home.home, Arc::clone(board), config.heartbeat, now.wall);
            old.iter().for_each(|old| device.adopt(old));
            device
        };
        self.devices = boards.iter().map(device).collect();
        self.known = Known::new(boards.iter().map(|board| board.profile.polls.len()), now.monotonic);
        self.links.start_missing(boards);
        let gathered = std::mem::replace(
            &mut self.gather,
            Gather::new(config.routine_every, config.complete_every, now.monotonic),
        );
        gathered.into_waiting().into_iter().for_each(|observed| self.gather.add(observed, now.monotonic));
        if home.shows() != self.home.shows() {
            self.signals = Signals::new(home.shows());
        }
        if home.actions != self.home.actions {
            self.actions = Actions::new(&home.actions);
        }
        self.status.serves(&home);
        self.config = Config {
            broker: self.config.broker.clone(),
            spool_directory: self.config.spool_directory.clone(),
            spool: self.config.spool,
            clock: self.config.clock,
            ..config
        };
        tracing::info!(version = %home.version, boards = home.boards.len(), "changed files are in use");
        self.counts.keep_only(&home.boards.iter().map(|board| (&board.id, board.link.to_string())).collect());
        self.home = home;
        self.tell_inventory();
        self.tell_status = true;
    }
}
