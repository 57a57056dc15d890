//! Services as the programs see them: an address leads to a set, a set is one map: a header, its
//! backends, and the Maglev table of those sets that choose by one.

use crate::{Address, shared};

/// IPPROTO_ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IPPROTO_ICMPV6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// IPPROTO_TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IPPROTO_UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IPPROTO_SCTP.
pub const PROTOCOL_SCTP: u8 = 132;

/// [`VipValue::flags`]: the address is the node's own, the port a NodePort.
pub const VIP_NODE_PORT: u32 = 1;
/// [`VipValue::flags`]: only for clients in the node's own network namespace, such as 127.0.0.1.
pub const VIP_HOST_ONLY: u32 = 1 << 1;
/// [`VipValue::flags`]: only for the clients that are listed for the service, see [`SourceRangeKey`].
pub const VIP_SOURCE_RANGES: u32 = 1 << 2;

/// [`VipValue::flags`]: backends of other nodes answer clients from outside themselves, where the network lets them.
pub const VIP_DIRECT: u32 = 1 << 3;

/// [`VipValue::flags`]: named by the Service's own `externalIPs`, which give way to every address that was allocated.
/// Only user space reads it.
pub const VIP_YIELDS: u32 = 1 << 8;

/// [`SetHeader::flags`]: without backends traffic is dropped, not refused: others hold backends, this node has none.
pub const SET_EMPTY_IS_DROP: u32 = 1;

/// How many set numbers a service number has: those of service `n` start at `n` times this.
pub const SETS_PER_SERVICE: u32 = 4;

/// An address by which a service port is reached.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VipKey {
    /// ClusterIP, external, load balancer or node address.
    pub address: Address,
    /// Port in network order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}

/// A range of clients that may use a service's load balancer addresses: the key of a map of longest prefixes, in which
/// the prefix counts the service's bits too.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SourceRangeKey {
    /// The service port.
    pub service: u32,
    /// The clients' address; what lies behind the prefix does not count.
    pub address: Address,
}

/// Where an address leads.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VipValue {
    /// The service port, for counters and names.
    pub service: u32,
    /// The set for clients on this node.
    pub inside: u32,
    /// The set for traffic arriving from outside; zero when it is not to be translated.
    pub outside: u32,
    /// `VIP_*`.
    pub flags: u32,
}

/// Entry 0 of a set's map. Lies in the same memory as a [`Backend`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SetHeader {
    /// How many backends follow, in entries 1 to `count`.
    pub count: u32,
    /// `SET_*`.
    pub flags: u32,
    /// How long a client keeps its backend; zero without affinity.
    pub affinity_seconds: u32,
    /// How many places the Maglev table behind the backends has; zero without one.
    pub table_len: u32,
    /// `CHOICE_*`.
    pub choice: u32,
    /// Always zero.
    pub zero: u32,
}

/// [`SetHeader::choice`]: any backend.
pub const CHOICE_RANDOM: u32 = 0;
/// [`SetHeader::choice`]: by the flow's hash and the set's Maglev table, so that every node chooses alike and a backend
/// that comes or goes moves few flows.
pub const CHOICE_MAGLEV: u32 = 1;
/// [`SetHeader::choice`]: of two at random the one with fewer open connections from this node.
pub const CHOICE_LEAST_CONNECTIONS: u32 = 2;

/// How many places of a Maglev table one entry of a set's map holds.
pub const TABLE_PLACES: usize = 12;

/// An entry of a set's map behind its backends: a piece of the Maglev table. Lies in the same memory as a [`Backend`].
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TablePiece {
    /// For each place the number of a backend's entry, from one; zero only behind the end of the table.
    pub places: [u16; TABLE_PLACES],
}

/// One backend of a set.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Backend {
    /// Its address.
    pub address: Address,
    /// Its port in network order.
    pub port: u16,
    /// One when it runs on this node.
    pub local: u16,
    /// Its number: the same in every set, kept while it lives.
    pub id: u32,
}

/// What a service port is called; only user space reads and writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// `namespace/name:port` in UTF-8, filled up with zeros. The API allows at most 63 + 63 + 15 + 2 bytes.
    pub text: [u8; 160],
}

shared!(VipKey, 20, [Address, u16, u8, u8]);
shared!(SourceRangeKey, 20, [u32, Address]);
shared!(VipValue, 16, [u32, u32, u32, u32]);
shared!(SetHeader, 24, [u32, u32, u32, u32, u32, u32]);
shared!(TablePiece, 24, [[u16; TABLE_PLACES]]);
shared!(Backend, 24, [Address, u16, u16, u32]);
shared!(ServiceName, 160, [[u8; 160]]);

const _: () = assert!(size_of::<SetHeader>() == size_of::<Backend>(), "both are entries of one map");
const _: () = assert!(align_of::<SetHeader>() == align_of::<Backend>(), "both are entries of one map");
const _: () = assert!(size_of::<TablePiece>() == size_of::<Backend>(), "both are entries of one map");
const _: () = assert!(align_of::<TablePiece>() == align_of::<Backend>(), "both are entries of one map");
