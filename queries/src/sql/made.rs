//! `episodes` made from the observations of the lake, where no memory has them. They are made for one statement, once for all the
//! places where it names them, and count as memory that it uses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use super::snapshot::Held;
use crate::engine::{EngineError, Limits};
use crate::episodes::{Definitions, Episodes};
use crate::history::{self, Span};
use crate::home::HomeFacts;

/// How many homes are made at once: only what is being made of so many is not counted yet.
const HOMES_AT_ONCE: usize = 256;
/// How long before the first beginning that is asked for observations are read. What began before that seems to begin there, and
/// is not asked for; three days are longer than anything holds back a beginning.
const LEAD: Duration = Duration::from_secs(3 * 86_400);

/// Whose episodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) homes: &'a [HomeFacts],
    /// All that are in the lake, known or not.
    pub(super) everybody: bool,
    /// Those that began from then on; none: all.
    pub(super) from: Option<Timestamp>,
}

/// What was made last.
#[derive(Debug)]
pub(super) struct Made {
    homes: BTreeSet<HomeId>,
    from: Option<Timestamp>,
    rows: Vec<RecordBatch>,
    _memory: MemoryReservation,
}

/// The episodes that are asked for, and perhaps others that began before.
pub(super) async fn rows(
    held: &Held,
    Asked { homes, everybody, from }: Asked<'_>,
    limits: Limits,
    pool: &Arc<dyn MemoryPool>,
) -> Result<Vec<RecordBatch>> {
    let names: BTreeSet<HomeId> = homes.iter().map(|facts| facts.home.clone()).collect();
    let mut made = held.episodes.lock().await;
    if let Some(known) = &*made
        && known.homes == names
        && known.from <= from
    {
        return Ok(known.rows.clone());
    }
    let external = |error: Box<dyn std::error::Error + Send + Sync>| DataFusionError::External(error);
    let definitions = Definitions::builtin().map_err(|error| external(Box::new(EngineError::from(error))))?;
    let definitions = Arc::new(definitions);
    let span = Span { from: from.map_or(Timestamp::MIN, |from| from - LEAD), to: Timestamp::MAX };
    let memory = MemoryConsumer::new("episodes").register(pool);
    let mut rows = Vec::new();
    // History takes no homes for all homes.
    let all: &[HomeFacts] = &[];
    for homes in homes.chunks(HOMES_AT_ONCE).chain(everybody.then_some(all)) {
        let (lake, view) = (&held.snapshot.lake, &held.snapshot.view);
        let found = history::episodes(lake, view, span, homes, Arc::clone(&definitions), limits).await;
        let table = Episodes::table(&found.map_err(|error| external(Box::new(error)))?.all());
        memory.try_grow(table.get_array_memory_size())?;
        rows.push(table);
    }
    *made = Some(Made { homes: names, from, rows: rows.clone(), _memory: memory });
    Ok(rows)
}
