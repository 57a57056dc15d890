//! DaemonSet: one pod a node.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::kinds::rules::{immutable, labels, not_negative};
use crate::registry::strategy::Strategy;
use crate::tables::workloads::DAEMON_SETS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apps", "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .categories(&["all"])
        .generation()
        .columns(DAEMON_SETS)
        .subresources(&[STATUS])
        .strategy(DaemonSet)
}

struct DaemonSet;

impl Strategy for DaemonSet {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0
        });
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
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
