//! CustomResourceDefinition: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::{Declaration, STATUS};

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .cluster_scoped()
        .generation()
        .conditional_update()
        .subresources(&[STATUS])
}
