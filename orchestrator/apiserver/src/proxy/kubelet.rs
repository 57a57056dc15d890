//! Where a node's kubelet listens, read from the Node object.

use serde_json::Value;

use super::Proxies;
use super::dial::{Endpoint, Security};
use crate::error::ApiError;

const PORT_DEFAULT: u16 = 10250;
/// Kinds of node addresses that can be dialled, most wanted first.
const ADDRESS_TYPES: [&str; 2] = ["InternalIP", "ExternalIP"];

/// The kubelet of a node.
pub(crate) async fn endpoint(proxies: &Proxies, node: &str) -> Result<Endpoint, ApiError> {
    let object = proxies.find("nodes", None, node).await?.value();
    endpoint_of(&object).ok_or_else(|| {
        ApiError::internal(format!("no preferred addresses found for node {node}; known addresses: []"))
    })
}

fn endpoint_of(node: &Value) -> Option<Endpoint> {
    let addresses = node.pointer("/status/addresses")?.as_array()?;
    let address = ADDRESS_TYPES.iter().find_map(|wanted| {
        addresses.iter().find_map(|a| {
            (a.get("type")?.as_str()? == *wanted).then(|| a.get("address")?.as_str()?.parse().ok()).flatten()
        })
    })?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(PORT_DEFAULT);
    Some(Endpoint { address, port, security: Security::Kubelet })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_internal_address_and_the_announced_port_are_used() {
        let mut node = json!({"status": {"addresses": [
            {"type": "Hostname", "address": "n1"},
            {"type": "ExternalIP", "address": "192.0.2.1"},
            {"type": "InternalIP", "address": "10.240.0.11"}]}});
        assert_eq!(
            endpoint_of(&node).map(|e| (e.address.to_string(), e.port)),
            Some(("10.240.0.11".into(), 10250))
        );
        node["status"]["daemonEndpoints"] = json!({"kubeletEndpoint": {"Port": 10260}});
        assert_eq!(endpoint_of(&node).map(|e| e.port), Some(10260));
        assert_eq!(endpoint_of(&json!({"status": {}})), None);
    }
}
