//! What a Service means: for a client, an address, a port and a protocol, who may answer.
//!
//! Written from the Kubernetes documentation and KEPs over the API's own objects, and plainly: it looks at everything for
//! each question. It exists so that what is compiled can be checked against something that was thought of apart from it.

mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

/// The cluster as one node sees it.
#[derive(Debug, Clone, Default)]
pub struct World {
    pub services: Vec<core::Service>,
    pub slices: Vec<discovery::EndpointSlice>,
    pub zone: Option<String>,
}

/// This node.
pub const NODE: &str = "node-1";
pub const NODE_ADDRESSES: [&str; 2] = ["10.240.0.11", "fd00:240::11"];
/// Served by the node itself.
pub const DNS: &str = "10.96.0.10";

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A process of the node.
    Host,
    /// A pod of the node.
    Pod,
    /// Anywhere else, by the uplink.
    Outside,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub client: Client,
    pub source: IpAddr,
    pub address: IpAddr,
    pub port: u16,
    pub protocol: &'a str,
}

/// Who may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nobody is asked: the packet goes where its address says.
    NotTranslated,
    /// There is nobody to answer, which the client is told.
    Refused,
    /// Not this client, or not on this node.
    Dropped,
    /// Any of these.
    AnyOf(BTreeSet<(IpAddr, u16)>),
}

/// As what an address belongs to a Service. In the order in which one that is several things is taken: a ClusterIP is
/// that; a NodePort has no source ranges, and neither has an external address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Cluster,
    Node,
    Loopback,
    External,
    Balancer,
}

impl World {
    /// The answer to a question.
    pub fn answer(&self, question: Question<'_>) -> Answer {
        if question.address.to_string() == DNS {
            return Answer::NotTranslated;
        }
        let Some((kind, service, port)) = self.owner(question) else { return Answer::NotTranslated };
        let spec = service.spec.clone().unwrap_or_default();
        let from_outside = question.client == Client::Outside;
        let local = match kind {
            // Not meant for clients outside of the cluster.
            Kind::Cluster if from_outside => return Answer::NotTranslated,
            Kind::Cluster => spec.internal_traffic_policy.as_deref() == Some("Local"),
            // 127.0.0.1 is another for everybody else.
            Kind::Loopback if question.client != Client::Host => return Answer::NotTranslated,
            Kind::Loopback => false,
            // The policy for external traffic does not bind what comes from inside.
            _ => from_outside && spec.external_traffic_policy.as_deref() == Some("Local"),
        };
        let ranges = spec.load_balancer_source_ranges.clone().unwrap_or_default();
        if kind == Kind::Balancer && !ranges.is_empty() {
            let lets_in =
                |text: &String| text.parse::<IpNetwork>().is_ok_and(|it| it.contains(question.source));
            if !ranges.iter().any(lets_in) {
                return Answer::Dropped;
            }
        }
        let endpoints = self.endpoints(service, port, question.address.is_ipv4());
        let anywhere = self.near(&endpoints, spec.traffic_distribution.as_deref());
        let chosen = if local {
            usable(endpoints.iter().filter(|it| it.1.node_name.as_deref() == Some(NODE)))
        } else {
            anywhere.clone()
        };
        match (chosen.is_empty(), anywhere.is_empty()) {
            (false, _) => Answer::AnyOf(chosen),
            (true, false) => Answer::Dropped,
            (true, true) => Answer::Refused,
        }
    }

