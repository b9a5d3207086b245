//! Plans and runs detections. The one engine for what happens now and for what happened: only its inputs differ.
//!
//! A detection reads tables such as `episodes`, `homes` and `params`, views over them that several share, and the parameter `$now`. It is
//! planned once; each evaluation puts its rows and its time where the plan looks for them.

mod finding;
pub mod functions;
mod in_order;
mod inputs;
mod learning;
mod plan;
mod probe;
mod shared;
mod slot;
mod turns;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use carebed_contract::finding::Finding;
use carebed_contract::time::Timestamp;
use datafusion::common::DataFusionError;
use datafusion::common::runtime::SpawnedTask;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::collect;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::prelude::SessionConfig;
use futures::{Stream, StreamExt as _};

use crate::detection::{Meaning, Refused, Source};
use crate::episodes::DefinitionsError;
use crate::sql::{NewestRow, OnlyNewest};

pub use inputs::{Asked, Inputs, baselines_schema};
pub use learning::Baseline;
use plan::{Query, Returns, refused};

/// What queries may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of working memory; a query that needs more fails.
    pub memory_bytes: usize,
    /// How many cores one query may use.
    pub partitions: usize,
    /// How long one evaluation may take; then it fails.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 512 * 1024 * 1024, partitions: 1, time: Duration::from_secs(30) }
    }
}

