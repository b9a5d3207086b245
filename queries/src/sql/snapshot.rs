//! What one statement sees, and where the newest of it comes from.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use carebed_contract::id::Area;
use carebed_pipeline::view::View;
use datafusion::logical_expr::{Expr, col, lit};
use tokio::sync::Mutex;

use super::made::Made;
use super::{Lake, Latest, Recent, SqlError, facts};
use crate::engine::Inputs;
use crate::home::HomeFacts;

/// One consistent state of everything an analyst reads. Holding it keeps the lake's files from being removed.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) lake: Lake,
    pub(super) view: Arc<View>,
    pub(super) homes: Arc<[HomeFacts]>,
    pub(super) facts: Vec<(&'static str, RecordBatch)>,
    pub(super) latest: Arc<Latest>,
    pub(super) recent: Option<Arc<dyn Recent>>,
}

impl Snapshot {
    /// A view of the lake and the homes' facts, which become the tables `homes`, `beds` and `params`.
    #[must_use]
    pub fn new(lake: &Lake, view: Arc<View>, homes: &[HomeFacts]) -> Self {
        let complete = homes.iter().map(|facts| (facts, view.complete.get(&facts.home).map(|c| c.complete_to)));
        let facts = Inputs::new(&[], complete).into_facts().into_iter().chain(facts::empty()).collect();
        Self { lake: lake.clone(), view, homes: homes.into(), facts, latest: Arc::default(), recent: None }
    }

    /// With last values that were remembered before, for whoever takes many snapshots of one lake.
    #[must_use]
    pub fn with_latest(self, latest: &Arc<Latest>) -> Self {
        Self { latest: Arc::clone(latest), ..self }
    }

    /// With the service centre's tables, which are empty without; see [`facts`].
    #[must_use]
    pub fn with_tables(mut self, tables: impl IntoIterator<Item = (&'static str, RecordBatch)>) -> Self {
        for (name, rows) in tables {
            self.facts.retain(|(known, _)| *known != name);
            self.facts.push((name, rows));
        }
        self
    }

    /// With what live detection has in memory.
    #[must_use]
    pub fn with_recent(self, recent: &Arc<dyn Recent>) -> Self {
        Self { recent: Some(Arc::clone(recent)), ..self }
    }

    pub(super) fn fact(&self, name: &str) -> Option<&RecordBatch> {
        self.facts.iter().find(|(known, _)| *known == name).map(|(_, batch)| batch)
    }
}

/// Where sessions that stay open get the newest state.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// What a statement that begins now is to see. Its tables have the same columns each time.
    ///
    /// # Errors
    /// When the lake or the service centre's tables cannot be read.
    async fn snapshot(&self) -> Result<Snapshot, SqlError>;
}

/// Whose rows a user may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those of the areas whose codes begin so: a district's code begins those of its streets and communities. Rows that belong
    /// to no area are not among them.
    Areas(BTreeSet<Area>),
}

impl Scope {
    pub(super) fn holds(&self, area: &str) -> bool {
        match self {
            Self::All => true,
            Self::Areas(codes) => codes.iter().any(|code| area.starts_with(code.as_str())),
        }
    }

    /// What keeps its rows of a table with a column `area`; none: all are kept. It fails on no row, and statistics answer it.
    pub(super) fn filter(&self) -> Option<Expr> {
        let Self::Areas(codes) = self else { return None };
        let begins_so = |code: &Area| {
            let mut after = code.as_str().to_owned();
            // Codes are ASCII, and none ends with its last character.
            let next = after.pop().and_then(|last| char::from_u32(u32::from(last) + 1));
            after.extend(next);
            col("area").gt_eq(lit(code.as_str())).and(col("area").lt(lit(after)))
        };
        Some(codes.iter().map(begins_so).reduce(Expr::or).unwrap_or_else(|| lit(false)))
    }
}

/// The snapshot that a session's tables read from at this moment. None while no statement runs, so that an idle session keeps no
/// file from being removed, and nothing in memory of whom is erased.
#[derive(Debug, Default)]
pub(super) struct Seen(RwLock<Option<Arc<Held>>>);

/// A snapshot, and what was made of it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) snapshot: Arc<Snapshot>,
    /// The episodes that were asked for last.
    pub(super) episodes: Mutex<Option<Made>>,
}

impl Seen {
    pub(super) fn put(&self, snapshot: Option<Arc<Snapshot>>) {
        let held = snapshot.map(|snapshot| Arc::new(Held { snapshot, episodes: Mutex::default() }));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = held;
    }

    pub(super) fn get(&self) -> Option<Arc<Held>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
