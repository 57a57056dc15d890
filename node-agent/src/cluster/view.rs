//! API objects cut down to the fields the network half uses. Pure.
//!
//! It exists so that defaults and odd values of the API are dealt with in one place. It must not decide anything.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnetwork::{IpNetwork, Ipv4Network};
use k8s_openapi::api::core::v1 as core;
use kube::api::ObjectMeta;
use penstock_dataplane::{BadChoice, BadForwarding, Choice, Forwarding, Protocol};
use serde::{Deserialize, Deserializer};

use super::seen::View;

/// The label by which a Service is left to somebody else's proxy.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The label by which a Service is no proxy's business, whatever addresses it has.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The label that names a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The annotation by which a Service says how its connections get their backends.
const LOAD_BALANCING: &str = "penstock.io/load-balancing";
/// The annotation by which a Service says who answers clients from outside.
const FORWARDING: &str = "penstock.io/forwarding";
/// The taint by which a node says that it is about to go (cluster autoscaler).
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// The condition of a Service whose addresses are from a pool of the orchestrator's, and not of somebody else's balancer.
const ADDRESS_ASSIGNED: &str = "AddressAssigned";
/// The label of a node to which load balancers send nothing.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Affinity when the API gives no time: three hours, the API's default.
const AFFINITY_SECONDS: u32 = 10_800;

/// Name of any object; the namespace is empty for cluster-scoped ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

/// A Service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServiceView {
    pub uid: Box<str>,
    pub cluster_ips: Box<[IpAddr]>,
    pub ports: Arc<[ServicePortView]>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// Not this proxy's business, though DNS's.
    pub unproxied: bool,
    pub internal_local: bool,
    pub external_local: bool,
    pub distribution: TrafficDistribution,
    pub affinity_seconds: Option<u32>,
    special: Option<Box<SpecialView>>,
}

/// What most Services say nothing of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpecialView {
    pub external_name: Option<String>,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// Whether those are of our own pools, so that the nodes are to announce them.
    pub announced: bool,
    /// `loadBalancerSourceRanges`; what is no range lets nobody in.
    pub source_ranges: Vec<IpNetwork>,
    /// What is no range.
    pub bad_source_ranges: Vec<String>,
    /// The annotation `penstock.io/load-balancing`.
    pub choice: Option<Result<Choice, BadChoice>>,
    /// The annotation `penstock.io/forwarding`.
    pub forwarding: Option<Result<Forwarding, BadForwarding>>,
    /// Where a load balancer asks whether this node has endpoints: `healthCheckNodePort` of a LoadBalancer whose
    /// `externalTrafficPolicy` is `Local`.
    pub health_port: Option<u16>,
}

/// `spec.trafficDistribution`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TrafficDistribution {
    #[default]
    Anywhere,
    SameZone,
    SameNode,
}

/// A port of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePortView {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// What an agent wants to know of its own Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnNodeView {
    pub zone: Option<String>,
    /// Whether the node is about to go: load balancers are to send it no new connections.
    pub leaving: bool,
}

/// A Node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeView {
    /// Its InternalIPs.
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNetwork>,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// Where its kubelet API listens; none when it says nothing of it.
    pub kubelet_port: Option<u16>,
}

/// A Node, as one that may announce addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StationView {
    /// Its InternalIP, the first if there are several.
    pub address: Option<IpAddr>,
    pub ready: bool,
    /// Load balancers are to leave it alone.
    pub excluded: bool,
}

impl From<core::Service> for ServiceView {
    fn from(service: core::Service) -> Self {
        let labels = service.metadata.labels.unwrap_or_default();
        let mut annotations = service.metadata.annotations.unwrap_or_default();
        let (choice, forwarding) = (annotations.remove(LOAD_BALANCING), annotations.remove(FORWARDING));
        let uid = service.metadata.uid.unwrap_or_default().into();
        let Some(spec) = service.spec else { return Self { uid, ..Self::default() } };
        let external = spec.type_.as_deref() == Some("ExternalName");
        let cluster_ips = spec.cluster_ips.unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
        let affinity = spec.session_affinity.as_deref() == Some("ClientIP");
        let seconds = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
        let external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let checks_health = external_local && spec.type_.as_deref() == Some("LoadBalancer");
        let (source_ranges, bad_source_ranges) =
            source_ranges(spec.load_balancer_source_ranges.unwrap_or_default());
        let status = service.status.unwrap_or_default();
        let mut conditions = status.conditions.into_iter().flatten();
        let announced = conditions.any(|it| it.type_ == ADDRESS_ASSIGNED && it.status == "True");
        let ingress = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
        // With ipMode Proxy the load balancer wants the traffic itself, also from inside the cluster.
        let vips = ingress.into_iter().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        let special = SpecialView {
            external_name: spec.external_name.filter(|_| external),
            external_ips: addresses(spec.external_ips.unwrap_or_default()),
            load_balancer_ips: addresses(vips.filter_map(|ingress| ingress.ip)),
            announced,
            source_ranges,
            bad_source_ranges,
            choice: choice.map(|choice| choice.parse()),
            forwarding: forwarding.map(|forwarding| forwarding.parse()),
            health_port: spec
                .health_check_node_port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0 && checks_health),
        };
        Self {
            uid,
            headless: !external && cluster_ips.iter().any(|ip| ip == "None"),
            // An external name is no proxy's business either, also where the name is missing.
            unproxied: external || labels.contains_key(PROXY_NAME) || labels.contains_key(HEADLESS),
            cluster_ips: addresses(cluster_ips).into(),
            ports: spec.ports.unwrap_or_default().into_iter().filter_map(service_port).collect(),
            affinity_seconds: affinity
                .then(|| seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(AFFINITY_SECONDS)),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local,
            distribution: distribution(spec.traffic_distribution.as_deref()),
            special: (special != NOTHING_SPECIAL).then(|| Box::new(special)),
        }
    }
}

