//! The lake: three Delta tables and the watermarks, and the one commit that makes rows and watermark good together.
//!
//! A commit writes, each synced before the next: gaps and dead letters under keys that are never written twice; one sorted
//! Parquet file per day of event time; the watermark file `n`; and last the log entry of `observations`, which names the
//! files and carries `txn{ingest/<shard>, n}`. Only that entry makes rows or watermark count, so they count together. What a
//! crash leaves of an unfinished commit is never looked at again.
//!
//! What survives: after `commit` returned, everything in it, whatever happens. Before, all of it or none.

mod disk;
mod erasure;
mod lock;
mod merge;
mod parquet;
mod place;
mod plan;
mod run;
mod search;
mod strip;
mod synced;
mod table;
mod upkeep;
mod watermark;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use ::parquet::errors::ParquetError;
use arrow::error::ArrowError;
use carebed_contract::id::{GatewayId, HomeId};
use carebed_contract::time::Timestamp;
use futures::StreamExt as _;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use tokio::sync::{Mutex, MutexGuard, watch};
use url::Url;

use crate::accept::{Changes, Marks};
use crate::dead_letter::DeadLetter;
use crate::gap::Gap;
use crate::hot::Hot;
use crate::memory::Rows;
use crate::schema;
use crate::view::{Complete, Publisher, View};

use disk::{Disk, OsDisk};
use lock::WriterLock;
use place::Place;
use table::{Access, Design, Table};
use writer::{Keyed, Writer};

pub use erasure::{Erasure, ErasureError, Erasures};
pub use lock::LockError;
pub use run::Part;
pub use table::TableError;
pub use upkeep::{Compacted, Erased, Retention, Unreadable, UpkeepConfig, Vacuumed, keep_up};
pub use watermark::WatermarkError;

/// Where the lake is and which part of it this process writes.
#[derive(Debug, Clone)]
pub struct Config {
    /// The lake's place, ending in `/`: `file:///…/`, or `s3://bucket/…/` with the credentials in the `AWS_…` variables.
    pub lake: Url,
    /// The ingest shard this process is: its lock, its watermarks and its name in the table's log.
    pub shard: String,
    /// For an object store, what the `AWS_…` variables do not say, by their names: `aws_endpoint`, `aws_region`, …
    pub options: BTreeMap<String, String>,
    /// A note outside of the lake which says that it was begun. Where the lake is empty then, its disk is not there, and it is not
    /// begun anew.
    pub begun: Option<PathBuf>,
}

impl Config {
    /// A lake in a local directory, written by one process.
    pub fn local(directory: &FsPath) -> Result<Self, StoreError> {
        let wrong = || StoreError::Place { place: directory.display().to_string() };
        let absolute = std::path::absolute(directory).map_err(|_| wrong())?;
        Ok(Self::at(Url::from_directory_path(absolute).map_err(|()| wrong())?))
    }

    /// A lake at a URL, written by one process.
    #[must_use]
    pub fn at(lake: Url) -> Self {
        Self { lake, shard: "0".to_owned(), options: BTreeMap::new(), begun: None }
    }
}

/// Why the lake could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not a place for a lake.
    #[error("{place} cannot hold a lake: give a directory, or a URL such as s3://bucket/lake/")]
    Place {
        /// What was given.
        place: String,
    },
    /// Another process writes.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The watermark.
    #[error(transparent)]
    Watermark(#[from] WatermarkError),
    /// The object store could not be reached for.
    #[error("failed to use {place} as an object store")]
    ObjectStore {
        /// Where.
        place: String,
        /// What it said.
        #[source]
        source: object_store::Error,
    },
    /// The tombstones.
    #[error(transparent)]
    Erasures(#[from] ErasureError),
    /// Files that cannot be read or written again.
    #[error("failed to write rows of the table again")]
    Rewrite(#[from] ParquetError),
    /// Rows that cannot stand in Arrow columns.
    #[error("failed to lay out rows")]
    Rows(#[from] ArrowError),
    /// The watermarks of a table that is not there.
    #[error(
        "the lake {lake} has lost its table observations, its watermarks are there: mount its disk or restore it from a backup, or move all of it away to begin anew"
    )]
    Lost {
        /// Where the lake is.
        lake: String,
    },
    /// Nothing where a lake was.
    #[error(
        "the lake {lake} is empty, but it was begun: mount its disk or restore it from a backup; to begin anew, remove {}", .note.display()
    )]
    Empty {
        /// Where the lake is.
        lake: String,
        /// What says that it was begun.
        note: PathBuf,
    },
    /// An earlier commit left doubt. What the lake holds is read anew now.
    #[error("nothing is committed before it is known what the lake holds; gateways send it again")]
    InDoubt,
    /// The task that committed is gone.
    #[error("a commit was stopped half way: restart carebed, nothing of it was receipted")]
    Stopped,
    /// Opened by [`Store::open_read`].
    #[error("the lake was opened for reading only")]
    ReadOnly,
}

