//! StorageClass: how volumes of one sort are made. What made them does not change under them.

use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Fixed, Rule, at};
use crate::registry::kinds::rules::shapes::topology_terms;
use crate::registry::meta::names;
use crate::tables::cluster::STORAGE_CLASSES;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("storage.k8s.io", "v1", "StorageClass", "storageclasses")
        .columns(STORAGE_CLASSES)
        .short(&["sc"])
        .cluster_scoped()
        .rules(RULES)
        .fixed(&[
            Fixed::Field("parameters"),
            Fixed::Field("provisioner"),
            Fixed::Field("reclaimPolicy"),
            Fixed::Field("volumeBindingMode"),
        ])
}

const RULES: &[Rule] = &[
    at("provisioner", Check::Required("")),
    at("provisioner", Check::Name(names::qualified_name_any_case)),
    at("parameters", Check::Judge(super::parameters::validate)),
    at("reclaimPolicy", Check::OneOf(&["Delete", "Retain"])),
    at("volumeBindingMode", Check::Required("")),
    at("volumeBindingMode", Check::OneOf(&["Immediate", "WaitForFirstConsumer"])),
    at("allowedTopologies", Check::Judge(topology_terms)),
];
