//! From pods to endpoints: which pods count, under which addresses, and where named ports lead. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use penstock_informers::Meta;

use crate::pod;

/// Endpoints by address type and resolved ports.
pub type Backends = BTreeMap<(String, Vec<PortKey>), Vec<Endpoint>>;

/// A resolved port, comparable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    pub name: String,
    pub protocol: String,
    pub port: i32,
    pub app_protocol: Option<String>,
}

impl PortKey {
    /// In the API's form.
    pub fn to_port(&self) -> EndpointPort {
        EndpointPort {
            name: Some(self.name.clone()),
            port: Some(self.port),
            protocol: Some(self.protocol.clone()),
            app_protocol: self.app_protocol.clone(),
        }
    }

    /// From the API's form.
    pub fn from_port(port: &EndpointPort) -> Self {
        Self {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            port: port.port.unwrap_or(0),
            app_protocol: port.app_protocol.clone(),
        }
    }
}

/// The zone a node is in.
pub fn zone(node: &Node) -> Option<&str> {
    node.label("topology.kubernetes.io/zone")
}

/// Whether a pod's change can make no difference to endpoints.
pub fn same_for_endpoints(old: &Pod, new: &Pod) -> bool {
    let addresses = |p: &Pod| p.status.as_ref().and_then(|s| s.pod_ips.clone());
    let primary = |p: &Pod| p.status.as_ref().and_then(|s| s.pod_ip.clone());
    old.uid_str() == new.uid_str()
        && old.metadata.labels == new.metadata.labels
        && old.deleting() == new.deleting()
        && pod::is_ready(old) == pod::is_ready(new)
        && pod::is_finished(old) == pod::is_finished(new)
        && pod::node_name(old) == pod::node_name(new)
        && addresses(old) == addresses(new)
        && primary(old) == primary(new)
}

/// All addresses of a pod.
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let several = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut texts: Vec<&str> = several.collect();
    if texts.is_empty() {
        texts.extend(status.pod_ip.as_deref());
    }
    texts.into_iter().filter_map(|t| t.parse().ok()).collect()
}

/// The families a service is served under: `IPv4`, `IPv6`.
pub fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|s| s.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".to_owned()] } else { families }
}

/// Whether unready pods are to be treated as ready.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true))
}

/// Where a service port leads on a pod.
pub fn resolve_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|p| p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|p| p.container_port)
        .next()
}

/// The service's ports as they are on this pod; ports the pod does not have are left out.
pub fn resolve_ports(service: &Service, pod: &Pod) -> Vec<PortKey> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let mut resolved: Vec<PortKey> = ports
        .filter_map(|port| {
            Some(PortKey {
                name: port.name.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: resolve_port(pod, port)?,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    resolved.sort();
    resolved
}

/// The host name a pod has under a headless service of its subdomain.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|h| !h.is_empty())?;
    (spec.subdomain.as_deref() == Some(service.name())).then_some(hostname)
}

/// The reference from an endpoint to its pod.
pub fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// For whom an endpoint is meant, where a Service prefers near ones (KEP-4444, KEP-3015): the node's hint comes with the
/// zone's, for proxies that do not know the former.
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref())?;
    let by_node = match distribution {
        "PreferSameNode" => true,
        "PreferSameZone" | "PreferClose" => false,
        _ => return None,
    };
    let for_nodes = node.filter(|_| by_node).map(|name| vec![ForNode { name: name.to_owned() }]);
    let for_zones = zone.map(|name| vec![ForZone { name: name.to_owned() }]);
    (for_nodes.is_some() || for_zones.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

/// All endpoints of a service.
pub fn observe_backends(service: &Service, pods: &[Arc<Pod>], zones: &BTreeMap<String, String>) -> Backends {
    let mut backends = Backends::new();
    let publish = publishes_not_ready(service);
    for family in families(service) {
        for pod in pods.iter().filter(|p| !pod::is_finished(p)) {
            let ipv6 = family == "IPv6";
            let address = addresses(pod).into_iter().find(|a| a.is_ipv6() == ipv6);
            let Some(address) = address else { continue };
            let serving = pod::is_ready(pod);
            let terminating = pod.deleting();
            let node = pod::node_name(pod);
            let zone = node.and_then(|n| zones.get(n)).cloned();
            let endpoint = Endpoint {
                hints: hints(service, node, zone.as_deref()),
                addresses: vec![address.to_string()],
                conditions: Some(EndpointConditions {
                    ready: Some(publish || (serving && !terminating)),
                    serving: Some(serving),
                    terminating: Some(terminating),
                }),
                hostname: hostname(service, pod),
                node_name: node.map(str::to_owned),
                target_ref: Some(target(pod)),
                zone,
                ..Default::default()
            };
            backends.entry((family.clone(), resolve_ports(service, pod))).or_default().push(endpoint);
        }
    }
    backends
}
