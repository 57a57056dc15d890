//! Workloads whose selector must match their template, and the counts of their status.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::labels::validate_selector;
use super::pod_spec::validate_pod_template;
use crate::error::FieldError;
use crate::registry::object::str_at;
use crate::registry::selector::LabelSelector;

/// Whose pods run for ever, in the words of its errors.
pub(crate) struct Workload {
    /// Ends "empty selector is invalid for".
    pub selects: &'static str,
    /// Begins "activeDeadlineSeconds in".
    pub named: &'static str,
}

/// `spec.selector` and `spec.template`, which may be given in place of the object's.
pub(crate) fn validate(spec: &Value, template: &Value, workload: &Workload, errors: &mut Vec<FieldError>) {
    let selector = &spec["selector"];
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        validate_selector(selector, "spec.selector", errors);
        let is_empty = ["matchLabels", "matchExpressions"]
            .iter()
            .all(|field| crate::registry::field_rules::is_empty(&selector[*field]));
        if is_empty {
            let why = format!("empty selector is invalid for {}", workload.selects);
            errors.push(FieldError::invalid("spec.selector", selector.clone(), why));
        }
    }
    if template.is_null() {
        errors.push(FieldError::required("spec.template", ""));
        return;
    }
    selects_template(selector, template, "spec.template", errors);
    validate_pod_template(template, "spec.template", errors);
    let policy = str_at(template, "/spec/restartPolicy");
    if policy != "Always" {
        errors.push(FieldError::not_supported("spec.template.spec.restartPolicy", policy, &["Always"]));
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {} is not Supported", workload.named);
        errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", why));
    }
}

/// The labels of a template are ones that the selector selects.
pub(crate) fn selects_template(selector: &Value, template: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(parsed) = LabelSelector::from_object(selector).filter(|_| selector.is_object()) else { return };
    let labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    let map: BTreeMap<String, String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_string()))
        .collect();
    if !parsed.matches(&map) {
        errors.push(FieldError::invalid(
            format!("{path}.metadata.labels"),
            labels,
            "`selector` does not match template `labels`",
        ));
    }
}

/// Counts of a status: none below zero, none of `parts` above `replicas`, nor `availableReplicas` above the ready.
/// `ready` is how the words call those.
pub(crate) fn counts(status: &Value, parts: &[&str], ready: &str, errors: &mut Vec<FieldError>) {
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    for (field, value) in status.as_object().into_iter().flatten() {
        if let Some(n) = value.as_i64().filter(|n| *n < 0) {
            errors.push(FieldError::invalid(format!("status.{field}"), n, super::NOT_NEGATIVE));
        }
    }
    for part in parts.iter().filter(|part| count(part) > count("replicas")) {
        let why = "cannot be greater than status.replicas";
        errors.push(FieldError::invalid(format!("status.{part}"), count(part), why));
    }
    if count("availableReplicas") > count("readyReplicas") {
        let why = format!("cannot be greater than {ready}");
        errors.push(FieldError::invalid("status.availableReplicas", count("availableReplicas"), why));
    }
}

/// The counter of names that were taken already only goes up.
pub(crate) fn collisions(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let count = |it: &Value| it.pointer("/status/collisionCount").and_then(Value::as_i64);
    if let Some(was) = count(old)
        && count(new).is_none_or(|is| is < was)
    {
        let shown = count(new).unwrap_or(0);
        errors.push(FieldError::invalid("status.collisionCount", shown, "cannot be decremented"));
    }
}
