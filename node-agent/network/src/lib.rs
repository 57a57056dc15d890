//! The pod network: links, addresses, routes, overlay, and the socket the CNI plugin calls.
//!
//! It exists so that a sandbox gets an address and a way to every other pod without a bridge and without
//! iptables. It must not know the Kubernetes API (the binary tells it the node's range and the other nodes) nor
//! the eBPF programs (they come in through [`PodHooks`]).
//!
//! What a pod gets: `eth0` with its address at /32 and a default route by 169.254.1.1, a next hop that exists only
//! as a permanent neighbour entry for the node's end of the veth. The pod so has no neighbours to resolve: no ARP
//! before its first packet, none to spoof, and every packet passes the node's end, where the programs sit. Where the
//! node has a range of IPv6, beside that of IPv4 or alone, the same of it, at /128 and by fe80::1.

mod attachment;
mod families;
mod hooks;
mod install;
mod ipam;
mod links;
mod netns;
mod network;
mod routes;
mod server;
mod sysctl;

pub use attachment::{Attachment, observe_links};
pub use families::{NodeIps, PerFamily, PodRanges};
pub use hooks::{HookError, NoHooks, PodHooks, PodLink};
pub use install::{InstallError, ensure_conflist, ensure_plugin};
pub use ipam::{IpamError, observe_attachments};
pub use links::{HOST_LINK_PREFIX, LinkError};
pub use netns::{Netns, NetnsError};
pub use network::{Network, NetworkConfig, NetworkError};
pub use routes::{
    Change, Hop, Local, Overlay, Peer, RouteError, RouteTable, TunnelPeer, compile_routes, plan_routes,
};
pub use server::CONNECTIONS_MAX;
