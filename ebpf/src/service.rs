//! From an address to a backend.

use penstock_ebpf_common::{Address, AffinityKey, Backend, SET_EMPTY_IS_DROP, SetHeader, VipKey, VipValue};

use crate::affinity;
use crate::hash;
use crate::maps::{SETS, VIPS};

/// What choosing came to.
pub enum Choice {
    /// A backend.
    Backend(Backend),
    /// The service has none anywhere: the client is to be refused.
    Nobody,
    /// The service has none on this node, and only those on this node may answer: the client is to be left waiting.
    NobodyHere,
    /// The set is missing.
    NoSet,
}

/// Looks up what is reached by an address, if anything.
#[inline(always)]
pub fn find(address: Address, port: u16, protocol: u8) -> Option<VipValue> {
    let key = VipKey { address, port, protocol, zero: 0 };
    // SAFETY: the value is copied at once; user space replaces values as a whole.
    unsafe { VIPS.get(&key) }.copied()
}

/// Chooses a backend of a set by a number that is random or a flow's hash. The client is asked for only when the set
/// wants its clients to keep their backends.
#[inline(always)]
pub fn choose(set: u32, number: u32, client: impl FnOnce() -> Address) -> Choice {
    // One pointer, taken once: header and backends are of the same moment.
    let Some(set_map) = SETS.get(set) else {
        return Choice::NoSet;
    };
    let Some(first) = set_map.get_ptr(0) else {
        return Choice::NoSet;
    };
    // SAFETY: entry 0 of a set is a header by construction; both types have one size and alignment.
    let header = unsafe { *first.cast::<SetHeader>() };
    if header.count == 0 {
        return if header.flags & SET_EMPTY_IS_DROP != 0 { Choice::NobodyHere } else { Choice::Nobody };
    }
    if header.affinity_seconds == 0 {
        return match set_map.get(1 + hash::reduce(number, header.count)) {
            Some(backend) => Choice::Backend(*backend),
            None => Choice::NoSet,
        };
    }
    let key = AffinityKey { client: client(), set, zero: 0 };
    if let Some(kept) = affinity::kept(&key, header.affinity_seconds) {
        return Choice::Backend(kept);
    }
    match set_map.get(1 + hash::reduce(number, header.count)) {
        Some(backend) => {
            let backend = *backend;
            affinity::keep(&key, &backend);
            Choice::Backend(backend)
        }
        None => Choice::NoSet,
    }
}
