//! The dictionary as comments on tables and columns, where PostgreSQL's clients look for them: `pg_description`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::view::ViewTable;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;
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
    let descriptions: Arc<dyn TableProvider> = Arc::new(ViewTable::new(plan, None));
    let _plain = catalog.register_schema(NAME, Arc::new(Described { inner, descriptions }))?;
    Ok(())
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
