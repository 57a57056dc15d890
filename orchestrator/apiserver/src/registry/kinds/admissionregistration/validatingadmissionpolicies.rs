//! ValidatingAdmissionPolicy: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::{Declaration, STATUS};

pub(crate) fn declaration() -> Declaration {
    Declaration::new(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
    )
    .cluster_scoped()
    .generation()
    .subresources(&[STATUS])
}
