//! EndpointSlice: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;
use crate::tables::network::ENDPOINT_SLICES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .columns(ENDPOINT_SLICES)
        .generation()
}
