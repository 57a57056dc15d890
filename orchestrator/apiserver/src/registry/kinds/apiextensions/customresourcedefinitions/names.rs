//! Group, scope and names of a definition.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::meta::names::{label_1035, subdomain};
use crate::registry::object::{items_at, str_at};

/// Groups of the Kubernetes community need its approval, told in this annotation.
const APPROVAL: &str = "api-approved.kubernetes.io";

pub(super) fn validate_group(crd: &Value, errors: &mut Vec<FieldError>) {
    let group = str_at(crd, "/spec/group");
    if group.is_empty() {
        errors.push(FieldError::required("spec.group", ""));
    } else if let Some(why) = subdomain(group) {
        errors.push(FieldError::invalid("spec.group", group, why));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    match str_at(crd, "/spec/scope") {
        "" => errors.push(FieldError::required("spec.scope", "")),
        "Cluster" | "Namespaced" => {}
        other => errors.push(FieldError::not_supported("spec.scope", other, &["Cluster", "Namespaced"])),
    }
    validate_approval(crd, group, errors);
}

fn validate_approval(crd: &Value, group: &str, errors: &mut Vec<FieldError>) {
    let protected =
        ["k8s.io", "kubernetes.io"].iter().any(|d| group == *d || group.ends_with(&format!(".{d}")));
    if !protected {
        return;
    }
    let path = format!("metadata.annotations[{APPROVAL}]");
    let annotation = crd["metadata"]["annotations"][APPROVAL].as_str();
    match annotation {
        None | Some("") => errors.push(FieldError::required(
            path,
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        )),
        Some(text) if text.starts_with("unapproved") || text.contains("://") => {}
        Some(text) => errors.push(FieldError::invalid(
            path,
            text,
            "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
        )),
    }
}

pub(super) fn validate(names: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = |key: &str| str_at(names, &format!("/{key}")).to_owned();
    for key in ["plural", "singular", "kind", "listKind"] {
        let name = text(key);
        let at = format!("{path}.{key}");
        if name.is_empty() {
            errors.push(FieldError::required(at, ""));
        } else if matches!(key, "plural" | "singular") {
            if let Some(why) = label_1035(&name) {
                errors.push(FieldError::invalid(at, name, why));
            }
        } else if let Some(why) = label_1035(&name.to_lowercase()) {
            let why = format!("may have mixed case, but should otherwise match: {why}");
            errors.push(FieldError::invalid(at, name, why));
        }
    }
    for key in ["shortNames", "categories"] {
        for (index, name) in items_at(names, &format!("/{key}")).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            if let Some(why) = label_1035(name) {
                errors.push(FieldError::invalid(format!("{path}.{key}[{index}]"), name, why));
            }
        }
    }
    let (kind, list_kind) = (text("kind"), text("listKind"));
    if !kind.is_empty() && kind == list_kind {
        errors.push(FieldError::invalid(
            format!("{path}.listKind"),
            list_kind,
            "kind and listKind may not be the same",
        ));
    }
}
