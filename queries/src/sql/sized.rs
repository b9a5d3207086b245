//! What makes long texts and lists of a few words: bounded before it begins.
//!
//! Memory of the engine's operators is counted, that of one function's answer is not: nine `replace` in each other, or a text that
//! doubles itself thirty times, would take all the machine has before anybody could look. So functions whose answers may be longer
//! than what they are given look at that first, and a statement's own long texts, which are laid out once for each row, are counted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Longest text or list that a function makes, in bytes, on the mean of the rows of a batch.
const VALUE_BYTES_MAX: usize = 4 << 10;
/// Calls of such functions in one statement: each may fill a batch.
const CALLS_MAX: usize = 128;
/// A statement's texts of more than [`SHORT`] bytes, constants that were worked out included, have no more together.
const LITERAL_BYTES_MAX: usize = 64 << 10;
/// Shorter texts are not counted: a statement may list thousands of names.
const SHORT: usize = 256;

/// As these grow.
const GROWING: [(&str, Grows); 14] = [
    ("concat", Grows::Sum),
    ("concat_ws", Grows::Between(0)),
    ("array_to_string", Grows::Between(1)),
    ("replace", Grows::Instead(2)),
    ("regexp_replace", Grows::Instead(2)),
    ("overlay", Grows::Sum),
    ("encode", Grows::Sum),
    ("array_concat", Grows::Sum),
    ("array_append", Grows::Sum),
    ("array_prepend", Grows::Sum),
    ("array_replace_all", Grows::Instead(2)),
    ("make_array", Grows::Sum),
    ("array_union", Grows::Sum),
    ("flatten", Grows::Sum),
];

/// How long an answer may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Grows {
    /// As long as all arguments together; some twice that.
    Sum,
    /// The argument at this place comes between each two parts of the others.
    Between(usize),
    /// The argument at this place comes instead of each part of the others.
    Instead(usize),
}

/// The same state, in which what grows is bounded.
pub(super) fn bounded(state: SessionState) -> SessionContext {
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(Joining)];
    planners.extend(state.expr_planners().iter().cloned());
    let state = SessionStateBuilder::new_from_existing(state)
        .with_expr_planners(planners)
        .with_optimizer_rule(Arc::new(CountLiterals))
        .build();
    let context = SessionContext::new_with_state(state);
    for (name, grows) in GROWING {
        let known = context.state().scalar_functions().get(name).map(Arc::clone);
        if let Some(inner) = known {
            context.register_udf(ScalarUDF::from(Bounded { inner, grows }));
        }
    }
    context
}

/// A function that looks at how long its answer may become.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    grows: Grows,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow::datatypes::FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    // Its `simplify` is not asked: some put constants together there, out of sight.

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check(self.name(), self.grows, &args.args, args.number_rows)?;
        self.inner.invoke_with_args(args)
    }
}

fn check(name: &str, grows: Grows, args: &[ColumnarValue], n_rows: usize) -> Result<()> {
    let n_rows = n_rows.max(1);
    let all = |value: &ColumnarValue| match value {
        ColumnarValue::Scalar(value) => one(value).saturating_mul(n_rows),
        ColumnarValue::Array(array) => bytes(array),
    };
    let longest = |value: &ColumnarValue| match value {
        ColumnarValue::Scalar(value) => one(value),
        ColumnarValue::Array(array) => bytes(array),
    };
    let but = |place: usize| {
        let others = args.iter().enumerate().filter(|(n, _)| *n != place);
        others.map(|(_, value)| all(value)).fold(n_rows, usize::saturating_add)
    };
    let made = match grows {
        Grows::Sum => args.iter().map(all).fold(0, usize::saturating_add),
        Grows::Between(place) => but(place).saturating_mul(args.get(place).map_or(0, longest).saturating_add(1)),
        Grows::Instead(place) => {
            let text = args.first().map_or(0, all).saturating_add(n_rows);
            text.saturating_mul(args.get(place).map_or(0, longest).max(1))
        }
    };
    if made > VALUE_BYTES_MAX.saturating_mul(n_rows) {
        return exec_err!(
            "{name} could make texts or lists of more than {} KiB each, which is more than a statement may; shorten what it is given",
            VALUE_BYTES_MAX >> 10
        );
    }
    Ok(())
}

