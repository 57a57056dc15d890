//! CSIStorageCapacity: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
}