impl StoreError {
    /// Whether the lake may hold a commit all the same, or what others committed: what is accepted must go back to what
    /// [`Store::marks`] says.
    #[must_use]
    pub fn leaves_doubt(&self) -> bool {
        use TableError::{Behind, Damaged, Doubtful, Gone, Overtaken};
        let doubtful = |e: &TableError| {
            matches!(e, Doubtful { .. } | Behind { .. } | Gone { .. } | Overtaken { .. } | Damaged { .. })
        };
        match self {
            Self::InDoubt => true,
            Self::Table(error) => doubtful(error),
            _ => false,
        }
    }
}

/// What one commit makes good.
#[derive(Debug, Default, Clone)]
pub struct Commit {
    /// The observations of the accepted batches.
    pub rows: Vec<Rows>,
    /// Declared losses; those written before are passed over.
    pub gaps: Vec<Gap>,
    /// Unusable messages; those written before are passed over.
    pub dead_letters: Vec<DeadLetter>,
    /// How far their gateways are accepted.
    pub marks: Changes,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The watermark's number.
    pub watermark: u64,
    /// The version of the table `observations`.
    pub version: u64,
    /// Rows added to it.
    pub rows: usize,
    /// Files added to it.
    pub files: usize,
}

/// An open lake. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    opening: Opening,
    publisher: Publisher,
    writer: Option<Mutex<Writer>>,
    /// Read while rows are shown, so that none is shown after its erasure.
    erasures: RwLock<Arc<Erasures>>,
    /// Read while files are written that no log names yet; vacuum waits until there are none.
    rewriting: tokio::sync::RwLock<()>,
    /// What cannot be read.
    spoiled: upkeep::Spoiled,
    _lock: Option<WriterLock>,
}

/// Where the lake is, and how it is opened: at the start, and again when a commit left doubt.
#[derive(Debug)]
struct Opening {
    lake: Url,
    /// From the root of the storage.
    root: Arc<dyn ObjectStore>,
    access: Access,
    shard: String,
    begun: Option<PathBuf>,
    /// Rooted at the lake.
    store: Arc<dyn ObjectStore>,
}

/// The tables as they were opened, and what their log says is committed.
#[derive(Debug)]
struct Tables {
    observations: Table,
    gaps: Table,
    dead_letters: Table,
    watermark: u64,
    marks: BTreeMap<GatewayId, Marks>,
}

impl Tables {
    fn view(&self) -> View {
        view_of(&self.marks, [&self.observations, &self.gaps, &self.dead_letters])
    }
}

fn view_of(marks: &BTreeMap<GatewayId, Marks>, [observations, gaps, dead_letters]: [&Table; 3]) -> View {
    View {
        version: 0,
        observations: observations.view(),
        gaps: gaps.view(),
        dead_letters: dead_letters.view(),
        complete: Arc::new(marks.values().flat_map(Marks::complete).collect()),
    }
}

impl Opening {
    fn app_id(&self) -> String {
        format!("ingest/{}", self.shard)
    }

    /// `known`: the version of each table that this process knew already.
    async fn tables(&self, known: [Option<u64>; 3]) -> Result<Tables, StoreError> {
        let (access, app_id) = (&self.access, self.app_id());
        let table = async |name, schema, partition, known| {
            let design = Design { name, schema, partition };
            Table::open(&self.root, access.clone(), &self.lake, design, &app_id, known).await
        };
        let [observations, gaps, dead_letters] = known;
        let day = Some(schema::EVENT_DAY);
        let observations = table("observations", schema::observations(), day, observations).await?;
        let gaps = table("gaps", schema::gaps(), None, gaps).await?;
        let dead_letters = table("dead_letters", schema::dead_letters(), None, dead_letters).await?;
        let watermark = observations.transaction(&app_id);
        let marks = watermark::load(self.store.as_ref(), &self.shard, watermark).await?;
        Ok(Tables { observations, gaps, dead_letters, watermark, marks })
    }

