//! CSIStorageCapacity: how much room a storage class has where.

use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Fixed, Rule, at};
use crate::registry::kinds::rules::labels::validate_selector;
use crate::registry::meta::names;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities")
        .rules(RULES)
        .fixed(&[Fixed::Field("nodeTopology"), Fixed::Field("storageClassName")])
}

const RULES: &[Rule] = &[
    at("nodeTopology", Check::Judge(validate_selector)),
    at("storageClassName", Check::Text(names::subdomain)),
    at("capacity", Check::NotNegative),
];
