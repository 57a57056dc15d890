//! CustomResourceDefinition: what may define a kind, and what happens to a definition on its way.
//!
//! What a definition serves is `registry::custom`'s business; here it is an object like any other.

mod names;
mod schema;
mod versions;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::error::FieldError;
use crate::registry::context::Context;
use crate::registry::custom::{CLEANUP_FINALIZER, conditions};
use crate::registry::definition::{Declaration, STATUS};
use crate::registry::generic::now_text;
use crate::registry::object::{items_at, meta_mut, meta_str, str_at};
use crate::registry::strategy::Strategy;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .cluster_scoped()
        .generation()
        .conditional_update()
        .subresources(&[STATUS])
        .strategy(CustomResourceDefinition)
}

struct CustomResourceDefinition;

#[async_trait]
impl Strategy for CustomResourceDefinition {
    fn prepare_update(&self, _context: &Context, new: &mut Value, _old: &Value) {
        // What is stored from now on has been stored, too.
        let storage = items_at(new, "/spec/versions").iter().find(|v| v["storage"] == true);
        let Some(storage) = storage.map(|v| v["name"].clone()).filter(Value::is_string) else { return };
        let mut stored = items_at(new, "/status/storedVersions").to_vec();
        if !stored.contains(&storage) {
            stored.push(storage);
            new["status"]["storedVersions"] = Value::Array(stored);
        }
    }

    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let required = format!("{}.{}", str_at(new, "/spec/names/plural"), str_at(new, "/spec/group"));
        let name = meta_str(new, "name");
        if name != required {
            errors.push(FieldError::invalid(
                "metadata.name",
                name,
                r#"must be spec.names.plural+"."+spec.group"#,
            ));
        }
        names::validate_group(new, &mut errors);
        names::validate(&new["spec"]["names"], "spec.names", &mut errors);
        versions::validate(new, &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut immutable = vec!["group", "names/plural"];
        if conditions::has(old, "Established") {
            immutable.extend(["scope", "names/kind"]);
        }
        for field in immutable {
            let pointer = format!("/spec/{field}");
            if new.pointer(&pointer) != old.pointer(&pointer) {
                let value = new.pointer(&pointer).cloned().unwrap_or_default();
                let path = format!("spec.{}", field.replace('/', "."));
                errors.push(FieldError::invalid(path, value, "field is immutable"));
            }
        }
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        versions::validate_stored(new, &mut errors);
        errors
    }

    /// The definition stays until its objects are gone.
    fn mark_deleting(&self, object: &mut Value) {
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        let mut status = object["status"].take();
        if !status.is_object() {
            status = json!({});
        }
        conditions::set(&mut status, &now_text(), "Terminating", "True", "InstanceDeletionPending", message);
        object["status"] = status;
        let mut finalizers = items_at(object, "/metadata/finalizers").to_vec();
        if !finalizers.iter().any(|f| f == CLEANUP_FINALIZER) {
            finalizers.push(CLEANUP_FINALIZER.into());
        }
        if let Some(meta) = meta_mut(object) {
            meta.insert("finalizers".into(), Value::Array(finalizers));
        }
    }
}

#[cfg(test)]
mod tests;
