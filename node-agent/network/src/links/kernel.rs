//! The node's network namespace: one netlink connection and the questions asked of it.
//!
//! It exists so that callers deal in names and indices instead of netlink messages. It must not know pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkUnspec};

use super::{LinkError, errno, refused};
use crate::netns::Netns;
use crate::sysctl::{SysctlError, ensure_sysctl};

/// The node's namespace.
#[derive(Clone)]
pub(crate) struct Kernel {
    pub(crate) netns: Netns,
    pub(crate) netlink: Handle,
}

/// The device by which the node reaches others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
    /// Up, and with a carrier.
    pub(crate) is_running: bool,
    /// The subnets directly on it.
    pub(crate) connected: Vec<IpNetwork>,
}

impl Kernel {
    pub(crate) fn open(netns: Netns) -> Result<Self, LinkError> {
        let netlink = netns.netlink()?;
        Ok(Self { netns, netlink })
    }

    /// Sets settings in the node's namespace, where /proc/sys/net is the namespace's own.
    pub(crate) fn ensure_sysctls(&self, settings: &[(String, &str)]) -> Result<(), LinkError> {
        let set = || settings.iter().try_for_each(|(name, value)| ensure_sysctl(name, value));
        Ok(self.netns.run::<Result<(), SysctlError>>(set)??)
    }

    /// Has the node forward IPv6. A node that forwards takes no more router advertisements unless it is told to
    /// (`accept_ra` in Documentation/networking/ip-sysctl.rst); one whose uplink took them goes on doing so.
    pub(crate) fn ensure_v6_forwarding(&self, uplink: &str) -> Result<(), LinkError> {
        let name = format!("net/ipv6/conf/{uplink}/accept_ra");
        let set = || {
            let takes = std::fs::read_to_string(format!("/proc/sys/{name}"));
            if takes.is_ok_and(|value| value.trim() == "1") {
                ensure_sysctl(&name, "2")?;
            }
            ensure_sysctl("net/ipv6/conf/all/forwarding", "1")
        };
        Ok(self.netns.run::<Result<(), SysctlError>>(set)??)
    }

    /// The device named `name`, or `None`.
    pub(crate) async fn observe_link(&self, name: &str) -> Result<Option<LinkMessage>, LinkError> {
        observe_link(&self.netlink, name).await
    }

    /// Index and name of every device whose name starts with `prefix`.
    pub(crate) async fn observe_links(&self, prefix: &str) -> Result<BTreeMap<String, u32>, LinkError> {
        let mut links = self.netlink.link().get().execute();
        let mut found = BTreeMap::new();
        while let Some(link) = links.try_next().await.map_err(refused("list devices"))? {
            if let Some(name) = link_name(&link).filter(|name| name.starts_with(prefix)) {
                found.insert(name.to_string(), link.header.index);
            }
        }
        Ok(found)
    }

    /// The device `named`, or the one that has `node_ip`.
    pub(crate) async fn observe_uplink(
        &self,
        named: Option<&str>,
        node_ip: IpAddr,
    ) -> Result<Uplink, LinkError> {
        let addresses = self.observe_addresses().await?;
        let link = match named {
            Some(name) => self.observe_link(name).await?,
            None => match addresses.iter().find(|(_, address)| address.ip() == node_ip) {
                Some((index, _)) => {
                    let mut links = self.netlink.link().get().match_index(*index).execute();
                    links.try_next().await.map_err(refused("show the uplink"))?
                }
                None => None,
            },
        };
        let missing = || LinkError::Missing {
            name: named.map_or_else(|| format!("with the node's address {node_ip}"), str::to_string),
        };
        let link = link.ok_or_else(missing)?;
        let index = link.header.index;
        Ok(Uplink {
            index,
            name: link_name(&link).ok_or_else(missing)?.to_string(),
            mtu: link_mtu(&link),
            is_running: link.header.flags.contains(LinkFlags::Up | LinkFlags::Running),
            connected: addresses.iter().filter(|(at, _)| *at == index).map(|(_, a)| *a).collect(),
        })
    }

    /// Every address and the index of its device.
    pub(crate) async fn observe_addresses(&self) -> Result<Vec<(u32, IpNetwork)>, LinkError> {
        let mut addresses = self.netlink.address().get().execute();
        let mut found = Vec::new();
        while let Some(message) = addresses.try_next().await.map_err(refused("list addresses"))? {
            // On point-to-point links `Address` is the other end; `Local` is ours wherever it is present.
            let mut local = None;
            for attribute in &message.attributes {
                match attribute {
                    AddressAttribute::Local(address) => local = Some(*address),
                    AddressAttribute::Address(address) => _ = local.get_or_insert(*address),
                    _ => {}
                }
            }
            if let Some(address) = local
                && let Ok(network) = IpNetwork::new(address, message.header.prefix_len)
            {
                found.push((message.header.index, network));
            }
        }
        Ok(found)
    }

    /// Puts an address on `lo`, IPv4 with scope `host`. Idempotent.
    pub(crate) async fn ensure_local_address(&self, address: IpAddr) -> Result<(), LinkError> {
        let missing = || LinkError::Missing { name: "lo".into() };
        let index = self.observe_link("lo").await?.ok_or_else(missing)?.header.index;
        self.apply_up(index).await?;
        if address.is_ipv6() {
            return ensure_address(&self.netlink, index, address, "lo").await;
        }
        let mut request = self.netlink.address().add(index, address, 32).replace();
        request.message_mut().header.scope = AddressScope::Host;
        request.execute().await.map_err(refused(format!("put {address} on lo")))
    }

    /// Sets a device up.
    pub(crate) async fn apply_up(&self, index: u32) -> Result<(), LinkError> {
        let up = LinkUnspec::new_with_index(index).up().build();
        self.netlink.link().set(up).execute().await.map_err(refused("set a device up"))
    }
}

/// Gives a device an address for itself alone. Without detection of duplicates: what we give out is ours, and an address
/// in detection carries no packets for a second. Idempotent.
pub(crate) async fn ensure_address(
    netlink: &Handle,
    index: u32,
    address: IpAddr,
    name: &str,
) -> Result<(), LinkError> {
    let mut request =
        netlink.address().add(index, address, if address.is_ipv4() { 32 } else { 128 }).replace();
    if address.is_ipv6() {
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await.map_err(refused(format!("give {name} its address {address}")))
}

pub(super) async fn observe_link(netlink: &Handle, name: &str) -> Result<Option<LinkMessage>, LinkError> {
    let mut links = netlink.link().get().match_name(name).execute();
    match links.try_next().await {
        Ok(link) => Ok(link),
        Err(error) if errno(&error) == libc::ENODEV => Ok(None),
        Err(error) => Err(refused(format!("show device {name}"))(error)),
    }
}

pub(crate) fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

pub(crate) fn link_mtu(link: &LinkMessage) -> u32 {
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or(1500)
}

pub(crate) fn link_mac(link: &LinkMessage) -> Option<&[u8]> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => Some(address.as_slice()),
        _ => None,
    })
}
