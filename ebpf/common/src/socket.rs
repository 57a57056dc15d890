//! Sockets whose peer was translated at connect() or sendmsg().

use crate::{Address, shared};

/// One direction of a UDP socket's exchange with one peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SocketFlowKey {
    /// The kernel's number of the socket; never used twice while the node is up.
    pub cookie: u64,
    /// The peer: the service's address in the forward half, the backend's in the reply half.
    pub address: Address,
    /// The peer's port in network order.
    pub port: u16,
    /// `HALF_*`.
    pub half: u16,
    /// Always zero.
    pub zero: u32,
}

/// The other name of the peer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SocketFlowValue {
    /// The backend's address in the forward half, the service's in the reply half.
    pub address: Address,
    /// Its port in network order.
    pub port: u16,
    /// Always zero.
    pub zero: u16,
    /// The service port, for counters.
    pub service: u32,
}

/// The peer of a connected socket, kept with the socket and gone with it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Peer {
    /// The address the program connected to.
    pub vip: Address,
    /// The backend it got.
    pub backend: Address,
    /// The port the program connected to, in network order.
    pub vip_port: u16,
    /// The backend's port in network order.
    pub backend_port: u16,
    /// The service port, for counters.
    pub service: u32,
}

shared!(SocketFlowKey, 32, [u64, Address, u16, u16, u32]);
shared!(SocketFlowValue, 24, [Address, u16, u16, u32]);
shared!(Peer, 40, [Address, Address, u16, u16, u32]);
