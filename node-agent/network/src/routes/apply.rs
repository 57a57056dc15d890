//! Carries out one change of a plan.
//!
//! It exists so that planning stays free of netlink. It must not decide anything.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::{Change, Hop, NODE_ROUTE_METRIC, NODE_ROUTE_PROTOCOL, RouteError, TunnelPeer};
use crate::links::{Kernel, errno};

/// What a change needs to know beside itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ground {
    /// Index of the uplink.
    pub(crate) uplink: u32,
    /// Index of the tunnel device, when there is one.
    pub(crate) tunnel: Option<u32>,
    /// This node's address.
    pub(crate) node_ip: Ipv4Addr,
    /// This end's address inside the tunnel.
    pub(crate) inner_ip: Option<Ipv4Addr>,
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
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(range.network(), range.prefix())
                .priority(NODE_ROUTE_METRIC)
                .protocol(RouteProtocol::Other(NODE_ROUTE_PROTOCOL))
                .build();
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
            let neighbour = netlink.neighbours().add(tunnel, IpAddr::V4(peer.inner));
            neighbour.link_layer_address(&mac).replace().execute().await.map_err(refused)?;
            let forwarding = netlink.neighbours().add_bridge(tunnel, &mac);
            let forwarding = forwarding.flags(NeighbourFlags::Own).destination(IpAddr::V4(peer.outer));
            forwarding.replace().execute().await.map_err(refused)
        }
        Change::RemoveTunnel(peer) => {
            let Some(tunnel) = ground.tunnel else { return Ok(()) };
            for entry in entries(tunnel, peer) {
                match netlink.neighbours().del(entry).execute().await {
                    Err(error) if errno(&error) != libc::ENOENT => return Err(refused(error)),
                    _ => {}
                }
            }
            Ok(())
        }
    }
}

fn message(ground: &Ground, range: Ipv4Network, hop: Hop) -> Option<RouteMessage> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.network(), range.prefix())
        .priority(NODE_ROUTE_METRIC)
        .protocol(RouteProtocol::Other(NODE_ROUTE_PROTOCOL));
    Some(match hop {
        Hop::Unreachable => route.kind(RouteType::Unreachable).build(),
        Hop::Direct { via } => {
            route.gateway(via).output_interface(ground.uplink).pref_source(ground.node_ip).build()
        }
        Hop::Tunnel { via } => {
            let route = route.gateway(via).output_interface(ground.tunnel?).onlink();
            // The node's own packets enter the tunnel with the tunnel's address: the answer then comes back through
            // the tunnel as well, and passes filters that know no pod addresses.
            match ground.inner_ip {
                Some(inner) => route.pref_source(inner).build(),
                None => route.build(),
            }
        }
    })
}

/// The forwarding entry and the neighbour entry of a far end.
fn entries(tunnel: u32, peer: &TunnelPeer) -> [NeighbourMessage; 2] {
    let mac = NeighbourAttribute::LinkLayerAddress(TunnelPeer::mac_of(peer.outer).to_vec());
    let mut forwarding = NeighbourMessage::default();
    forwarding.header.family = AddressFamily::Bridge;
    forwarding.header.ifindex = tunnel;
    forwarding.header.flags = NeighbourFlags::Own;
    forwarding.header.state = NeighbourState::Permanent;
    forwarding.attributes = vec![mac, NeighbourAttribute::Destination(NeighbourAddress::Inet(peer.outer))];
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = AddressFamily::Inet;
    neighbour.header.ifindex = tunnel;
    neighbour.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(peer.inner))];
    [forwarding, neighbour]
}

fn describe(change: &Change) -> String {
    match change {
        Change::SetRoute(range, hop) => format!("route {range} ({hop:?})"),
        Change::RemoveRoute(range, _) => format!("remove the route to {range}"),
        Change::AddTunnel(peer) => format!("add the tunnel to {}", peer.outer),
        Change::RemoveTunnel(peer) => format!("remove the tunnel to {}", peer.outer),
    }
}
