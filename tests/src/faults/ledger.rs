//! What the devices showed, and what the table says of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carebed_contract::clock::{Clock, SystemClock};
use carebed_contract::time::Timestamp;
use carebed_simulator::home::SimulatedHome;

use super::{Life, Lives, RECOVERY};
use crate::world::World;

/// How long one life of a gateway must have polled a level until it counts as taken: three times what routine data
/// may wait in this world, and time for a slow sync.
const TAKEN_AFTER: Duration = Duration::from_millis(800);
/// Until the first poll after a move an answer under way may still tell the level before.
const SETTLED_AFTER: Duration = Duration::from_millis(250);

/// One level that a contact took.
#[derive(Debug, Clone)]
pub(super) struct Level {
    on: bool,
    shown: Timestamp,
    /// In which life of the gateway it counted as taken; none while the contact may not move.
    taken: Option<Life>,
}

/// The levels of one contact of one home.
#[derive(Debug)]
pub(super) struct Contact {
    pub(super) home: usize,
    pub(super) gateway: String,
    pub(super) device: String,
    pub(super) levels: Vec<Level>,
}

impl Contact {
    pub(super) fn taken(&self) -> usize {
        self.levels.iter().filter(|level| level.taken.is_some()).count()
    }
}

/// Moves one contact, and remembers what it showed.
pub(super) struct Mover {
    pub(super) contact: Contact,
    pub(super) devices: Arc<SimulatedHome>,
    pub(super) lives: Arc<Lives>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) input: usize,
}

impl Mover {
    pub(super) async fn run(mut self) -> Contact {
        let clock = SystemClock::new();
        let mut on = true;
        while !self.stop.load(Ordering::Relaxed) || self.contact.levels.is_empty() {
            let shown = clock.now();
            self.devices.switch(self.input, on);
            let taken = self.taken().await;
            self.contact.levels.push(Level { on, shown, taken });
            on = !on;
        }
        self.contact
    }

    /// Waits until one life of the gateway has polled the level for long enough.
    async fn taken(&self) -> Option<Life> {
        let patience = tokio::time::Instant::now() + RECOVERY;
        loop {
            let (life, polled) = (self.lives.of(self.contact.home), self.devices.counts().answered);
            tokio::time::sleep(TAKEN_AFTER).await;
            let polls = self.devices.counts().answered - polled;
            // A gateway that was killed, or could not poll for most of the time, has not taken it for sure.
            let same = self.lives.of(self.contact.home);
            if same.number == life.number && polls >= 20 {
                return Some(same);
            }
            if tokio::time::Instant::now() > patience {
                return None;
            }
        }
    }
}

/// Rows of the moved contacts by device, in the order of event time.
pub(super) type Rows = BTreeMap<String, Vec<(Timestamp, bool)>>;

pub(super) async fn rows(world: &World) -> anyhow::Result<Rows> {
    let sql = "SELECT device_id, arrow_cast(event_time, 'Int64'), value FROM observations \
        WHERE (device_id LIKE '%-cord' OR device_id LIKE '%-fridge') AND quality = 'good' ORDER BY event_time";
    let csv = carebed::sql::answer(&world.data(), sql, carebed::cli::Format::Csv).await?;
    let mut rows = Rows::new();
    for line in csv.lines().skip(1) {
        let mut cells = line.split(',');
        let (Some(device), Some(at), Some(value)) = (cells.next(), cells.next(), cells.next()) else { continue };
        let row = (Timestamp::from_millis(at.parse()?), value.starts_with('1'));
        rows.entry(device.to_owned()).or_default().push(row);
    }
    Ok(rows)
}

/// All rows of the moved contacts, for a failed run.
pub(super) async fn told(world: &World) -> anyhow::Result<String> {
    let sql = "SELECT device_id, event_time, value, quality, clock_quality, boot, epoch, lane, seq, received_time \
        FROM observations WHERE (device_id LIKE '%-cord' OR device_id LIKE '%-fridge') ORDER BY device_id, event_time";
    carebed::sql::answer(&world.data(), sql, carebed::cli::Format::Csv).await
}

/// What ledger and table disagree on.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Levels taken, not in the table, and not declared.
    pub(super) lost: Vec<String>,
    /// Levels taken by a gateway whose disk had failed, not in the table, and declared in `gaps`.
    pub(super) declared: usize,
    /// Rows that contradict the contact.
    pub(super) wrong: Vec<String>,
}

/// `gaps`: how many rows of `gaps` each gateway has.
pub(super) fn compare(ledger: &[Contact], rows: &Rows, gaps: &BTreeMap<String, i64>) -> Compared {
    let mut compared = Compared::default();
    for Contact { gateway, device, levels, .. } in ledger {
        let rows = rows.get(device).map_or(&[][..], Vec::as_slice);
        for (index, level) in levels.iter().enumerate() {
            let end = levels.get(index + 1).map_or(Timestamp::MAX, |next| next.shown);
            let during = || rows.iter().filter(|(at, _)| *at >= level.shown && *at < end);
            // A state that was told, and is the same again after a life that saw nothing else, is not told twice: then the
            // row before says it. Whatever was taken in between and is not there is missed at its own level.
            let before = rows.iter().rfind(|(at, _)| *at < level.shown);
            if let Some(life) = level.taken
                && !during().chain(before).any(|(_, on)| *on == level.on)
            {
                if life.disk_failed && gaps.get(gateway).is_some_and(|n| *n > 0) {
                    compared.declared += 1;
                } else {
                    let disk = if life.disk_failed { ", its disk had failed, and no gap says so" } else { "" };
                    let told = format!("{device}: level {} shown at {} has no row{disk}", level.on, level.shown);
                    compared.lost.push(told);
                }
            }
            let settled = level.shown + SETTLED_AFTER;
            if let Some((at, _)) = during().find(|(at, on)| *at > settled && *on != level.on) {
                let told = format!("{device}: a row at {at} says {}, but the contact shows {}", !level.on, level.on);
                compared.wrong.push(told);
            }
        }
    }
    compared
}
