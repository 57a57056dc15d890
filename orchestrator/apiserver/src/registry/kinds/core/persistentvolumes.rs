//! PersistentVolume: storage the cluster has.

use crate::registry::definition::{Declaration, STATUS};
use crate::registry::kinds::StartsIn;
use crate::tables::core::VOLUMES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "PersistentVolume", "persistentvolumes")
        .columns(VOLUMES)
        .short(&["pv"])
        .cluster_scoped()
        .returns_deleted()
        .subresources(&[STATUS])
        .strategy(StartsIn("Pending"))
}
