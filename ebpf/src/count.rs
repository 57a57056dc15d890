//! Tallies. Per CPU, so that counting costs an increment and no cache line travels.

use penstock_ebpf_common::{Event, Reason, ServiceCount};

use crate::maps::{SERVICE_COUNTS, TALLIES};

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
pub fn dropped(reason: Reason, service: u32) {
    tally(reason.index());
    service_count(service, |count| count.drops += 1);
}

/// Counts for a service port.
#[inline(always)]
pub fn service_count(service: u32, add: impl FnOnce(&mut ServiceCount)) {
    if let Some(count) = SERVICE_COUNTS.get_ptr_mut(service) {
        // SAFETY: as above; nothing else holds a reference to this CPU's entry while the program runs.
        add(unsafe { &mut *count });
    }
}
