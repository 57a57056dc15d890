//! CSINode: which drivers of volumes run on a node.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::Declaration;
use crate::registry::field_rules::{Check, Rule, at, is_same};
use crate::registry::kinds::rules::IMMUTABLE;
use crate::registry::kinds::rules::shapes::NOT_BELOW_ZERO;
use crate::registry::meta::names;
use crate::registry::object::items_at;
use crate::registry::strategy::Strategy;

pub(crate) fn declaration() -> Declaration {
    Declaration::new("storage.k8s.io", "v1", "CSINode", "csinodes")
        .cluster_scoped()
        .rules(RULES)
        .strategy(CsiNode)
}

const ID_BYTES_MAX: usize = 256;

const RULES: &[Rule] = &[
    at("spec.drivers[].name", Check::Required("")),
    at("spec.drivers[].name", Check::Name(names::csi_driver)),
    at("spec.drivers", Check::Unique(&["name"])),
    at("spec.drivers[].nodeID", Check::Required("")),
    at("spec.drivers[].nodeID", Check::Name(node_id)),
    at("spec.drivers[].allocatable.count", NOT_BELOW_ZERO),
    at("spec.drivers[]", Check::Judge(topology_keys)),
];

fn node_id(text: &str) -> Option<String> {
    (text.len() > ID_BYTES_MAX).then(|| format!("must be {ID_BYTES_MAX} characters or less"))
}

fn topology_keys(driver: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for key in items_at(driver, "/topologyKeys").iter().map(|key| key.as_str().unwrap_or_default()) {
        if key.is_empty() {
            errors.push(FieldError::required(path, ""));
        }
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(path, key));
        }
        if let Some(why) = names::qualified_name(key) {
            errors.push(FieldError::invalid(path, key, why));
        }
    }
}

struct CsiNode;

impl Strategy for CsiNode {
    /// A driver stays as it is, but for how many volumes it can take.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            if let Some(map) = driver.as_object_mut() {
                map.remove("allocatable");
            }
            driver
        };
        let mut errors = Vec::new();
        for was in items_at(old, "/spec/drivers") {
            let is = items_at(new, "/spec/drivers").iter().find(|is| is["name"] == was["name"]);
            if let Some(is) = is.filter(|is| !is_same(&fixed(is), &fixed(was))) {
                errors.push(FieldError::invalid("spec.drivers", is.clone(), IMMUTABLE));
            }
        }
        errors
    }
}