fn one(value: &ScalarValue) -> usize {
    match value.try_as_str() {
        Some(text) => text.map_or(0, str::len),
        None => value.size(),
    }
}

/// Bytes of the values, not of what they lie in.
fn bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8 => {
            let offsets = array.as_string::<i32>().value_offsets();
            let ends = offsets.first().zip(offsets.last());
            ends.map_or(0, |(first, last)| usize::try_from(last - first).unwrap_or(usize::MAX))
        }
        DataType::Utf8View => array.as_string_view().iter().flatten().map(str::len).sum(),
        _ => array.to_data().get_slice_memory_size().unwrap_or(usize::MAX),
    }
}

/// Texts joined by `||` are bounded, too.
#[derive(Debug)]
struct Joining;

impl ExprPlanner for Joining {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let is_list = |side: &Expr| side.get_type(schema).map(|kind| kind.is_nested());
        if expr.op != BinaryOperator::StringConcat || is_list(&expr.left)? || is_list(&expr.right)? {
            return Ok(PlannerResult::Original(expr));
        }
        let join = ScalarFunction::new_udf(Arc::new(ScalarUDF::from(Join::default())), vec![expr.left, expr.right]);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(join)))
    }
}

/// `a || b`: nothing where either is nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Join(Signature);

impl Default for Join {
    fn default() -> Self {
        Self(Signature::user_defined(Volatility::Immutable))
    }
}

impl ScalarUDFImpl for Join {
    fn name(&self) -> &str {
        "||"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(ToString::to_string).collect::<Vec<_>>().join(" || "))
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect::<Vec<_>>().join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![DataType::Utf8; arg_types.len()])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        check("||", Grows::Sum, &args.args, args.number_rows)?;
        if let [ColumnarValue::Scalar(a), ColumnarValue::Scalar(b)] = args.args.as_slice() {
            let (a, b) = (a.try_as_str().flatten(), b.try_as_str().flatten());
            return Ok(ColumnarValue::Scalar(ScalarValue::Utf8(a.zip(b).map(|(a, b)| format!("{a}{b}")))));
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [a, b] = arrays.as_slice() else { return exec_err!("two texts are joined by ||") };
        let (a, b) = (cast(a, &DataType::Utf8)?, cast(b, &DataType::Utf8)?);
        let pairs = a.as_string::<i32>().iter().zip(b.as_string::<i32>().iter());
        let joined: StringArray = pairs.map(|(a, b)| Some(format!("{}{}", a?, b?))).collect();
        Ok(ColumnarValue::Array(Arc::new(joined)))
    }
}

/// Refuses statements whose own texts are long, a constant is laid out for every row, or that make too many.
#[derive(Debug)]
struct CountLiterals;

