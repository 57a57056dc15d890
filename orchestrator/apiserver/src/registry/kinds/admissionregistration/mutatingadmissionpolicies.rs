//! MutatingAdmissionPolicy: its expressions compile, its rules can match.

use serde_json::Value;

use crate::admission::policies::{Role, errors_of_policy};
use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::strategy::Strategy;

pub(crate) fn declaration() -> Declaration {
    Declaration::new(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
    )
    .cluster_scoped()
    .generation()
    .strategy(Rules)
}

struct Rules;

impl Strategy for Rules {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        errors_of_policy(new, Role::Mutating)
    }
}
