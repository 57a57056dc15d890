//! PriorityLevelConfiguration: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::{Declaration, STATUS};

pub(crate) fn declaration() -> Declaration {
    Declaration::new(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
    )
    .cluster_scoped()
    .generation()
    .subresources(&[STATUS])
}
