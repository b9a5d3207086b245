//! `current_setting(name)`: what tools ask before they ask anything else, such as Grafana for the version.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, cast::as_string_array, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

/// The settings that there are, with what they say: as PostgreSQL 16 would.
const SETTINGS: [(&str, &str); 5] = [
    ("server_version_num", "160006"),
    ("server_version", "16.6"),
    ("search_path", "\"$user\", public"),
    ("server_encoding", "UTF8"),
    ("timezone", "UTC"),
];

/// The function; an unknown name is an error, as there.
pub(super) fn current_setting() -> ScalarUDF {
    let implementation = Arc::new(|arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let Some(names) = arrays.first() else { return plan_err!("current_setting takes a name") };
        let values = as_string_array(names)?.iter().map(|name| name.map(value).transpose());
        let values: ArrayRef = Arc::new(values.collect::<Result<StringArray>>()?);
        Ok(ColumnarValue::Array(values))
    });
    create_udf("current_setting", vec![DataType::Utf8], DataType::Utf8, Volatility::Stable, implementation)
}

fn value(name: &str) -> Result<&'static str> {
    match SETTINGS.iter().find(|(setting, _)| setting.eq_ignore_ascii_case(name)) {
        Some((_, value)) => Ok(value),
        None => plan_err!("unrecognized configuration parameter \"{name}\""),
    }
}
