//! Label selectors inside objects, and workloads whose selector must match their template.

use serde_json::Value;

use super::pod_spec::validate_pod_template;
use crate::error::FieldError;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};
use crate::registry::selector::LabelSelector;

/// A metav1 LabelSelector at `path`.
pub(crate) fn validate_selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        crate::registry::meta::validate_labels(labels, &format!("{path}.matchLabels"), errors);
    }
    for (i, e) in items_at(selector, "/matchExpressions").iter().enumerate() {
        let at = format!("{path}.matchExpressions[{i}]");
        let key = e["key"].as_str().unwrap_or_default();
        let values = items_at(e, "/values");
        match e["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" => {
                if values.is_empty() {
                    errors.push(FieldError::required(
                        format!("{at}.values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    ));
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    errors.push(FieldError::forbidden(
                        format!("{at}.values"),
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    ));
                }
            }
            other => errors.push(FieldError::invalid(
                format!("{at}.operator"),
                other,
                "not a valid selector operator",
            )),
        }
        if let Some(why) = names::qualified_name(key) {
            errors.push(FieldError::invalid(format!("{at}.key"), key, why));
        }
        for (j, v) in values.iter().enumerate() {
            if let Some(why) = names::label_value(v.as_str().unwrap_or_default()) {
                errors.push(FieldError::invalid(format!("{at}.values[{j}]"), v.clone(), why));
            }
        }
    }
}

/// `spec.selector` and `spec.template` of a workload: present, matching, sound. `restart` lists the restart
/// policies the workload can run.
pub(crate) fn validate_workload(object: &Value, restart: &[&str], errors: &mut Vec<FieldError>) {
    let spec = object.get("spec").cloned().unwrap_or_default();
    let selector = spec.get("selector");
    match selector {
        None | Some(Value::Null) => errors.push(FieldError::required("spec.selector", "")),
        Some(selector) => {
            validate_selector(selector, "spec.selector", errors);
            let is_empty = selector.as_object().is_none_or(|m| {
                m.values().all(|v| {
                    v.as_object().is_some_and(|m| m.is_empty()) || v.as_array().is_some_and(Vec::is_empty)
                })
            });
            if is_empty {
                errors.push(FieldError::invalid(
                    "spec.selector",
                    selector.clone(),
                    "empty selector is invalid for deployment",
                ));
            }
        }
    }
    match spec.get("template") {
        None | Some(Value::Null) => errors.push(FieldError::required("spec.template", "")),
        Some(template) => {
            if let Some(parsed) = selector.and_then(LabelSelector::from_object) {
                let labels =
                    template.pointer("/metadata/labels").cloned().unwrap_or_else(|| serde_json::json!({}));
                let map = labels
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_string()))
                    .collect();
                if !parsed.matches(&map) {
                    errors.push(FieldError::invalid(
                        "spec.template.metadata.labels",
                        labels,
                        "`selector` does not match template `labels`",
                    ));
                }
            }
            validate_pod_template(template, "spec.template", errors);
            let policy = str_at(template, "/spec/restartPolicy");
            if !policy.is_empty() && !restart.contains(&policy) {
                errors.push(FieldError::not_supported("spec.template.spec.restartPolicy", policy, restart));
            }
        }
    }
}
