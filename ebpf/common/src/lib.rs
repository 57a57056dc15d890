//! Memory shared between the kernel programs and user space, and nothing else.
//!
//! Every type here is `repr(C)` without hidden padding, which the compiler checks; changing one is a new version of
//! the map that holds it (see [`map`]). Ports are in network order, addresses are IPv6 with IPv4 mapped into it.
//! Must not know how programs work or how user space decides.
#![no_std]

mod address;
mod announce;
mod config;
mod count;
mod flow;
pub mod map;
mod pick;
mod pod;
mod policy;
mod service;
mod socket;
mod tell;

pub use address::Address;
pub use announce::{ANNOUNCED_LEASE, Announced};
pub use config::{
    CONFIG_MASQUERADE, CONFIG_SHARED_PORTS, Config, INSIDE_NEIGHBOURS, INSIDE_NODES, INSIDE_PODS,
    INSIDE_SERVICES, InsideKey,
};
pub use count::{Event, PodDropKey, Reason, SERVICE_COUNTS_PAGE, ServiceCount, TALLIES_MAX};
pub use flow::{
    AffinityKey, AffinityValue, FLOW_CLOSING, FLOW_DIRECT, FLOW_MASQUERADE, FLOW_TELLS, Flow, FlowBucket,
    FlowKey, FlowValue, FragmentKey, FragmentValue, HALF_FORWARD, HALF_REPLY,
};
pub use pick::{PICKED, Picked, PickedPeer, SocketHead};
pub use pod::LocalPod;
pub use policy::{
    ANY_PEER, POLICY_EGRESS, POLICY_HINTS_MAX, POLICY_INGRESS, POLICY_RANGES_MAX, PolicyFlowKey,
    PolicyFlowValue, PolicyHeader, PolicyRange, policy_key,
};
pub use service::{
    Backend, CHOICE_LEAST_CONNECTIONS, CHOICE_MAGLEV, CHOICE_RANDOM, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
    PROTOCOL_SCTP, PROTOCOL_TCP, PROTOCOL_UDP, SET_EMPTY_IS_DROP, SETS_PER_SERVICE, ServiceName, SetHeader,
    SourceRangeKey, TABLE_PLACES, TablePiece, VIP_DIRECT, VIP_HOST_ONLY, VIP_NODE_PORT, VIP_SOURCE_RANGES,
    VIP_YIELDS, VipKey, VipValue,
};
pub use socket::{KnownPeer, OpenKey, PEER_COUNTED, Peer, PeerBucket, SocketFlowKey, SocketFlowValue};
pub use tell::{ANYBODY, OBSERVERS_MAX, Observer, Point, TOLD_EARLY, TOLD_ERROR, TOLD_FIRST, Told, Verdict};

/// How many entries a bucket of a table has room for, such as a [`FlowBucket`].
pub const ENTRIES_PER_BUCKET: usize = 8;

/// States a type's size and that its fields fill it: uninitialised padding would leak stack bytes into keys.
macro_rules! shared {
    ($type:ident, $size:literal, [$($field:ty),+ $(,)?]) => {
        const _: () = assert!(size_of::<$type>() == $size, "the size of a shared type changed: version its map");
        const _: () = assert!(0 $(+ size_of::<$field>())+ == $size, "a shared type has hidden padding");
        // SAFETY: `repr(C)`, `Copy`, and no padding by the assertion above; every field is plain integers.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use shared;
