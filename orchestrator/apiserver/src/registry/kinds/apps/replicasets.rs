//! ReplicaSet: so many pods of one template.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, SCALE, STATUS};
use crate::registry::field_rules::{Fixed, Rule, at};
use crate::registry::kinds::rules::shapes::NOT_BELOW_ZERO;
use crate::registry::kinds::rules::workload::{self, Workload};
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
        .rules(RULES)
        .fixed(&[Fixed::Field("spec.selector")])
        .strategy(ReplicaSet)
}

const WORKLOAD: Workload = Workload { selects: "deployment", named: "ReplicaSet" };

const RULES: &[Rule] = &[at("spec.replicas", NOT_BELOW_ZERO), at("spec.minReadySeconds", NOT_BELOW_ZERO)];

struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"replicas": 0});
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        workload::validate(&new["spec"], &new["spec"]["template"], &WORKLOAD, &mut errors);
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        workload::counts(&new["status"], &parts, "readyReplicas", &mut errors);
        errors
    }
}
