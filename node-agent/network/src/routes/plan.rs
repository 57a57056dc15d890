//! What the routes to other nodes should be, and what to change so that they are. Pure.
//!
//! It exists so that every topology can be tested without a kernel. It must not do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// When pods' packets between nodes are put into VXLAN.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlay {
    /// To nodes whose address is not in a subnet of the uplink.
    #[default]
    Auto,
    /// Never; a node that is not on the uplink is reached by whatever routes the network has.
    Never,
    /// To every node.
    Always,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// Its name.
    pub node: String,
    /// Its address as the other ends of tunnels know it; only those of the same family can be reached by tunnel.
    pub tunnel_end: IpAddr,
    /// The subnets directly on its uplink.
    pub connected: Vec<IpNetwork>,
    /// Its own ranges of pod addresses, once it has some.
    pub pod_cidrs: Vec<IpNetwork>,
    /// When to tunnel.
    pub overlay: Overlay,
    /// Ranges nothing outside the cluster has; what has no better route ends here instead of leaving by the
    /// default route.
    pub fenced: Vec<IpNetwork>,
}

/// A node, this one or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub node: String,
    /// Its InternalIPs; none before its agent registered it.
    pub addresses: Vec<IpAddr>,
    /// Its ranges of pod addresses.
    pub pod_cidrs: Vec<IpNetwork>,
}

/// Where packets to a range go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// To a node on the same L2.
    Direct {
        /// The node's address.
        via: IpAddr,
    },
    /// Into the tunnel.
    Tunnel {
        /// The far tunnel end's address.
        via: IpAddr,
    },
    /// Nowhere; the sender is told so at once.
    Unreachable,
}

/// The far end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelPeer {
    /// Its address inside the tunnel: the network address of the node's range, which no pod has.
    pub inner: IpAddr,
    /// The node's address, where the outer packet goes, whatever is in it.
    pub outer: IpAddr,
}

impl TunnelPeer {
    /// Link-layer address of a tunnel end. Derived from the node's address, so that every node has another one and
    /// all can tell it without being told.
    pub fn mac_of(outer: IpAddr) -> [u8; 6] {
        match outer {
            IpAddr::V4(outer) => {
                let [a, b, c, d] = outer.octets();
                [0x0e, 0x70, a, b, c, d]
            }
            IpAddr::V6(outer) => {
                // FNV-1a, of which five bytes are left: of 5,000 nodes two are the same once in 100,000 clusters.
                let hash = outer.octets().into_iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
                });
                let [a, b, c, d, e, ..] = hash.to_be_bytes();
                [0x0a, a, b, c, d, e]
            }
        }
    }
}

/// All of it. At most a route and a tunnel peer a node and family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteTable {
    /// By range.
    pub routes: BTreeMap<IpNetwork, Hop>,
    /// Far ends.
    pub tunnels: BTreeSet<TunnelPeer>,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Tell the tunnel device where a far end is.
    AddTunnel(TunnelPeer),
    /// Make the range go there, whatever it did before.
    SetRoute(IpNetwork, Hop),
    /// Forget the range.
    RemoveRoute(IpNetwork, Hop),
    /// Forget a far end: that it has this inner address, and with its last one where it is.
    RemoveTunnel {
        /// Which.
        peer: TunnelPeer,
        /// Whether it keeps no other inner address.
        last: bool,
    },
}

/// What the routes should be. When two nodes claim a range, the first by name has it.
pub fn compile_routes(local: &Local, peers: &[Peer]) -> RouteTable {
    let mut table = RouteTable::default();
    let mut sorted: Vec<&Peer> = peers.iter().filter(|peer| peer.node != local.node).collect();
    sorted.sort_by(|a, b| a.node.cmp(&b.node));
    for peer in sorted {
        for range in peer.pod_cidrs.iter().map(network_of) {
            let contested = local.pod_cidrs.iter().any(|own| overlap(*own, range))
                || table.routes.keys().any(|taken| overlap(*taken, range));
            if contested {
                continue;
            }
            let address = peer.addresses.iter().copied().find(|address| address.is_ipv4() == range.is_ipv4());
            let direct = address
                .filter(|address| local.connected.iter().any(|subnet| subnet.contains(*address)))
                .filter(|_| local.overlay != Overlay::Always);
            let is_v4 = local.tunnel_end.is_ipv4();
            let outer = peer.addresses.iter().copied().find(|address| address.is_ipv4() == is_v4);
            if let Some(via) = direct {
                table.routes.insert(range, Hop::Direct { via });
            } else if let (Some(outer), true) = (outer, local.overlay != Overlay::Never) {
                let inner = range.network();
                table.tunnels.insert(TunnelPeer { inner, outer });
                table.routes.insert(range, Hop::Tunnel { via: inner });
            }
        }
    }
    for range in local.fenced.iter().chain(&local.pod_cidrs).map(network_of) {
        table.routes.entry(range).or_insert(Hop::Unreachable);
    }
    table
}

