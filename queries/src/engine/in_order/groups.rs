//! Aggregates whose rows come in the order of their groups: a group ends where a key changes.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, concat, filter, partition, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateInputMode, AggregateOutputMode, aggregate_expressions,
};
use datafusion::physical_plan::{ExecutionPlan as _, ExecutionPlanProperties as _, InputOrderMode};

use super::{Work, begin_alike, last_row, values};

/// Whether an aggregate's rows come in order, and it is one that this can do. Keys with fractions are left to the engine: two
/// kinds of zero are one group.
pub(super) fn can(step: &AggregateExec) -> bool {
    let input = step.input().schema();
    let is_plain = |(key, _): &(Arc<dyn PhysicalExpr>, String)| {
        key.data_type(&input).is_ok_and(|of| !of.is_floating() && !of.is_nested())
    };
    let keys = step.group_expr();
    *step.input_order_mode() == InputOrderMode::Sorted
        && step.mode().input_mode() == AggregateInputMode::Raw
        && step.limit_options().is_none()
        && keys.is_single()
        && !keys.is_empty()
        && keys.expr().iter().all(is_plain)
}

/// The groups that have begun and were not passed on.
pub(super) struct Groups {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    functions: Vec<Function>,
    schema: SchemaRef,
    /// Of each key, its values in groups as they began.
    begun: Vec<Vec<ArrayRef>>,
    n_groups: usize,
    /// The keys of the last row.
    last: Option<Vec<ArrayRef>>,
    /// Groups are passed on when more than so many are finished.
    batch_rows: usize,
}

struct Function {
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    collected: Collected,
    /// Whether states are passed on, to be merged with those of other partitions, and not results.
    as_states: bool,
}

/// What a function has collected.
enum Collected {
    /// Of all groups together.
    Together(Box<dyn GroupsAccumulator>),
    /// Of one group after the other, for functions that know only one.
    OneByOne { function: Arc<AggregateFunctionExpr>, open: Option<Box<dyn Accumulator>>, done: Vec<Vec<ScalarValue>> },
    /// The first or the last row of each, which is the least or the greatest as the rows come.
    Edge(Edge),
}

struct Edge {
    is_last: bool,
    /// Of groups in their order.
    rows: Vec<ArrayRef>,
    /// Of the group that goes on, where its last row is wanted.
    open: Option<ArrayRef>,
}

/// Rows of one group, and whether it began in an earlier batch.
struct Stretch {
    rows: Range<usize>,
    goes_on: bool,
}

impl Groups {
    pub(super) fn new(step: &AggregateExec, context: &TaskContext) -> Result<Self> {
        let keys: Vec<_> = step.group_expr().expr().iter().map(|(key, _)| Arc::clone(key)).collect();
        let arguments = aggregate_expressions(step.aggr_expr(), step.mode(), keys.len())?;
        let as_states = step.mode().output_mode() == AggregateOutputMode::Partial;
        let functions = step.aggr_expr().iter().zip(arguments).zip(step.filter_expr());
        let functions = functions.map(|((function, arguments), filter)| {
            let collected = match edge(step, function)?.filter(|_| filter.is_none() && !as_states) {
                Some(edge) => Collected::Edge(edge),
                None => Collected::of(function)?,
            };
            Ok(Function { arguments, filter: filter.clone(), collected, as_states })
        });
        Ok(Self {
            begun: vec![Vec::new(); keys.len()],
            keys,
            functions: functions.collect::<Result<_>>()?,
            schema: step.schema(),
            n_groups: 0,
            last: None,
            batch_rows: context.session_config().batch_size(),
        })
    }

