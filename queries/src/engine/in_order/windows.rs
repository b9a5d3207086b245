//! Window functions over beds: all rows of a bed are looked at together, one bed after the other.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{concat, concat_batches, partition};
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_plan::windows::BoundedWindowAggExec;
use datafusion::physical_plan::{ExecutionPlan as _, InputOrderMode};

use super::{Work, begin_alike, last_row, values};

/// Whose rows are few enough to be held together.
const BED: &str = "bed_id";

/// Whether windows are over beds whose rows come together.
pub(super) fn can(step: &BoundedWindowAggExec) -> bool {
    let is_bed = |key: &Arc<dyn PhysicalExpr>| key.downcast_ref::<Column>().is_some_and(|key| key.name() == BED);
    step.input_order_mode == InputOrderMode::Sorted
        && step.window_expr().iter().all(|window| window.partition_by().iter().any(is_bed))
}

pub(super) struct Windows {
    windows: Vec<Arc<dyn WindowExpr>>,
    /// What makes a bed: the same for all windows.
    keys: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    /// Rows of the bed that may go on.
    held: Vec<RecordBatch>,
    last: Option<Vec<ArrayRef>>,
    memory: MemoryReservation,
}

impl Windows {
    pub(super) fn new(step: &BoundedWindowAggExec, context: &TaskContext) -> Self {
        let keys = step.window_expr().first().map(|window| window.partition_by().to_vec()).unwrap_or_default();
        let memory = MemoryConsumer::new("windows over beds").register(context.memory_pool());
        let (windows, schema) = (step.window_expr().to_vec(), step.schema());
        Self { windows, keys, schema, held: Vec::new(), last: None, memory }
    }

    /// Rows of whole beds with what the windows say of each.
    fn answered(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let beds = partition(&values(&self.keys, rows)?)?.ranges();
        let mut columns = rows.columns().to_vec();
        for window in &self.windows {
            let of_bed = |bed: &std::ops::Range<usize>| window.evaluate(&rows.slice(bed.start, bed.len()));
            let answers = beds.iter().map(of_bed).collect::<Result<Vec<_>>>()?;
            columns.push(concat(&answers.iter().map(AsRef::as_ref).collect::<Vec<_>>())?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    fn hold(&mut self, rows: RecordBatch) -> Result<()> {
        self.held.push(rows);
        let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
        self.memory.try_resize(self.held.iter().flat_map(RecordBatch::columns).map(bytes).sum())
    }
}

impl Work for Windows {
    fn take(&mut self, rows: RecordBatch) -> Result<Option<RecordBatch>> {
        let keys = values(&self.keys, &rows)?;
        let beds = partition(&keys)?.ranges();
        let goes_on = self.last.as_ref().map(|last| begin_alike(last, &keys)).transpose()?.unwrap_or(false);
        self.last = Some(last_row(&keys));
        let end = beds.last().map_or(0, |bed| bed.start);
        if goes_on && end == 0 {
            self.hold(rows)?;
            return Ok(None);
        }
        let mut whole = std::mem::take(&mut self.held);
        if end > 0 {
            whole.push(rows.slice(0, end));
        }
        self.hold(rows.slice(end, rows.num_rows() - end))?;
        let whole = match whole.as_slice() {
            [] => return Ok(None),
            [rows] => rows.clone(),
            several => concat_batches(&rows.schema(), several)?,
        };
        self.answered(&whole).map(Some)
    }

    fn end(&mut self) -> Result<Option<RecordBatch>> {
        let held = std::mem::take(&mut self.held);
        let Some(first) = held.first() else { return Ok(None) };
        let answered = self.answered(&concat_batches(&first.schema(), &held)?)?;
        self.memory.free();
        Ok(Some(answered))
    }
}