/// The steps from `observed` to `desired`, in an order in which no packet meets a route into a tunnel whose far end
/// is not known yet.
pub fn plan_routes(desired: &RouteTable, observed: &RouteTable) -> Vec<Change> {
    let added = desired.tunnels.difference(&observed.tunnels).map(|peer| Change::AddTunnel(*peer));
    let set = desired.routes.iter().filter(|(range, hop)| observed.routes.get(range) != Some(hop));
    let removed = observed.routes.iter().filter(|(range, _)| !desired.routes.contains_key(range));
    let forgotten = observed.tunnels.difference(&desired.tunnels).map(|peer| Change::RemoveTunnel {
        peer: *peer,
        last: !desired.tunnels.iter().any(|other| other.outer == peer.outer),
    });
    added
        .chain(set.map(|(range, hop)| Change::SetRoute(*range, *hop)))
        .chain(removed.map(|(range, hop)| Change::RemoveRoute(*range, *hop)))
        .chain(forgotten)
        .collect()
}

/// The range without host bits, which would make equal ranges differ.
fn network_of(range: &IpNetwork) -> IpNetwork {
    IpNetwork::new(range.network(), range.prefix()).unwrap_or(*range)
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn local(overlay: Overlay) -> Local {
        Local {
            node: "a".into(),
            tunnel_end: "10.240.0.11".parse().unwrap(),
            connected: vec![net("10.240.0.11/24"), net("fd00:240::11/64")],
            pod_cidrs: vec![net("10.244.0.0/24")],
            overlay,
            fenced: vec![net("10.244.0.0/16")],
        }
    }

    fn peer(node: &str, address: &str, range: &str) -> Peer {
        let addresses = address.split(',').filter_map(|ip| ip.parse().ok()).collect();
        Peer { node: node.into(), addresses, pod_cidrs: range.split(',').map(net).collect() }
    }

    fn hop(table: &RouteTable, range: &str) -> Option<Hop> {
        table.routes.get(&net(range)).copied()
    }

    #[test]
    fn a_node_on_the_uplink_is_routed_and_one_behind_a_router_is_tunnelled() {
        let peers = [peer("b", "10.240.0.12", "10.244.1.0/24"), peer("c", "10.250.0.9", "10.244.2.0/24")];
        let table = compile_routes(&local(Overlay::Auto), &peers);
        assert_eq!(hop(&table, "10.244.1.0/24"), Some(Hop::Direct { via: "10.240.0.12".parse().unwrap() }));
        assert_eq!(hop(&table, "10.244.2.0/24"), Some(Hop::Tunnel { via: "10.244.2.0".parse().unwrap() }));
        assert_eq!(table.tunnels.len(), 1);
    }

    #[test]
    fn each_family_goes_its_own_way_and_a_tunnel_carries_both() {
        let peers = [
            peer("b", "10.240.0.12,fd00:240::12", "10.244.1.0/24,fd00:1::/64"),
            peer("c", "10.250.0.9,fd00:250::9", "10.244.2.0/24,fd00:2::/64"),
            peer("d", "10.240.0.14", "10.244.3.0/24,fd00:3::/64"),
        ];
        let table = compile_routes(&local(Overlay::Auto), &peers);
        assert_eq!(hop(&table, "fd00:1::/64"), Some(Hop::Direct { via: "fd00:240::12".parse().unwrap() }));
        assert_eq!(hop(&table, "fd00:2::/64"), Some(Hop::Tunnel { via: "fd00:2::".parse().unwrap() }));
        assert_eq!(hop(&table, "fd00:3::/64"), Some(Hop::Tunnel { via: "fd00:3::".parse().unwrap() }));
        assert_eq!(hop(&table, "10.244.3.0/24"), Some(Hop::Direct { via: "10.240.0.14".parse().unwrap() }));
        let mut single = table.clone();
        single.tunnels.retain(|peer| peer.inner.is_ipv4());
        let removed: Vec<bool> = plan_routes(&single, &table)
            .into_iter()
            .filter_map(|change| match change {
                Change::RemoveTunnel { last, .. } => Some(last),
                _ => None,
            })
            .collect();
        assert_eq!(removed, [false, true], "c keeps its other inner address, d has none left");
    }

    #[test]
    fn without_ipv4_tunnels_lead_to_addresses_of_ipv6_and_to_no_others() {
        let local = Local { tunnel_end: "fd00:240::11".parse().unwrap(), ..local(Overlay::Auto) };
        let peers = [
            peer("b", "fd00:240::12", "fd00:1::/64"),
            peer("c", "fd00:250::9,10.250.0.9", "fd00:2::/64"),
            peer("d", "10.250.0.10", "fd00:3::/64"),
        ];
        let table = compile_routes(&local, &peers);
        assert_eq!(hop(&table, "fd00:1::/64"), Some(Hop::Direct { via: "fd00:240::12".parse().unwrap() }));
        let inner = "fd00:2::".parse().unwrap();
        assert_eq!(hop(&table, "fd00:2::/64"), Some(Hop::Tunnel { via: inner }));
        assert_eq!(hop(&table, "fd00:3::/64"), None);
        let outer = "fd00:250::9".parse().unwrap();
        assert_eq!(Vec::from_iter(table.tunnels), [TunnelPeer { inner, outer }]);
    }

    #[test]
    fn ends_of_tunnels_in_different_subnets_have_different_link_addresses() {
        let mac = |address: &str| TunnelPeer::mac_of(address.parse().unwrap());
        assert_eq!(mac("10.240.0.11"), [0x0e, 0x70, 10, 240, 0, 11]);
        assert_ne!(mac("2001:db8:1::11"), mac("2001:db8:2::11"));
        assert_eq!(mac("2001:db8::11")[0] & 0b11, 0b10, "local, and of one station");
    }

    #[test]
    fn what_no_node_has_ends_on_the_node() {
        let table = compile_routes(&local(Overlay::Auto), &[]);
        assert_eq!(hop(&table, "10.244.0.0/16"), Some(Hop::Unreachable));
        assert_eq!(hop(&table, "10.244.0.0/24"), Some(Hop::Unreachable));
    }

    #[test]
    fn this_node_and_nodes_without_address_or_range_get_no_route() {
        let peers = [
            peer("a", "10.240.0.11", "10.244.0.0/24"),
            peer("b", "", "10.244.1.0/24"),
            Peer { node: "c".into(), addresses: vec!["10.240.0.13".parse().unwrap()], pod_cidrs: vec![] },
        ];
        let fenced_only = compile_routes(&local(Overlay::Auto), &[]);
        assert_eq!(compile_routes(&local(Overlay::Auto), &peers), fenced_only);
    }

    #[test]
    fn a_contested_range_belongs_to_the_first_node_by_name() {
        let peers = [peer("c", "10.240.0.13", "10.244.1.0/24"), peer("b", "10.240.0.12", "10.244.1.0/24")];
        let table = compile_routes(&local(Overlay::Auto), &peers);
        assert_eq!(hop(&table, "10.244.1.0/24"), Some(Hop::Direct { via: "10.240.0.12".parse().unwrap() }));
    }

    #[test]
    fn a_tunnel_is_known_before_a_route_leads_into_it_and_forgotten_after() {
        let peers = [peer("b", "10.240.0.12", "10.244.1.0/24")];
        let direct = compile_routes(&local(Overlay::Auto), &peers);
        let tunnelled = compile_routes(&local(Overlay::Always), &peers);
        let there = plan_routes(&tunnelled, &direct);
        assert!(
            matches!(there[..], [Change::AddTunnel(_), Change::SetRoute(_, Hop::Tunnel { .. })]),
            "{there:?}"
        );
        let back = plan_routes(&direct, &tunnelled);
        assert!(
            matches!(
                back[..],
                [Change::SetRoute(_, Hop::Direct { .. }), Change::RemoveTunnel { last: true, .. }]
            ),
            "{back:?}"
        );
    }

    fn tables() -> impl Strategy<Value = RouteTable> {
        let peers = proptest::collection::vec((0u8..6, any::<bool>(), 0u8..6), 0..8);
        peers.prop_map(|peers| {
            let peers: Vec<Peer> = peers
                .into_iter()
                .map(|(node, near, range)| {
                    let address = format!("10.{}.0.{}", if near { 240 } else { 250 }, node + 12);
                    peer(&node.to_string(), &address, &format!("10.244.{range}.0/24"))
                })
                .collect();
            compile_routes(&local(Overlay::Auto), &peers)
        })
    }

    proptest! {
        #[test]
        fn carrying_out_a_plan_gives_what_was_desired(desired in tables(), observed in tables()) {
            let mut table = observed.clone();
            for change in plan_routes(&desired, &observed) {
                match change {
                    Change::AddTunnel(peer) => { table.tunnels.insert(peer); }
                    Change::RemoveTunnel { peer, .. } => { table.tunnels.remove(&peer); }
                    Change::SetRoute(range, hop) => { table.routes.insert(range, hop); }
                    Change::RemoveRoute(range, _) => { table.routes.remove(&range); }
                }
            }
            prop_assert_eq!(&table, &desired);
            prop_assert!(plan_routes(&desired, &table).is_empty());
        }
    }
}
