//! `carebed sql` and `carebed report`: questions over everything that was recorded, also while the centre runs.

mod output;
mod prompt;
mod terminal;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use carebed_console::database::Database;
use carebed_console::log::Log;
use carebed_console::registry::Registry;
use carebed_pipeline::store::Store;
use carebed_queries::engine::Limits;
use carebed_queries::sql::{self, Lake, Snapshot, SqlSession, Written};

use crate::analysts::tables;
use crate::cli::{Format, ReportArguments, SqlArguments, complain, say};
use crate::config::Config;
use crate::exit::{Exit, Misuse};
use crate::{facts, storage};
use output::Output;

/// How much is told of a statement that failed.
const BEGINNING_CHARS: usize = 72;
/// Most rows of a table for people; more are cut, and that is said.
const TABLE_ROWS_MAX: usize = 1_000_000;
/// A question may use both cores of a small machine and take its time: nobody's calls wait for it here.
const LIMITS: Limits = Limits { memory_bytes: 2 << 30, partitions: 2, time: std::time::Duration::from_secs(600) };

impl From<Format> for sql::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Csv => Self::Csv,
            Format::Json => Self::Json,
            Format::Jsonl => Self::Jsonl,
            Format::Parquet => Self::Parquet,
        }
    }
}

/// `carebed sql`
pub async fn run(arguments: SqlArguments) -> anyhow::Result<Exit> {
    let read = |text: &str, place: &str| sql::statements(text).with_context(|| place.to_owned());
    let (place, statements) = match (&arguments.command, &arguments.file) {
        (Some(command), _) => ("--command".to_owned(), read(command, "--command")?),
        (None, Some(file)) => {
            let place = file.display().to_string();
            let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {place}"))?;
            let statements = read(&text, &place)?;
            (place, statements)
        }
        (None, None) if std::io::stdin().is_terminal() => return prompt::run(&arguments.data).await,
        (None, None) => {
            let place = "standard input".to_owned();
            let statements = read(&std::io::read_to_string(std::io::stdin())?, &place)?;
            (place, statements)
        }
    };
    if statements.is_empty() {
        bail!("{place}: no statement");
    }
    let format = arguments.format.into();
    if matches!(format, sql::Format::Parquet) && statements.len() != 1 {
        bail!("a Parquet file holds the answer to one statement; these are {}", statements.len());
    }
    let session = session(&arguments.data).await?;
    let mut output = Output::open(arguments.output.as_deref())?;
    let n = statements.len();
    for (number, Written { sql, line }) in statements.iter().enumerate() {
        match answer_into(&session, sql, &[], format, &mut output).await {
            Err(_) if output.is_closed() => break,
            Err(error) if n == 1 && arguments.command.is_some() => return Err(error),
            Err(error) => {
                // What the others before it said is an answer all the same, where somebody reads along.
                output.flush()?;
                let which = format!("statement {} of {n}", number + 1);
                return Err(error.context(format!("{place}:{line}: {which}: {}", beginning(sql))));
            }
            Ok(()) => {}
        }
    }
    output.finish()?;
    Ok(Exit::Done)
}

