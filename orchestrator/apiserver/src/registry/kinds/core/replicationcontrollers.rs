//! ReplicationController: the older ReplicaSet, with a plain map as its selector.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, SCALE, STATUS};
use crate::registry::field_rules::{Check, Rule, at};
use crate::registry::kinds::rules::shapes::NOT_BELOW_ZERO;
use crate::registry::kinds::rules::{pod_spec, workload};
use crate::registry::object::str_at;
use crate::registry::strategy::Strategy;
use crate::tables::workloads::REPLICATION_CONTROLLERS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .categories(&["all"])
        .generation()
        .columns(REPLICATION_CONTROLLERS)
        .subresources(&[SCALE, STATUS])
        .fields(&["status.replicas"], |o| {
            let n = o.pointer("/status/replicas").and_then(Value::as_i64).unwrap_or(0);
            vec![("status.replicas", n.to_string())]
        })
        .rules(RULES)
        .strategy(ReplicationController)
}

const RULES: &[Rule] = &[
    at("spec.minReadySeconds", NOT_BELOW_ZERO),
    at("spec.selector", Check::Required("")),
    at("spec.replicas", NOT_BELOW_ZERO),
];

struct ReplicationController;

impl Strategy for ReplicationController {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"replicas": 0});
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let template = &new["spec"]["template"];
        if template.is_null() {
            errors.push(FieldError::required("spec.template", ""));
            return errors;
        }
        let selector = json!({"matchLabels": new["spec"]["selector"]});
        workload::selects_template(&selector, template, "spec.template", &mut errors);
        pod_spec::validate_pod_template(template, "spec.template", &mut errors);
        let policy = str_at(template, "/spec/restartPolicy");
        if policy != "Always" {
            errors.push(FieldError::not_supported("spec.template.spec.restartPolicy", policy, &["Always"]));
        }
        if !template["spec"]["activeDeadlineSeconds"].is_null() {
            let why = "activeDeadlineSeconds in ReplicationController is not Supported";
            errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", why));
        }
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        workload::counts(&new["status"], &parts, "readyReplicas", &mut errors);
        errors
    }
}
