//! NetworkPolicy: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;
use crate::tables::network::NETWORK_POLICIES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
        .columns(NETWORK_POLICIES)
        .short(&["netpol"])
        .generation()
}
