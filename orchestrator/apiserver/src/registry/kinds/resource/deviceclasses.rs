//! DeviceClass: a sort of device that claims ask for.

use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Rule, at, within};
use crate::registry::meta::names;

use super::claims::{CONFIGS, SELECTORS};

pub(crate) fn declaration() -> Declaration {
    Declaration::new("resource.k8s.io", "v1", "DeviceClass", "deviceclasses")
        .cluster_scoped()
        .generation()
        .rules(RULES)
}

const RULES: &[Rule] = &[
    within("spec", SELECTORS),
    within("spec", CONFIGS),
    at("spec.extendedResourceName", Check::Text(extended_resource)),
];

fn extended_resource(name: &str) -> Option<String> {
    let good = name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_none();
    (!good).then(|| "must be a valid extended resource name".into())
}
