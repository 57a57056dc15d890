//! VolumeAttachment: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::{Declaration, STATUS};

pub(crate) fn declaration() -> Declaration {
    Declaration::new("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments")
        .cluster_scoped()
        .subresources(&[STATUS])
}
