//! ResourceSlice: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;
use crate::registry::object::str_at;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("resource.k8s.io", "v1", "ResourceSlice", "resourceslices")
        .cluster_scoped()
        .generation()
        .fields(&["spec.driver", "spec.nodeName"], |o| {
            vec![
                ("spec.driver", str_at(o, "/spec/driver").to_string()),
                ("spec.nodeName", str_at(o, "/spec/nodeName").to_string()),
            ]
        })
}
