//! The VXLAN device.
//!
//! One device a node with learning off: every far end is a permanent neighbour and forwarding entry, so the tunnel
//! never floods and never asks. It must not know which nodes there are.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_route::link::InfoVxlan;
use rtnetlink::LinkVxlan;

use super::TunnelPeer;
use crate::PodRanges;
use crate::links::{Kernel, LinkError, Uplink, delete_link, ensure_address, link_mac, refused};

/// Name of the device.
pub(crate) const TUNNEL: &str = "penstock-vx";
/// VXLAN network identifier.
const TUNNEL_ID: u32 = 1;
/// UDP port: the one Linux used before IANA's 4789, which a fabric that itself is VXLAN is likely to claim.
const TUNNEL_PORT: u16 = 8472;

/// What VXLAN adds to a packet: outer Ethernet 14, IPv4 20 or IPv6 40, UDP 8, VXLAN 8.
pub(crate) fn tunnel_overhead_bytes(outer: IpAddr) -> u32 {
    if outer.is_ipv4() { 50 } else { 70 }
}

/// Makes the device, or makes it again when it belongs to another node address. Returns its index.
pub(crate) async fn ensure_tunnel(
    kernel: &Kernel,
    uplink: &Uplink,
    node_ip: IpAddr,
    ranges: PodRanges,
) -> Result<u32, LinkError> {
    let mac = TunnelPeer::mac_of(node_ip);
    let found = kernel.observe_link(TUNNEL).await?;
    let fits = found.as_ref().is_some_and(|link| link_mac(link) == Some(mac.as_slice()));
    if found.is_some() && !fits {
        delete_link(&kernel.netlink, TUNNEL).await?;
    }
    if !fits {
        let device = LinkVxlan::new(TUNNEL, TUNNEL_ID).dev(uplink.index);
        let device = match node_ip {
            IpAddr::V4(node_ip) => device.local(node_ip),
            IpAddr::V6(node_ip) => device.local6(node_ip),
        };
        let device = device
            .port(TUNNEL_PORT)
            .append_info_data(InfoVxlan::Learning(false))
            .address(mac.to_vec())
            .mtu(uplink.mtu.saturating_sub(tunnel_overhead_bytes(node_ip)))
            .build();
        kernel.netlink.link().add(device).execute().await.map_err(refused("make the VXLAN device"))?;
    }
    let missing = || LinkError::Missing { name: TUNNEL.into() };
    let index = kernel.observe_link(TUNNEL).await?.ok_or_else(missing)?.header.index;
    kernel.ensure_sysctls(&[(format!("net/ipv4/conf/{TUNNEL}/rp_filter"), "2")])?;
    if ranges.v6().is_some() {
        kernel.ensure_sysctls(&[
            (format!("net/ipv6/conf/{TUNNEL}/disable_ipv6"), "0"),
            (format!("net/ipv6/conf/{TUNNEL}/accept_dad"), "0"),
            (format!("net/ipv6/conf/{TUNNEL}/accept_ra"), "0"),
        ])?;
    }
    for range in ranges.all::<IpNetwork>() {
        ensure_address(&kernel.netlink, index, range.network(), TUNNEL).await?;
    }
    kernel.apply_up(index).await?;
    Ok(index)
}

/// Removes the device when there is one.
pub(crate) async fn ensure_no_tunnel(kernel: &Kernel) -> Result<(), LinkError> {
    delete_link(&kernel.netlink, TUNNEL).await
}
