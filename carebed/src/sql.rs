//! `carebed sql`: a question over the lake as it is committed now, also while the centre runs.

use std::path::Path;

use anyhow::{Context as _, bail};
use carebed_pipeline::store::{Config as StoreConfig, Store};
use carebed_queries::engine::Limits;
use carebed_queries::sql::{self, Lake, Snapshot, SqlSession};

use crate::cli::{Format, SqlArguments, complain, say};
use crate::config::Config;
use crate::exit::Exit;
use crate::facts;

/// Most rows given; more are cut, and that is said.
const ROWS_MAX: usize = 1_000_000;
/// A question may use both cores of a small machine and take its time: nobody's calls wait for it here.
const LIMITS: Limits = Limits { memory_bytes: 2 << 30, partitions: 2, time: std::time::Duration::from_secs(600) };

impl From<Format> for sql::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Csv => Self::Csv,
            Format::Json => Self::Json,
        }
    }
}

/// `carebed sql`
pub async fn run(arguments: SqlArguments) -> anyhow::Result<Exit> {
    let answer = answer(&arguments.data, &arguments.command, arguments.format).await?;
    say(answer.trim_end());
    Ok(Exit::Done)
}

/// Opens a data folder's lake for reading.
pub async fn open(data: &Path) -> anyhow::Result<Store> {
    let config = Config::at(data.to_owned());
    if !config.lake().is_dir() {
        bail!("{} holds no lake\nhint: name the data folder of a centre, or import a recording first", data.display());
    }
    Store::open_read(StoreConfig::local(&config.lake())?).await.context("failed to open the lake for reading")
}

/// The written answer to one statement.
pub async fn answer(data: &Path, statement: &str, format: Format) -> anyhow::Result<String> {
    let store = open(data).await?;
    let homes = facts::of_data(&Config::at(data.to_owned())).await?;
    let session = SqlSession::open(Snapshot::new(&Lake::of(&store), store.view(), &homes), LIMITS, ROWS_MAX).await?;
    let answer = session.run(statement).await?;
    if answer.cut {
        complain(&format!("warning: the answer is cut after {ROWS_MAX} rows"));
    }
    let mut bytes = Vec::new();
    sql::write(&answer, format.into(), &mut bytes)?;
    String::from_utf8(bytes).context("the answer is not text")
}
