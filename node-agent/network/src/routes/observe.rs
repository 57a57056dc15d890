//! What the kernel holds of ours: routes with our protocol number, far ends of the tunnel device.
//!
//! It exists so that nothing is remembered between two syncs: an agent that was killed, or a person with `ip
//! route`, is corrected by the next. It must not change anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
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

    let of_v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let of_v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    for family in [of_v4, of_v6] {
        let mut routes = kernel.netlink.route().get(family).execute();
        while let Some(route) = routes.try_next().await.map_err(refused("list routes"))? {
            let header = &route.header;
            if header.protocol == RouteProtocol::Other(NODE_ROUTE_PROTOCOL)
                && header.table == TABLE_MAIN
                && let Some((range, hop)) = read_route(&route, tunnel)
            {
                table.routes.insert(range, hop);
            }
        }
    }
    let Some(tunnel) = tunnel else { return Ok(table) };

    // A far end counts only when both its entries are there; half of one is made whole by adding it again.
    let neighbours = kernel.netlink.neighbours();
    let mut inner: BTreeMap<Vec<u8>, Vec<IpAddr>> = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut entries = neighbours.get().set_address_family(family).execute();
        while let Some(entry) = entries.try_next().await.map_err(refused("list neighbours"))? {
            if let Some((address, mac)) = read_neighbour(&entry, tunnel) {
                inner.entry(mac).or_default().push(address);
            }
        }
    }
    let mut entries = neighbours.get().set_address_family(AddressFamily::Bridge).execute();
    while let Some(entry) = entries.try_next().await.map_err(refused("list forwarding entries"))? {
        if let Some((outer, mac)) = read_neighbour(&entry, tunnel) {
            let inner = inner.get(&mac).into_iter().flatten();
            table.tunnels.extend(inner.map(|inner| TunnelPeer { inner: *inner, outer }));
        }
    }
    Ok(table)
}

fn read_route(route: &RouteMessage, tunnel: Option<u32>) -> Option<(IpNetwork, Hop)> {
    let (mut destination, mut gateway, mut device) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = read_address(address),
            RouteAttribute::Gateway(address) => gateway = read_address(address),
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    let range = IpNetwork::new(destination?, route.header.destination_prefix_length).ok()?;
    let hop = match (route.header.kind, gateway) {
        (RouteType::Unreachable, _) => Hop::Unreachable,
        (_, Some(via)) if device.is_some() && device == tunnel => Hop::Tunnel { via },
        (_, Some(via)) => Hop::Direct { via },
        _ => return None,
    };
    Some((range, hop))
}

fn read_address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn read_neighbour(entry: &NeighbourMessage, tunnel: u32) -> Option<(IpAddr, Vec<u8>)> {
    if entry.header.ifindex != tunnel || entry.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::V4(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(*found));
            }
            // In a bridge-family dump the destination's family is not in the header, so it may come undecoded.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                let v4 = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from);
                address = v4.or_else(|| <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from));
            }
            NeighbourAttribute::LinkLayerAddress(found) => mac = Some(found.clone()),
            _ => {}
        }
    }
    Some((address?, mac?))
}
