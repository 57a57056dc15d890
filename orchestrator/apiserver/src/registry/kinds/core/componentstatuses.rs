//! ComponentStatus: deprecated upstream; listed for clients that ask, never stored.

use crate::registry::definition::{Declaration, VERBS_READ};

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "ComponentStatus", "componentstatuses")
        .short(&["cs"])
        .cluster_scoped()
        .verbs(VERBS_READ)
}
