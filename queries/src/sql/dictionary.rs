//! `queries/dictionary.toml`: what every table and column means, in both languages.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Deserialize;

use super::views;

const FILE: &str = include_str!("../../dictionary.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dictionary {
    tables: BTreeMap<String, Meaning>,
    columns: BTreeMap<String, Meaning>,
    #[serde(default)]
    of: BTreeMap<String, BTreeMap<String, Meaning>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meaning {
    zh: String,
    en: String,
}

static DICTIONARY: LazyLock<Dictionary> =
    LazyLock::new(|| toml::from_str(FILE).expect("the dictionary reads, a test holds that"));

/// The table `dictionary`: a row for each table, and for each of its columns, of those that are given.
pub(super) fn table(tables: &[(String, SchemaRef)]) -> RecordBatch {
    let mut rows: Vec<[Option<String>; 4]> = Vec::new();
    let views = views();
    let mut put = |table: &str, column: Option<&str>, meaning: Option<Meaning>| {
        let Meaning { zh, en } = meaning.unwrap_or(Meaning { zh: String::new(), en: String::new() });
        rows.push([Some(table.to_owned()), column.map(str::to_owned), Some(zh), Some(en)]);
    };
    for (name, schema) in tables {
        let view = views.iter().find(|view| view.name == *name);
        let view = view.map(|view| Meaning { zh: view.title.zh.clone(), en: view.title.en.clone() });
        put(name, None, view.or_else(|| DICTIONARY.tables.get(name).cloned()));
        for field in schema.fields() {
            let column = field.name();
            let own = DICTIONARY.of.get(name).and_then(|columns| columns.get(column));
            put(name, Some(column), own.or_else(|| DICTIONARY.columns.get(column)).cloned());
        }
    }
    let column = |n: usize| -> arrow::array::ArrayRef {
        Arc::new(rows.iter().map(|row| row.get(n).cloned().flatten()).collect::<StringArray>())
    };
    RecordBatch::try_new(schema(), (0..4).map(column).collect()).expect("the columns are made after the schema")
}

/// Columns of `dictionary`.
pub(super) fn schema() -> SchemaRef {
    let text = |name, null| Field::new(name, DataType::Utf8, null);
    Arc::new(Schema::new(vec![
        text("table_name", false),
        text("column_name", true),
        text("zh", false),
        text("en", false),
    ]))
}
