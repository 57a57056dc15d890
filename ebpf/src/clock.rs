//! The time, as cheap as it comes.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;

/// One second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds since boot with the resolution of a jiffy: a load, where the exact clock reads a device.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_coarse_ns() }
}
