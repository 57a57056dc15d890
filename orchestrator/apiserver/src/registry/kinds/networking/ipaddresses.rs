//! IPAddress: see the definition; it has no rules beyond its schema yet.

use crate::registry::definition::Declaration;
use crate::registry::meta::NameRule;
use crate::registry::object::str_at;
use crate::tables::network::IP_ADDRESSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("networking.k8s.io", "v1", "IPAddress", "ipaddresses")
        .columns(IP_ADDRESSES)
        .short(&["ip"])
        .cluster_scoped()
        .name_rule(NameRule::PathSegment)
        .fields(&["spec.parentRef.resource"], |o| {
            vec![("spec.parentRef.resource", str_at(o, "/spec/parentRef/resource").to_string())]
        })
}
