//! The dictionary as comments on tables and columns, where PostgreSQL's clients look for them: `pg_description`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray as _, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type};
use async_trait::async_trait;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::logical_expr::{ColumnarValue, LogicalPlan, Volatility, create_udf};
use datafusion::prelude::SessionContext;

use crate::sql::CATALOG;

const NAME: &str = "pg_catalog";
const TABLE: &str = "pg_description";
/// 1259 is `pg_class` itself; number 0 is the table, the others its columns.
const DESCRIPTIONS: &str = "
    SELECT c.oid AS objoid, CAST(1259 AS int) AS classoid, CAST(0 AS int) AS objsubid, d.zh || ' / ' || d.en AS description
    FROM pg_catalog.pg_class c JOIN dictionary d ON d.table_name = c.relname WHERE d.column_name IS NULL
    UNION ALL
    SELECT c.oid, CAST(1259 AS int), CAST(a.attnum AS int), d.zh || ' / ' || d.en
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
    JOIN dictionary d ON d.table_name = c.relname AND d.column_name = a.attname";

/// Puts the comments into a session's PostgreSQL catalogue.
pub(super) async fn add(context: &SessionContext) -> Result<()> {
    let Some(catalog) = context.catalog(CATALOG) else { return Ok(()) };
    let Some(inner) = catalog.schema(NAME) else { return Ok(()) };
    let plan = context.state().create_logical_plan(DESCRIPTIONS).await?;
    functions(context, plan.clone()).await?;
    let descriptions: Arc<dyn TableProvider> = Arc::new(ViewTable::new(plan, None));
    let _plain = catalog.register_schema(NAME, Arc::new(Described { inner, descriptions }))?;
    Ok(())
}

/// `obj_description` and `col_description`, by which psql shows them, and what it asks besides when it shows more.
async fn functions(context: &SessionContext, descriptions: LogicalPlan) -> Result<()> {
    let mut known = HashMap::new();
    for batch in context.execute_logical_plan(descriptions).await?.collect().await? {
        let number = |n: usize| cast(batch.column(n), &DataType::Int32);
        let (of, part, text) = (number(0)?, number(2)?, cast(batch.column(3), &DataType::Utf8)?);
        let (of, part) = (of.as_primitive::<Int32Type>(), part.as_primitive::<Int32Type>());
        let rows = of.iter().zip(part).zip(text.as_string::<i32>());
        known.extend(rows.filter_map(|((of, part), text)| Some(((of?, part?), text?.to_owned()))));
    }
    let known = Arc::new(known);
    let described = |name: &str, second: DataType, is_column: bool| {
        let known = Arc::clone(&known);
        let body = move |arguments: &[ColumnarValue]| {
            let arrays = ColumnarValue::values_to_arrays(arguments)?;
            let [of, part] = arrays.as_slice() else { return exec_err!("two arguments are wanted") };
            let of = of.as_primitive::<Int32Type>();
            let part = |row: usize| match is_column {
                true => part.as_primitive::<Int32Type>().value(row),
                false => 0,
            };
            let texts = (0..of.len()).map(|row| known.get(&(of.value(row), part(row))).map(String::as_str));
            Ok(ColumnarValue::Array(Arc::new(texts.collect::<StringArray>())))
        };
        create_udf(name, vec![DataType::Int32, second], DataType::Utf8, Volatility::Stable, Arc::new(body))
    };
    context.register_udf(described("obj_description", DataType::Utf8, false));
    context.register_udf(described("col_description", DataType::Int32, true));
    // Tables here have no size of their own that would help anybody.
    let nothing = |name: &str, arguments: Vec<DataType>, kind: DataType| {
        let null = ScalarValue::try_from(&kind)?;
        let body = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(null.clone()));
        context.register_udf(create_udf(name, arguments, kind, Volatility::Stable, Arc::new(body)));
        Ok::<_, DataFusionError>(())
    };
    nothing("pg_table_size", vec![DataType::Int32], DataType::Int64)?;
    // What a view is made of is in queries/views; without it psql shows nothing at all of a view.
    nothing("pg_get_viewdef", vec![DataType::Int32, DataType::Boolean], DataType::Utf8)?;
    nothing("pg_size_pretty", vec![DataType::Int64], DataType::Utf8)
}

/// What psql asks for `\d+` that the query engine cannot plan, and what has the same answer here.
const PSQL: [(&str, &str); 1] = [(
    "pg_catalog.array_to_string(c.reloptions || array(select 'toast.' || x from pg_catalog.unnest(tc.reloptions) x), ', ')",
    "CAST(NULL AS text)",
)];

/// A statement as it is to be parsed.
pub(super) fn plannable(statement: &str) -> Cow<'_, str> {
    PSQL.iter().fold(Cow::Borrowed(statement), |statement, (asked, same)| match statement.contains(asked) {
        true => Cow::Owned(statement.replace(asked, same)),
        false => statement,
    })
}

/// The catalogue with comments in it.
#[derive(Debug)]
struct Described {
    inner: Arc<dyn SchemaProvider>,
    descriptions: Arc<dyn TableProvider>,
}

#[async_trait]
impl SchemaProvider for Described {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if name == TABLE { Ok(Some(Arc::clone(&self.descriptions))) } else { self.inner.table(name).await }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.inner.table_exist(name)
    }
}
