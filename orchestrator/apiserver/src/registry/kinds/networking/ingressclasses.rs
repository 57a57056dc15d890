//! IngressClass: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;
use crate::tables::network::INGRESS_CLASSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("networking.k8s.io", "v1", "IngressClass", "ingressclasses")
        .columns(INGRESS_CLASSES)
        .cluster_scoped()
        .generation()
}
