//! APIService: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::{Declaration, STATUS};
use crate::tables::cluster::API_SERVICES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("apiregistration.k8s.io", "v1", "APIService", "apiservices")
        .columns(API_SERVICES)
        .categories(&["api-extensions"])
        .cluster_scoped()
        .conditional_update()
        .subresources(&[STATUS])
}
