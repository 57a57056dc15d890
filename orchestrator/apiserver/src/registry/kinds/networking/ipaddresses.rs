//! IPAddress: one address of the cluster's own ranges, and what has it.

use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Fixed, Rule, at, within};
use crate::registry::kinds::rules::addresses;
use crate::registry::meta::{NameRule, names};
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
        .rules(RULES)
        .fixed(&[Fixed::Field("spec.parentRef")])
}

const RULES: &[Rule] = &[
    at("metadata.name", Check::Name(addresses::canonical_ip)),
    at("spec.parentRef", Check::Given("")),
    within(
        "spec.parentRef",
        &[
            at("group", Check::Name(names::subdomain)),
            at("resource", Check::Required("")),
            at("resource", Check::Name(names::path_segment)),
            at("name", Check::Required("")),
            at("name", Check::Name(names::path_segment)),
            at("namespace", Check::Name(names::path_segment)),
        ],
    ),
];
