//! Tables: what `kubectl get` prints. Columns and cells by kind, pure functions of an object and the time.
//!
//! `tables/<area>.rs` holds the columns of the kinds of one area. The server asks for [`table`] after it has got
//! or listed objects as usual; nothing here reads a store.

pub(crate) mod cells;
pub(crate) mod cluster;
pub(crate) mod core;
pub(crate) mod flow_control;
pub(crate) mod network;
pub(crate) mod nodes;
pub(crate) mod pods;
pub(crate) mod workloads;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::definition::Definition;
use crate::registry::object::CachedObject;

/// One column's definition, as clients read it.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`, `boolean`.
    pub kind: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

impl Column {
    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "string", format: "", description, priority: 0 }
    }

    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "integer", format: "", description, priority: 0 }
    }

    /// Shown only with `-o wide`.
    pub const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace.",
    priority: 0,
};
pub const AGE: Column = Column::text("Age", "Time since the object was created.");

/// Computes a row's cells, one a column.
pub type Cells = fn(&Value, Timestamp) -> Vec<Value>;

/// A kind's columns and how to fill them.
#[derive(Clone, Copy)]
pub struct Columns {
    pub columns: &'static [Column],
    pub cells: Cells,
}

impl Default for Columns {
    /// Name and creation time, as for kinds without columns of their own.
    fn default() -> Self {
        const CREATED: Column =
            Column { kind: "date", ..Column::text("Created At", "When the object was created.") };
        Self {
            columns: &[NAME, CREATED],
            cells: |o, _| {
                vec![
                    o.pointer("/metadata/name").cloned().unwrap_or_default(),
                    o.pointer("/metadata/creationTimestamp").cloned().unwrap_or_default(),
                ]
            },
        }
    }
}

/// `?includeObject=`: what of each object rides along in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

/// A meta.k8s.io/v1 Table of `objects`. `list_meta` is the list's (or a single object's) resourceVersion, continue
/// and remainingItemCount. `with_columns` is false for watch events after the first.
pub fn table(
    definition: &Definition,
    objects: &[Arc<CachedObject>],
    include: IncludeObject,
    list_meta: Value,
    with_columns: bool,
    now: Timestamp,
) -> Value {
    let definitions = if with_columns { column_definitions(definition) } else { Vec::new() };
    let rows: Vec<Value> = objects.iter().map(|o| row(definition, o, include, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn column_definitions(definition: &Definition) -> Vec<Value> {
    if let Some(custom) = &definition.custom {
        return custom.columns.definitions();
    }
    let columns = definition.columns.columns.iter();
    columns
        .map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
        })
        .collect()
}

fn row(definition: &Definition, object: &CachedObject, include: IncludeObject, now: Timestamp) -> Value {
    let value = object.value();
    let cells = match &definition.custom {
        Some(custom) => custom.columns.cells(&value, now),
        None => (definition.columns.cells)(&value, now),
    };
    let mut row = json!({"cells": cells});
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": value.get("metadata").cloned().unwrap_or_default(),
            });
        }
        IncludeObject::Object => row["object"] = value,
    }
    row
}
