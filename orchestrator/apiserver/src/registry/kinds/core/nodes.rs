//! Node: a machine that runs pods.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::{Declaration, STATUS, Subresource};
use crate::registry::field_rules::{Check, Rule, at};
use crate::registry::kinds::rules::addresses::{cidr, range};
use crate::registry::kinds::rules::taints;
use crate::registry::object::{items_at, str_at};
use crate::registry::strategy::Strategy;
use crate::tables::nodes::NODES;

const PROXY: Subresource = Subresource {
    name: "proxy",
    group: "",
    version: "v1",
    kind: "NodeProxyOptions",
    verbs: &["create", "delete", "get", "patch", "update"],
};

pub(crate) fn declaration() -> Declaration {
    Declaration::new("", "v1", "Node", "nodes")
        .short(&["no"])
        .cluster_scoped()
        .columns(NODES)
        .subresources(&[PROXY, STATUS])
        .fields(&["spec.unschedulable"], |o| {
            vec![(
                "spec.unschedulable",
                (o.pointer("/spec/unschedulable") == Some(&Value::Bool(true))).to_string(),
            )]
        })
        .rules(RULES)
        .status_rules(STATUS_RULES)
        .strategy(Node)
}

const RULES: &[Rule] =
    &[at("spec.podCIDRs[]", Check::Name(cidr)), at("spec.podCIDRs", Check::Judge(families))];

const STATUS_RULES: &[Rule] =
    &[at("status.capacity{}", Check::NotNegative), at("status.allocatable{}", Check::NotNegative)];

struct Node;

impl Strategy for Node {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        // Upstream's path, though they are in the spec.
        taints::validate(&new["spec"]["taints"], "metadata.taints", &mut errors);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        fixed_ranges(new, old)
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = fixed_ranges(new, old);
        let addresses = items_at(new, "/status/addresses");
        let had = items_at(old, "/status/addresses");
        for (i, address) in addresses.iter().enumerate() {
            if addresses[..i].contains(address) && had != addresses {
                errors.push(FieldError::duplicate(format!("status.addresses[{i}]"), address.clone()));
            }
        }
        errors
    }
}

/// What a node is given stays its own.
fn fixed_ranges(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    // The older field alone is a list of one.
    let ranges = |node: &Value| match items_at(node, "/spec/podCIDRs") {
        [] => node.pointer("/spec/podCIDR").into_iter().cloned().collect(),
        list => list.to_vec(),
    };
    let had: Vec<Value> = ranges(old);
    if !had.is_empty() && had != ranges(new) {
        let why = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.podCIDRs", why));
    }
    let had = str_at(old, "/spec/providerID");
    if !had.is_empty() && str_at(new, "/spec/providerID") != had {
        let why = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.providerID", why));
    }
    errors
}

fn families(cidrs: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let list = cidrs.as_array().map(Vec::as_slice).unwrap_or_default();
    let known: Vec<bool> =
        list.iter().filter_map(|it| range(it.as_str()?)).map(|(address, _)| address.is_ipv4()).collect();
    if list.len() > 2 || matches!(known[..], [first, second] if first == second) {
        let why = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(path, cidrs.clone(), why));
    }
}
