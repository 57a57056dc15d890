//! The pod's end of its link: loopback, address, and the one way out.
//!
//! It exists apart because it works in another namespace, over its own netlink socket. It must not know the node's
//! end beyond its link-layer address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use netlink_packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::kernel::{ensure_address, observe_link};
use super::shape::ensure_shape;
use super::{LinkError, refused};
use crate::attachment::Attachment;
use crate::netns::Netns;
use crate::sysctl::{SysctlError, ensure_sysctl};

/// Every pod's next hop: link-local, so it can meet no address of anyone, and known only by a permanent neighbour
/// entry.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The same of IPv6.
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// Configures the pod's end. Idempotent.
pub(crate) async fn apply_pod_side(attachment: &Attachment) -> Result<(), LinkError> {
    let netns = Netns::At(PathBuf::from(&attachment.netns));
    let netlink = netns.netlink()?;
    let loopback = index_of(&netlink, "lo").await?;
    up(&netlink, loopback, "lo").await?;
    let interface = &attachment.id.interface;
    let index = index_of(&netlink, interface).await?;
    if attachment.has_v6() {
        enable_v6(&netns, interface)?;
    }
    for address in attachment.addresses() {
        ensure_address(&netlink, index, address, interface).await?;
    }
    up(&netlink, index, interface).await?;
    if attachment.bandwidth.egress_rate > 0 {
        let bandwidth = attachment.bandwidth;
        ensure_shape(&netlink, index, bandwidth.egress_rate, bandwidth.egress_burst).await?;
    }
    for address in attachment.addresses() {
        apply_way_out(&netlink, index, attachment, address.is_ipv6()).await?;
    }
    Ok(())
}

/// The gateway of a family as a permanent neighbour, and the default route by it.
async fn apply_way_out(
    netlink: &Handle,
    index: u32,
    attachment: &Attachment,
    is_v6: bool,
) -> Result<(), LinkError> {
    let interface = &attachment.id.interface;
    let gateway = if is_v6 { IpAddr::V6(GATEWAY_V6) } else { IpAddr::V4(GATEWAY) };
    let neighbour = netlink.neighbours().add(index, gateway);
    let neighbour = neighbour.link_layer_address(&attachment.host_mac().0).replace();
    neighbour.execute().await.map_err(refused(format!("add the gateway on {interface}")))?;
    let (direct, default) = if is_v6 {
        let route = || RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index);
        let direct = route().destination_prefix(GATEWAY_V6, 128).build();
        (direct, route().gateway(GATEWAY_V6).build())
    } else {
        let route = || RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index);
        let direct = route().destination_prefix(GATEWAY, 32).scope(RouteScope::Link).build();
        (direct, route().gateway(GATEWAY).build())
    };
    let direct = netlink.route().add(direct).replace();
    direct.execute().await.map_err(refused(format!("route the gateway on {interface}")))?;
    let default = netlink.route().add(default).replace();
    default.execute().await.map_err(refused(format!("set the default route on {interface}")))
}

/// A runtime may have made the namespace without IPv6. The pod's own addresses are ours, so nothing is to be detected or
/// learnt from the link.
fn enable_v6(netns: &Netns, interface: &str) -> Result<(), LinkError> {
    let settings = [
        ("net/ipv6/conf/lo/disable_ipv6".to_owned(), "0"),
        (format!("net/ipv6/conf/{interface}/disable_ipv6"), "0"),
        (format!("net/ipv6/conf/{interface}/accept_dad"), "0"),
        (format!("net/ipv6/conf/{interface}/accept_ra"), "0"),
    ];
    let set = || settings.iter().try_for_each(|(name, value)| ensure_sysctl(name, value));
    Ok(netns.run::<Result<(), SysctlError>>(set)??)
}

async fn index_of(netlink: &Handle, name: &str) -> Result<u32, LinkError> {
    let link = observe_link(netlink, name).await?;
    Ok(link.ok_or_else(|| LinkError::Missing { name: format!("{name} in the pod") })?.header.index)
}

async fn up(netlink: &Handle, index: u32, name: &str) -> Result<(), LinkError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    netlink.link().set(message).execute().await.map_err(refused(format!("set {name} up in the pod")))
}
