//! Tallies. Per CPU, so that counting costs an increment and no cache line travels.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use penstock_ebpf_common::{Event, Reason, SERVICE_COUNTS_PAGE, ServiceCount};

use crate::maps::{SERVICE_COUNTS, TALLIES};
use crate::packet::Packet;

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
pub fn dropped(ctx: &TcContext, packet: &Packet, reason: Reason, service: u32) {
    tally(reason.index());
    service_count(service, |count| count.drops += 1);
    tell(
        ctx.skb.skb,
        u64::from(packet.source) << 32 | u64::from(packet.destination),
        u32::from(packet.source_port) << 16 | u32::from(packet.destination_port),
        (packet.protocol as u32) << 16 | reason as u32,
        service,
    );
}

/// A function of its own for a stack of its own: the 512 bytes of a program are nearly used up by translating. For the
/// same reason it takes numbers, as many as a function of the kernel's machine can, and no references.
#[inline(never)]
fn tell(skb: *mut __sk_buff, addresses: u64, ports: u32, protocol_and_reason: u32, service: u32) {
    debug!(
        &TcContext::new(skb),
        "dropped {:i}:{} -> {:i}:{} protocol {} service {} reason {}",
        u32::from_be((addresses >> 32) as u32),
        u16::from_be((ports >> 16) as u16),
        u32::from_be(addresses as u32),
        u16::from_be(ports as u16),
        protocol_and_reason >> 16,
        service,
        protocol_and_reason & 0xffff
    );
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
