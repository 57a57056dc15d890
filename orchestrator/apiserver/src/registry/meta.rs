//! ObjectMeta: filled and validated alike for every kind.
//!
//! Names, labels, annotations, owners and finalizers. Pure; time and randomness come from the caller.

pub mod managers;
pub mod names;

use serde_json::{Map, Value};

pub use names::NameRule;

use super::object::{items_at, meta_str};
use crate::error::FieldError;

/// All annotations of an object together, keys and values, in bytes.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// Which finalizers an object may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizers {
    /// Standard ones, and qualified names.
    Qualified,
    /// Any name: custom resources and their definitions came without that rule.
    Any,
}

/// Rules every object's metadata keeps. `path` is usually `metadata`, or that of a template.
pub fn validate(value: &Value, rule: NameRule, namespaced: bool, finalizers: Finalizers) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = meta_str(value, "name");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(why) = rule.check(name) {
        errors.push(FieldError::invalid("metadata.name", name, why));
    }
    let namespace = meta_str(value, "namespace");
    if namespaced {
        if namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else if let Some(why) = NameRule::Label.check(namespace) {
            errors.push(FieldError::invalid("metadata.namespace", namespace, why));
        }
    } else if !namespace.is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    if let Some(generation) = value.pointer("/metadata/generation").and_then(Value::as_i64)
        && generation < 0
    {
        errors.push(FieldError::invalid(
            "metadata.generation",
            generation,
            "must be greater than or equal to 0",
        ));
    }
    validate_template(value, "metadata", &mut errors);
    for (i, owner) in items_at(value, "/metadata/ownerReferences").iter().enumerate() {
        validate_owner(owner, &format!("metadata.ownerReferences[{i}]"), &mut errors);
    }
    let controllers: Vec<&Value> = items_at(value, "/metadata/ownerReferences")
        .iter()
        .filter(|o| o.get("controller").and_then(Value::as_bool) == Some(true))
        .collect();
    if controllers.len() > 1 {
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            Value::Array(controllers.into_iter().cloned().collect()),
            format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                meta_owner(items_at(value, "/metadata/ownerReferences"), 0),
                meta_owner(items_at(value, "/metadata/ownerReferences"), 1)
            ),
        ));
    }
    let mut orphan = false;
    let mut foreground = false;
    for (i, finalizer) in items_at(value, "/metadata/finalizers").iter().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        orphan |= text == "orphan";
        foreground |= text == "foregroundDeletion";
        let path = format!("metadata.finalizers[{i}]");
        if let Some(why) = names::qualified_name(text) {
            errors.push(FieldError::invalid(path, text, why));
        } else if finalizers == Finalizers::Qualified
            && !text.contains('/')
            && !["orphan", "foregroundDeletion", "kubernetes"].contains(&text)
        {
            errors.push(FieldError::invalid(
                path,
                text,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    if orphan && foreground {
        errors.push(FieldError::invalid(
            "metadata.finalizers",
            value.pointer("/metadata/finalizers").cloned().unwrap_or_default(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    if let Some(list) = value.pointer("/metadata/managedFields") {
        managers::validate(list, &mut errors);
    }
    errors
}

fn meta_owner(owners: &[Value], nth: usize) -> String {
    owners
        .iter()
        .filter(|o| o.get("controller").and_then(Value::as_bool) == Some(true))
        .nth(nth)
        .map(|o| {
            format!(
                "{}/{}",
                o.get("kind").and_then(Value::as_str).unwrap_or_default(),
                o.get("name").and_then(Value::as_str).unwrap_or_default()
            )
        })
        .unwrap_or_default()
}

/// Labels and annotations of an object or a pod template; `at` is the path of its metadata.
pub fn validate_template(value: &Value, at: &str, errors: &mut Vec<FieldError>) {
    let meta = value.get("metadata");
    if let Some(labels) = meta.and_then(|m| m.get("labels")).and_then(Value::as_object) {
        validate_labels(labels, &format!("{at}.labels"), errors);
    }
    if let Some(annotations) = meta.and_then(|m| m.get("annotations")).and_then(Value::as_object) {
        let path = format!("{at}.annotations");
        for (key, _) in annotations {
            // Upper case is let through in keys, as it always has been.
            if let Some(why) = names::qualified_name(&key.to_lowercase()) {
                errors.push(FieldError::invalid(path.as_str(), key.as_str(), why));
            }
        }
        if annotation_bytes(annotations) > ANNOTATIONS_BYTES_MAX {
            errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
        }
    }
}

/// What annotations take of [`ANNOTATIONS_BYTES_MAX`].
pub fn annotation_bytes(annotations: &Map<String, Value>) -> usize {
    annotations.iter().map(|(key, text)| key.len() + text.as_str().map_or(0, str::len)).sum()
}

pub fn validate_labels(labels: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for (key, text) in labels {
        if let Some(why) = names::qualified_name(key) {
            errors.push(FieldError::invalid(path, key.as_str(), why));
        }
        let text = text.as_str().unwrap_or_default();
        if let Some(why) = names::label_value(text) {
            errors.push(FieldError::invalid(path, text, why));
        }
    }
}

fn validate_owner(owner: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let text = |f: &str| owner.get(f).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion").rsplit('/').next().unwrap_or_default();
    if version.is_empty() {
        errors.push(FieldError::invalid(
            format!("{path}.apiVersion"),
            text("apiVersion"),
            "version must not be empty",
        ));
    }
    for (field, why) in [
        ("kind", "kind must not be empty"),
        ("name", "name must not be empty"),
        ("uid", "uid must not be empty"),
    ] {
        if text(field).is_empty() {
            errors.push(FieldError::invalid(format!("{path}.{field}"), "", why));
        }
    }
    if text("kind") == "Event" && (text("apiVersion") == "v1" || text("apiVersion") == "events.k8s.io/v1") {
        errors.push(FieldError::invalid(
            path,
            owner.clone(),
            format!("{}, Kind=Event is disallowed from being an owner", text("apiVersion")),
        ));
    }
}

/// Rules between an object's old and new metadata.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["name", "namespace", "uid"] {
        let (n, o) = (meta_str(new, field), meta_str(old, field));
        if n != o {
            errors.push(FieldError::invalid(format!("metadata.{field}"), n, "field is immutable"));
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let pointer = format!("/metadata/{field}");
        let (n, o) = (new.pointer(&pointer), old.pointer(&pointer));
        if n != o {
            errors.push(FieldError::invalid(
                format!("metadata.{field}"),
                n.cloned().unwrap_or_default(),
                "field is immutable",
            ));
        }
    }
    if !meta_str(old, "deletionTimestamp").is_empty() {
        let had = items_at(old, "/metadata/finalizers");
        let added: Vec<Value> =
            items_at(new, "/metadata/finalizers").iter().filter(|f| !had.contains(f)).cloned().collect();
        if !added.is_empty() {
            let listed: Vec<String> = added.iter().map(ToString::to_string).collect();
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    listed.join(", ")
                ),
            ));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(v: &Value) -> Vec<String> {
        validate(v, NameRule::Subdomain, true, Finalizers::Qualified)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn good_metadata_passes() {
        let v = json!({"metadata": {"name": "a.b", "namespace": "default", "labels": {"app.k8s.io/x": "y"},
            "finalizers": ["example.com/f"], "annotations": {"A/b": "x"}}});
        assert_eq!(messages(&v), Vec::<String>::new());
    }

    #[test]
    fn every_broken_rule_is_reported() {
        let v = json!({"metadata": {"name": "A", "namespace": "default", "labels": {"a b": "c d"}, "finalizers": ["mine"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}});
        let found = messages(&v);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain"));
    }

    #[test]
    fn annotations_are_bounded_together() {
        let v = json!({"metadata": {"name": "a", "namespace": "b", "annotations": {"a": "x".repeat(ANNOTATIONS_BYTES_MAX)}}});
        assert_eq!(messages(&v), vec!["metadata.annotations: Too long: may not be more than 262144 bytes"]);
    }

    #[test]
    fn a_finalizer_cannot_be_added_to_a_dying_object() {
        let old = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["x/y"]);
        assert_eq!(validate_update(&new, &old).len(), 1);
    }
}
