//! MutatingAdmissionPolicy: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;

pub(crate) fn declaration() -> Declaration {
    Declaration::new(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
    )
    .cluster_scoped()
    .generation()
}