    /// Which port of which Service an address belongs to: what was allocated comes before what a Service names itself,
    /// and then the first by name.
    fn owner(&self, question: Question<'_>) -> Option<(Kind, &core::Service, &core::ServicePort)> {
        let mut owners = Vec::new();
        for service in self.services.iter().filter(|service| is_proxied(service)) {
            for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
                let kinds = kinds(service, port, question);
                let Some(kind) = kinds.iter().min() else { continue };
                let named = *kind == Kind::External && !kinds.contains(&Kind::Balancer);
                let meta = &service.metadata;
                let name = (meta.namespace.clone(), meta.name.clone(), port.name.clone().unwrap_or_default());
                owners.push((named, name, (*kind, service, port)));
            }
        }
        owners.into_iter().min_by_key(|(named, name, _)| (*named, name.clone())).map(|(.., owner)| owner)
    }

    /// The endpoints of a port, each address once: the ready one of several, or the first.
    fn endpoints(
        &self,
        service: &core::Service,
        port: &core::ServicePort,
        v4: bool,
    ) -> BTreeMap<(IpAddr, u16), discovery::Endpoint> {
        let mut found: BTreeMap<(IpAddr, u16), discovery::Endpoint> = BTreeMap::new();
        let mut slices: Vec<_> = self.slices.iter().filter(|slice| is_of(slice, service)).collect();
        slices.sort_by_key(|slice| slice.metadata.name.clone());
        for slice in slices.into_iter().filter(|slice| slice.address_type != "FQDN") {
            for slice_port in slice.ports.iter().flatten() {
                let same_name =
                    slice_port.name.clone().unwrap_or_default() == port.name.clone().unwrap_or_default();
                let same_protocol = protocol(&slice_port.protocol) == protocol(&port.protocol);
                let number =
                    slice_port.port.and_then(|number| u16::try_from(number).ok()).filter(|it| *it != 0);
                let Some(number) = number.filter(|_| same_name && same_protocol) else { continue };
                for endpoint in slice.endpoints.iter().flatten() {
                    let address = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok());
                    let Some(address) = address.filter(|it| is_host(*it) && it.is_ipv4() == v4) else {
                        continue;
                    };
                    let known = found.get(&(address, number));
                    if known.is_none_or(|known| !is_ready(known) && is_ready(endpoint)) {
                        found.insert((address, number), endpoint.clone());
                    }
                }
            }
        }
        found
    }

    /// Those of all endpoints that are for clients of this node: KEP-2433, KEP-4444, KEP-3015.
    fn near(
        &self,
        endpoints: &BTreeMap<(IpAddr, u16), discovery::Endpoint>,
        distribution: Option<&str>,
    ) -> BTreeSet<(IpAddr, u16)> {
        let ready: Vec<_> = endpoints.iter().filter(|(_, endpoint)| is_ready(endpoint)).collect();
        let nodes = |endpoint: &discovery::Endpoint| -> Vec<String> {
            let hints = endpoint.hints.clone().and_then(|hints| hints.for_nodes).unwrap_or_default();
            let hinted: Vec<_> = hints.into_iter().map(|hint| hint.name).collect();
            let prefers = distribution == Some("PreferSameNode");
            if hinted.is_empty() && prefers {
                endpoint.node_name.clone().into_iter().collect()
            } else {
                hinted
            }
        };
        let zones = |endpoint: &discovery::Endpoint| -> Vec<String> {
            let hints = endpoint.hints.clone().and_then(|hints| hints.for_zones).unwrap_or_default();
            let hinted: Vec<_> = hints.into_iter().map(|hint| hint.name).collect();
            let prefers =
                ["PreferSameNode", "PreferSameZone", "PreferClose"].map(Some).contains(&distribution);
            if hinted.is_empty() && prefers { endpoint.zone.clone().into_iter().collect() } else { hinted }
        };
        let here = |all: Vec<Vec<String>>, own: Option<&str>| -> Option<BTreeSet<(IpAddr, u16)>> {
            let mine = |names: &Vec<String>| names.iter().any(|name| Some(name.as_str()) == own);
            let chosen: BTreeSet<_> =
                ready.iter().zip(&all).filter(|(_, names)| mine(names)).map(|((at, _), _)| **at).collect();
            (all.iter().all(|names| !names.is_empty()) && !chosen.is_empty()).then_some(chosen)
        };
        here(ready.iter().map(|(_, it)| nodes(it)).collect(), Some(NODE))
            .or_else(|| here(ready.iter().map(|(_, it)| zones(it)).collect(), self.zone.as_deref()))
            .unwrap_or_else(|| usable(endpoints.iter()))
    }
}

