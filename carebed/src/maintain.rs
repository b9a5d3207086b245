//! Who changes the lake: the running centre, asked through a socket in its data folder, or, when no centre runs, the command
//! itself. So there is one committer, and nothing races.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use carebed_console::registry::Registry;
use carebed_contract::Shutdown;
use carebed_contract::clock::{Clock, SystemClock};
use carebed_contract::command::Command;
use carebed_contract::id::GatewayId;
use carebed_contract::time::Timestamp;
use carebed_contract::topic::{Channel, Topic};
use carebed_pipeline::store::{Erased, Erasure, LockError, Store, StoreError, Unreadable, UpkeepConfig};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::cli::say;
use crate::exit::Exit;
use crate::live::Memories;
use crate::{purges, storage};

/// Longest question taken; a longer one is refused.
const QUESTION_BYTES_MAX: u64 = 64 << 10;
/// How long somebody who connects may take to ask.
const ASKING: Duration = Duration::from_secs(10);
/// How long an erasure waits for readers of this process before it leaves their files to vacuum.
const PATIENCE: Duration = Duration::from_secs(60);

/// `carebed maintain`
#[derive(Debug, Clone, clap::Args)]
pub struct MaintainArguments {
    /// The centre's data folder.
    #[arg(long, env = "CAREBED_DATA")]
    pub data: PathBuf,
    /// Only reads every file of the lake to its end, and names those that are lost or damaged. Changes nothing.
    #[arg(long)]
    pub check: bool,
}

/// What to do with the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Task {
    /// Merges small files, deletes by age, deletes what nobody needs.
    Maintain,
    /// Forgets what an erasure covers.
    Erase(Erasure),
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintained {
    /// Merges.
    pub merges: usize,
    /// Rows taken away by age.
    pub rows_expired: u64,
    /// Files deleted.
    pub files_deleted: usize,
    /// Files that stay until no reader needs them.
    pub files_kept: usize,
    /// Files of the table `observations` now.
    pub files: usize,
}

/// How a task ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done(serde_json::Value),
    Failed(String),
}

/// The socket of a data folder.
fn socket(data: &Path) -> PathBuf {
    data.join("centre.sock")
}

/// Does tasks, with a lake that is open for writing.
#[derive(Debug)]
pub struct Keeper {
    /// The lake.
    pub store: Store,
    /// How it is kept.
    pub upkeep: UpkeepConfig,
    /// The centre around it, where one runs.
    pub centre: Option<Around>,
}

/// What of a running centre an erasure must reach.
#[derive(Debug)]
pub struct Around {
    /// What it remembers.
    pub memories: Memories,
    /// Where its gateways are enrolled.
    pub registry: Registry,
    /// The way to them.
    pub commands: mpsc::Sender<(Topic, Command)>,
}

impl Around {
    /// Orders gateways to empty their spools of what is erased. Says how many orders went out. One that is not connected is
    /// ordered when it is back; what it sends until then is consumed and kept nowhere.
    fn order(&self, erasure: &Erasure, gateways: &[GatewayId], now: Timestamp) -> usize {
        let order = |gateway: &GatewayId| {
            let area = self.registry.homes().iter().find(|home| home.gateway.as_ref() == Some(gateway))?.area.clone();
            let topic = Topic::new(area, gateway.clone(), Channel::Command);
            self.commands.try_send((topic, purges::order(erasure, now))).ok()
        };
        gateways.iter().filter_map(order).count()
    }
}

async fn perform(keeper: &Keeper, task: Task, now: Timestamp) -> Result<serde_json::Value, StoreError> {
    let Keeper { store, upkeep, centre } = keeper;
    let done = match task {
        Task::Maintain => {
            let mut done = Maintained::default();
            while store.compact(now).await?.is_some() {
                done.merges += 1;
            }
            done.rows_expired = store.retain(&upkeep.retention, now).await?;
            let vacuumed = store.vacuum(upkeep.grace, now).await?;
            (done.files_deleted, done.files_kept) = (vacuumed.deleted, vacuumed.kept);
            done.files = store.view().observations.files.len();
            serde_json::to_value(done)
        }
        Task::Erase(erasure) => {
            let mut report = store.erase(&erasure, PATIENCE, now).await?;
            if let Some(centre) = centre {
                report.gateways_ordered = centre.order(&erasure, &report.gateways, now);
                report.memory_forgotten = Some(centre.memories.forget(erasure.home).await);
            }
            serde_json::to_value(report)
        }
    };
    Ok(done.expect("reports are maps of texts and numbers"))
}

/// After a connection that could not be taken.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

/// Answers tasks of commands on this machine until told to stop. A centre that cannot be asked goes on without.
pub async fn listen(data: PathBuf, keeper: Keeper, clock: Arc<dyn Clock>, shutdown: Shutdown) {
    if let Err(error) = serve(data, keeper, clock, shutdown).await {
        tracing::warn!(error = format!("{error:#}"), "carebed maintain and erase cannot ask this centre");
    }
}