impl View<core::Service> for ServiceView {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(ObjectMeta, Self), D::Error> {
        let mut object = core::Service::deserialize(deserializer)?;
        let meta = &mut object.metadata;
        let metadata = ObjectMeta {
            name: meta.name.take(),
            namespace: meta.namespace.take(),
            resource_version: meta.resource_version.take(),
            uid: meta.uid.clone(),
            ..ObjectMeta::default()
        };
        Ok((metadata, object.into()))
    }
}

impl ServiceView {
    /// What it says that most do not.
    pub fn special(&self) -> &SpecialView {
        self.special.as_deref().unwrap_or(&NOTHING_SPECIAL)
    }
}

static NOTHING_SPECIAL: SpecialView = SpecialView {
    external_name: None,
    external_ips: Vec::new(),
    load_balancer_ips: Vec::new(),
    announced: false,
    source_ranges: Vec::new(),
    bad_source_ranges: Vec::new(),
    choice: None,
    forwarding: None,
    health_port: None,
};

impl From<core::Node> for OwnNodeView {
    fn from(node: core::Node) -> Self {
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        Self {
            zone: node.metadata.labels.and_then(|mut labels| labels.remove(ZONE)),
            leaving: node.metadata.deletion_timestamp.is_some()
                || taints.iter().any(|taint| taint.key == TO_BE_DELETED),
        }
    }
}

impl From<core::Node> for NodeView {
    fn from(node: core::Node) -> Self {
        let status = node.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let kubelet = status.daemon_endpoints.and_then(|all| all.kubelet_endpoint);
        let addresses = status.addresses.unwrap_or_default();
        let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
        let spec = node.spec.unwrap_or_default();
        let cidrs = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
        Self {
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
            pod_cidrs: cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect(),
            ready: conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True"),
            kubelet_port: kubelet.and_then(|kubelet| u16::try_from(kubelet.port).ok()),
        }
    }
}

impl From<&core::Node> for StationView {
    fn from(node: &core::Node) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let mut internal = status.addresses.iter().flatten().filter(|address| address.type_ == "InternalIP");
        let mut conditions = status.conditions.iter().flatten();
        let mut taints = node.spec.iter().filter_map(|spec| spec.taints.as_ref()).flatten();
        Self {
            address: internal.find_map(|address| address.address.parse().ok()),
            ready: conditions.any(|it| it.type_ == "Ready" && it.status == "True"),
            excluded: node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED))
                || node.metadata.deletion_timestamp.is_some()
                || taints.any(|taint| taint.key == TO_BE_DELETED),
        }
    }
}

fn service_port(port: core::ServicePort) -> Option<ServicePortView> {
    Some(ServicePortView {
        name: port.name.unwrap_or_default().into(),
        protocol: protocol(port.protocol.as_deref())?,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
    })
}

/// The ranges, and what is none. A text that is no range becomes one that lets nobody in: who asked for a limit must not
/// get none.
fn source_ranges(texts: Vec<String>) -> (Vec<IpNetwork>, Vec<String>) {
    const NOBODY: IpNetwork = IpNetwork::V4(match Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 32) {
        Some(nobody) => nobody,
        None => panic!("32 bits are an IPv4 prefix"),
    });
    let parsed: Vec<Option<IpNetwork>> = texts.iter().map(|text| text.trim().parse().ok()).collect();
    let bad = texts.into_iter().zip(&parsed).filter(|(_, range)| range.is_none()).map(|(text, _)| text);
    (parsed.iter().map(|range| range.unwrap_or(NOBODY)).collect(), bad.collect())
}

fn distribution(name: Option<&str>) -> TrafficDistribution {
    match name {
        Some("PreferSameNode") => TrafficDistribution::SameNode,
        // PreferClose is the former name of PreferSameZone (KEP-3015).
        Some("PreferSameZone" | "PreferClose") => TrafficDistribution::SameZone,
        _ => TrafficDistribution::Anywhere,
    }
}

pub(super) fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn addresses(texts: impl IntoIterator<Item = String>) -> Vec<IpAddr> {
    let parsed = texts.into_iter().filter_map(|text| text.parse().ok());
    parsed.map(|address: IpAddr| address.to_canonical()).collect()
}
