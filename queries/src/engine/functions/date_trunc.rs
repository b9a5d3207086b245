//! `date_trunc` of times in UTC, as all of ours are, by arithmetic. DataFusion's own goes through the calendar of the zone for each
//! row, which is most of what an hourly average costs; everything but UTC is still its work.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, FieldRef, TimeUnit, TimestampMillisecondType};
use datafusion::common::Result;
use datafusion::functions::datetime;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

/// In the place of DataFusion's, under the same name.
pub(in crate::engine) fn date_trunc() -> ScalarUDF {
    ScalarUDF::from(DateTrunc { any: datetime::date_trunc() })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    /// Truncates anything.
    any: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.any.name()
    }

    /// All of its names: a state that is made from another registers each function again under all its names, in any order, and
    /// one left under any of them would now and then take this one's place.
    fn aliases(&self) -> &[String] {
        self.any.aliases()
    }

    fn signature(&self) -> &Signature {
        self.any.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.any.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.any.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match in_utc(&args.args) {
            Some(truncated) => Ok(ColumnarValue::Array(truncated)),
            None => self.any.invoke_with_args(args),
        }
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.any.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.any.documentation()
    }
}

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// None for what is not milliseconds in UTC, or steps of other lengths.
fn in_utc(args: &[ColumnarValue]) -> Option<ArrayRef> {
    let [ColumnarValue::Scalar(step), ColumnarValue::Array(times)] = args else { return None };
    let DataType::Timestamp(TimeUnit::Millisecond, Some(zone)) = times.data_type() else { return None };
    let step = step.try_as_str().flatten().filter(|_| **zone == *"UTC")?;
    let times = times.as_primitive::<TimestampMillisecondType>();
    let truncated = match step.to_ascii_lowercase().as_str() {
        "second" => truncated::<SECOND>(times),
        "minute" => truncated::<MINUTE>(times),
        "hour" => truncated::<HOUR>(times),
        "day" => truncated::<DAY>(times),
        _ => return None,
    };
    Some(Arc::new(truncated.with_timezone("UTC")))
}

fn truncated<const STEP: i64>(times: &TimestampMillisecondArray) -> TimestampMillisecondArray {
    times.unary(|time: i64| time.saturating_sub(time.rem_euclid(STEP)))
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::DateTrunc;
    use crate::engine::{Limits, runtime, session};

    /// Under none of its names is DataFusion's left.
    #[test]
    fn it_is_the_only_one() {
        let state = session(Limits::default(), runtime(Limits::default()).unwrap());
        let named: Vec<_> =
            state.scalar_functions().values().filter(|function| function.name() == "date_trunc").collect();
        assert!(named.len() > 1, "an alias");
        for function in named {
            assert!(function.inner().downcast_ref::<DateTrunc>().is_some(), "{function:?}");
        }
    }

    /// Our answers are DataFusion's, for times around every edge and before 1970.
    #[tokio::test]
    async fn it_says_what_datafusion_says() {
        let ours = SessionContext::new_with_state(session(Limits::default(), runtime(Limits::default()).unwrap()));
        let theirs = SessionContext::new();
        for zone in ["UTC", "Asia/Shanghai"] {
            for step in ["second", "Minute", "hour", "day", "week", "month", "quarter", "year"] {
                let sql = format!(
                    "SELECT date_trunc('{step}', arrow_cast(column1, 'Timestamp(Millisecond, Some(\"{zone}\"))')) FROM \
                     (VALUES (0), (-1), (1), (999), (-86400001), (1772323199999), (1772323200000), (1772323200001), \
                     (951782400000), (-5000000000000), (NULL))"
                );
                let answer = async |context: &SessionContext| {
                    let batches = context.sql(&sql).await.unwrap().collect().await.unwrap();
                    arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
                };
                assert_eq!(answer(&ours).await, answer(&theirs).await, "{step} in {zone}");
            }
        }
    }
}
