//! Carries out one change of a plan.
//!
//! It exists so that planning stays free of netlink. It must not decide anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::{Change, Hop, NODE_ROUTE_METRIC, NODE_ROUTE_PROTOCOL, RouteError, TunnelPeer};
use crate::NodeIps;
use crate::links::{Kernel, errno};

/// What a change needs to know beside itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground {
    /// Index of the uplink.
    pub(crate) uplink: u32,
    /// Index of the tunnel device, when there is one.
    pub(crate) tunnel: Option<u32>,
    /// This node's addresses.
    pub(crate) node_ips: NodeIps,
    /// This end's addresses inside the tunnel.
    pub(crate) inner_v4: Option<Ipv4Addr>,
    pub(crate) inner_v6: Option<Ipv6Addr>,
}

/// Carries out `change`. Idempotent.
pub(crate) async fn apply_change(
    kernel: &Kernel,
    ground: &Ground,
    change: &Change,
) -> Result<(), RouteError> {
    let refused = |source| RouteError::Netlink { doing: describe(change), source };
    let netlink = &kernel.netlink;
    match change {
        Change::SetRoute(range, hop) => {
            let Some(route) = message(ground, *range, *hop) else { return Ok(()) };
            netlink.route().add(route).replace().execute().await.map_err(refused)
        }
        Change::RemoveRoute(range, hop) => {
            // Matched by prefix, metric and protocol alone: its device may be gone or have another index by now.
            let mut route = start(*range).build();
            if *hop == Hop::Unreachable {
                route.header.kind = RouteType::Unreachable;
            }
            match netlink.route().del(route).execute().await {
                Err(error) if errno(&error) != libc::ESRCH => Err(refused(error)),
                _ => Ok(()),
            }
        }
        Change::AddTunnel(peer) => {
            let Some(tunnel) = ground.tunnel else { return Ok(()) };
            let mac = TunnelPeer::mac_of(peer.outer);
            let neighbour = netlink.neighbours().add(tunnel, peer.inner);
            neighbour.link_layer_address(&mac).replace().execute().await.map_err(refused)?;
            let forwarding = netlink.neighbours().add_bridge(tunnel, &mac);
            let forwarding = forwarding.flags(NeighbourFlags::Own).destination(peer.outer);
            forwarding.replace().execute().await.map_err(refused)
        }
        Change::RemoveTunnel { peer, last } => {
            let Some(tunnel) = ground.tunnel else { return Ok(()) };
            let [forwarding, neighbour] = entries(tunnel, peer);
            for entry in [Some(neighbour), last.then_some(forwarding)].into_iter().flatten() {
                match netlink.neighbours().del(entry).execute().await {
                    Err(error) if errno(&error) != libc::ENOENT => return Err(refused(error)),
                    _ => {}
                }
            }
            Ok(())
        }
    }
}

/// A route to a range, with our marks.
fn start(range: IpNetwork) -> RouteMessageBuilder<IpAddr> {
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .priority(NODE_ROUTE_METRIC)
        .protocol(RouteProtocol::Other(NODE_ROUTE_PROTOCOL));
    let message = route.get_mut();
    message.header.address_family = if range.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = range.prefix();
    message.attributes.push(RouteAttribute::Destination(route_address(range.network())));
    route
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn message(ground: &Ground, range: IpNetwork, hop: Hop) -> Option<RouteMessage> {
    let route = start(range);
    // The node's own packets enter the tunnel with the tunnel's address: the answer then comes back through the tunnel as
    // well, and passes filters that know no pod addresses.
    let (route, via, source) = match hop {
        Hop::Unreachable => return Some(route.kind(RouteType::Unreachable).build()),
        Hop::Direct { via } => {
            let source = of_family(range, ground.node_ips.v4(), ground.node_ips.v6());
            (route.output_interface(ground.uplink), via, source)
        }
        Hop::Tunnel { via } => {
            let source = of_family(range, ground.inner_v4, ground.inner_v6);
            (route.output_interface(ground.tunnel?).onlink(), via, source)
        }
    };
    let mut route = route.build();
    route.attributes.push(RouteAttribute::Gateway(route_address(via)));
    route.attributes.extend(source.map(|source| RouteAttribute::PrefSource(route_address(source))));
    Some(route)
}

fn of_family(range: IpNetwork, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Option<IpAddr> {
    if range.is_ipv4() { v4.map(IpAddr::V4) } else { v6.map(IpAddr::V6) }
}

/// The forwarding entry and the neighbour entry of a far end.
fn entries(tunnel: u32, peer: &TunnelPeer) -> [NeighbourMessage; 2] {
    let mac = NeighbourAttribute::LinkLayerAddress(TunnelPeer::mac_of(peer.outer).to_vec());
    let mut forwarding = NeighbourMessage::default();
    forwarding.header.family = AddressFamily::Bridge;
    forwarding.header.ifindex = tunnel;
    forwarding.header.flags = NeighbourFlags::Own;
    forwarding.header.state = NeighbourState::Permanent;
    forwarding.attributes = vec![mac, NeighbourAttribute::Destination(neighbour_address(peer.outer))];
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = if peer.inner.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    neighbour.header.ifindex = tunnel;
    neighbour.attributes = vec![NeighbourAttribute::Destination(neighbour_address(peer.inner))];
    [forwarding, neighbour]
}

fn neighbour_address(address: IpAddr) -> NeighbourAddress {
    match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::SetRoute(range, hop) => format!("route {range} ({hop:?})"),
        Change::RemoveRoute(range, _) => format!("remove the route to {range}"),
        Change::AddTunnel(peer) => format!("add the tunnel to {}", peer.outer),
        Change::RemoveTunnel { peer, .. } => format!("remove the tunnel to {}", peer.outer),
    }
}
