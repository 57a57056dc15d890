//! What is wrong with policies and bindings that somebody writes, in upstream's words.

use std::collections::HashSet;

use serde_json::Value;

use super::compiled::{Policy, Role, names_of_parts};
use super::matching::Matching;
use crate::error::FieldError;
use crate::registry::meta::names;
use crate::registry::object::{items_at, meta_str, str_at};

/// What a policy breaks.
pub(crate) fn errors_of_policy(policy: &Value, role: Role) -> Vec<FieldError> {
    let spec = &policy["spec"];
    let mut errors = Vec::new();
    one_of(spec, "failurePolicy", "spec", &["Fail", "Ignore"], &mut errors);
    if spec["paramKind"].is_object() {
        for field in ["apiVersion", "kind"] {
            if str_at(&spec["paramKind"], &format!("/{field}")).is_empty() {
                errors.push(FieldError::required(format!("spec.paramKind.{field}"), ""));
            }
        }
    }
    if spec["matchConstraints"].is_object() {
        errors.extend(errors_of_resources(&spec["matchConstraints"], "spec.matchConstraints"));
        if items_at(spec, "/matchConstraints/resourceRules").is_empty() {
            errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
        }
        if role == Role::Mutating {
            only_writes(&spec["matchConstraints"], "spec.matchConstraints", &mut errors);
        }
    } else {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    }
    errors.extend(names_of_parts(policy));
    errors.extend(Policy::compile(policy, role).1);
    match role {
        Role::Validating => validating(policy, &mut errors),
        Role::Mutating => mutating(spec, &mut errors),
    }
    errors
}

fn validating(policy: &Value, errors: &mut Vec<FieldError>) {
    const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    const ANNOTATIONS_MAX: usize = 20;
    let spec = &policy["spec"];
    let (validations, annotations) = (items_at(spec, "/validations"), items_at(spec, "/auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required("spec.validations", detail));
        errors.push(FieldError::required("spec.auditAnnotations", detail));
    }
    for (index, validation) in validations.iter().enumerate() {
        let path = |field: &str| format!("spec.validations[{index}].{field}");
        let message = str_at(validation, "/message");
        if !message.is_empty() && message.trim().is_empty() {
            errors.push(FieldError::invalid(path("message"), message, "must be non-empty if specified"));
        } else if message.trim().contains(['\n', '\r']) {
            errors.push(FieldError::invalid(path("message"), message, "must not contain line breaks"));
        }
        let reason = str_at(validation, "/reason");
        if !reason.is_empty() && !REASONS.contains(&reason) {
            errors.push(FieldError::not_supported(path("reason"), reason, REASONS));
        }
    }
    if annotations.len() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.push(FieldError::invalid("spec.auditAnnotations", annotations.len(), detail));
    }
    let mut keys = HashSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let (key, path) = (str_at(annotation, "/key"), format!("spec.auditAnnotations[{index}].key"));
        let whole = format!("{}/{key}", meta_str(policy, "name"));
        if let Some(why) = names::qualified_name(&whole) {
            errors.push(FieldError::invalid(&path, whole, why));
        }
        if !keys.insert(key) {
            errors.push(FieldError::duplicate(path, key));
        }
    }
}

fn mutating(spec: &Value, errors: &mut Vec<FieldError>) {
    let mutations = items_at(spec, "/mutations");
    if mutations.is_empty() {
        errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
    }
    for (index, mutation) in mutations.iter().enumerate() {
        let path = format!("spec.mutations[{index}]");
        one_of(mutation, "patchType", &path, &["ApplyConfiguration", "JSONPatch"], errors);
        for (patch, other) in [("JSONPatch", "applyConfiguration"), ("ApplyConfiguration", "jsonPatch")] {
            if mutation["patchType"] == patch && mutation[other].is_object() {
                let detail = format!("must not be specified when patchType is {patch}");
                errors.push(FieldError::invalid(format!("{path}.{other}"), format!("{{{other}}}"), detail));
            }
        }
    }
    one_of(spec, "reinvocationPolicy", "spec", &["IfNeeded", "Never"], errors);
}

/// A field that must be there and be one of these.
fn one_of(parent: &Value, field: &str, path: &str, allowed: &[&str], errors: &mut Vec<FieldError>) {
    let path = format!("{path}.{field}");
    match parent[field].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required(path, "")),
        other if !allowed.contains(&other) => errors.push(FieldError::not_supported(path, other, allowed)),
        _ => {}
    }
}

