//! `rbac.authorization.k8s.io`: who may do what.

pub(crate) mod clusterrolebindings;
pub(crate) mod clusterroles;
pub(crate) mod rolebindings;
pub(crate) mod roles;

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::meta::NameRule;
use crate::registry::object::{items_at, meta_str, str_at};
use crate::registry::strategy::Strategy;

/// Roles of both scopes.
pub(super) struct Role;

impl Strategy for Role {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let namespaced = !meta_str(new, "namespace").is_empty();
        for (i, rule) in items_at(new, "/rules").iter().enumerate() {
            let path = format!("rules[{i}]");
            let filled = |f: &str| !items_at(rule, &format!("/{f}")).is_empty();
            if !filled("verbs") {
                errors.push(FieldError::required(
                    format!("{path}.verbs"),
                    "verbs must contain at least one value",
                ));
            }
            if filled("nonResourceURLs") {
                if namespaced {
                    errors.push(FieldError::invalid(
                        format!("{path}.nonResourceURLs"),
                        rule["nonResourceURLs"].clone(),
                        "namespaced rules cannot apply to non-resource URLs",
                    ));
                }
                if filled("apiGroups") || filled("resources") || filled("resourceNames") {
                    errors.push(FieldError::invalid(
                        format!("{path}.nonResourceURLs"),
                        rule["nonResourceURLs"].clone(),
                        "rules cannot apply to both regular resources and non-resource URLs",
                    ));
                }
                continue;
            }
            if !filled("apiGroups") {
                errors.push(FieldError::required(
                    format!("{path}.apiGroups"),
                    "resource rules must supply at least one api group",
                ));
            }
            if !filled("resources") {
                errors.push(FieldError::required(
                    format!("{path}.resources"),
                    "resource rules must supply at least one resource",
                ));
            }
        }
        errors
    }
}

/// Bindings of both scopes.
pub(super) struct Binding;

const GROUP: &str = "rbac.authorization.k8s.io";

impl Strategy for Binding {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let namespaced = !meta_str(new, "namespace").is_empty();
        let group = str_at(new, "/roleRef/apiGroup");
        if group != GROUP {
            errors.push(FieldError::not_supported("roleRef.apiGroup", group, &[GROUP]));
        }
        let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        let kind = str_at(new, "/roleRef/kind");
        if !kinds.contains(&kind) {
            errors.push(FieldError::not_supported("roleRef.kind", kind, kinds));
        }
        let name = str_at(new, "/roleRef/name");
        if name.is_empty() {
            errors.push(FieldError::required("roleRef.name", ""));
        } else if let Some(why) = NameRule::PathSegment.check(name) {
            errors.push(FieldError::invalid("roleRef.name", name, why));
        }
        for (i, subject) in items_at(new, "/subjects").iter().enumerate() {
            validate_subject(subject, &format!("subjects[{i}]"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        if new["roleRef"] == old["roleRef"] {
            return Vec::new();
        }
        vec![FieldError::invalid("roleRef", new["roleRef"].clone(), "cannot change roleRef")]
    }
}

fn validate_subject(subject: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let (kind, group) = (str_at(subject, "/kind"), str_at(subject, "/apiGroup"));
    if str_at(subject, "/name").is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    }
    let wanted = match kind {
        "ServiceAccount" => {
            if str_at(subject, "/namespace").is_empty() {
                errors.push(FieldError::required(format!("{path}.namespace"), ""));
            }
            ""
        }
        "User" | "Group" => GROUP,
        other => {
            errors.push(FieldError::not_supported(
                format!("{path}.kind"),
                other,
                &["ServiceAccount", "User", "Group"],
            ));
            return;
        }
    };
    if group != wanted {
        errors.push(FieldError::not_supported(format!("{path}.apiGroup"), group, &[wanted]));
    }
}
