//! What others ask of live detection's memory: analysts for recent episodes, an erasure to forget a home.

use std::sync::Arc;

use async_trait::async_trait;
use carebed_contract::id::HomeId;
use carebed_contract::time::Timestamp;
use carebed_queries::episodes::Episode;
use carebed_queries::sql::{Latest, Recent};
use tokio::sync::{mpsc, oneshot};

/// What is asked of the task.
#[derive(Debug)]
pub(super) enum Asked {
    /// Homes whose episodes an analyst asks for, and where to say them.
    Episodes(Vec<HomeId>, oneshot::Sender<(Timestamp, Vec<Episode>)>),
    /// A home some of whose rows are erased, and where to say that they are forgotten.
    Forget(HomeId, oneshot::Sender<()>),
}

/// Questions that wait. An analyst beyond it waits to ask.
pub(super) const ASKED_MAX: usize = 16;

/// Asks the task for what it has in memory.
#[derive(Debug, Clone)]
pub struct InMemory(pub(super) mpsc::Sender<Asked>);

#[async_trait]
impl Recent for InMemory {
    async fn of(&self, homes: Vec<HomeId>) -> Option<(Timestamp, Vec<Episode>)> {
        let (say, said) = oneshot::channel();
        self.0.send(Asked::Episodes(homes, say)).await.ok()?;
        said.await.ok()
    }
}

impl InMemory {
    /// Forgets a home some of whose rows were erased from the lake, and remembers what the lake has left of it. False when
    /// nobody remembers anything any more.
    pub async fn forget(&self, home: HomeId) -> bool {
        let (say, said) = oneshot::channel();
        self.0.send(Asked::Forget(home, say)).await.is_ok() && said.await.is_ok()
    }
}

/// What a running centre remembers of observations beside its lake.
#[derive(Debug, Clone)]
pub struct Memories {
    /// The episodes and what is usual.
    pub live: InMemory,
    /// The last values.
    pub latest: Arc<Latest>,
}

impl Memories {
    /// Forgets a home some of whose rows were erased; what the lake has left of it is remembered anew. False when not all of it
    /// could be forgotten, because detection has ended.
    pub async fn forget(&self, home: HomeId) -> bool {
        self.latest.forget().await;
        self.live.forget(home).await
    }
}