    /// Fails where a lake was whose table is gone: made anew it would be empty, and nobody would be told.
    async fn check_whole(&self) -> Result<(), StoreError> {
        let log = Path::from("observations/_delta_log");
        let first = self.store.list(Some(&log)).next().await.transpose();
        let first = first.map_err(|source| TableError::Data { path: log.to_string(), source })?;
        if first.is_some() {
            return Ok(());
        }
        let lake = self.lake.to_string();
        if watermark::last_tried(self.store.as_ref(), &self.shard).await? > 0 {
            return Err(StoreError::Lost { lake });
        }
        self.begun.clone().map_or(Ok(()), |note| Err(StoreError::Empty { lake, note }))
    }

    /// `earlier`: the writer of this process until now.
    async fn writer(&self, earlier: Option<&Writer>) -> Result<Writer, StoreError> {
        if earlier.is_none() {
            self.check_whole().await?;
        }
        let known = earlier.map_or([None; 3], |writer| writer.versions().map(Some));
        let Tables { observations, gaps, dead_letters, watermark, marks } = self.tables(known).await?;
        Ok(Writer {
            store: Arc::clone(&self.store),
            shard: self.shard.clone(),
            app_id: self.app_id(),
            watermark,
            tried: watermark.max(watermark::last_tried(self.store.as_ref(), &self.shard).await?),
            in_doubt: false,
            marks,
            observations,
            gaps: Keyed::load(gaps).await?,
            dead_letters: Keyed::load(dead_letters).await?,
        })
    }
}

impl Store {
    /// Opens the lake for writing; creates it where there is none. Fails when another process writes the same shard.
    pub async fn open(config: Config) -> Result<Self, StoreError> {
        Self::open_on(config, Arc::new(OsDisk)).await
    }

    async fn open_on(config: Config, disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        let place = Place::write(&config, disk)?;
        Self::open_with(config, place).await
    }

    /// Opens the lake as it is now, without a lock and without changing anything. Its view stays as it is.
    pub async fn open_read(config: Config) -> Result<Self, StoreError> {
        let place = Place::read(&config, Arc::new(OsDisk))?;
        Self::open_with(config, place).await
    }

