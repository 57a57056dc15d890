//! The words between the plugin and the agent: one JSON object a line each way over a Unix socket.
//!
//! It exists apart from the CNI spec because the spec's shapes change with `cniVersion`, and the agent should not
//! have to know which one a runtime speaks. It must not know how either side carries a request out.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

/// Longest line either side reads, in bytes. A GC that names every pod of a full node is about 20 KiB.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// What the plugin asks. One request a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Request {
    /// Give this attachment a link and an address. Asking again for the same attachment gives the same answer.
    Add(AddRequest),
    /// Take both away. Succeeds when there is nothing to take.
    Del(DelRequest),
    /// Is the attachment as `Add` left it?
    Check(CheckRequest),
    /// Remove every attachment of the network that is not in `keep`.
    Gc(GcRequest),
    /// Could an `Add` succeed now?
    Status,
}

/// One interface of one sandbox; what the whole protocol is keyed by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentId {
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME.
    pub interface: String,
}

/// An `Add`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddRequest {
    /// Which attachment.
    pub id: AttachmentId,
    /// Path of the sandbox's network namespace.
    pub netns: String,
    /// `name` of the network configuration.
    pub network: String,
    /// The pod, when the runtime told (K8S_POD_* in CNI_ARGS).
    #[serde(default)]
    pub pod: PodName,
    /// `runtimeConfig.portMappings`.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// `runtimeConfig.bandwidth`.
    #[serde(default)]
    pub bandwidth: Bandwidth,
}

/// How fast a sandbox may be spoken to and speak. Bits a second and bits; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// Into the sandbox.
    pub ingress_rate: u64,
    /// What may come at once after a pause.
    pub ingress_burst: u64,
    /// Out of it.
    pub egress_rate: u64,
    /// What may leave at once after a pause.
    pub egress_burst: u64,
}

impl Bandwidth {
    /// Whether there is nothing to limit.
    pub fn is_unlimited(&self) -> bool {
        self.ingress_rate == 0 && self.egress_rate == 0
    }
}

/// Whose sandbox it is. Empty strings where the runtime did not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// K8S_POD_NAMESPACE.
    #[serde(default)]
    pub namespace: String,
    /// K8S_POD_NAME.
    #[serde(default)]
    pub name: String,
    /// K8S_POD_UID.
    #[serde(default)]
    pub uid: String,
}

/// One host port, as runtimes hand it over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port on the node.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// Address on the node; empty means every one.
    #[serde(default, rename = "hostIP")]
    pub host_ip: String,
}

/// A `Del`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DelRequest {
    /// Which attachment.
    pub id: AttachmentId,
}

/// A `Check`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRequest {
    /// Which attachment.
    pub id: AttachmentId,
    /// Path of the sandbox's network namespace.
    pub netns: String,
    /// The addresses the runtime believes the pod has; all must be there.
    pub addresses: Vec<IpNetwork>,
    /// The MTU the runtime was told, if it was.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// A `Gc`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GcRequest {
    /// Only attachments of this network are considered.
    pub network: String,
    /// The attachments that still live.
    pub keep: Vec<AttachmentId>,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// `Add` succeeded.
    Attached(Attached),
    /// Any other verb succeeded.
    Done,
    /// It did not.
    Refused(Refusal),
}

/// What an `Add` made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    /// The node's end of the link.
    pub host: Link,
    /// The pod's end.
    pub pod: Link,
    /// The pod's addresses.
    pub addresses: Vec<Address>,
    /// The pod's routes.
    pub routes: Vec<Route>,
}

/// One end of a pod's link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Device name.
    pub name: String,
    /// `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// In bytes.
    pub mtu: u32,
}

/// One address of a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Address {
    /// With the prefix length the pod's device has it at.
    pub address: IpNetwork,
    /// Next hop of the pod's default route.
    pub gateway: IpAddr,
}

/// One route of a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: IpNetwork,
    /// Next hop; none for a route on the link.
    pub gateway: Option<IpAddr>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of refusal; the plugin maps it to a CNI error code.
    pub why: Why,
    /// For a person.
    pub message: String,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The agent has no such attachment.
    Unknown,
    /// Not yet: the node's range is not known, for example. Asking again later may succeed.
    NotReady,
    /// The network of this node is limited, for pods that are there as well.
    Limited,
    /// Every address of the node's range is taken.
    Exhausted,
    /// The request makes no sense.
    Invalid,
    /// The kernel or the disk refused.
    Failed,
    /// `Check` found a difference.
    Differs,
}

fn tcp() -> String {
    "tcp".to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_that_names_its_verb() {
        let request =
            Request::Del(DelRequest { id: AttachmentId { container: "c".into(), interface: "eth0".into() } });
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(line, r#"{"verb":"del","id":{"container":"c","interface":"eth0"}}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);
    }

    #[test]
    fn an_older_plugin_may_leave_out_what_it_does_not_know() {
        let line = r#"{"verb":"add","id":{"container":"c","interface":"eth0"},"netns":"/n","network":"x"}"#;
        let Request::Add(add) = serde_json::from_str(line).unwrap() else { panic!("not an add") };
        assert_eq!(add.pod, PodName::default());
        assert!(add.port_mappings.is_empty());
    }
}
