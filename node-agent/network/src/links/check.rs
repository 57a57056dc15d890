//! Is a pod's link still as it was made? Addresses, routes, MTU and queues of both ends.
//!
//! It exists for CHECK, and so must change nothing. What others added beside ours, a route or a queue where we made none,
//! is not a difference.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use futures::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::kernel::{link_mtu, observe_link};
use super::shape::observe_difference;
use super::{GATEWAY, GATEWAY_V6, Kernel, LinkError, refused};
use crate::attachment::Attachment;
use crate::netns::Netns;

/// Where a route leads: destination, its prefix length, and the next hop if there is one.
type Way = (IpAddr, u8, Option<IpAddr>);

/// What differs from what an ADD made, in words; `None` when nothing does. `mtu` is the one the ADD reported, if known.
pub(crate) async fn observe_link_difference(
    kernel: &Kernel,
    attachment: &Attachment,
    mtu: Option<u32>,
) -> Result<Option<String>, LinkError> {
    let host = attachment.host_link();
    let Some(link) = kernel.observe_link(&host).await? else {
        return Ok(Some(format!("the node has no device {host}")));
    };
    // Nobody remembers the MTU but the runtime: without its word both ends must at least agree.
    let mtu = mtu.unwrap_or_else(|| link_mtu(&link));
    let node = End {
        netlink: &kernel.netlink,
        name: &host,
        link: &link,
        ways: attachment.addresses().map(|address| (address, full(address), None)).collect(),
        rate_and_burst: (attachment.bandwidth.ingress_rate, attachment.bandwidth.ingress_burst),
    };
    if let Some(difference) = node.difference(mtu).await? {
        return Ok(Some(difference));
    }
    let netlink = Netns::At(PathBuf::from(&attachment.netns)).netlink()?;
    let interface = &attachment.id.interface;
    let Some(link) = observe_link(&netlink, interface).await? else {
        return Ok(Some(format!("the pod has no device {interface}")));
    };
    if let Some(address) = missing_address(&netlink, link.header.index, attachment).await? {
        return Ok(Some(format!("{interface} does not have {address}")));
    }
    let pod = End {
        netlink: &netlink,
        name: interface,
        link: &link,
        ways: attachment.addresses().flat_map(ways_out).collect(),
        rate_and_burst: (attachment.bandwidth.egress_rate, attachment.bandwidth.egress_burst),
    };
    pod.difference(mtu).await
}

/// One end of the link, as it is and as it should be.
struct End<'a> {
    netlink: &'a Handle,
    name: &'a str,
    link: &'a LinkMessage,
    ways: BTreeSet<Way>,
    rate_and_burst: (u64, u64),
}

impl End<'_> {
    async fn difference(&self, mtu: u32) -> Result<Option<String>, LinkError> {
        let Self { netlink, name, link, .. } = self;
        if !link.header.flags.contains(LinkFlags::Up) {
            return Ok(Some(format!("{name} is down")));
        }
        if link_mtu(link) != mtu {
            return Ok(Some(format!("{name} has an MTU of {}, not {mtu}", link_mtu(link))));
        }
        let index = link.header.index;
        if let (rate @ 1.., burst) = self.rate_and_burst
            && let Some(difference) = observe_difference(netlink, index, rate, burst).await?
        {
            return Ok(Some(format!("{name} {difference}")));
        }
        let mut missing = self.ways.clone();
        let of_v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let of_v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [of_v4, of_v6] {
            let mut routes = netlink.route().get(family).execute();
            while let Some(route) = routes.try_next().await.map_err(refused("list routes"))? {
                if let Some(way) = read_way(&route, index) {
                    missing.remove(&way);
                }
            }
        }
        Ok(missing.first().map(|(to, length, via)| match via {
            Some(via) => format!("{name} has no route to {to}/{length} by {via}"),
            None => format!("{name} has no route to {to}/{length}"),
        }))
    }
}

/// The gateway of the address's family, and everything by it.
fn ways_out(address: IpAddr) -> [Way; 2] {
    let (gateway, everywhere) = match address {
        IpAddr::V4(_) => (IpAddr::V4(GATEWAY), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(_) => (IpAddr::V6(GATEWAY_V6), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    [(gateway, full(gateway), None), (everywhere, 0, Some(gateway))]
}

fn full(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn read_way(route: &RouteMessage, device: u32) -> Option<Way> {
    let is_v6 = matches!(route.header.address_family, netlink_packet_route::AddressFamily::Inet6);
    // A default route comes without a destination.
    let everywhere =
        if is_v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let (mut to, mut via, mut by) = (everywhere, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = read_address(address)?,
            RouteAttribute::Gateway(address) => via = read_address(address),
            RouteAttribute::Oif(index) => by = Some(*index),
            _ => {}
        }
    }
    (by == Some(device)).then_some((to, route.header.destination_prefix_length, via))
}

fn read_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

async fn missing_address(
    netlink: &Handle,
    index: u32,
    attachment: &Attachment,
) -> Result<Option<IpAddr>, LinkError> {
    let mut missing: Vec<IpAddr> = attachment.addresses().collect();
    let mut addresses = netlink.address().get().set_link_index_filter(index).execute();
    while let Some(message) = addresses.try_next().await.map_err(refused("list the pod's addresses"))? {
        for attribute in &message.attributes {
            if let AddressAttribute::Local(found) | AddressAttribute::Address(found) = attribute {
                missing.retain(|address| address != found);
            }
        }
    }
    Ok(missing.first().copied())
}
