//! Tallies. Per CPU, so that counting costs an increment and no cache line travels.

use penstock_ebpf_common::{Event, Reason, SERVICE_COUNTS_PAGE, ServiceCount, Verdict};

use crate::decide::Side;
use crate::maps::{SERVICE_COUNTS, TALLIES};
use crate::pod_drops;
use crate::tell;

#[inline(always)]
fn tally(index: u32) {
    if let Some(count) = TALLIES.get_ptr_mut(index) {
        // SAFETY: the pointer is this CPU's entry of an array, valid while the program runs.
        unsafe { *count += 1 };
    }
}

/// Counts something done.
#[inline(always)]
pub fn event(event: Event) {
    tally(event.index());
}

/// Counts a packet dropped, and for which service.
#[inline(always)]
pub fn lost(service: u32, reason: Reason) {
    tally(reason.index());
    service_count(service, |count| count.drops += 1);
}

/// Counts the packet in work as dropped, for the pod it is of as well, and tells it.
#[inline(always)]
pub fn dropped(side: Side, service: u32, reason: Reason) {
    lost(service, reason);
    pod_drops::count(side, reason);
    tell::packet(side, Verdict::Dropped, reason as u32);
}

/// Counts for a service port.
#[inline(always)]
pub fn service_count(service: u32, add: impl FnOnce(&mut ServiceCount)) {
    let page = SERVICE_COUNTS.get(service / SERVICE_COUNTS_PAGE);
    if let Some(count) = page.and_then(|page| page.get_ptr_mut(service % SERVICE_COUNTS_PAGE)) {
        // SAFETY: as above, and of this type by construction; nothing else holds a reference to this CPU's entry while the
        // program runs.
        add(unsafe { &mut *count.cast::<ServiceCount>() });
    }
}
