//! Namespace: goes in two steps, its content first. The controller empties it, then takes its own finalizer away.

use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::definition::{Declaration, STATUS, Subresource};
use crate::registry::meta::NameRule;
use crate::registry::object::{items_at, meta_mut, meta_str, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::core::NAMESPACES;

const FINALIZE: Subresource =
    Subresource { name: "finalize", group: "", version: "", kind: "", verbs: &["update"] };
const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Namespace", "namespaces")
        .short(&["ns"])
        .cluster_scoped()
        .name_rule(NameRule::Label)
        .verbs(&["create", "delete", "get", "list", "patch", "update", "watch"])
        .columns(NAMESPACES)
        .subresources(&[FINALIZE, STATUS])
        .fields(&["status.phase"], |o| vec![("status.phase", str_at(o, "/status/phase").to_string())])
        .strategy(Namespace)
}

struct Namespace;

/// Every namespace carries its name as a label, for selectors.
fn label(namespace: &mut Value) {
    let name = meta_str(namespace, "name").to_string();
    if let Some(meta) = meta_mut(namespace) {
        let labels = meta.entry("labels").or_insert_with(|| json!({}));
        if labels.is_object() {
            labels[NAME_LABEL] = name.into();
        }
    }
}

impl Strategy for Namespace {
    fn prepare_create(&self, _context: &Context, new: &mut Value) {
        new["status"] = json!({"phase": "Active"});
        if !new["spec"].is_object() {
            new["spec"] = json!({});
        }
        let has = items_at(new, "/spec/finalizers").iter().any(|f| f == FINALIZER);
        if !has {
            let mut finalizers = items_at(new, "/spec/finalizers").to_vec();
            finalizers.push(FINALIZER.into());
            new["spec"]["finalizers"] = json!(finalizers);
        }
        label(new);
    }

    fn prepare_update(&self, _context: &Context, new: &mut Value, old: &Value) {
        // `finalize` alone may change these.
        new["spec"] = old.get("spec").cloned().unwrap_or_else(|| json!({}));
        label(new);
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let phase = str_at(new, "/status/phase");
        let dying = !meta_str(new, "deletionTimestamp").is_empty();
        match (dying, phase) {
            (true, "Active") => vec![FieldError::invalid(
                "status.Phase",
                phase,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            )],
            (false, "Terminating") => vec![FieldError::invalid(
                "status.Phase",
                phase,
                "may only be 'Active' if `deletionTimestamp` is empty",
            )],
            _ => Vec::new(),
        }
    }

    fn mark_deleting(&self, object: &mut Value) {
        object["status"]["phase"] = "Terminating".into();
    }

    fn holds(&self, object: &Value) -> bool {
        !items_at(object, "/spec/finalizers").is_empty()
    }
}
