//! What the devices showed, and what the table says of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
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
/// So often a file is put in place on the gateways' disk before a level counts as taken: as often as a gateway does that
/// while it opens its spool and takes a batch in. Where the disk is busy with others, so it is for the gateway.
const PUT_IN_PLACE: usize = 6;
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
    /// A file of its own on the gateways' disk.
    pub(super) probe: PathBuf,
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
            let probe = self.probe.clone();
            let _slow_or_not = tokio::task::spawn_blocking(move || put_in_place(&probe)).await;
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

fn put_in_place(probe: &Path) -> std::io::Result<()> {
    for _ in 0..PUT_IN_PLACE {
        let staging = probe.with_extension("new");
        let mut file = File::create(&staging)?;
        file.write_all(b"how long does this take")?;
        file.sync_all()?;
        std::fs::rename(&staging, probe)?;
    }
    Ok(())
}

/// Both sides tell whole milliseconds, and carry them on.
const RESOLUTION: Duration = Duration::from_millis(5);
/// How far off the time of a row may be that is marked as not known.
const MARKED_WITHIN: Duration = Duration::from_secs(60);

/// Rows of the moved contacts by device, in the order of event time.
pub(super) type Rows = BTreeMap<String, Told>;

/// The rows of one contact: time and level.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// With a time that counts.
    pub(super) timed: Vec<(Timestamp, bool)>,
    /// With a time that is marked: the life of the box ended before it learnt what time it was.
    pub(super) marked: Vec<(Timestamp, bool)>,
}

pub(super) async fn rows(world: &World) -> anyhow::Result<Rows> {
    let sql = "SELECT device_id, arrow_cast(event_time, 'Int64'), value, quality FROM observations \
        WHERE (device_id LIKE '%-cord' OR device_id LIKE '%-fridge') AND quality IN ('good', 'uncertain:clock') \
        ORDER BY event_time";
    let csv = carebed::sql::answer(&world.data(), sql, carebed::cli::Format::Csv).await?;
    let mut rows = Rows::new();
    for line in csv.lines().skip(1) {
        let mut cells = line.split(',');
        let (Some(device), Some(at), Some(value)) = (cells.next(), cells.next(), cells.next()) else { continue };
        let row = (Timestamp::from_millis(at.parse()?), value.starts_with('1'));
        let told = rows.entry(device.to_owned()).or_default();
        if cells.next() == Some("good") { told.timed.push(row) } else { told.marked.push(row) }
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
    pub(super) declared: Vec<String>,
    /// Rows that contradict the contact.
    pub(super) wrong: Vec<String>,
}

/// `gaps`: when the last loss of each gateway was noted. What was lost before is declared by it; what came later is not.
pub(super) fn compare(ledger: &[Contact], rows: &Rows, gaps: &BTreeMap<String, Timestamp>) -> Compared {
    let mut compared = Compared::default();
    for Contact { gateway, device, levels, .. } in ledger {
        let none = Told::default();
        let Told { timed, marked } = rows.get(device).unwrap_or(&none);
        // Each stands for one level.
        let mut marked = marked.clone();
        for (index, level) in levels.iter().enumerate() {
            let end = levels.get(index + 1).map_or(Timestamp::MAX, |next| next.shown);
            let during = || timed.iter().filter(|(at, _)| *at >= level.shown - RESOLUTION && *at < end - RESOLUTION);
            if let Some(life) = level.taken
                && !during().any(|(_, on)| *on == level.on)
                && !take(&mut marked, level)
            {
                if life.disk_failed && gaps.get(gateway).is_some_and(|noted| *noted >= level.shown) {
                    compared.declared.push(format!(
                        "{device}: level {} shown at {} died with the memory of its gateway, as `gaps` says",
                        level.on, level.shown
                    ));
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

/// Takes the marked row that may be about a level.
fn take(marked: &mut Vec<(Timestamp, bool)>, level: &Level) -> bool {
    let off = |at: Timestamp| at.since(level.shown).max(level.shown.since(at));
    let like = marked.iter().enumerate().filter(|(_, (at, on))| *on == level.on && off(*at) < MARKED_WITHIN);
    let nearest = like.min_by_key(|(_, (at, _))| off(*at)).map(|(index, _)| index);
    nearest.map(|index| marked.remove(index)).is_some()
}
