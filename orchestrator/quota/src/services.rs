//! What a Service uses: itself, and what its type makes of its ports.

use penstock_schema::Quantity;
use serde_json::Value;

use crate::amounts::{Amounts, ONE, items_at};

pub(crate) fn usage(service: &Value) -> Amounts {
    let ports = items_at(service, "/spec/ports");
    let counted = |number: usize| Quantity::count(u32::try_from(number).unwrap_or(u32::MAX));
    let balanced = service["spec"]["type"] == "LoadBalancer";
    let node_ports = match service["spec"]["type"].as_str() {
        Some("NodePort") => ports.len(),
        // They are given later: what counts is whether they will be.
        Some("LoadBalancer") if service["spec"]["allocateLoadBalancerNodePorts"] != false => ports.len(),
        Some("LoadBalancer") => {
            ports.iter().filter(|port| port["nodePort"].as_u64().is_some_and(|number| number != 0)).count()
        }
        _ => 0,
    };
    Amounts::from([
        ("services".into(), ONE),
        ("services.loadbalancers".into(), if balanced { ONE } else { Quantity::ZERO }),
        ("services.nodeports".into(), counted(node_ports)),
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::amounts::told;

    #[test]
    fn a_service_uses_node_ports_as_its_type_says() {
        let of = |spec: Value| told(&usage(&json!({"spec": spec})));
        let ports = json!([{"port": 80}, {"port": 81, "nodePort": 30_081}]);
        assert_eq!(
            of(json!({"type": "ClusterIP", "ports": ports})),
            "services=1,services.loadbalancers=0,services.nodeports=0"
        );
        assert_eq!(
            of(json!({"type": "NodePort", "ports": ports})),
            "services=1,services.loadbalancers=0,services.nodeports=2"
        );
        let mut balanced = json!({"type": "LoadBalancer", "ports": ports});
        assert_eq!(of(balanced.clone()), "services=1,services.loadbalancers=1,services.nodeports=2");
        balanced["allocateLoadBalancerNodePorts"] = false.into();
        assert_eq!(of(balanced), "services=1,services.loadbalancers=1,services.nodeports=1");
    }
}