/// The ready ones, or when there are none those that end and still serve (KEP-1669).
fn usable<'a>(
    endpoints: impl Iterator<Item = (&'a (IpAddr, u16), &'a discovery::Endpoint)> + Clone,
) -> BTreeSet<(IpAddr, u16)> {
    let ready: BTreeSet<_> = endpoints.clone().filter(|(_, it)| is_ready(it)).map(|(at, _)| *at).collect();
    if !ready.is_empty() {
        return ready;
    }
    let serves = |endpoint: &discovery::Endpoint| {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        conditions.serving.or(conditions.ready) != Some(false) && conditions.terminating == Some(true)
    };
    endpoints.filter(|(_, it)| serves(it)).map(|(at, _)| *at).collect()
}

fn is_ready(endpoint: &discovery::Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|it| it.ready) != Some(false)
}

fn is_proxied(service: &core::Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    let labels = service.metadata.labels.clone().unwrap_or_default();
    let ips = spec.cluster_ips.clone().unwrap_or_default();
    spec.type_.as_deref() != Some("ExternalName")
        && !ips.iter().any(|ip| ip == "None")
        && ips.iter().any(|ip| ip.parse::<IpAddr>().is_ok())
        && !labels.contains_key("service.kubernetes.io/service-proxy-name")
}

/// As what an address and port belong to a port of a Service.
fn kinds(service: &core::Service, port: &core::ServicePort, question: Question<'_>) -> Vec<Kind> {
    let spec = service.spec.clone().unwrap_or_default();
    let number = |number: i32| u16::try_from(number).ok().filter(|number| *number != 0);
    let Some(own_port) = number(port.port) else { return Vec::new() };
    let cluster_ips: Vec<IpAddr> = parsed(&spec.cluster_ips.unwrap_or_default());
    // A Service is of the families of its ClusterIPs.
    let has_family = cluster_ips.iter().any(|ip| ip.is_ipv4() == question.address.is_ipv4());
    if !has_family || protocol(&port.protocol) != Some(question.protocol) {
        return Vec::new();
    }
    let status = service.status.clone().and_then(|status| status.load_balancer?.ingress).unwrap_or_default();
    let vips = status.into_iter().filter(|it| it.ip_mode.as_deref() != Some("Proxy")).filter_map(|it| it.ip);
    let is = |ips: &[IpAddr]| is_host(question.address) && ips.contains(&question.address);
    let is_node_port = port.node_port.and_then(number) == Some(question.port);
    let on_port = own_port == question.port;
    let text = question.address.to_string();
    let found = [
        (Kind::Cluster, on_port && is(&cluster_ips)),
        (Kind::Balancer, on_port && is(&parsed(&vips.collect::<Vec<_>>()))),
        (Kind::External, on_port && is(&parsed(&spec.external_ips.unwrap_or_default()))),
        (Kind::Node, is_node_port && NODE_ADDRESSES.contains(&text.as_str())),
        (Kind::Loopback, is_node_port && ["127.0.0.1", "::1"].contains(&text.as_str())),
    ];
    found.into_iter().filter(|(_, is)| *is).map(|(kind, _)| kind).collect()
}

fn is_of(slice: &discovery::EndpointSlice, service: &core::Service) -> bool {
    let labels = slice.metadata.labels.clone().unwrap_or_default();
    slice.metadata.namespace == service.metadata.namespace
        && labels.get("kubernetes.io/service-name") == service.metadata.name.as_ref()
}

fn protocol(name: &Option<String>) -> Option<&'static str> {
    match name.as_deref() {
        None | Some("TCP") => Some("TCP"),
        Some("UDP") => Some("UDP"),
        Some("SCTP") => Some("SCTP"),
        Some(_) => None,
    }
}

fn parsed(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Whether an address may be a Service's or an endpoint's.
fn is_host(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(four) => {
            four.octets()[0] == 127 || four.octets()[..2] == [169, 254] || four.octets()[0] >= 224
        }
        IpAddr::V6(six) => {
            let first = six.segments()[0];
            six.to_string() == "::1" || first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00
        }
    };
    !special && !["0.0.0.0", "::"].contains(&address.to_string().as_str())
}
