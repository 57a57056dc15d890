//! Network policies and ingress classes. An Ingress has no defaults: its pathType is required.

use serde_json::json;

use super::{Hook, Object, child, fill, is_empty_list};

pub(super) const HOOKS: &[(&str, Hook)] = &[
    ("io.k8s.api.networking.v1.NetworkPolicy", network_policy),
    ("io.k8s.api.networking.v1.NetworkPolicyPort", |o| fill(o, "protocol", "TCP")),
    ("io.k8s.api.networking.v1.IngressClassParametersReference", |o| fill(o, "scope", "Cluster")),
];

/// A policy always speaks of ingress, and of egress if it has egress rules.
fn network_policy(policy: &mut Object) {
    let Some(spec) = child(policy, "spec") else { return };
    if is_empty_list(spec, "policyTypes") {
        let types =
            if is_empty_list(spec, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.insert("policyTypes".into(), types);
    }
}
