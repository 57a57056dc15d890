//! The node's end of a pod's link.
//!
//! The pair is made by one message with the other end already in the pod's namespace, so there is no moment at
//! which an `eth0` lies in the node's namespace for a crash to leave behind. It must not know the pod's end beyond
//! its name and address.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use netlink_packet_route::link::{InfoData, InfoVeth};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::shape::ensure_shape;
use super::{Kernel, LinkError, POD_ROUTE_PROTOCOL, errno, refused};
use crate::NodeIps;
use crate::attachment::Attachment;

/// Makes the pair: the node's end here and down, the pod's end as `id.interface` in `netns`.
pub(crate) async fn apply_pair(
    kernel: &Kernel,
    attachment: &Attachment,
    netns: &File,
    mtu: u32,
) -> Result<(), LinkError> {
    let peer = LinkUnspec::new_with_name(&attachment.id.interface)
        .address(attachment.pod_mac().0.to_vec())
        .mtu(mtu)
        .setns_by_fd(netns.as_raw_fd())
        .build();
    let name = attachment.host_link();
    let pair = LinkVeth::new(&name, &attachment.id.interface)
        .address(attachment.host_mac().0.to_vec())
        .mtu(mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    let doing = format!("make the link {name} for {}", attachment.id.container);
    kernel.netlink.link().add(pair).execute().await.map_err(refused(doing))
}

/// Brings the node's end up and points the pod's addresses at it. Returns its index. Idempotent.
pub(crate) async fn apply_host_side(
    kernel: &Kernel,
    attachment: &Attachment,
    node_ips: NodeIps,
) -> Result<u32, LinkError> {
    let name = attachment.host_link();
    let link = kernel.observe_link(&name).await?;
    let index = link.ok_or_else(|| LinkError::Missing { name: name.clone() })?.header.index;
    // Loose reverse-path filtering: the kernel takes the stricter of `all` and the device's own, and replies of
    // translated flows may leave by another device than the request came by.
    kernel.ensure_sysctls(&[
        (format!("net/ipv4/conf/{name}/rp_filter"), "2"),
        (format!("net/ipv4/conf/{name}/forwarding"), "1"),
    ])?;
    if attachment.has_v6() {
        kernel.ensure_sysctls(&[
            (format!("net/ipv6/conf/{name}/disable_ipv6"), "0"),
            (format!("net/ipv6/conf/{name}/accept_dad"), "0"),
            (format!("net/ipv6/conf/{name}/accept_ra"), "0"),
            (format!("net/ipv6/conf/{name}/forwarding"), "1"),
        ])?;
    }
    kernel.apply_up(index).await?;
    if attachment.bandwidth.ingress_rate > 0 {
        let bandwidth = attachment.bandwidth;
        ensure_shape(&kernel.netlink, index, bandwidth.ingress_rate, bandwidth.ingress_burst).await?;
    }
    for address in attachment.addresses() {
        // A permanent entry: the node never asks who has the pod's address, so nobody else can answer.
        let neighbour = kernel.netlink.neighbours().add(index, address);
        let neighbour = neighbour.link_layer_address(&attachment.pod_mac().0).replace();
        neighbour.execute().await.map_err(refused(format!("add a neighbour on {name}")))?;
        let route = kernel.netlink.route().add(route_to(index, address, node_ips)).replace();
        route.execute().await.map_err(refused(format!("route {address} to {name}")))?;
    }
    Ok(index)
}

/// The source is named, or the kernel would pick any address of the node, such as the DNS address on `lo`.
fn route_to(index: u32, address: IpAddr, node_ips: NodeIps) -> RouteMessage {
    let protocol = RouteProtocol::Other(POD_ROUTE_PROTOCOL);
    match address {
        IpAddr::V4(address) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .output_interface(index)
                .scope(RouteScope::Link)
                .protocol(protocol);
            match node_ips.v4() {
                Some(source) => route.pref_source(source).build(),
                None => route.build(),
            }
        }
        IpAddr::V6(address) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .output_interface(index)
                .protocol(protocol);
            match node_ips.v6() {
                Some(source) => route.pref_source(source).build(),
                None => route.build(),
            }
        }
    }
}

/// Removes a device by name; its peer, neighbours and routes go with it. Succeeds when there is none.
pub(crate) async fn delete_link(netlink: &Handle, name: &str) -> Result<(), LinkError> {
    let gone = LinkUnspec::new_with_name(name).build();
    match netlink.link().del_with_message(gone).execute().await {
        Err(error) if errno(&error) != libc::ENODEV => Err(refused(format!("remove device {name}"))(error)),
        _ => Ok(()),
    }
}
