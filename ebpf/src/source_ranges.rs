//! Who may use a service's load balancer addresses (`loadBalancerSourceRanges`).
//!
//! Looked up only where the address says that the service names its clients. Must not know why.

use aya_ebpf::btf_maps::lpm_trie::Key;
use penstock_ebpf_common::{Address, SourceRangeKey, VIP_SOURCE_RANGES, VipValue};

use crate::maps::SOURCE_RANGES;

/// All of service and address.
const BITS: u32 = u32::BITS + u128::BITS;

/// Whether a client may reach the service by this address.
#[inline(always)]
pub fn allow(vip: &VipValue, client: Address) -> bool {
    let [a, b, c, d] = client.words;
    vip.flags & VIP_SOURCE_RANGES == 0 || lists(vip.service, a, b, c, d)
}

/// A function of its own for a stack of its own; numbers are all such a function takes.
#[inline(never)]
fn lists(service: u32, a: u32, b: u32, c: u32, d: u32) -> bool {
    let address = Address { words: [a, b, c, d] };
    SOURCE_RANGES.get(&Key::new(BITS, SourceRangeKey { service, address })).is_some()
}
