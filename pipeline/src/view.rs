//! What one reader sees: files that are committed and rows that are on their way, exchanged in one swap.
//!
//! A reader holds one [`View`] for as long as it reads. Hot rows become visible when they are accepted and leave in the
//! same swap in which the file that holds them appears, so a reader sees every row once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use tokio::sync::watch;

use crate::hot::Hot;
use crate::store::Part;

/// One Parquet file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// Path below the table's root, as in the table's log.
    pub path: Arc<str>,
    /// Bytes.
    pub size: u64,
    /// Rows; none when the writer did not say.
    pub rows: Option<u64>,
    /// The day its rows' event times fall on, in days since 1970-01-01 UTC (Arrow's Date32); none where the table has no
    /// such partition.
    pub day: Option<i32>,
    /// Lowest and highest event time.
    pub event_time: Option<(Timestamp, Timestamp)>,
    /// Lowest and highest home id.
    pub home: Option<(Arc<str>, Arc<str>)>,
    /// Lowest and highest bed id; rows without a bed are not counted.
    pub bed: Option<(Arc<str>, Arc<str>)>,
    /// Its place in a run sorted as [`crate::schema::SORT_ORDER`] says; none when this program did not write it.
    pub part: Option<Part>,
    /// When it was written, as the log says.
    pub written: Timestamp,
}

/// One table of a view.
#[derive(Debug, Clone, Default)]
pub struct TableView {
    /// Version of the table's log.
    pub version: u64,
    /// Committed files.
    pub files: Arc<[Arc<DataFile>]>,
    /// How often rows were taken out of it, by erasure or retention, since this process opened it. While it stays the same, the
    /// files hold all rows they held before, in whatever files they are now.
    pub taken_out: u64,
    /// Accepted rows whose file is not committed yet.
    pub hot: Arc<[Hot]>,
}

/// How far a home's data is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Complete {
    /// All event times before it have arrived. Silence is judged up to here and no further.
    pub complete_to: Timestamp,
    /// When its gateway was last heard.
    pub received: Timestamp,
}

/// A consistent state of the lake. Cheap to clone; holding one keeps its files from being vacuumed.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Counts the views of this process.
    pub version: u64,
    /// The observations.
    pub observations: TableView,
    /// The declared losses.
    pub gaps: TableView,
    /// The unusable messages.
    pub dead_letters: TableView,
    /// How far each home's data is known. A home that is missing here was never heard.
    pub complete: Arc<BTreeMap<HomeId, Complete>>,
}

/// Makes views. One exists per store; its lock is held for the length of a swap.
#[derive(Debug)]
pub(crate) struct Publisher {
    sender: watch::Sender<Arc<View>>,
    hot: Mutex<OnTheWay>,
}

#[derive(Debug, Default)]
struct OnTheWay {
    /// Rows that the commit under way will turn into files.
    leaving: Vec<Hot>,
    /// Rows accepted since it began.
    pending: Vec<Hot>,
    /// How far homes are known by what is committed.
    complete: Arc<BTreeMap<HomeId, Complete>>,
}

impl Publisher {
    pub(crate) fn new(view: View) -> Self {
        let hot = OnTheWay { complete: Arc::clone(&view.complete), ..OnTheWay::default() };
        Self { sender: watch::Sender::new(Arc::new(view)), hot: Mutex::new(hot) }
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.sender.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.sender.subscribe()
    }

    /// Rows were accepted.
    pub(crate) fn accepted(&self, rows: Hot, complete: &[(HomeId, Complete)]) {
        let mut hot = self.hot();
        hot.add(rows);
        self.swap(&hot, |view| know(&mut view.complete, complete));
    }

    /// A commit begins: what is pending now will leave with it.
    pub(crate) fn leaving(&self) {
        let mut hot = self.hot();
        let pending = std::mem::take(&mut hot.pending);
        hot.leaving.extend(pending);
    }

    /// A commit ended well: its files replace its rows.
    pub(crate) fn committed(&self, complete: &[(HomeId, Complete)], change: impl FnOnce(&mut View)) {
        let mut hot = self.hot();
        hot.leaving.clear();
        know(&mut hot.complete, complete);
        self.swap(&hot, |view| {
            know(&mut view.complete, complete);
            change(view);
        });
    }

    /// Files were replaced; the rows on their way stay as they are.
    pub(crate) fn replaced(&self, change: impl FnOnce(&mut View)) {
        let hot = self.hot();
        self.swap(&hot, change);
    }

    /// Rows were erased: those on their way go at once.
    pub(crate) fn forget(&self, keep: impl Fn(&Hot) -> Hot) {
        let mut hot = self.hot();
        let left = |parts: &[Hot]| parts.iter().map(&keep).filter(|hot| hot.n_rows() > 0).collect();
        (hot.leaving, hot.pending) = (left(&hot.leaving), left(&hot.pending));
        self.swap(&hot, |_| ());
    }

    /// A commit failed: everything accepted goes, since the gateways will send it again.
    pub(crate) fn dropped(&self) {
        let mut hot = self.hot();
        hot.leaving.clear();
        hot.pending.clear();
        self.swap(&hot, |view| view.complete = Arc::clone(&hot.complete));
    }

    fn hot(&self) -> MutexGuard<'_, OnTheWay> {
        // A panic elsewhere cannot leave the two lists half changed.
        self.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn swap(&self, hot: &OnTheWay, change: impl FnOnce(&mut View)) {
        self.sender.send_modify(|current| {
            let mut next = View::clone(current);
            next.version += 1;
            next.observations.hot = hot.leaving.iter().chain(&hot.pending).cloned().collect();
            change(&mut next);
            *current = Arc::new(next);
        });
    }
}

impl OnTheWay {
    /// Adds rows. Each part has more than twice the rows of the next, so there are few, and what readers laid out of the large
    /// ones stays of use.
    fn add(&mut self, rows: Hot) {
        if rows.n_rows() == 0 {
            return;
        }
        let mut last = rows;
        while let Some(before) = self.pending.pop_if(|before| before.n_rows() <= 2 * last.n_rows()) {
            last = before.and(&last);
        }
        self.pending.push(last);
    }
}

/// Knowledge only grows; [`Publisher::dropped`] alone takes it back. When a gateway was heard is what was noted last: the
/// centre's own clock may have been ahead before.
fn know(known: &mut Arc<BTreeMap<HomeId, Complete>>, news: &[(HomeId, Complete)]) {
    if news.is_empty() {
        return;
    }
    let known = Arc::make_mut(known);
    for (home, new) in news {
        let complete = known.entry(home.clone()).or_insert(*new);
        complete.complete_to = complete.complete_to.max(new.complete_to);
        complete.received = new.received;
    }
}
