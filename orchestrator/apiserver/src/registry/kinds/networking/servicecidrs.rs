//! ServiceCIDR: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::{Declaration, STATUS};
use crate::tables::network::SERVICE_CIDRS;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs")
        .columns(SERVICE_CIDRS)
        .cluster_scoped()
        .subresources(&[STATUS])
}
