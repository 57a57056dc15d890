//! `flowcontrol.apiserver.k8s.io`. One file a kind.

pub(crate) mod flowschemas;
pub(crate) mod prioritylevelconfigurations;

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::object::items_at;

/// Conditions have a type, and one of each.
fn errors_of_conditions(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut known = Vec::new();
    for (index, condition) in items_at(object, "/status/conditions").iter().enumerate() {
        let path = format!("status.conditions[{index}].type");
        let kind = condition["type"].as_str().unwrap_or_default();
        if known.contains(&kind) {
            errors.push(FieldError::duplicate(path.clone(), kind));
        }
        known.push(kind);
        if kind.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
    }
    errors
}
