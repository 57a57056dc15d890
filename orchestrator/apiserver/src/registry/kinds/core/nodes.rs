//! Node: a machine that runs pods.

use serde_json::Value;

use crate::error::FieldError;
use crate::registry::definition::{Declaration, STATUS, Subresource};
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
        .strategy(Node)
}

struct Node;

impl Strategy for Node {
    fn validate(&self, new: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for (i, taint) in items_at(new, "/spec/taints").iter().enumerate() {
            let path = format!("spec.taints[{i}]");
            let (key, effect) = (str_at(taint, "/key"), str_at(taint, "/effect"));
            if let Some(why) = crate::registry::meta::names::qualified_name(key) {
                errors.push(FieldError::invalid(format!("{path}.key"), key, why));
            }
            let allowed = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            if effect.is_empty() {
                errors.push(FieldError::required(format!("{path}.effect"), ""));
            } else if !allowed.contains(&effect) {
                errors.push(FieldError::not_supported(format!("{path}.effect"), effect, &allowed));
            }
            if !seen.insert((key.to_string(), effect.to_string())) {
                errors.push(FieldError::duplicate(path, taint.clone()));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let had = str_at(old, "/spec/podCIDR");
        if !had.is_empty() && str_at(new, "/spec/podCIDR") != had {
            errors.push(FieldError::forbidden(
                "spec.podCIDR",
                "node updates may not change podCIDR except from \"\" to valid",
            ));
        }
        let had = str_at(old, "/spec/providerID");
        if !had.is_empty() && str_at(new, "/spec/providerID") != had {
            errors.push(FieldError::forbidden(
                "spec.providerID",
                "node updates may not change providerID except from \"\" to valid",
            ));
        }
        errors
    }
}
