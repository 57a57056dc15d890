//! VolumeAttributesClass: what a volume may be changed to while it is used.

use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Fixed, Rule, at};
use crate::registry::meta::names;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses")
        .short(&["vac"])
        .cluster_scoped()
        .rules(RULES)
        .fixed(&[
            Fixed::Sealed("driverName", "updates to driverName are forbidden."),
            Fixed::Sealed("parameters", "updates to parameters are forbidden."),
        ])
}

const RULES: &[Rule] = &[
    at("driverName", Check::Required("")),
    at("driverName", Check::Name(names::qualified_name_any_case)),
    at("parameters", Check::Judge(super::parameters::validate)),
    at("parameters", Check::Required("must contain at least one key/value pair")),
];
