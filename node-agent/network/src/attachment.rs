//! One interface of one sandbox, as it is remembered on disk.
//!
//! It exists because everything about an attachment must be found again after a crash from one small file. It must
//! not know where the file is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use penstock_cni::protocol::{AddRequest, AttachmentId, Bandwidth, PodName, PortMapping};
use serde::{Deserialize, Serialize};

use crate::links::{HOST_LINK_PREFIX, Mac};

/// What an ADD was given and what it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// Container and interface.
    pub id: AttachmentId,
    /// Name of the CNI network; GC is scoped by it.
    pub network: String,
    /// Path of the sandbox's network namespace at the time of the ADD.
    pub netns: String,
    /// Whose sandbox.
    pub pod: PodName,
    /// The pod's address, of IPv4 unless the node has none.
    pub address: IpAddr,
    /// Its second address, where the node has ranges of both families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_v6: Option<Ipv6Addr>,
    /// Host ports the pod asked for.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// How fast the pod may be.
    #[serde(default)]
    pub bandwidth: Bandwidth,
}

impl Attachment {
    pub(crate) fn new(request: &AddRequest, address: IpAddr, address_v6: Option<Ipv6Addr>) -> Self {
        Self {
            id: request.id.clone(),
            network: request.network.clone(),
            netns: request.netns.clone(),
            pod: request.pod.clone(),
            address,
            address_v6,
            port_mappings: request.port_mappings.clone(),
            bandwidth: request.bandwidth,
        }
    }

    /// All of the pod's addresses, its first one first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [self.address].into_iter().chain(self.address_v6.map(IpAddr::V6))
    }

    /// Whether one of them is of IPv6.
    pub(crate) fn has_v6(&self) -> bool {
        self.addresses().any(|address| address.is_ipv6())
    }

    /// Name of the node's end of the link.
    pub fn host_link(&self) -> String {
        host_link(&self.id)
    }

    /// Address of the pod's end. Taken from the pod's own address, so it is unique on the node and can be told
    /// without asking the kernel.
    pub(crate) fn pod_mac(&self) -> Mac {
        let [a, b, c, d] = self.place();
        Mac([0x0a, 0x58, a, b, c, d])
    }

    /// Address of the node's end. The same octets with another first one: the two ends must differ.
    pub(crate) fn host_mac(&self) -> Mac {
        let [a, b, c, d] = self.place();
        Mac([0x0e, 0x58, a, b, c, d])
    }

    /// The end of its address, which no other pod of the node has: of a range no more than 2^32 addresses are given.
    fn place(&self) -> [u8; 4] {
        match self.address {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(address) => (u128::from(address) as u32).to_be_bytes(),
        }
    }
}

/// `namespace/name` of the pods whose links are there, by the number of the node's end. To be called in the node's network
/// namespace.
pub fn observe_links(attachments: &[Attachment]) -> BTreeMap<u32, String> {
    let named = attachments.iter().filter_map(|it| {
        let link = nix::net::if_::if_nametoindex(it.host_link().as_str()).ok()?;
        Some((link, format!("{}/{}", it.pod.namespace, it.pod.name)))
    });
    named.collect()
}

/// Name of the node's end for an attachment: the prefix and 48 bits of a hash, 15 bytes, the kernel's limit. At
/// 110 pods two names meet once in 10^10 nodes, and then the second ADD fails with "exists".
pub(crate) fn host_link(id: &AttachmentId) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in id.container.bytes().chain([0]).chain(id.interface.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    format!("{HOST_LINK_PREFIX}{:012x}", hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container: &str, interface: &str) -> AttachmentId {
        AttachmentId { container: container.into(), interface: interface.into() }
    }

    #[test]
    fn link_names_fit_the_kernel_and_depend_on_both_halves_of_the_id() {
        let name = host_link(&id("c", "eth0"));
        assert_eq!(name.len(), 15);
        assert_ne!(name, host_link(&id("c", "eth1")));
        assert_ne!(name, host_link(&id("d", "eth0")));
        assert_ne!(host_link(&id("ab", "c")), host_link(&id("a", "bc")));
        assert_eq!(name, host_link(&id("c", "eth0")));
    }

    #[test]
    fn pods_of_either_family_have_a_link_address_of_their_own() {
        let request = AddRequest {
            id: id("c", "eth0"),
            netns: String::new(),
            network: String::new(),
            pod: PodName::default(),
            port_mappings: Vec::new(),
            bandwidth: Bandwidth::default(),
        };
        let mac = |address: &str| {
            let attachment = Attachment::new(&request, address.parse().unwrap(), None);
            (attachment.pod_mac().to_string(), attachment.host_mac().to_string())
        };
        assert_eq!(mac("10.244.1.2"), ("0a:58:0a:f4:01:02".into(), "0e:58:0a:f4:01:02".into()));
        assert_eq!(mac("fd00:244::1:2"), ("0a:58:00:01:00:02".into(), "0e:58:00:01:00:02".into()));
    }
}
