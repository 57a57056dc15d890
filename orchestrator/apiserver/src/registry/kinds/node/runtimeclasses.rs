//! RuntimeClass: how a node is to run a pod, and what that costs.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Fixed, Rule, at};
use crate::registry::kinds::rules::pod_spec::{resources, tolerations};
use crate::registry::meta::names;
use crate::tables::cluster::RUNTIME_CLASSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
        .columns(RUNTIME_CLASSES)
        .cluster_scoped()
        .rules(RULES)
        .fixed(&[Fixed::Field("handler")])
}

fn overhead(overhead: &Value, path: &str, errors: &mut Vec<FieldError>) {
    resources::validate_amounts(&overhead["podFixed"], path, errors);
}

const RULES: &[Rule] = &[
    at("handler", Check::Required("")),
    at("handler", Check::Name(names::label)),
    at("overhead", Check::Judge(overhead)),
    at("scheduling.nodeSelector", Check::Labels),
    at("scheduling.tolerations", Check::Judge(tolerations::validate)),
    at("scheduling.tolerations", Check::Unique(&["key", "operator", "value", "effect"])),
];
