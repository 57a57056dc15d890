//! Network policy: which peers are told apart, and what each pod of this node that a policy selects lets in and out.
//!
//! A peer is a number. Addresses of pods have one by [`crate::map::POLICY_PEERS`], ranges of addresses by
//! [`crate::map::POLICY_BLOCKS`]. What is allowed is a line of ranges of [`policy_key`]s, sorted and apart from each other: every
//! wildcard is a range on that line, and one search among them is all there is to do. A pod's table is one map that is swapped as a whole.

use crate::{Address, shared};

/// [`PolicyHeader::flags`]: what comes to the pod needs to be allowed.
pub const POLICY_INGRESS: u32 = 1;
/// [`PolicyHeader::flags`]: what the pod sends needs to be allowed.
pub const POLICY_EGRESS: u32 = 1 << 1;

/// The peer that everybody is.
pub const ANY_PEER: u32 = 0;
/// The ranges that a table has room for at most.
pub const POLICY_RANGES_MAX: u32 = (1 << 18) - 1;
/// How many links there are hints for; a power of two. A link whose hint is zero has no policy.
pub const POLICY_HINTS_MAX: u32 = 4_096;

/// Entry 0 of a table. Lies in the same memory as a [`PolicyRange`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PolicyHeader {
    /// How many ranges follow, in entries 1 to `count`.
    pub count: u32,
    /// `POLICY_*`.
    pub flags: u32,
    /// Since when the pod has policies, by the monotonic clock: connections that are older than that nobody noted.
    pub since_ns: u64,
}

/// What is allowed: all [`policy_key`]s from the first to the last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PolicyRange {
    /// The first.
    pub first: u64,
    /// The last; not before the first.
    pub last: u64,
}

/// The place of a direction, peer, protocol and port (in host order) on the line of all.
#[inline(always)]
pub const fn policy_key(direction: u32, peer: u32, protocol: u8, port: u16) -> u64 {
    (direction as u64) << 56 | (peer as u64) << 24 | (protocol as u64) << 16 | port as u64
}

/// A flow of a pod that has policies, as the pod sees it, but for translations of its own requests: there the backend is the
/// remote end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PolicyFlowKey {
    /// The pod's address.
    pub local: Address,
    /// The other end's.
    pub remote: Address,
    /// The pod's port in network order.
    pub local_port: u16,
    /// The other end's port in network order.
    pub remote_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub zero: [u8; 3],
}

/// What was found of such a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PolicyFlowValue {
    /// When a packet of it was last seen, a second late at most.
    pub seen_ns: u64,
    /// The count of changes of policies at which it was judged.
    pub epoch: u32,
    /// In which direction it was opened: [`POLICY_INGRESS`] or [`POLICY_EGRESS`].
    pub opened: u32,
}

shared!(PolicyHeader, 16, [u32, u32, u64]);
shared!(PolicyRange, 16, [u64, u64]);
shared!(PolicyFlowKey, 40, [Address, Address, u16, u16, u8, [u8; 3]]);
shared!(PolicyFlowValue, 16, [u64, u32, u32]);

const _: () = assert!(size_of::<PolicyHeader>() == size_of::<PolicyRange>(), "both are entries of one map");
const _: () = assert!(align_of::<PolicyHeader>() == align_of::<PolicyRange>(), "both are entries of one map");
