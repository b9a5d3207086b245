//! Settings: `current_setting(name)`, which tools ask before they ask anything else (Grafana for the version), and what `SET` does.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use datafusion::common::{Result, cast::as_string_array, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::sql::sqlparser::ast::Set;
use datafusion_postgres::pgwire::api::ClientInfo;

/// The settings that there are, with what they say: as PostgreSQL 16 would.
const SETTINGS: [(&str, &str); 5] = [
    ("server_version_num", "160006"),
    ("server_version", "16.6"),
    ("search_path", "\"$user\", public"),
    ("server_encoding", "UTF8"),
    ("timezone", "UTC"),
];

/// Under which name the client's own limit is kept, in milliseconds.
const STATEMENT_TIMEOUT: &str = "statement_timeout_ms";

/// How long the client itself wants its statements to take at most, as it has set it.
pub(super) fn statement_timeout(client: &impl ClientInfo) -> Option<Duration> {
    let millis = client.metadata().get(STATEMENT_TIMEOUT)?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

/// What becomes of a `SET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// It has an effect on how the client is answered.
    Followed,
    /// It is one of PostgreSQL's that means nothing here: taken, as tools set many.
    Ignored,
    /// It would change what the server gives to a statement.
    Refused,
}

/// What of PostgreSQL's settings has an effect.
const FOLLOWED: [&str; 8] = [
    "statement_timeout",
    "timezone",
    "datestyle",
    "intervalstyle",
    "bytea_output",
    "extra_float_digits",
    "application_name",
    "search_path",
];

/// What becomes of a `SET`. Settings of the query engine have a dot in their names; whoever could set them had no bounds.
pub(super) fn setting(set: &Set) -> Setting {
    match set {
        Set::SetTimeZone { .. } => Setting::Followed,
        Set::SingleAssignment { variable, .. } => match variable.0.as_slice() {
            [_] if FOLLOWED.contains(&variable.to_string().to_lowercase().as_str()) => Setting::Followed,
            [name] if !name.to_string().contains('.') => Setting::Ignored,
            _ => Setting::Refused,
        },
        Set::ParenthesizedAssignments { .. } | Set::MultipleAssignments { .. } => Setting::Refused,
        _ => Setting::Ignored,
    }
}

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
