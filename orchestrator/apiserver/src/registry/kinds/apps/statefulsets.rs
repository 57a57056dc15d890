//! StatefulSet: pods with a number, each with its own storage.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, SCALE, STATUS};
use crate::registry::kinds::rules::{labels, not_negative};
use crate::registry::strategy::Strategy;
use crate::tables::workloads::STATEFUL_SETS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .categories(&["all"])
        .generation()
        .columns(STATEFUL_SETS)
        .subresources(&[SCALE, STATUS])
        .strategy(StatefulSet)
}

struct StatefulSet;

const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

impl Strategy for StatefulSet {
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
        let fixed = |v: &Value| {
            let mut spec = v.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
            spec.retain(|k, _| !MUTABLE.contains(&k.as_str()));
            spec
        };
        if fixed(new) == fixed(old) {
            return Vec::new();
        }
        vec![FieldError::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )]
    }
}