impl OptimizerRule for CountLiterals {
    fn name(&self) -> &str {
        "count_literals"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let (mut counted, mut calls) = (0, 0);
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expression| {
                expression.apply(|part| {
                    match part {
                        Expr::Literal(value, _) => counted += Some(one(value)).filter(|n| *n > SHORT).unwrap_or(0),
                        Expr::ScalarFunction(call) => {
                            let inner = call.func.inner();
                            let grows = inner.is::<Bounded>() || inner.is::<Join>();
                            calls += usize::from(grows);
                        }
                        _ => {}
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        if counted > LITERAL_BYTES_MAX {
            return plan_err!(
                "the statement's own texts have {counted} bytes; those of more than {SHORT} may have {LITERAL_BYTES_MAX} together"
            );
        }
        if calls > CALLS_MAX {
            return plan_err!(
                "the statement makes longer texts or lists of others in {calls} places; {CALLS_MAX} are the most"
            );
        }
        Ok(Transformed::no(plan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Limits, runtime, session};

    async fn asked(sql: &str) -> Result<String, String> {
        let context = bounded(session(Limits::default(), runtime(Limits::default()).unwrap()));
        let answer = async { context.sql(sql).await?.collect().await };
        let rows = answer.await.map_err(|error| error.strip_backtrace())?;
        Ok(arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string())
    }

    #[tokio::test]
    async fn nothing_grows_without_bound() {
        let nested =
            |text: &str, n: usize, wrap: fn(&str) -> String| (0..n).fold(text.to_owned(), |text, _| wrap(&text));
        let replaced = nested("'aaaa'", 9, |text| format!("replace({text}, 'a', 'aaaaaaaaaa')"));
        let of_column = nested("x", 9, |text| format!("replace({text}, 'a', 'aaaaaaaaaa')"));
        let doubled = |double: &str| {
            let steps = (1..40).map(|n| format!("t{n} AS (SELECT {double} x FROM t{})", n - 1));
            format!(
                "WITH t0 AS (SELECT 'aaaaaaaa' x), {} SELECT length(x) FROM t39",
                steps.collect::<Vec<_>>().join(", ")
            )
        };
        let many = (0..500).map(|n| format!("repeated || '{n}' x{n}")).collect::<Vec<_>>().join(", ");
        let long = "a".repeat(4_000);
        for sql in [
            format!("SELECT length({replaced})"),
            format!("SELECT length({of_column}) FROM (VALUES ('aaaa'), ('aab')) t(x)"),
            format!(
                "SELECT length({})",
                nested("'aaaa'", 9, |t| format!("regexp_replace({t}, 'a', 'aaaaaaaaaa', 'g')"))
            ),
            doubled("x || x"),
            doubled("concat(x, x)"),
            doubled("concat_ws('-', x, x)"),
            doubled("encode(x, 'hex')"),
            format!("SELECT array_to_string(['a', 'b', 'c'], '{long}')"),
            format!("WITH t AS (SELECT concat('{long}', 'b') repeated) SELECT {many} FROM t, generate_series(1, 9)"),
            format!("SELECT {}", (0..17).map(|n| format!("'{long}' x{n}")).collect::<Vec<_>>().join(", ")),
        ] {
            let error = asked(&sql).await.expect_err(&sql[..60.min(sql.len())]);
            assert!(
                ["KiB each", "own texts", "places"].iter().any(|words| error.contains(words)),
                "{}",
                &error[..300.min(error.len())]
            );
        }
    }

    #[tokio::test]
    async fn what_is_short_is_as_ever() {
        for (sql, expected) in [
            ("SELECT 'a' || 'b' || NULL IS NULL AS x", "true"),
            ("SELECT 'a' || 1 || true AS x", "a1true"),
            ("SELECT max(x || '-' || n) FROM (VALUES ('p', 1), ('q', 2)) t(x, n)", "q-2"),
            ("SELECT array_length([1] || [2, 3]) AS x", "3"),
            ("SELECT concat('a', NULL, 2) AS x", "a2"),
            ("SELECT concat_ws('-', 'a', NULL, 'b') AS x", "a-b"),
            ("SELECT replace('banana', 'an', 'AN') AS x", "bANANa"),
            ("SELECT regexp_replace('a1b2', '[0-9]', '#', 'g') AS x", "a#b#"),
            ("SELECT array_to_string(make_array('a', 'b'), ', ') AS x", "a, b"),
            ("SELECT encode('ab', 'hex') AS x", "6162"),
        ] {
            let answer = asked(sql).await.unwrap();
            assert!(answer.contains(&format!("| {expected} ")), "{sql}\n{answer}");
        }
        let names = (0..5_000).map(|n| format!("'home-{n:05}'")).collect::<Vec<_>>().join(", ");
        assert!(
            asked(&format!("SELECT count(*) FROM (VALUES ('home-00042')) t(h) WHERE h IN ({names})")).await.is_ok()
        );
    }
}
