//! StorageClass: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;
use crate::tables::cluster::STORAGE_CLASSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("storage.k8s.io", "v1", "StorageClass", "storageclasses")
        .columns(STORAGE_CLASSES)
        .short(&["sc"])
        .cluster_scoped()
}
