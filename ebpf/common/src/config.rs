//! What the programs must know of their node.

use crate::{Address, shared};

/// The one entry of the configuration map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Config {
    /// The source of traffic sent on to backends of other nodes.
    pub node_address: Address,
    /// The cookie of the node's own network namespace, as SO_NETNS_COOKIE gives it.
    pub netns_cookie: u64,
    /// The first source port for translated traffic, in host order; outside the node's ephemeral ports.
    pub snat_port_min: u16,
    /// The last one.
    pub snat_port_max: u16,
    /// Room for switches.
    pub flags: u32,
}

shared!(Config, 32, [Address, u64, u16, u16, u32]);