/// `carebed report`
pub async fn report(arguments: ReportArguments) -> anyhow::Result<Exit> {
    let reports = sql::reports();
    let Some(name) = &arguments.name else {
        for report in &reports {
            let parameters: Vec<_> = report.parameters.iter().map(|(name, _)| format!("--set {name}=…")).collect();
            say(&format!("{}\t{}\t{}\t{}", report.name, parameters.join(" "), report.title.zh, report.title.en));
        }
        return Ok(Exit::Done);
    };
    let Some(report) = reports.iter().find(|report| report.name == *name) else {
        bail!(Misuse(format!("there is no report {name:?}\nhint: `carebed report` without a name lists them")));
    };
    let mut values = BTreeMap::new();
    for pair in &arguments.values {
        let Some((name, value)) = pair.split_once('=') else {
            bail!(Misuse(format!("--set {pair:?} is not NAME=VALUE")));
        };
        if !report.parameters.iter().any(|(known, _)| known == name) {
            bail!(Misuse(format!("the report {} has no parameter {name:?}", report.name)));
        }
        values.insert(name.to_owned(), value.to_owned());
    }
    let missing: Vec<_> = report
        .parameters
        .iter()
        .filter(|(name, _)| !values.contains_key(name))
        .map(|(name, text)| format!("  --set {name}=…   {}（{}）", text.zh, text.en))
        .collect();
    if !missing.is_empty() {
        bail!(Misuse(format!("the report {} needs\n{}", report.name, missing.join("\n"))));
    }
    let session = session(&arguments.data).await?;
    let values: Vec<_> = values.into_iter().collect();
    let mut output = Output::open(arguments.output.as_deref())?;
    match answer_into(&session, &report.sql, &values, arguments.format.into(), &mut output).await {
        Err(error) if !output.is_closed() => return Err(error),
        _ => output.finish()?,
    }
    Ok(Exit::Done)
}

/// By which a statement is known again.
fn beginning(statement: &str) -> String {
    let mut words: String = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(BEGINNING_CHARS) {
        words.truncate(end);
        words.push('…');
    }
    words
}

/// Writes what a statement answers. For people at most so many rows as can be looked at; for programs all, as they come.
async fn answer_into(
    session: &SqlSession,
    sql: &str,
    values: &[(String, String)],
    format: sql::Format,
    output: &mut (impl Write + Send),
) -> anyhow::Result<()> {
    if format == sql::Format::Table {
        let answer = session.run_with(sql, values).await?;
        if answer.cut {
            complain(&format!(
                "warning: the first {TABLE_ROWS_MAX} rows; all of them: --format csv, json, jsonl or parquet"
            ));
        }
        return Ok(sql::write(&answer, format, output)?);
    }
    let mut rows = session.rows(sql, values).await?;
    let mut writer = sql::Writer::new(rows.schema(), format, output)?;
    while let Some(batch) = rows.next().await? {
        writer.write(&batch)?;
    }
    Ok(writer.finish()?)
}

/// Opens a data folder's lake for reading.
pub async fn open(data: &Path) -> anyhow::Result<Store> {
    let Some(config) = storage::of_data(data)? else {
        bail!("{} holds no lake\nhint: name the data folder of a centre, or import a recording first", data.display());
    };
    let lake = config.lake.clone();
    Store::open_read(config).await.with_context(|| format!("failed to open the lake {lake} for reading"))
}

/// A session over all that a data folder holds now.
pub async fn session(data: &Path) -> anyhow::Result<SqlSession> {
    session_over(data, &open(data).await?, LIMITS).await
}

/// The same over its lake as it is opened.
pub async fn session_over(data: &Path, store: &Store, limits: Limits) -> anyhow::Result<SqlSession> {
    let config = Config::at(data.to_owned());
    let homes = facts::of_data(&config).await?;
    let mut snapshot = Snapshot::new(&Lake::of(store), store.view(), &homes);
    if config.database().exists() {
        let database = Database::open_read(&config.database()).await?;
        let registry = Registry::load(&database).await.context("failed to read the registry")?;
        let mut alerts = tables::AlertLog::default();
        alerts.take(Log::new(database).since(0).await.context("failed to read the alert log")?);
        snapshot = snapshot
            .with_tables(tables::registry(&registry, &registry.homes()))
            .with_tables([("alerts", alerts.table())]);
    }
    Ok(SqlSession::open(snapshot, limits, TABLE_ROWS_MAX).await?)
}

/// The written answer to one statement.
pub async fn answer(data: &Path, statement: &str, format: Format) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    answer_into(&session(data).await?, statement, &[], format.into(), &mut bytes).await?;
    String::from_utf8(bytes).context("the answer is not text")
}
