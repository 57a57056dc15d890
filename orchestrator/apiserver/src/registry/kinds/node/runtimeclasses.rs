//! RuntimeClass: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;
use crate::tables::cluster::RUNTIME_CLASSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
        .columns(RUNTIME_CLASSES)
        .cluster_scoped()
}
