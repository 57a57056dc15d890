//! ResourceClaimTemplate: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
}
