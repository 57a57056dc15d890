//! Sockets whose peer was translated at connect() or sendmsg().

use crate::{Address, ENTRIES_PER_BUCKET, shared};

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

/// [`Peer::flags`]: the connection is counted in [`OpenKey`]'s map, and is taken off when the socket closes.
pub const PEER_COUNTED: u8 = 1;

/// The peer of a connected socket. It goes when the socket closes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Peer {
    /// The address the program connected to.
    pub vip: Address,
    /// The backend it got.
    pub backend: Address,
    /// The network namespace the socket is in: where it is found when its backend goes.
    pub netns: u64,
    /// The port the program connected to, in network order.
    pub vip_port: u16,
    /// The backend's port in network order.
    pub backend_port: u16,
    /// The service port.
    pub service: u32,
    /// The backend's number.
    pub backend_id: u32,
    /// The socket's IP protocol number.
    pub protocol: u8,
    /// The socket's address family: a socket of AF_INET6 may have IPv4 peers.
    pub family: u8,
    /// `PEER_*`.
    pub flags: u8,
    /// Always zero.
    pub zero: u8,
    /// Where the kernel has the socket; zero when nobody knows. Only to be read from, by [`SocketHead`], and only believed
    /// when what is there has the socket's cookie.
    pub place: u64,
}

/// An entry of the table of peers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KnownPeer {
    /// The kernel's number of the socket, by which it is found.
    pub cookie: u64,
    /// To whom it is connected.
    pub peer: Peer,
}

/// Places for entries of the table of peers, and their heads: ten lines of a cache, of which one has all the heads.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerBucket {
    /// Whose meaning `penstock-ebpf-packet`'s `table` knows.
    pub heads: [u64; ENTRIES_PER_BUCKET],
    /// The entries.
    pub peers: [KnownPeer; ENTRIES_PER_BUCKET],
}

/// Whose open connections are counted, for services that choose by them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OpenKey {
    /// The service port.
    pub service: u32,
    /// The backend's number.
    pub backend: u32,
}

shared!(SocketFlowKey, 32, [u64, Address, u16, u16, u32]);
shared!(SocketFlowValue, 24, [Address, u16, u16, u32]);
shared!(Peer, 64, [Address, Address, u64, u16, u16, u32, u32, u8, u8, u8, u8, u64]);
shared!(KnownPeer, 72, [u64, Peer]);
shared!(PeerBucket, 640, [[u64; ENTRIES_PER_BUCKET], [KnownPeer; ENTRIES_PER_BUCKET]]);
shared!(OpenKey, 8, [u32, u32]);