/// Why no engine could be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The query engine refused its configuration.
    #[error("failed to set up the query engine")]
    Setup(#[source] Box<DataFusionError>),
    /// The episode definitions are wrong.
    #[error("failed to read the episode definitions")]
    Episodes(#[from] DefinitionsError),
}

/// Why one detection gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The query failed.
    #[error("failed to run detection {detection}")]
    Run {
        /// Which.
        detection: String,
        /// Why.
        #[source]
        source: Box<DataFusionError>,
    },
    /// It took longer than [`Limits::time`].
    #[error("detection {detection} took longer than {limit:?}; make its query cheaper or raise the limit")]
    Time {
        /// Which.
        detection: String,
        /// The limit.
        limit: Duration,
    },
    /// A row that is no finding.
    #[error("detection {detection} returned a row that is no finding: {reason}")]
    Row {
        /// Which.
        detection: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl EvaluateError {
    /// Which detection gave no answer.
    #[must_use]
    pub fn detection(&self) -> &str {
        match self {
            Self::Run { detection, .. } | Self::Time { detection, .. } | Self::Row { detection, .. } => detection,
        }
    }
}

/// A detection that plans: it can be evaluated.
#[derive(Debug, Clone)]
pub struct Detection {
    /// Its name.
    pub name: String,
    /// What it means to people.
    pub meaning: Meaning,
    query: Query,
}

/// Plans and runs detections.
#[derive(Debug)]
pub struct Engine {
    state: SessionState,
    limits: Limits,
}

/// Queries that run beside each other; more would take the machine from those who receive.
pub(crate) const AT_ONCE: usize = 2;

impl Engine {
    /// An engine of its own memory pool.
    ///
    /// # Errors
    /// When the query engine cannot be set up.
    pub fn new(limits: Limits) -> Result<Self, EngineError> {
        let mut state = session(limits, runtime(limits)?);
        let options = state.config_mut().options_mut();
        // A plan that is run again must not carry what it learnt from the last run, and recursion cannot be run again at all.
        options.optimizer.enable_dynamic_filter_pushdown = false;
        options.optimizer.enable_join_dynamic_filter_pushdown = false;
        options.optimizer.enable_topk_dynamic_filter_pushdown = false;
        options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        options.execution.enable_recursive_ctes = false;
        Ok(Self { state, limits })
    }

    /// What its queries may use.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The detections that come with the program, and why others are not used.
    pub async fn builtin(&self) -> (Vec<Detection>, Vec<Refused>) {
        let (sources, refused) = Source::builtin();
        self.prepare_all(sources, refused).await
    }

    /// Plans detections; what cannot be used joins `refused`.
    pub async fn prepare_all(&self, sources: Vec<Source>, mut refused: Vec<Refused>) -> (Vec<Detection>, Vec<Refused>) {
        let mut detections = Vec::with_capacity(sources.len());
        for source in sources {
            match self.prepare(source).await {
                Ok(detection) => detections.push(detection),
                Err(reason) => refused.push(reason),
            }
        }
        (detections, refused)
    }

    /// Plans one detection.
    ///
    /// # Errors
    /// When it does not plan, does more than select, or returns other columns than a detection must.
    pub async fn prepare(&self, source: Source) -> Result<Detection, Refused> {
        let query = self.plan(&source.written(), finding::RETURNS).await?;
        let detection = Detection { name: source.name.clone(), meaning: source.meaning.clone(), query };
        // What only shows when it runs shows here and not in the night.
        match self.evaluate(&detection, &Inputs::empty(), Timestamp::from_millis(0)).await {
            Ok(_) => Ok(detection),
            Err(EvaluateError::Run { source: error, .. }) => Err(refused(&source.written(), &error)),
            Err(other) => Err(Refused::new(&source.name, &source.sql_file, &source.sql, other.to_string())),
        }
    }

    /// Plans one that nobody has tried yet.
    ///
    /// # Errors
    /// As [`Self::prepare`], and when it looks ahead or is too slow for a made-up week of a few homes.
    pub async fn try_out(&self, source: Source) -> Result<Detection, Refused> {
        let (written, detection) = (source.written(), self.prepare(source).await?);
        let refuse = |why: String| Refused::new(&written.name, &written.file, &written.sql, why);
        match self.looks_ahead(&detection).await {
            Ok(None) => Ok(detection),
            Ok(Some(why)) => Err(refuse(why).help(
                "raise it when it could be known: at start_known_at, or a while after; and clear it only when end_known_at is not later than $now",
            )),
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    /// What a detection finds in `inputs` at `now`, in order of `raised_at` and subject. Whether something holds at `now` is for the
    /// detection to say: each returns what was raised by then.
    ///
    /// # Errors
    /// When the query fails or takes too long; other detections are not touched by it.
    pub async fn evaluate(
        &self,
        detection: &Detection,
        inputs: &Inputs,
        now: Timestamp,
    ) -> Result<Vec<Finding>, EvaluateError> {
        let rows = self.rows(&detection.query, inputs, now).await?;
        let wrong = |reason| EvaluateError::Row { detection: detection.name.clone(), reason };
        let findings = finding::read(&detection.name, &rows, inputs).map_err(wrong)?;
        // A call is raised by its press, also when the home's clock is ahead.
        match findings.iter().find(|finding| finding.raised_at > now && !detection.meaning.urgent) {
            Some(ahead) => {
                Err(wrong(format!("it looks ahead: at {now} it says what is raised at {}", ahead.raised_at)))
            }
            None => Ok(findings),
        }
    }

    /// What each of these finds in its inputs at `now`, in this order, on [`AT_ONCE`] cores; one that panics fails alone.
    pub fn evaluate_each(
        self: &Arc<Self>,
        asked: impl IntoIterator<Item = (Detection, Inputs)>,
        now: Timestamp,
    ) -> impl Stream<Item = (Detection, Result<Vec<Finding>, EvaluateError>)> {
        let answers = asked.into_iter().map(move |(detection, inputs)| {
            let (engine, asked) = (Arc::clone(self), detection.clone());
            async move {
                let task = SpawnedTask::spawn(async move { engine.evaluate(&asked, &inputs, now).await });
                let answer = task.join().await.unwrap_or_else(|panicked| {
                    let source = Box::new(DataFusionError::ExecutionJoin(Box::new(panicked)));
                    Err(EvaluateError::Run { detection: detection.name.clone(), source })
                });
                (detection, answer)
            }
        });
        futures::stream::iter(answers).buffered(AT_ONCE)
    }

    async fn rows(&self, query: &Query, inputs: &Inputs, now: Timestamp) -> Result<Vec<RecordBatch>, EvaluateError> {
        let limit = self.limits.time;
        let run = async {
            let _running = query.running.lock().await;
            query.slot.put(inputs.clone(), now);
            let plan = reset_plan_states(Arc::clone(&query.plan))?;
            let rows = collect(plan, self.state.task_ctx()).await;
            query.slot.clear();
            rows
        };
        let rows = tokio::time::timeout(limit, run).await;
        let rows = rows.map_err(|_| EvaluateError::Time { detection: query.name.clone(), limit })?;
        rows.map_err(|error| EvaluateError::Run { detection: query.name.clone(), source: Box::new(error) })
    }
}

/// A session as detections and analysts use it: bounded, with our functions.
pub(crate) fn session(limits: Limits, runtime: Arc<RuntimeEnv>) -> SessionState {
    let mut config =
        SessionConfig::new().with_target_partitions(limits.partitions.max(1)).with_information_schema(true);
    config.options_mut().sql_parser.collect_spans = true;
    // Strings of our tables are plain Utf8; views would only be converted back.
    config.options_mut().execution.parquet.schema_force_view_types = false;
    config.options_mut().sql_parser.map_string_types_to_utf8view = false;
    // Our tables cut their files themselves, between beds.
    config.options_mut().optimizer.repartition_file_scans = false;
    // Files come sorted by bed, quantity and time: windows over beds need not sort again.
    config.options_mut().optimizer.prefer_existing_sort = true;
    // Rows whose beds are kept apart need not be dealt out again for groups within beds, however few cores there are.
    config.options_mut().optimizer.subset_repartition_threshold = 1;
    // Where a filter leaves no row of a page, the other columns of the page are not decoded.
    config.options_mut().execution.parquet.pushdown_filters = true;
    config.options_mut().execution.parquet.reorder_filters = true;
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_optimizer_rule(Arc::new(NewestRow))
        .with_optimizer_rule(Arc::new(OnlyNewest))
        .with_physical_optimizer_rule(Arc::new(in_order::UseOrder))
        .with_physical_optimizer_rule(Arc::new(turns::TakeTurns))
        .build();
    for function in functions::all() {
        let shadowed = datafusion::execution::FunctionRegistry::register_udf(&mut state, Arc::new(function));
        debug_assert!(shadowed.is_ok_and(|old| old.is_none()), "our functions have names of their own");
    }
    for function in [functions::date_trunc(), functions::to_char()] {
        let shadowed = datafusion::execution::FunctionRegistry::register_udf(&mut state, Arc::new(function));
        debug_assert!(shadowed.is_ok_and(|old| old.is_some()), "it stands in the place of another");
    }
    state
}

/// How much a statement may lay aside on the disk, as a multiple of the memory it may use; one that needs more fails.
const SPILL_PER_MEMORY: u64 = 4;

pub(crate) fn runtime(limits: Limits) -> Result<Arc<RuntimeEnv>, EngineError> {
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory_bytes)))
        .with_max_temp_directory_size(SPILL_PER_MEMORY * limits.memory_bytes as u64)
        .build_arc()
        .map_err(setup)
}

fn setup(error: DataFusionError) -> EngineError {
    EngineError::Setup(Box::new(error))
}

/// A table's name and columns.
type Table = (&'static str, SchemaRef);
