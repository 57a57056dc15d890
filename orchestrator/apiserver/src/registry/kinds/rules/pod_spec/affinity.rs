//! Which nodes a pod wants, and which pods it wants near.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::field_rules::{self, Check, Rule, at, within};
use crate::registry::kinds::rules::labels::validate_selector;
use crate::registry::meta::names;
use crate::registry::object::{items_at, str_at};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) const AFFINITY: &[Rule] = &[
    within(
        "nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        &[at("", Check::Judge(node_selector))],
    ),
    at("nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[].weight", Check::Judge(weight)),
    at(
        "nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[].preference",
        Check::Judge(preferred_term),
    ),
    at("podAffinity", Check::Judge(pods)),
    at("podAntiAffinity", Check::Judge(pods)),
];

/// A `NodeSelector`: one term at least.
pub(crate) fn node_selector(selector: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let terms = items_at(selector, "/nodeSelectorTerms");
    let at = format!("{path}.nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(at, "must have at least one node selector term"));
        return;
    }
    for (i, term) in terms.iter().enumerate() {
        term_errors(term, true, &format!("{at}[{i}]"), errors);
    }
}

fn preferred_term(term: &Value, path: &str, errors: &mut Vec<FieldError>) {
    term_errors(term, false, path, errors);
}

fn term_errors(term: &Value, checks_values: bool, path: &str, errors: &mut Vec<FieldError>) {
    for (i, requirement) in items_at(term, "/matchExpressions").iter().enumerate() {
        label_requirement(requirement, checks_values, &format!("{path}.matchExpressions[{i}]"), errors);
    }
    for (i, requirement) in items_at(term, "/matchFields").iter().enumerate() {
        field_requirement(requirement, &format!("{path}.matchFields[{i}]"), errors);
    }
}

fn label_requirement(requirement: &Value, checks_values: bool, path: &str, errors: &mut Vec<FieldError>) {
    let (key, values) = (str_at(requirement, "/key"), items_at(requirement, "/values"));
    let at = format!("{path}.values");
    match str_at(requirement, "/operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(at, why));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(at, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(FieldError::invalid(
            format!("{path}.operator"),
            other,
            "not a valid selector operator",
        )),
    }
    if let Some(why) = names::qualified_name(key) {
        errors.push(FieldError::invalid(format!("{path}.key"), key, why));
    }
    for (i, value) in values.iter().enumerate().filter(|_| checks_values) {
        let text = value.as_str().unwrap_or_default();
        if let Some(why) = names::label_value(text) {
            errors.push(FieldError::invalid(format!("{path}.values[{i}]"), text, why));
        }
    }
}

fn field_requirement(requirement: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (key, values) = (str_at(requirement, "/key"), items_at(requirement, "/values"));
    match str_at(requirement, "/operator") {
        "In" | "NotIn" if values.len() != 1 => {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(FieldError::required(format!("{path}.values"), why));
        }
        "In" | "NotIn" => {}
        other => errors.push(FieldError::invalid(
            format!("{path}.operator"),
            other,
            "not a valid selector operator",
        )),
    }
    if key != "metadata.name" {
        errors.push(FieldError::invalid(format!("{path}.key"), key, "not a valid field selector key"));
        return;
    }
    for (i, value) in values.iter().enumerate() {
        let text = value.as_str().unwrap_or_default();
        if let Some(why) = names::subdomain(text) {
            errors.push(FieldError::invalid(format!("{path}.values[{i}]"), text, why));
        }
    }
}

fn weight(weight: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let said = weight.as_i64().unwrap_or(0);
    if !(1..=100).contains(&said) {
        errors.push(FieldError::invalid(path, said, "must be in the range 1-100"));
    }
}

fn pods(affinity: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (i, term) in items_at(affinity, &format!("/{REQUIRED}")).iter().enumerate() {
        pod_term(term, &format!("{path}.{REQUIRED}[{i}]"), errors);
    }
    for (i, weighted) in items_at(affinity, &format!("/{PREFERRED}")).iter().enumerate() {
        let at = format!("{path}.{PREFERRED}[{i}]");
        weight(&weighted["weight"], &format!("{at}.weight"), errors);
        pod_term(&weighted["podAffinityTerm"], &format!("{at}.podAffinityTerm"), errors);
    }
}

fn pod_term(term: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const TERM: &[Rule] = &[
        at("labelSelector", Check::Judge(validate_selector)),
        at("namespaceSelector", Check::Judge(validate_selector)),
        at("topologyKey", Check::Required("can not be empty")),
        at("topologyKey", Check::Name(names::qualified_name)),
    ];
    field_rules::judge(TERM, term, path, errors);
    for namespace in items_at(term, "/namespaces").iter().filter_map(Value::as_str) {
        if let Some(why) = names::label(namespace) {
            errors.push(FieldError::invalid(format!("{path}.namespace"), namespace, why));
        }
    }
    label_keys(term, path, errors);
}

/// Keys whose values of the pod itself are added to a selector (`matchLabelKeys`, `mismatchLabelKeys`).
pub(super) fn label_keys(term: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let selector = &term["labelSelector"];
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = items_at(term, &format!("/{list}"));
        if selector.is_null() && !keys.is_empty() {
            let why = "must not be specified when labelSelector is not set";
            errors.push(FieldError::forbidden(format!("{path}.{list}"), why));
            continue;
        }
        for (i, key) in keys.iter().map(|key| key.as_str().unwrap_or_default()).enumerate() {
            if let Some(why) = names::qualified_name(key) {
                errors.push(FieldError::invalid(format!("{path}.{list}[{i}]"), key, why));
            }
        }
    }
    let matched: Vec<&Value> = items_at(term, "/matchLabelKeys").iter().collect();
    // The server itself adds one expression for each of the keys; a second mention is the author's.
    let mut mentioned: BTreeSet<&str> =
        selector["matchLabels"].as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    for expression in items_at(selector, "/matchExpressions") {
        let key = str_at(expression, "/key");
        if let Some(i) = matched.iter().position(|it| *it == key)
            && mentioned.contains(key)
        {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(format!("{path}[{i}]"), key, why));
        }
        mentioned.insert(key);
    }
    let mismatched = items_at(term, "/mismatchLabelKeys");
    for (i, key) in matched.into_iter().enumerate().filter(|(_, key)| mismatched.contains(key)) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(format!("{path}.matchLabelKeys[{i}]"), key.clone(), why));
    }
}