/// A mutating policy sees what is created and updated.
fn only_writes(resources: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let matching = Matching::of(resources);
    for operation in matching.rules().iter().filter_map(|rule| rule.beyond_mutation()) {
        let path = format!("{path}.resourceRules.operations");
        errors.push(FieldError::not_supported(path, operation, &["CREATE", "UPDATE"]));
    }
}

fn errors_of_resources(resources: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    one_of(resources, "matchPolicy", path, &["Equivalent", "Exact"], &mut errors);
    for list in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in items_at(resources, &format!("/{list}")).iter().enumerate() {
            let path = |field: &str| format!("{path}.{list}[{index}].{field}");
            for field in ["operations", "apiGroups", "apiVersions", "resources"] {
                let items = items_at(rule, &format!("/{field}"));
                if items.is_empty() {
                    errors.push(FieldError::required(path(field), ""));
                }
                if items.len() > 1 && items.iter().any(|item| item == "*") && field != "resources" {
                    let detail = "if '*' is present, must not specify other ".to_owned()
                        + match field {
                            "operations" => "operations",
                            "apiGroups" => "API groups",
                            _ => "API versions",
                        };
                    errors.push(FieldError::invalid(path(field), items.to_vec(), detail));
                }
            }
            for (nth, operation) in items_at(rule, "/operations").iter().enumerate() {
                const KNOWN: &[&str] = &["*", "CREATE", "UPDATE", "DELETE", "CONNECT"];
                let operation = operation.as_str().unwrap_or_default();
                if !KNOWN.contains(&operation) {
                    let path = format!("{}[{nth}]", path("operations"));
                    errors.push(FieldError::not_supported(path, operation, KNOWN));
                }
            }
            let mut seen = HashSet::new();
            for (nth, name) in items_at(rule, "/resourceNames").iter().enumerate() {
                if !seen.insert(name.as_str().unwrap_or_default()) {
                    errors.push(FieldError::duplicate(
                        format!("{}[{nth}]", path("resourceNames")),
                        name.clone(),
                    ));
                }
            }
        }
    }
    errors
}

/// What a binding breaks.
pub(crate) fn errors_of_binding(binding: &Value, role: Role) -> Vec<FieldError> {
    let spec = &binding["spec"];
    let mut errors = Vec::new();
    let policy = str_at(spec, "/policyName");
    if policy.is_empty() {
        errors.push(FieldError::required("spec.policyName", ""));
    } else if let Some(why) = names::subdomain(policy) {
        errors.push(FieldError::invalid("spec.policyName", policy, why));
    }
    if spec["paramRef"].is_object() {
        param_ref(&spec["paramRef"], &mut errors);
    }
    if spec["matchResources"].is_object() {
        errors.extend(errors_of_resources(&spec["matchResources"], "spec.matchResources"));
        if role == Role::Mutating {
            only_writes(&spec["matchResources"], "spec.matchResources", &mut errors);
        }
    }
    if role == Role::Validating {
        actions(items_at(spec, "/validationActions"), &mut errors);
    }
    errors
}

fn param_ref(wanted: &Value, errors: &mut Vec<FieldError>) {
    let (named, selected) = (!str_at(wanted, "/name").is_empty(), wanted["selector"].is_object());
    if named && selected {
        for field in ["name", "selector"] {
            let detail = "name and selector are mutually exclusive";
            errors.push(FieldError::forbidden(format!("spec.paramRef.{field}"), detail));
        }
    } else if !named && !selected {
        errors.push(FieldError::required("spec.paramRef", "one of name or selector must be specified"));
    }
    one_of(wanted, "parameterNotFoundAction", "spec.paramRef", &["Allow", "Deny"], errors);
}

fn actions(actions: &[Value], errors: &mut Vec<FieldError>) {
    const KNOWN: &[&str] = &["Audit", "Deny", "Warn"];
    let mut seen = HashSet::new();
    for (index, action) in actions.iter().enumerate() {
        let (action, path) =
            (action.as_str().unwrap_or_default(), format!("spec.validationActions[{index}]"));
        if !KNOWN.contains(&action) {
            errors.push(FieldError::not_supported(&path, action, KNOWN));
        }
        if !seen.insert(action) {
            errors.push(FieldError::duplicate(path, action));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid("spec.validationActions", actions.to_vec(), detail));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(
            "spec.validationActions",
            "at least one validation action is required",
        ));
    }
}
