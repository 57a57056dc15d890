//! From a Service to an address: a ready endpoint, chosen at random.
//!
//! The API server is no client of the cluster's Services: it may run where no data plane does, so it reads Services
//! and EndpointSlices from its caches and goes straight to an endpoint.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::{CallError, Endpoint};
use crate::registry::Registry;
use crate::registry::object::str_at;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A ready endpoint of a Service's port.
pub(crate) async fn of_service(
    registry: &Registry,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Endpoint, CallError> {
    let unreadable = |e: crate::error::ApiError| CallError::Connection { why: e.message };
    let found = registry.peek("", "services", namespace, name).await.map_err(unreadable)?;
    let service = found.ok_or_else(|| CallError::NoService { name: name.into() })?.value();
    let kind = str_at(&service, "/spec/type");
    if kind == "ExternalName" {
        return Err(CallError::ServiceType { kind: kind.into() });
    }
    let port_name = port_name(&service, &port.to_string())
        .ok_or_else(|| CallError::NoPort { name: name.into(), port })?;
    let slices =
        registry.cached("discovery.k8s.io", "endpointslices", Some(namespace)).await.map_err(unreadable)?;
    let mut slices: Vec<Value> = slices
        .iter()
        .filter(|slice| slice.labels.get(SERVICE_NAME).is_some_and(|of| of == name))
        .map(|slice| slice.value())
        .collect();
    // The primary family first: the others may not be reachable from here.
    let family = match str_at(&service, "/spec/ipFamilies/0") {
        "" => "IPv4",
        family => family,
    };
    slices.sort_by_key(|slice| str_at(slice, "/addressType") != family);
    let of_one = slices.iter().map(|slice| ready(slice, &port_name)).find(|ready| !ready.is_empty());
    let ready = of_one.ok_or_else(|| CallError::NoEndpoints { name: name.into() })?;
    let (address, port) = ready[rand::random_range(0..ready.len())];
    Ok(SocketAddr::new(address, port))
}

/// The name of the port `wanted` (a name, a number, or nothing when there is but one) means.
pub(crate) fn port_name(service: &Value, wanted: &str) -> Option<String> {
    let ports = service.pointer("/spec/ports")?.as_array()?;
    let name = |port: &Value| port.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    if wanted.is_empty() {
        // Upstream takes the unnamed port, or the only one.
        return ports
            .iter()
            .find(|p| name(p).is_empty())
            .or(if ports.len() == 1 { ports.first() } else { None })
            .map(name);
    }
    let by_number = wanted.parse::<u16>().ok();
    ports
        .iter()
        .find(|p| name(p) == wanted || (by_number.is_some() && port_number(p.get("port")) == by_number))
        .map(name)
}

/// The ready endpoints of a slice, with the number its port of that name has.
pub(crate) fn ready(slice: &Value, port_name: &str) -> Vec<(IpAddr, u16)> {
    let list = |key: &str| slice.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let port = list("ports").iter().find_map(|p| {
        let name = p.get("name").and_then(Value::as_str).unwrap_or_default();
        (name == port_name).then(|| port_number(p.get("port"))).flatten()
    });
    let Some(port) = port else { return Vec::new() };
    list("endpoints")
        .iter()
        .filter(|e| e.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true))
        .filter_map(|e| e.pointer("/addresses/0")?.as_str()?.parse().ok())
        .map(|address| (address, port))
        .collect()
}

pub(crate) fn port_number(value: Option<&Value>) -> Option<u16> {
    value.and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ready_endpoints_of_the_right_port_are_taken() {
        let slice = json!({
            "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]});
        assert_eq!(ready(&slice, "http"), [("10.0.0.1".parse().unwrap(), 8080)]);
        assert!(ready(&slice, "other").is_empty());
    }

    #[test]
    fn a_service_port_is_found_by_name_or_number() {
        let service =
            json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 90}]}});
        assert_eq!(port_name(&service, "http").as_deref(), Some("http"));
        assert_eq!(port_name(&service, "90").as_deref(), Some("admin"));
        assert_eq!(port_name(&service, ""), None);
        assert_eq!(port_name(&service, "91"), None);
    }
}
