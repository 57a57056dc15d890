//! Lease: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;
use crate::tables::cluster::LEASES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("coordination.k8s.io", "v1", "Lease", "leases")
        .columns(LEASES)
        .create_on_update()
        .conditional_update()
}
