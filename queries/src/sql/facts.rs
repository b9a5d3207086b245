//! The service centre's tables that analysts read beside the lake: their columns, for whoever fills them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::episodes::time_type;

/// `alerts`: one row per transition of an alert, `areas` and `gateways`: as they are registered, `registrations`: from when to when,
/// `status` and `device_status`: what gateways say of themselves and of their devices.
type Table = (&'static str, fn() -> SchemaRef);
const TABLES: [Table; 6] = [
    ("alerts", alerts),
    ("areas", areas),
    ("gateways", gateways),
    ("registrations", registrations),
    ("status", status),
    ("device_status", device_status),
];

/// Each of the service centre's tables without rows, for lakes that no service centre goes with.
pub(super) fn empty() -> impl Iterator<Item = (&'static str, RecordBatch)> {
    TABLES.into_iter().map(|(name, schema)| (name, RecordBatch::new_empty(schema())))
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>()))
}

/// Columns of `alerts`.
#[must_use]
pub fn alerts() -> SchemaRef {
    let text = DataType::Utf8;
    schema(&[
        ("number", DataType::UInt64),
        ("at", time_type()),
        ("alert", text.clone()),
        ("change", text.clone()),
        ("detection", text.clone()),
        ("subject", text.clone()),
        ("home_id", text.clone()),
        ("bed_id", text.clone()),
        ("area", text.clone()),
        ("class", text.clone()),
        ("priority", text.clone()),
        ("raised_at", time_type()),
        ("operator", text.clone()),
        ("outcome", text.clone()),
        ("reason", text),
        ("rings", DataType::Boolean),
    ])
}

/// Columns of `areas`.
#[must_use]
pub fn areas() -> SchemaRef {
    schema(&[("area", DataType::Utf8), ("name_zh", DataType::Utf8), ("name_en", DataType::Utf8)])
}

/// Columns of `gateways`.
#[must_use]
pub fn gateways() -> SchemaRef {
    schema(&[("gateway_id", DataType::Utf8), ("home_id", DataType::Utf8), ("area", DataType::Utf8)])
}

/// Columns of `registrations`.
#[must_use]
pub fn registrations() -> SchemaRef {
    let text = DataType::Utf8;
    schema(&[
        ("kind", text.clone()),
        ("id", text.clone()),
        ("home_id", text.clone()),
        ("bed_id", text.clone()),
        ("area", text),
        ("valid_from", time_type()),
        ("valid_to", time_type()),
    ])
}

/// Columns of `status`.
#[must_use]
pub fn status() -> SchemaRef {
    let text = DataType::Utf8;
    schema(&[
        ("home_id", text.clone()),
        ("gateway_id", text.clone()),
        ("area", text.clone()),
        ("state", text.clone()),
        ("since", time_type()),
        ("last_heard", time_type()),
        ("software", text.clone()),
        ("clock_quality", text.clone()),
        ("spool_batches", DataType::UInt64),
        ("spool_bytes", DataType::UInt64),
        ("troubles", text),
    ])
}

/// Columns of `device_status`.
#[must_use]
pub fn device_status() -> SchemaRef {
    let text = DataType::Utf8;
    schema(&[
        ("home_id", text.clone()),
        ("device_id", text.clone()),
        ("area", text.clone()),
        ("health", text),
        ("since", time_type()),
        ("last_good", time_type()),
    ])
}
