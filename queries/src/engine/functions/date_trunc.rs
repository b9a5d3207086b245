//! `date_trunc` of times in UTC, as all of ours are, by arithmetic. DataFusion's own goes through the calendar of the zone for each
//! row, which is most of what an hourly average costs; everything but UTC is still its work.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use datafusion::common::Result;
use datafusion::functions::datetime;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::instead::{Instead, instead};

/// In the place of DataFusion's, under the same name.
pub(in crate::engine) fn date_trunc() -> ScalarUDF {
    instead::<DateTrunc>(datetime::date_trunc())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc;

impl Instead for DateTrunc {
    fn answer(any: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match in_utc(&args.args) {
            Some(truncated) => Ok(ColumnarValue::Array(truncated)),
            None => any.invoke_with_args(args),
        }
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

    use crate::engine::{Limits, runtime, session};

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
