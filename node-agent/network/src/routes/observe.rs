//! What the kernel holds of ours: routes with our protocol number, far ends of the tunnel device.
//!
//! It exists so that nothing is remembered between two syncs: an agent that was killed, or a person with `ip
//! route`, is corrected by the next. It must not change anything.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use futures::TryStreamExt;
use ipnetwork::Ipv4Network;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::tunnel::TUNNEL;
use super::{Hop, NODE_ROUTE_PROTOCOL, RouteError, RouteTable, TunnelPeer};
use crate::links::Kernel;

/// Main routing table.
const TABLE_MAIN: u8 = 254;

/// Reads both.
pub(crate) async fn observe_routes(kernel: &Kernel) -> Result<RouteTable, RouteError> {
    let tunnel = kernel.observe_link(TUNNEL).await?.map(|link| link.header.index);
    let mut table = RouteTable::default();
    let refused = |doing: &str| {
        let doing = doing.to_string();
        move |source| RouteError::Netlink { doing, source }
    };

    let mut routes = kernel.netlink.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    while let Some(route) = routes.try_next().await.map_err(refused("list routes"))? {
        let header = &route.header;
        if header.protocol == RouteProtocol::Other(NODE_ROUTE_PROTOCOL)
            && header.table == TABLE_MAIN
            && let Some((range, hop)) = read_route(&route, tunnel)
        {
            table.routes.insert(range, hop);
        }
    }
    let Some(tunnel) = tunnel else { return Ok(table) };

    // A far end counts only when both its entries are there; half of one is made whole by adding it again.
    let neighbours = kernel.netlink.neighbours();
    let mut inner = BTreeMap::new();
    let mut entries = neighbours.get().set_address_family(AddressFamily::Inet).execute();
    while let Some(entry) = entries.try_next().await.map_err(refused("list neighbours"))? {
        if let Some((address, mac)) = read_neighbour(&entry, tunnel) {
            inner.insert(mac, address);
        }
    }
    let mut entries = neighbours.get().set_address_family(AddressFamily::Bridge).execute();
    while let Some(entry) = entries.try_next().await.map_err(refused("list forwarding entries"))? {
        if let Some((outer, mac)) = read_neighbour(&entry, tunnel)
            && let Some(inner) = inner.get(&mac)
        {
            table.tunnels.insert(TunnelPeer { inner: *inner, outer });
        }
    }
    Ok(table)
}

fn read_route(route: &RouteMessage, tunnel: Option<u32>) -> Option<(Ipv4Network, Hop)> {
    let (mut destination, mut gateway, mut device) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    let range = Ipv4Network::new(destination?, route.header.destination_prefix_length).ok()?;
    let hop = match (route.header.kind, gateway) {
        (RouteType::Unreachable, _) => Hop::Unreachable,
        (_, Some(via)) if device.is_some() && device == tunnel => Hop::Tunnel { via },
        (_, Some(via)) => Hop::Direct { via },
        _ => return None,
    };
    Some((range, hop))
}

fn read_neighbour(entry: &NeighbourMessage, tunnel: u32) -> Option<(Ipv4Addr, Vec<u8>)> {
    if entry.header.ifindex != tunnel || entry.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(*found),
            // In a bridge-family dump the destination's family is not in the header, so it may come undecoded.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                address = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(Ipv4Addr::from);
            }
            NeighbourAttribute::LinkLayerAddress(found) => mac = Some(found.clone()),
            _ => {}
        }
    }
    Some((address?, mac?))
}