/// One task after the other. The socket is the owner's alone.
async fn serve(data: PathBuf, keeper: Keeper, clock: Arc<dyn Clock>, shutdown: Shutdown) -> anyhow::Result<()> {
    let path = socket(&data);
    // One that a dead centre left: this one holds the lake's lock, so nobody listens there.
    drop(std::fs::remove_file(&path));
    let place = || format!("failed to open the socket {}", path.display());
    let listener = UnixListener::bind(&path).with_context(place)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).with_context(place)?;
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let answered = match stream {
            Ok((stream, _)) => answer(stream, &keeper, clock.as_ref()).await,
            Err(error) => {
                // No file handle is left, mostly: the next one may be.
                tokio::time::sleep(ACCEPT_AGAIN).await;
                Err(error.into())
            }
        };
        if let Err(error) = answered {
            tracing::warn!(error = format!("{error:#}"), "a command on this machine got no answer");
        }
    }
    drop(std::fs::remove_file(&path));
    Ok(())
}

async fn answer(stream: UnixStream, keeper: &Keeper, clock: &dyn Clock) -> anyhow::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut question = String::new();
    let mut from = BufReader::new(from.take(QUESTION_BYTES_MAX));
    tokio::time::timeout(ASKING, from.read_line(&mut question)).await.context("nothing was asked")??;
    let answer = match serde_json::from_str::<Task>(&question) {
        Ok(task) => match perform(keeper, task, clock.now()).await {
            Ok(done) => Answer::Done(done),
            Err(error) => Answer::Failed(format!("{:#}", anyhow::Error::from(error))),
        },
        Err(error) => Answer::Failed(format!("not a task: {error}")),
    };
    to.write_all(&serde_json::to_vec(&answer)?).await?;
    to.shutdown().await?;
    Ok(())
}

/// Has a task done: by the centre when it runs, else here.
pub async fn request(data: &Path, task: Task) -> anyhow::Result<serde_json::Value> {
    if let Ok(stream) = UnixStream::connect(socket(data)).await {
        let (mut from, mut to) = stream.into_split();
        let mut question = serde_json::to_vec(&task)?;
        question.push(b'\n');
        to.write_all(&question).await.context("the running centre does not listen")?;
        let mut answer = Vec::new();
        from.read_to_end(&mut answer).await.context("the running centre did not answer")?;
        return match serde_json::from_slice(&answer).context("the running centre stopped before it answered")? {
            Answer::Done(done) => Ok(done),
            Answer::Failed(error) => bail!("the running centre failed: {error}"),
        };
    }
    let Some(config) = storage::of_data(data)? else {
        bail!("{} holds no lake\nhint: name the data folder of a centre", data.display());
    };
    let store = match Store::open(config).await {
        Err(error @ StoreError::Lock(LockError::Held { .. })) => {
            return Err(error).context(
                "the lake is in use, and its centre does not answer at centre.sock\nhint: try again when it has started",
            );
        }
        opened => opened.context("failed to open the lake")?,
    };
    let keeper = Keeper { store, upkeep: UpkeepConfig::default(), centre: None };
    Ok(perform(&keeper, task, SystemClock::new().now()).await?)
}

/// `carebed maintain`
pub async fn run(arguments: MaintainArguments) -> anyhow::Result<Exit> {
    if arguments.check {
        return check(&arguments.data).await;
    }
    let done: Maintained = serde_json::from_value(request(&arguments.data, Task::Maintain).await?)?;
    say(&format!(
        "{} merges, {} rows past their time, {} files deleted, {} files kept for readers; observations has {} files",
        done.merges, done.rows_expired, done.files_deleted, done.files_kept, done.files
    ));
    Ok(Exit::Done)
}

/// Names the files that cannot be read.
async fn check(data: &Path) -> anyhow::Result<Exit> {
    let store = crate::sql::open(data).await?;
    let view = store.view();
    let n_files =
        [&view.observations, &view.gaps, &view.dead_letters].iter().map(|table| table.files.len()).sum::<usize>();
    let unreadable = store.unreadable().await;
    if unreadable.is_empty() {
        say(&format!("all {n_files} files can be read"));
        return Ok(Exit::Done);
    }
    let n_unreadable = unreadable.len();
    for Unreadable { path, error } in unreadable {
        say(&format!("{path}: {:#}", anyhow::Error::from(error)));
    }
    bail!(
        "{n_unreadable} of {n_files} files below {} cannot be read\nhint: copy them to the same place from a backup of the lake; while one is missing, statements that need it fail, and all others go on",
        store.lake()
    )
}

/// Reads a report of [`Task::Erase`].
pub async fn erase(data: &Path, erasure: Erasure) -> anyhow::Result<Erased> {
    Ok(serde_json::from_value(request(data, Task::Erase(erasure)).await?)?)
}
