//! Flows of packets translated at an interface, and remembered clients.
//!
//! A flow is two entries of one map, one for each direction. Each holds all that the other holds, so that either can
//! put the other back when the map evicted it; and each names the address of the service in its key or value, so
//! that two services with one backend never share a flow.

use crate::{Address, ENTRIES_PER_BUCKET, shared};

/// [`FlowKey::half`]: from the client.
pub const HALF_FORWARD: u8 = 0;
/// [`FlowKey::half`]: from the backend.
pub const HALF_REPLY: u8 = 1;

/// [`FlowValue::flags`]: a FIN or RST was seen; the next SYN is a new connection. Of datagrams: the backend left, and this
/// half is kept for its answers alone.
pub const FLOW_CLOSING: u16 = 1;
/// [`FlowValue::flags`]: a pod's traffic that leaves the cluster with the node's address, and belongs to no service.
pub const FLOW_MASQUERADE: u16 = 1 << 1;

/// [`FlowValue::flags`]: the backend, on another node, answers the client itself.
pub const FLOW_DIRECT: u16 = 1 << 2;
/// [`FlowValue::flags`]: the next packet tells the backend's node so.
pub const FLOW_TELLS: u16 = 1 << 3;

/// A packet as it arrives, before translation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port in network order.
    pub source_port: u16,
    /// Destination port in network order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// `HALF_*`.
    pub half: u8,
    /// Always zero.
    pub zero: u16,
}

/// The packet as it leaves, after translation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FlowValue {
    /// New source address.
    pub source: Address,
    /// New destination address.
    pub destination: Address,
    /// New source port in network order.
    pub source_port: u16,
    /// New destination port in network order.
    pub destination_port: u16,
    /// The interface the client's packets arrive by, to which replies leave.
    pub client_ifindex: u32,
    /// The service port, for counters.
    pub service: u32,
    /// `FLOW_*`.
    pub flags: u16,
    /// The count of changes of services' addresses ([`crate::map::CHANGES`]) as of which this half is known to be what its
    /// packets are for; zero when that is to be looked up.
    pub settled: u16,
    /// When the flow was last seen, by the kernel's coarse monotonic clock; at most a second behind.
    pub seen_ns: u64,
}

/// An entry of the table of flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Flow {
    /// What it is found by.
    pub key: FlowKey,
    /// What its packets become.
    pub value: FlowValue,
}

/// Places for entries of the table of flows, and their heads: thirteen lines of a cache, of which one has all the heads.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowBucket {
    /// Whose meaning `penstock-ebpf-packet`'s `table` knows.
    pub heads: [u64; ENTRIES_PER_BUCKET],
    /// The entries.
    pub flows: [Flow; ENTRIES_PER_BUCKET],
}

/// A packet that comes in fragments.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FragmentKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// The identification, as it lies in the packet.
    pub id: u32,
    /// IP protocol number; zero for IPv6.
    pub protocol: u32,
}

/// What only the first fragment of a packet tells.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FragmentValue {
    /// When it was seen, by the coarse monotonic clock.
    pub seen_ns: u64,
    /// Source port in network order.
    pub source_port: u16,
    /// Destination port in network order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u32,
}

/// A client of a service with session affinity.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AffinityKey {
    /// The client's address, or its network namespace where it has no address yet.
    pub client: Address,
    /// The set the client is held in.
    pub set: u32,
    /// Always zero.
    pub zero: u32,
}

/// The backend a client keeps.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AffinityValue {
    /// The backend.
    pub address: Address,
    /// Its port in network order.
    pub port: u16,
    /// One when it runs on this node.
    pub local: u16,
    /// Its number.
    pub id: u32,
    /// When the client last came, by the coarse monotonic clock.
    pub seen_ns: u64,
}

shared!(FlowKey, 40, [Address, Address, u16, u16, u8, u8, u16]);
shared!(FlowValue, 56, [Address, Address, u16, u16, u32, u32, u16, u16, u64]);
shared!(Flow, 96, [FlowKey, FlowValue]);
shared!(FlowBucket, 832, [[u64; ENTRIES_PER_BUCKET], [Flow; ENTRIES_PER_BUCKET]]);
shared!(FragmentKey, 40, [Address, Address, u32, u32]);
shared!(FragmentValue, 16, [u64, u16, u16, u32]);
shared!(AffinityKey, 24, [Address, u32, u32]);
shared!(AffinityValue, 32, [Address, u16, u16, u32, u64]);

impl FlowKey {
    /// The key of the other half, given what this half turns its packets into.
    #[inline(always)]
    pub const fn other_key(&self, value: &FlowValue) -> Self {
        Self {
            source: value.destination,
            destination: value.source,
            source_port: value.destination_port,
            destination_port: value.source_port,
            protocol: self.protocol,
            half: self.half ^ 1,
            zero: 0,
        }
    }

    /// What the other half turns its packets into: this half's packets as they arrive, turned round.
    #[inline(always)]
    pub const fn other_value(&self, value: &FlowValue) -> FlowValue {
        FlowValue {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            client_ifindex: value.client_ifindex,
            service: value.service,
            flags: value.flags,
            settled: 0,
            seen_ns: value.seen_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_half_of_a_flow_rebuilds_the_other() {
        let at = |last: u8| Address::from_v4(u32::from_ne_bytes([10, 0, 0, last]));
        let key = FlowKey {
            source: at(1),
            destination: at(2),
            source_port: 1,
            destination_port: 2,
            protocol: 6,
            half: HALF_FORWARD,
            zero: 0,
        };
        let value = FlowValue {
            source: at(3),
            destination: at(4),
            source_port: 3,
            destination_port: 4,
            client_ifindex: 7,
            service: 8,
            flags: 0,
            settled: 0,
            seen_ns: 9,
        };
        let (other_key, other_value) = (key.other_key(&value), key.other_value(&value));
        assert_eq!(other_key.half, HALF_REPLY);
        assert_eq!(other_key.other_key(&other_value), key);
        assert_eq!(other_key.other_value(&other_value), value);
    }
}
