//! ReplicationController: the older ReplicaSet, with a plain map as its selector.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, SCALE, STATUS};
use crate::registry::kinds::rules::{not_negative, pod_spec};
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
        .strategy(ReplicationController)
}

struct ReplicationController;

impl Strategy for ReplicationController {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"replicas": 0});
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        not_negative(new, "/spec/replicas", &mut errors);
        let selector = new.pointer("/spec/selector").and_then(Value::as_object);
        if selector.is_none_or(serde_json::Map::is_empty) {
            errors.push(FieldError::required("spec.selector", ""));
        }
        match new.pointer("/spec/template") {
            None => errors.push(FieldError::required("spec.template", "")),
            Some(template) => {
                let labels = template.pointer("/metadata/labels");
                let matched =
                    selector.into_iter().flatten().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v));
                if !matched {
                    errors.push(FieldError::invalid(
                        "spec.template.metadata.labels",
                        labels.cloned().unwrap_or_else(|| json!({})),
                        "`selector` does not match template `labels`",
                    ));
                }
                pod_spec::validate_pod_template(template, "spec.template", &mut errors);
            }
        }
        errors
    }
}
