//! Open connections by service and backend, for services that choose the backend with the fewest. Counted are the
//! connections of this node's own sockets.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use penstock_ebpf_common::OpenKey;

use crate::maps::OPEN;
use crate::peers;

/// How many connections to a backend are open.
#[inline(always)]
pub fn count(service: u32, backend: u32) -> i64 {
    // SAFETY: copied at once.
    let count = unsafe { OPEN.get(&OpenKey { service, backend }) }.copied().unwrap_or(0);
    // Below zero are connections older than the entry.
    if count < 0 { 0 } else { count }
}

/// Counts a connection that opens, or one that closes by minus one.
#[inline(always)]
pub fn add(service: u32, backend: u32, difference: i64) {
    let key = OpenKey { service, backend };
    if OPEN.get_ptr(&key).is_none() {
        if difference < 0 {
            return;
        }
        // Another CPU may make it at the same moment; then it is there. A full map leaves the backend at zero.
        let _ = OPEN.insert(&key, &0, BPF_NOEXIST as u64);
    }
    if let Some(count) = OPEN.get_ptr_mut(&key) {
        // The library has no atomic addition for a target without compare and swap, which the kernel's machine has since
        // Linux 5.12 but the target's baseline has not.
        // SAFETY: the pointer is valid while the program runs, aligned, and every CPU changes the value this way.
        unsafe {
            asm!("lock *(u64 *)({count} + 0) += {difference}", count = in(reg) count, difference = in(reg) difference)
        }
    }
}

/// Forgets a socket's peer, and takes its connection off if it was counted.
#[inline(always)]
pub fn forget(cookie: u64) {
    if let Some((service, backend)) = peers::forget(cookie) {
        add(service, backend, -1);
    }
}
