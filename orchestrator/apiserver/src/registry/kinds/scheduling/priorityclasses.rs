//! PriorityClass: a name for a number. The number never changes.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::kinds::rules::IMMUTABLE;
use crate::registry::object::meta_str;
use crate::registry::strategy::Strategy;
use crate::tables::cluster::PRIORITY_CLASSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .short(&["pc"])
        .cluster_scoped()
        .generation()
        .columns(PRIORITY_CLASSES)
        .strategy(PriorityClass)
}

struct PriorityClass;

/// The highest value a user may give.
const USER_VALUE_MAX: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

impl Strategy for PriorityClass {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let name = meta_str(new, "name");
        let value = new["value"].as_i64().unwrap_or(0);
        if name.starts_with("system-") {
            if !SYSTEM.contains(&(name, value)) {
                errors.push(FieldError::forbidden(
                    "metadata.name",
                    "priority class names with 'system-' prefix are reserved for system use only",
                ));
            }
        } else if value > USER_VALUE_MAX {
            errors.push(FieldError::forbidden(
                "value",
                format!("maximum allowed value of a user defined priority is {USER_VALUE_MAX}"),
            ));
        }
        let policy = new["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority");
        let allowed = ["PreemptLowerPriority", "Never"];
        if !allowed.contains(&policy) {
            errors.push(FieldError::not_supported("preemptionPolicy", policy, &allowed));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new["value"] != old["value"] {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        if new["preemptionPolicy"] != old["preemptionPolicy"] {
            errors.push(FieldError::invalid("preemptionPolicy", new["preemptionPolicy"].clone(), IMMUTABLE));
        }
        errors
    }
}
