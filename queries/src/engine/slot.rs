//! Where a planned detection finds the rows and the time of the evaluation that is running.
//!
//! Planning takes ten times as long as running over a few hundred homes. So a detection is planned once, over tables that read from its
//! slot, and each evaluation only fills the slot.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use carebed_contract::time::Timestamp;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::streaming::PartitionStream;

use super::Inputs;
use crate::episodes::time_type;

/// One detection's place for one evaluation at a time.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<(Inputs, Timestamp)>>);

impl Slot {
    pub(super) fn put(&self, inputs: Inputs, now: Timestamp) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((inputs, now));
    }

    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn read<T>(&self, read: impl FnOnce(&Inputs, Timestamp) -> T) -> Result<T> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || DataFusionError::Internal("a detection ran outside an evaluation".to_owned());
        held.as_ref().map(|(inputs, now)| read(inputs, *now)).ok_or_else(missing)
    }

    /// The table of this name.
    pub(super) fn table(self: &Arc<Self>, name: &'static str, schema: SchemaRef) -> Result<StreamingTable> {
        let rows = Rows { slot: Arc::clone(self), name, schema: Arc::clone(&schema) };
        StreamingTable::try_new(schema, vec![Arc::new(rows)])
    }

    /// The function that `$now` stands for. Volatile, so that no plan remembers its value.
    pub(super) fn now(self: &Arc<Self>) -> Arc<ScalarUDF> {
        let slot = Arc::clone(self);
        let body = move |_: &[ColumnarValue]| {
            let now = slot.read(|_, now| now)?;
            let now = ScalarValue::TimestampMillisecond(Some(now.millis()), Some("UTC".into()));
            Ok(ColumnarValue::Scalar(now))
        };
        Arc::new(create_udf("now_of_evaluation", vec![], time_type(), Volatility::Volatile, Arc::new(body)))
    }
}

#[derive(Debug)]
struct Rows {
    slot: Arc<Slot>,
    name: &'static str,
    schema: SchemaRef,
}

impl PartitionStream for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = || Arc::clone(&self.schema);
        let rows = self.slot.read(|inputs, _| inputs.table(self.name).cloned());
        match rows.and_then(|batch| MemoryStream::try_new(batch.into_iter().collect(), schema(), None)) {
            Ok(stream) => Box::pin(stream),
            Err(error) => {
                let failed = futures::stream::once(async move { Err(error) });
                Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(schema(), failed))
            }
        }
    }
}
