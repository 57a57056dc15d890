//! MutatingAdmissionPolicyBinding: it names a policy, and for whom it is.

use serde_json::Value;

use crate::admission::policies::{Role, errors_of_binding};
use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::strategy::Strategy;

pub(crate) fn declaration() -> Declaration {
    Declaration::new(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
    )
    .cluster_scoped()
    .generation()
    .strategy(Rules)
}

struct Rules;

impl Strategy for Rules {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        errors_of_binding(new, Role::Mutating)
    }
}
