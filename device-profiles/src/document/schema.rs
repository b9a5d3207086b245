//! The JSON Schema of a file, derived from the code that reads it: the reader is run over a file that has every table and
//! no field, and whatever it asks for is written down. So the schema cannot promise what the reader does not take.

mod probe;

use std::cell::RefCell;
use std::rc::Rc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use super::Fields;

/// The schema of the files that `read` reads.
#[must_use]
pub fn schema(title: &str, read: impl FnOnce(&mut Fields<'_>)) -> Json {
    let (root, told) = (Table::default(), RefCell::new(Vec::new()));
    read(&mut Fields::surveyed("the file", root.clone(), &told));
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("title".to_owned(), title.into());
    if let Json::Object(rest) = root.json() {
        schema.extend(rest);
    }
    Json::Object(schema)
}

/// The schema of one table, while it grows. Clones are the same table.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(Rc<RefCell<Grown>>);

#[derive(Debug, Default)]
struct Grown {
    keys: Vec<(&'static str, Of)>,
    required: Vec<&'static str>,
}

#[derive(Debug)]
enum Of {
    Field(Json),
    Table(Table),
    Tables(Table),
    Named(Table),
}

impl Table {
    pub(super) fn field<T: DeserializeOwned>(&self, key: &'static str) {
        self.put(key, Of::Field(probe::shape::<T>()));
    }

    pub(super) fn duration(&self, key: &'static str) {
        let pattern = "^[0-9]+([.][0-9]+)? ?(ms|s|min|h|d)$";
        self.put(key, Of::Field(json!({ "type": "string", "pattern": pattern, "examples": ["20ms", "5s", "10min"] })));
    }

    pub(super) fn need(&self, key: &'static str) {
        self.0.borrow_mut().required.push(key);
    }

    pub(super) fn table(&self, key: &'static str) -> Self {
        self.below(key, Of::Table)
    }

    pub(super) fn tables(&self, key: &'static str) -> Self {
        self.below(key, Of::Tables)
    }

    pub(super) fn named_tables(&self, key: &'static str) -> Self {
        self.below(key, Of::Named)
    }

    fn below(&self, key: &'static str, of: impl FnOnce(Self) -> Of) -> Self {
        let table = Self::default();
        self.put(key, of(table.clone()));
        table
    }

    fn put(&self, key: &'static str, of: Of) {
        let mut grown = self.0.borrow_mut();
        if !grown.keys.iter().any(|(known, _)| *known == key) {
            grown.keys.push((key, of));
        }
    }

    fn json(&self) -> Json {
        let grown = self.0.borrow();
        let properties: Map<String, Json> = grown
            .keys
            .iter()
            .map(|(key, of)| {
                let json = match of {
                    Of::Field(json) => json.clone(),
                    Of::Table(table) => table.json(),
                    Of::Tables(table) => json!({ "type": "array", "items": table.json() }),
                    Of::Named(table) => json!({ "type": "object", "additionalProperties": table.json() }),
                };
                ((*key).to_owned(), json)
            })
            .collect();
        let mut required = grown.required.clone();
        required.sort_unstable();
        required.dedup();
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }
}
