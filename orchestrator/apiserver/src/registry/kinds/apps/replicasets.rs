//! ReplicaSet: so many pods of one template.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, SCALE, STATUS};
use crate::registry::kinds::rules::{immutable, labels, not_negative};
use crate::registry::strategy::Strategy;
use crate::tables::workloads::REPLICA_SETS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apps", "v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .categories(&["all"])
        .generation()
        .columns(REPLICA_SETS)
        .subresources(&[SCALE, STATUS])
        .fields(&["status.replicas"], |o| {
            let n = o.pointer("/status/replicas").and_then(Value::as_i64).unwrap_or(0);
            vec![("status.replicas", n.to_string())]
        })
        .strategy(ReplicaSet)
}

struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"replicas": 0});
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        not_negative(new, "/spec/replicas", &mut errors);
        not_negative(new, "/spec/minReadySeconds", &mut errors);
        labels::validate_workload(new, &["Always"], &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        immutable(new, old, "/spec/selector", &mut errors);
        errors
    }
}
