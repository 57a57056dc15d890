//! Which taints a pod can bear.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::meta::names;
use crate::registry::object::str_at;

pub(crate) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];

/// A list of tolerations at `path`.
pub(crate) fn validate(tolerations: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (i, toleration) in tolerations.as_array().into_iter().flatten().enumerate() {
        one(toleration, &format!("{path}[{i}]"), errors);
    }
}

fn one(t: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (key, operator) = (str_at(t, "/key"), str_at(t, "/operator"));
    if !key.is_empty()
        && let Some(why) = names::qualified_name(key)
    {
        errors.push(FieldError::invalid(format!("{path}.key"), key, why));
    }
    if key.is_empty() && operator != "Exists" {
        errors.push(FieldError::invalid(
            format!("{path}.operator"),
            operator,
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ));
    }
    let effect = str_at(t, "/effect");
    if !t["tolerationSeconds"].is_null() && effect != "NoExecute" {
        errors.push(FieldError::invalid(
            format!("{path}.effect"),
            effect,
            "effect must be 'NoExecute' when `tolerationSeconds` is set",
        ));
    }
    let value = str_at(t, "/value");
    match operator {
        "" | "Equal" => {
            if let Some(why) = names::label_value(value) {
                errors.push(FieldError::invalid(format!("{path}.operator"), value, why));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                let why = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(format!("{path}.operator"), value, why));
            }
        }
        // Comparing operators are behind a gate that is closed by default.
        "Lt" | "Gt" => {
            let allowed = ["Equal", "Exists", "Gt", "Lt"];
            errors.push(FieldError::not_supported(format!("{path}.operator"), operator, &allowed));
        }
        other => {
            errors.push(FieldError::not_supported(format!("{path}.operator"), other, &["Equal", "Exists"]));
        }
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.push(FieldError::not_supported(format!("{path}.effect"), effect, EFFECTS));
    }
}
