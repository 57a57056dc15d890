//! The pod's end of its link: loopback, address, and the one way out.
//!
//! It exists apart because it works in another namespace, over its own netlink socket. It must not know the node's
//! end beyond its link-layer address.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use futures::TryStreamExt;
use ipnetwork::{IpNetwork, Ipv4Network};
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::route::RouteScope;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::kernel::observe_link;
use super::{LinkError, refused};
use crate::attachment::Attachment;
use crate::netns::Netns;

/// Every pod's next hop: link-local, so it can meet no address of anyone, and known only by a permanent neighbour
/// entry.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Configures the pod's end. Idempotent.
pub(crate) async fn apply_pod_side(attachment: &Attachment) -> Result<(), LinkError> {
    let netlink = Netns::At(PathBuf::from(&attachment.netns)).netlink()?;
    let loopback = index_of(&netlink, "lo").await?;
    up(&netlink, loopback, "lo").await?;
    let interface = &attachment.id.interface;
    let index = index_of(&netlink, interface).await?;
    let address = netlink.address().add(index, IpAddr::V4(attachment.address), 32).replace();
    address.execute().await.map_err(refused(format!("give {interface} its address")))?;
    up(&netlink, index, interface).await?;

    let neighbour = netlink.neighbours().add(index, IpAddr::V4(GATEWAY));
    let neighbour = neighbour.link_layer_address(&attachment.host_mac().0).replace();
    neighbour.execute().await.map_err(refused(format!("add the gateway on {interface}")))?;
    let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(GATEWAY, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    let gateway = netlink.route().add(gateway).replace();
    gateway.execute().await.map_err(refused(format!("route the gateway on {interface}")))?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(index).build();
    let default = netlink.route().add(default).replace();
    default.execute().await.map_err(refused(format!("set the default route on {interface}")))
}

/// What differs from what [`apply_pod_side`] makes, in words; `None` when nothing does.
pub(crate) async fn observe_pod_side(attachment: &Attachment) -> Result<Option<String>, LinkError> {
    let netlink = Netns::At(PathBuf::from(&attachment.netns)).netlink()?;
    let interface = &attachment.id.interface;
    let Some(link) = observe_link(&netlink, interface).await? else {
        return Ok(Some(format!("the pod has no device {interface}")));
    };
    let wanted = IpNetwork::V4(Ipv4Network::from(attachment.address));
    let mut addresses = netlink.address().get().set_link_index_filter(link.header.index).execute();
    while let Some(message) = addresses.try_next().await.map_err(refused("list the pod's addresses"))? {
        let ours = message.attributes.iter().any(|attribute| {
            matches!(attribute, AddressAttribute::Local(IpAddr::V4(address)) if *address == attachment.address)
        });
        if ours {
            return Ok(None);
        }
    }
    Ok(Some(format!("{interface} does not have {wanted}")))
}

async fn index_of(netlink: &Handle, name: &str) -> Result<u32, LinkError> {
    let link = observe_link(netlink, name).await?;
    Ok(link.ok_or_else(|| LinkError::Missing { name: format!("{name} in the pod") })?.header.index)
}

async fn up(netlink: &Handle, index: u32, name: &str) -> Result<(), LinkError> {
    let message = LinkUnspec::new_with_index(index).up().build();
    netlink.link().set(message).execute().await.map_err(refused(format!("set {name} up in the pod")))
}
