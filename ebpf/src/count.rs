//! Tallies. Per CPU, so that counting costs an increment and no cache line travels.

use aya_log_ebpf::debug;
use penstock_ebpf_common::{Event, FlowKey, Reason, SERVICE_COUNTS_PAGE, ServiceCount};

use crate::maps::{SERVICE_COUNTS, TALLIES};
use crate::work;

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

/// Counts a packet dropped, and for which service. Tells it too where somebody listens: the level is a constant at load
/// time, and at zero the verifier removes the telling.
#[inline(always)]
pub fn dropped(service: u32, reason: Reason) {
    tally(reason.index());
    service_count(service, |count| count.drops += 1);
    penstock_tell(reason as u32);
}

/// Tells of the packet in work. Verified once for all that call it, for which it must be a function that others could call:
/// without references, and with a name of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tell(reason: u32) -> u32 {
    if let Some(work) = work::get() {
        tell(&work.packet.key, work.service, reason);
    }
    0
}

#[inline(always)]
fn tell(key: &FlowKey, service: u32, reason: u32) {
    let (source, destination) = (&key.source, &key.destination);
    let (from, to) = (u16::from_be(key.source_port), u16::from_be(key.destination_port));
    if source.is_v4() {
        debug!(
            (),
            "dropped {:i}:{} -> {:i}:{} protocol {} service {} reason {}",
            u32::from_be(source.v4()),
            from,
            u32::from_be(destination.v4()),
            to,
            key.protocol,
            service,
            reason
        );
    } else {
        debug!(
            (),
            "dropped [{:i}]:{} -> [{:i}]:{} protocol {} service {} reason {}",
            source.to_bytes(),
            from,
            destination.to_bytes(),
            to,
            key.protocol,
            service,
            reason
        );
    }
}

/// Counts for a service port.
#[inline(always)]
pub fn service_count(service: u32, add: impl FnOnce(&mut ServiceCount)) {
    let page = SERVICE_COUNTS.get(service / SERVICE_COUNTS_PAGE);
    if let Some(count) = page.and_then(|page| page.get_ptr_mut(service % SERVICE_COUNTS_PAGE)) {
        // SAFETY: as above; nothing else holds a reference to this CPU's entry while the program runs.
        add(unsafe { &mut *count });
    }
}
