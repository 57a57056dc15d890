//! PersistentVolumeClaim: storage somebody asks for.

use crate::registry::definition::{Declaration, STATUS};
use crate::registry::kinds::StartsIn;
use crate::tables::core::CLAIMS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .columns(CLAIMS)
        .short(&["pvc"])
        .returns_deleted()
        .subresources(&[STATUS])
        .strategy(StartsIn("Pending"))
}
