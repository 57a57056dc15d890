//! What the cluster wants from this node's data plane, in Kubernetes' own words.
//!
//! The agent turns Services and EndpointSlices into a [`Desired`]; everything below it is a pure function of this
//! value. Must not know where it came from (no API types here) nor what it becomes (no map layouts here).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// All a node needs to know to serve every Service of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Desired {
    /// One entry a service port. Headless services have no entry: there is no address to translate.
    pub services: BTreeMap<ServiceKey, Service>,
    /// The node's own addresses on which NodePorts are served, for clients outside and on the node.
    pub node_addresses: Vec<IpAddr>,
    /// Addresses that are served by the node itself and never translated, such as the cluster DNS address.
    pub never_translated: BTreeSet<IpAddr>,
}

/// The name of a service port. Written `namespace/name:port`; the port's name is empty for an unnamed port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceKey {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// The port's name, empty when unnamed. Unique within a Service by API validation.
    pub port: String,
}

/// The transport of a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// The default of the Kubernetes API.
    #[default]
    Tcp,
    /// Datagrams; flows are tracked by the programs themselves.
    Udp,
    /// Compiled to addresses like the others; translated at the socket hook only.
    Sctp,
}

/// One port of a Service with everything it is reached by and everything that answers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// `spec.clusterIPs`, without `None`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports[].port`.
    pub port: u16,
    /// `spec.ports[].protocol`.
    pub protocol: Protocol,
    /// `spec.ports[].nodePort`.
    pub node_port: Option<u16>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Loopback addresses that processes of the node itself reach it at, and nobody else.
    pub loopbacks: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` where `ipMode` is `VIP`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: who may use the load balancer's addresses; everybody when empty.
    pub source_ranges: Vec<IpNetwork>,
    /// `sessionAffinity: ClientIP` with its timeout in seconds; none without affinity.
    pub affinity_seconds: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// How a connection gets its backend.
    pub choice: Choice,
    /// Who answers a client from outside whose backend is on another node.
    pub forwarding: Forwarding,
    /// Every endpoint of every slice of this port, of any readiness: choosing is this crate's business.
    pub backends: Vec<Backend>,
}

/// How a connection gets its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Any, each as likely.
    #[default]
    Random,
    /// Packets that arrive by the flow's hash, which every node answers alike and a change of backends moves little.
    Maglev,
    /// The one of two with fewer open connections from this node.
    LeastConnections,
}

/// Who answers a client from outside whose backend is on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// The node that the client asked: what it sends on has its own address for a source, so that answers come back.
    #[default]
    Snat,
    /// The backend's node, from the address that the client asked (direct server return). Where that cannot be, as above.
    Dsr,
}

/// One endpoint of a service port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backend {
    /// The endpoint's address.
    pub address: IpAddr,
    /// The target port, already resolved from its name.
    pub port: u16,
    /// Whether it runs on this node.
    pub local: bool,
    /// `conditions.ready`; nil counts as true.
    pub ready: bool,
    /// `conditions.serving`; nil counts as `ready`.
    pub serving: bool,
    /// `conditions.terminating`; nil counts as false.
    pub terminating: bool,
    /// `hints.forNodes`, as this node sees it.
    pub node_hint: Hint,
    /// `hints.forZones`, as this node sees it.
    pub zone_hint: Hint,
}

/// For whom an endpoint is meant. Resolved when it is read: names of nodes and zones are long, and there are many
/// endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hint {
    /// For anybody.
    #[default]
    None,
    /// For clients on this node, or in its zone.
    Here,
    /// For others.
    Elsewhere,
}

/// What compiling one service needs to know of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// [`Desired::node_addresses`].
    pub node_addresses: Vec<IpAddr>,
    /// [`Desired::never_translated`].
    pub never_translated: BTreeSet<IpAddr>,
}

/// A Service with all the ports it has now; none when it is gone. What is said of one Service is said as a whole, so
/// that a port that was renamed leaves nothing behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceChange {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// By the port's name.
    pub ports: BTreeMap<String, Service>,
}

// === impl Desired ===

impl Desired {
    /// What it says of the node.
    pub fn facts(&self) -> NodeFacts {
        NodeFacts {
            node_addresses: self.node_addresses.clone(),
            never_translated: self.never_translated.clone(),
        }
    }
}

// === impl ServiceChange ===

impl ServiceChange {
    /// The names of its ports.
    pub fn keys(&self) -> impl Iterator<Item = ServiceKey> + '_ {
        self.ports.keys().map(|port| ServiceKey::new(&self.namespace, &self.name, port))
    }
}

// === impl ServiceKey ===

impl ServiceKey {
    /// Names a service port.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, port: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into(), port: port.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.port)
    }
}

/// A text that is not `namespace/name:port`.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} does not name a service port: write namespace/name:port")]
pub struct BadServiceKey {
    text: String,
}

impl TryFrom<String> for ServiceKey {
    type Error = BadServiceKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parts = text.split_once('/').and_then(|(namespace, rest)| {
            let (name, port) = rest.split_once(':').unwrap_or((rest, ""));
            (!namespace.is_empty() && !name.is_empty()).then(|| Self::new(namespace, name, port))
        });
        parts.ok_or(BadServiceKey { text })
    }
}

impl From<ServiceKey> for String {
    fn from(key: ServiceKey) -> Self {
        key.to_string()
    }
}

// === impl Choice ===

impl Choice {
    /// Every way, in the order in which they are explained.
    pub const ALL: [Self; 3] = [Self::Random, Self::Maglev, Self::LeastConnections];

    /// What users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Maglev => "maglev",
            Self::LeastConnections => "least-connections",
        }
    }
}

/// A text that names no way to choose.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no way to choose a backend: write random, maglev or least-connections")]
pub struct BadChoice {
    text: String,
}

impl FromStr for Choice {
    type Err = BadChoice;

    fn from_str(text: &str) -> Result<Self, BadChoice> {
        let named = Self::ALL.into_iter().find(|choice| choice.name() == text);
        named.ok_or_else(|| BadChoice { text: text.chars().take(64).collect() })
    }
}

// === impl Forwarding ===

impl Forwarding {
    /// What users write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snat => "snat",
            Self::Dsr => "dsr",
        }
    }
}

/// A text that names no way to forward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no way to forward: write snat or dsr")]
pub struct BadForwarding {
    text: String,
}

impl FromStr for Forwarding {
    type Err = BadForwarding;

    fn from_str(text: &str) -> Result<Self, BadForwarding> {
        let named = [Self::Snat, Self::Dsr].into_iter().find(|forwarding| forwarding.name() == text);
        named.ok_or_else(|| BadForwarding { text: text.chars().take(64).collect() })
    }
}

// === impl Backend ===

impl Default for Backend {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            port: 0,
            local: false,
            ready: true,
            serving: true,
            terminating: false,
            node_hint: Hint::None,
            zone_hint: Hint::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_key_reads_back_what_it_writes() {
        for text in ["demo/hello:http", "demo/hello:"] {
            let key = ServiceKey::try_from(text.to_string()).expect(text);
            assert_eq!(key.to_string(), text);
        }
        assert_eq!(
            ServiceKey::try_from("demo/hello".to_string()).expect("no port"),
            ServiceKey::new("demo", "hello", "")
        );
    }

    #[test]
    fn a_choice_reads_back_what_it_writes_and_anything_else_is_explained() {
        for choice in Choice::ALL {
            assert_eq!(choice.name().parse(), Ok(choice));
        }
        let error = "Maglev ".parse::<Choice>().expect_err("no name").to_string();
        assert!(error.contains("least-connections"), "{error}");
    }

    #[test]
    fn a_text_without_namespace_or_name_is_refused() {
        for text in ["", "hello", "/hello:http", "demo/:http"] {
            assert!(ServiceKey::try_from(text.to_string()).is_err(), "{text:?}");
        }
    }
}
