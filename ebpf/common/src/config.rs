//! What the programs must know of their node.

use crate::{Address, VipKey, shared};

/// [`Config::flags`]: what pods send out of the cluster leaves with the node's address.
pub const CONFIG_MASQUERADE: u32 = 1;
/// [`Config::flags`]: a service was given one of the node's addresses here at a port of the range for translated traffic, so
/// that a port of it may be a service's.
pub const CONFIG_SHARED_PORTS: u32 = 1 << 1;

/// The one entry of the configuration map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// The node's IPv4 address, source of traffic that is to come back to it; zero without one.
    pub node_address: Address,
    /// The node's IPv6 address; zero without one.
    pub node_address_v6: Address,
    /// The cookie of the node's own network namespace, as SO_NETNS_COOKIE gives it.
    pub netns_cookie: u64,
    /// The first source port for translated traffic, in host order; outside the node's ephemeral ports.
    pub snat_port_min: u16,
    /// The last one.
    pub snat_port_max: u16,
    /// `CONFIG_*`.
    pub flags: u32,
    /// The device that leads to other nodes by an overlay; zero without one.
    pub tunnel: u32,
    /// Always zero.
    pub zero: u32,
}

impl Config {
    /// Whether answers to translated traffic may come to a service's address.
    pub fn shares_port(&self, vip: &VipKey) -> bool {
        let port = u16::from_be(vip.port);
        (vip.address == self.node_address || vip.address == self.node_address_v6)
            && self.snat_port_min <= port
            && port <= self.snat_port_max
    }
}

shared!(Config, 56, [Address, Address, u64, u16, u16, u32, u32, u32]);

/// [`InsideKey`]'s value: addresses of pods.
pub const INSIDE_PODS: u32 = 1;
/// [`InsideKey`]'s value: addresses of Services, which no packet on a wire should have.
pub const INSIDE_SERVICES: u32 = 2;
/// [`InsideKey`]'s value: addresses of nodes.
pub const INSIDE_NODES: u32 = 3;
/// [`InsideKey`]'s value: addresses of hosts outside that know the way to pods.
pub const INSIDE_NEIGHBOURS: u32 = 4;

/// A range of addresses that are of the cluster, as a key of a map that finds the longest prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct InsideKey {
    /// How many bits of the address count, 96 more than are written for IPv4. Whoever looks something up asks for all.
    pub prefix_len: u32,
    /// The address.
    pub address: Address,
}

shared!(InsideKey, 20, [u32, Address]);
