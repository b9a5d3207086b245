//! What a table is called and looks like, and whether the one that is there looks so: other programs may have changed it.

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, SchemaRef, TimeUnit};
use deltalake_core::kernel::{Action, DataType, StructField, StructType};
use serde_json::Value;

use super::TableError;

/// The protocol of what is written here. A table that asks for more (deletion vectors, renamed columns, constraints) would be
/// read and written wrongly.
const READER_MAX: u64 = 1;
const WRITER_MAX: u64 = 2;

/// What a table is called and looks like.
#[derive(Debug, Clone)]
pub(crate) struct Design {
    pub(crate) name: &'static str,
    /// Columns of its files.
    pub(crate) schema: SchemaRef,
    /// A further column, the day, that is in the paths only.
    pub(crate) partition: Option<&'static str>,
}

impl Design {
    pub(super) fn columns(&self) -> Vec<StructField> {
        let field =
            |f: &Arc<arrow::datatypes::Field>| StructField::new(f.name(), delta_type(f.data_type()), f.is_nullable());
        let mut columns: Vec<StructField> = self.schema.fields().iter().map(field).collect();
        columns.extend(self.partition.map(|name| StructField::new(name, DataType::DATE, true)));
        columns
    }

    /// Fails when an action of the log makes the table one that is not to be read or written here. Further columns that may be
    /// empty do no harm: nobody asks for them.
    pub(super) fn check(&self, action: &Action, version: u64) -> Result<(), TableError> {
        let foreign = |what: String| TableError::Foreign { table: self.name, version, what };
        match action {
            Action::Protocol(protocol) => {
                let protocol = serde_json::to_value(protocol).unwrap_or_default();
                let needs = |key: &str| protocol.get(key).and_then(Value::as_u64).unwrap_or(u64::MAX);
                let (reader, writer) = (needs("minReaderVersion"), needs("minWriterVersion"));
                if reader > READER_MAX || writer > WRITER_MAX {
                    return Err(foreign(format!(
                        "it asks for readers of version {reader} and writers of version {writer}"
                    )));
                }
            }
            Action::Metadata(metadata) => {
                let metadata = serde_json::to_value(metadata).unwrap_or_default();
                let schema = metadata.get("schemaString").and_then(Value::as_str).unwrap_or_default();
                let found: StructType =
                    serde_json::from_str(schema).map_err(|_| foreign("its columns cannot be read".to_owned()))?;
                let wanted = self.columns();
                for wanted in &wanted {
                    let name = wanted.name();
                    let there = found.field(name).ok_or_else(|| foreign(format!("it has no column {name}")))?;
                    if there.data_type() != wanted.data_type() {
                        return Err(foreign(format!("its column {name} is {}", there.data_type())));
                    }
                }
                let is_unknown = |field: &&StructField| wanted.iter().all(|wanted| wanted.name() != field.name());
                if let Some(field) = found.fields().filter(is_unknown).find(|field| !field.is_nullable()) {
                    return Err(foreign(format!("its column {} must not be empty", field.name())));
                }
                let days: Vec<&str> = self.partition.into_iter().collect();
                if metadata.get("partitionColumns") != Some(&Value::from(days)) {
                    return Err(foreign("it is partitioned by something else".to_owned()));
                }
            }
            Action::Add(add) if add.deletion_vector.is_some() => {
                return Err(foreign(format!("rows are taken out of {} without writing it again", add.path)));
            }
            _ => {}
        }
        Ok(())
    }
}

fn delta_type(kind: &ArrowType) -> DataType {
    match kind {
        ArrowType::Float64 => DataType::DOUBLE,
        ArrowType::Int64 => DataType::LONG,
        ArrowType::Binary => DataType::BINARY,
        ArrowType::Timestamp(TimeUnit::Millisecond, _) => DataType::TIMESTAMP,
        _ => DataType::STRING,
    }
}