    /// The first so many groups, which are finished.
    fn pass_on(&mut self, n: usize) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for begun in &mut self.begun {
            let all = concat(&begun.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
            *begun = vec![all.slice(n, all.len() - n)];
            columns.push(all.slice(0, n));
        }
        let emit = if n == self.n_groups { EmitTo::All } else { EmitTo::First(n) };
        for function in &mut self.functions {
            columns.extend(function.collected.pass_on(emit, n, function.as_states)?);
        }
        self.n_groups -= n;
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Work for Groups {
    fn take(&mut self, rows: RecordBatch) -> Result<Option<RecordBatch>> {
        let keys = values(&self.keys, &rows)?;
        let goes_on = self.last.as_ref().map(|last| begin_alike(last, &keys)).transpose()?.unwrap_or(false);
        let stretches: Vec<Stretch> = partition(&keys)?
            .ranges()
            .into_iter()
            .enumerate()
            .map(|(n, rows)| Stretch { rows, goes_on: n == 0 && goes_on })
            .collect();
        let begin = stretches.iter().filter(|s| !s.goes_on).map(|s| u32::try_from(s.rows.start).unwrap_or(u32::MAX));
        let begin: UInt32Array = begin.collect();
        let open = self.n_groups.saturating_sub(usize::from(goes_on));
        self.n_groups += begin.len();
        for (begun, key) in self.begun.iter_mut().zip(&keys) {
            begun.push(take(key, &begin, None)?);
        }
        let mut of_rows = Vec::with_capacity(rows.num_rows());
        for (n, stretch) in stretches.iter().enumerate() {
            of_rows.resize(stretch.rows.end, open + n);
        }
        for function in &mut self.functions {
            function.take(&rows, &stretches, &of_rows, self.n_groups)?;
        }
        self.last = Some(last_row(&keys));
        if self.n_groups > self.batch_rows { self.pass_on(self.n_groups - 1).map(Some) } else { Ok(None) }
    }

    fn end(&mut self) -> Result<Option<RecordBatch>> {
        if self.n_groups == 0 { Ok(None) } else { self.pass_on(self.n_groups).map(Some) }
    }
}

impl Function {
    fn take(&mut self, rows: &RecordBatch, stretches: &[Stretch], of_rows: &[usize], n_groups: usize) -> Result<()> {
        let arguments = values(&self.arguments, rows)?;
        let kept = self.filter.as_ref().map(|filter| filter.evaluate(rows)?.into_array(rows.num_rows())).transpose()?;
        let kept = kept.as_ref().map(|kept| kept.as_boolean());
        match &mut self.collected {
            Collected::Together(all) => all.update_batch(&arguments, of_rows, kept, n_groups),
            Collected::OneByOne { function, open, done } => {
                for Stretch { rows, goes_on } in stretches {
                    if !goes_on {
                        done.extend(open.take().map(|open| finished(open, self.as_states)).transpose()?);
                    }
                    let open = match open {
                        Some(open) => open,
                        None => open.insert(function.create_accumulator()?),
                    };
                    open.update_batch(&some_of(&arguments, rows, kept)?)?;
                }
                Ok(())
            }
            Collected::Edge(edge) => arguments.first().map_or(Ok(()), |argument| edge.take(argument, stretches)),
        }
    }
}

/// For `first_value` and `last_value` by an order in which the rows of a group come.
fn edge(step: &AggregateExec, function: &AggregateFunctionExpr) -> Result<Option<Edge>> {
    let is_last = match function.fun().name() {
        "last_value" => true,
        "first_value" => false,
        _ => return Ok(None),
    };
    if function.order_bys().is_empty() || function.ignore_nulls() || function.is_distinct() {
        return Ok(None);
    }
    let options = SortOptions { descending: false, nulls_first: true };
    let keys = step.group_expr().expr().iter().map(|(key, _)| PhysicalSortExpr::new(Arc::clone(key), options));
    let order = keys.chain(function.order_bys().iter().cloned());
    let comes_so = step.input().equivalence_properties().ordering_satisfy(order)?;
    Ok(comes_so.then_some(Edge { is_last, rows: Vec::new(), open: None }))
}

impl Edge {
    fn take(&mut self, column: &ArrayRef, stretches: &[Stretch]) -> Result<()> {
        let row = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
        let begun = || stretches.iter().filter(|stretch| !stretch.goes_on);
        if !self.is_last {
            let first: UInt32Array = begun().map(|stretch| row(stretch.rows.start)).collect();
            self.rows.push(take(column, &first, None)?);
            return Ok(());
        }
        let Some((open, ended)) = stretches.split_last() else { return Ok(()) };
        // What was open ends here, unless it goes on.
        let before = self.open.take().filter(|_| stretches.first().is_some_and(|stretch| !stretch.goes_on));
        self.rows.extend(before);
        let last: UInt32Array = ended.iter().map(|stretch| row(stretch.rows.end - 1)).collect();
        self.rows.push(take(column, &last, None)?);
        self.open = Some(take(column, &UInt32Array::from(vec![row(open.rows.end - 1)]), None)?);
        Ok(())
    }

    /// The first `n`.
    fn pass_on(&mut self, n: usize) -> Result<ArrayRef> {
        if self.rows.iter().map(|rows| rows.len()).sum::<usize>() < n {
            self.rows.extend(self.open.take());
        }
        let all = concat(&self.rows.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        self.rows = vec![all.slice(n, all.len() - n)];
        Ok(all.slice(0, n))
    }
}

fn some_of(columns: &[ArrayRef], rows: &Range<usize>, kept: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
    let kept = kept.map(|kept| kept.slice(rows.start, rows.len()));
    let part = |column: &ArrayRef| {
        let part = column.slice(rows.start, rows.len());
        Ok(match &kept {
            Some(kept) => filter(&part, kept)?,
            None => part,
        })
    };
    columns.iter().map(part).collect()
}

fn finished(mut of_one: Box<dyn Accumulator>, as_states: bool) -> Result<Vec<ScalarValue>> {
    if as_states { of_one.state() } else { Ok(vec![of_one.evaluate()?]) }
}

impl Collected {
    fn of(function: &Arc<AggregateFunctionExpr>) -> Result<Self> {
        if function.groups_accumulator_supported() {
            return Ok(Self::Together(function.create_groups_accumulator()?));
        }
        Ok(Self::OneByOne { function: Arc::clone(function), open: None, done: Vec::new() })
    }

    /// The columns of the first `n` groups.
    fn pass_on(&mut self, emit: EmitTo, n: usize, as_states: bool) -> Result<Vec<ArrayRef>> {
        match self {
            Self::Together(all) if as_states => all.state(emit),
            Self::Together(all) => Ok(vec![all.evaluate(emit)?]),
            Self::Edge(edge) => Ok(vec![edge.pass_on(n)?]),
            Self::OneByOne { open, done, .. } => {
                if done.len() < n {
                    done.extend(open.take().map(|open| finished(open, as_states)).transpose()?);
                }
                let mut columns: Vec<Vec<ScalarValue>> = Vec::new();
                for group in done.drain(..n) {
                    columns.resize_with(group.len(), || Vec::with_capacity(n));
                    columns.iter_mut().zip(group).for_each(|(column, value)| column.push(value));
                }
                columns.into_iter().map(ScalarValue::iter_to_array).collect()
            }
        }
    }
}