    async fn open_with(config: Config, place: Place) -> Result<Self, StoreError> {
        let Place { root, access, lock } = place;
        let Config { lake, shard, begun, .. } = config;
        let place = |_| StoreError::Place { place: lake.to_string() };
        let prefix = Path::from_url_path(lake.path()).map_err(place)?;
        let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&root), prefix));
        let writes = matches!(access, Access::Write(_));
        let opening = Opening { root, access, lake, shard, begun, store };

        let (view, writer) = if writes {
            let writer = opening.writer(None).await?;
            (writer.view(), Some(Mutex::new(writer)))
        } else {
            (opening.tables([None; 3]).await?.view(), None)
        };
        let erasures = Erasures::load(opening.store.as_ref()).await?;
        let inner = Inner {
            opening,
            publisher: Publisher::new(view),
            writer,
            erasures: RwLock::new(Arc::new(erasures)),
            rewriting: tokio::sync::RwLock::default(),
            spoiled: upkeep::Spoiled::default(),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What a reader sees now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.inner.publisher.view()
    }

    /// Tells of each new view. A slow receiver misses views in between, never the last.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<Arc<View>> {
        self.inner.publisher.subscribe()
    }

    /// Where the lake is. Each table is a directory below it; [`crate::view::DataFile::path`] is below the table's.
    #[must_use]
    pub fn lake(&self) -> &Url {
        &self.inner.opening.lake
    }

    /// Reads the lake's files; its root is the root of the storage, as the paths of URLs count.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.inner.opening.root)
    }

    /// How far every gateway is committed: what [`crate::accept::Accept::resume`] continues from.
    pub async fn marks(&self) -> Result<BTreeMap<GatewayId, Marks>, StoreError> {
        Ok(self.writer()?.lock().await.marks.clone())
    }

    /// Whose rows are erased: they must not be passed on either.
    #[must_use]
    pub fn erasures(&self) -> Arc<Erasures> {
        Arc::clone(&self.inner.erasures.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows accepted rows to readers, and how far their homes are known now, before they are committed.
    pub(crate) fn show(&self, rows: &[Rows], complete: &[(HomeId, Complete)]) {
        let erasures = self.inner.erasures.read().unwrap_or_else(PoisonError::into_inner);
        let hot = Hot::new(rows.iter().map(|rows| erasures.left_of(rows.streaks())).collect());
        self.inner.publisher.accepted(hot, complete);
    }

    /// What is shown now is what the next [`Store::commit`] commits.
    pub(crate) fn begin(&self) {
        self.inner.publisher.leaving();
    }

    /// Takes back everything that is shown and not committed.
    pub(crate) fn take_back(&self) {
        self.inner.publisher.dropped();
    }

    /// Makes a commit good, on stable storage, and shows its files in place of the rows shown before. On an error it is not
    /// in the lake, except when the error [leaves doubt](StoreError::leaves_doubt): then what the lake holds was read anew as
    /// soon as the disk let it, and [`Store::marks`] says what is committed.
    pub async fn commit(&self, commit: &Commit, now: Timestamp) -> Result<Committed, StoreError> {
        let mut writer = self.writer()?.lock().await;
        let committed =
            if writer.in_doubt { Err(StoreError::InDoubt) } else { writer.commit(commit, &self.erasures(), now).await };
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => {
                writer.in_doubt |= error.leaves_doubt();
                if writer.in_doubt {
                    self.open_again(&mut writer, now).await;
                }
                return Err(error);
            }
        };
        let complete: Vec<_> = commit.marks.values().flat_map(Marks::complete).collect();
        self.inner.publisher.committed(&complete, |view| {
            let hot = Arc::clone(&view.observations.hot);
            view.observations = writer.observations.view();
            view.observations.hot = hot;
            if !commit.gaps.is_empty() {
                view.gaps = writer.gaps.table.view();
            }
            if !commit.dead_letters.is_empty() {
                view.dead_letters = writer.dead_letters.table.view();
            }
        });
        Ok(committed)
    }

    /// Nobody knows whether the last commit would survive a power cut, or will land after all. Reading the lake anew tells, and
    /// makes last what is there. While the disk does not let that happen, nothing is committed.
    async fn open_again(&self, writer: &mut Writer, now: Timestamp) {
        match self.inner.opening.writer(Some(&*writer)).await {
            Ok(fresh) => {
                let earlier = std::mem::replace(writer, fresh);
                writer.observations.follows(earlier.observations, now);
                writer.gaps.table.follows(earlier.gaps.table, now);
                writer.dead_letters.table.follows(earlier.dead_letters.table, now);
                let view = writer.view();
                let complete: Vec<_> = writer.marks.values().flat_map(Marks::complete).collect();
                self.inner.publisher.committed(&complete, |shown| {
                    let hot = Arc::clone(&shown.observations.hot);
                    *shown = View { version: shown.version, complete: Arc::clone(&shown.complete), ..view };
                    shown.observations.hot = hot;
                });
                tracing::warn!(watermark = writer.watermark, "opened the lake again after a commit that left doubt");
            }
            Err(error) => {
                tracing::error!(
                    error = %crate::message::with_causes(&error),
                    "the lake cannot be opened again: nothing is committed; check its disk"
                );
            }
        }
    }

    /// The writer, for work on files; none while the lake is in doubt.
    async fn certain_writer(&self) -> Result<MutexGuard<'_, Writer>, StoreError> {
        let writer = self.writer()?.lock().await;
        if writer.in_doubt { Err(StoreError::InDoubt) } else { Ok(writer) }
    }

    fn writer(&self) -> Result<&Mutex<Writer>, StoreError> {
        self.inner.writer.as_ref().ok_or(StoreError::ReadOnly)
    }
}

/// Makes a file or an entry unlike every other.
fn token() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests;
