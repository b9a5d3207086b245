//! From a baseline's query to rows of the table `baselines`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::Schema;
use carebed_contract::time::Timestamp;

use super::inputs::baselines_schema;
use super::{Engine, EvaluateError, Inputs, Query, Returns};
use crate::baselines::{About, Source};
use crate::detection::Refused;

const COLUMNS: &str = "a baseline returns home_id, bed_id, key, slot, known_at, value, n_days";

const RETURNS: Returns = Returns { check: check_columns, help: COLUMNS };

/// A baseline that plans: it can be learnt.
#[derive(Debug, Clone)]
pub struct Baseline {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: About,
    query: Query,
}

fn check_columns(schema: &Schema) -> Result<(), String> {
    for field in baselines_schema().fields().iter().filter(|field| field.name() != "baseline") {
        schema.field_with_name(field.name()).map_err(|_| format!("it returns no column {}", field.name()))?;
    }
    Ok(())
}

impl Engine {
    /// The baselines that come with the program, and why others are not used.
    pub async fn baselines(&self) -> (Vec<Baseline>, Vec<Refused>) {
        let (sources, mut refused) = Source::builtin();
        let mut baselines = Vec::with_capacity(sources.len());
        for source in sources {
            match self.prepare_baseline(source).await {
                Ok(baseline) => baselines.push(baseline),
                Err(reason) => refused.push(reason),
            }
        }
        (baselines, refused)
    }

    /// Plans one baseline.
    ///
    /// # Errors
    /// When it does not plan, does more than select, or returns other columns than a baseline must.
    pub async fn prepare_baseline(&self, source: Source) -> Result<Baseline, Refused> {
        let query = self.plan(&source.written, RETURNS).await?;
        let baseline = Baseline { name: source.written.name.clone(), about: source.about, query };
        match self.learn(&baseline, &Inputs::empty(), Timestamp::from_millis(0)).await {
            Ok(_) => Ok(baseline),
            Err(error) => {
                let written = &source.written;
                Err(Refused::new(&written.name, &written.file, &written.sql, error.to_string()))
            }
        }
    }

    /// What a baseline says for what `inputs` ask.
    ///
    /// # Errors
    /// When the query fails or takes too long.
    pub async fn learn(
        &self,
        baseline: &Baseline,
        inputs: &Inputs,
        now: Timestamp,
    ) -> Result<RecordBatch, EvaluateError> {
        let rows = self.rows(&baseline.query, inputs, now).await?;
        let schema = baselines_schema();
        let wrong = |reason: arrow::error::ArrowError| EvaluateError::Row {
            detection: baseline.name.clone(),
            reason: reason.to_string(),
        };
        let named = rows.iter().map(|rows| {
            let columns = schema.fields().iter().map(|field| match rows.column_by_name(field.name()) {
                Some(column) => cast(column, field.data_type()),
                None => Ok(Arc::new(StringArray::from(vec![baseline.name.as_str(); rows.num_rows()])) as ArrayRef),
            });
            RecordBatch::try_new(Arc::clone(&schema), columns.collect::<Result<_, _>>()?)
        });
        let named = named.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        concat_batches(&schema, &named).map_err(wrong)
    }
}
