//! What the cluster says of network policy, in Kubernetes' own words.
//!
//! It exists so that what is compiled needs no API. Must not know what it becomes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use penstock_ebpf_common::{PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP};
use serde::{Deserialize, Serialize};

pub use crate::selector::Labels;
use crate::selector::Selector;

/// Namespace and name of a pod, or of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A pod with addresses of its own: one in the node's network is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pod {
    /// Its labels.
    pub labels: Labels,
    /// Its addresses; none when it has none yet, or is over.
    pub addresses: Vec<IpAddr>,
    /// The ports that have names.
    pub ports: Vec<NamedPort>,
}

/// A port of a pod's container with a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// The default of the API.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A NetworkPolicy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The pods of its namespace that it is about.
    pub pods: Selector,
    /// Who may talk to them; none if it says nothing of that.
    pub ingress: Option<Vec<Rule>>,
    /// To whom they may talk; none if it says nothing of that.
    pub egress: Option<Vec<Rule>>,
}

/// What a policy allows: any of the peers by any of the ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Everybody when empty.
    pub peers: Vec<Peer>,
    /// All traffic when empty.
    pub ports: Vec<Port>,
}

/// Who is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Pods of namespaces with these labels; none for the policy's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Selector>,
    /// Pods with these labels; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Selector>,
    /// Instead of pods: addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
}

/// A range of addresses, but for some.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// The range.
    pub cidr: IpNetwork,
    /// Ranges of it that are not meant.
    #[serde(default)]
    pub except: Vec<IpNetwork>,
}

/// Ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Which.
    #[serde(default)]
    pub ports: Ports,
}

/// Which ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ports {
    /// All.
    #[default]
    All,
    /// From one to another; both are meant.
    Range(u16, u16),
    /// The one that the pod that is reached calls so.
    Named(String),
}

impl PodName {
    /// A name in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl Protocol {
    /// As it is written in packets.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => PROTOCOL_TCP,
            Self::Udp => PROTOCOL_UDP,
            Self::Sctp => PROTOCOL_SCTP,
        }
    }
}
