//! Telling observers. While nobody observes it costs the look at one number.
//!
//! What is told lies in the observer's own ring buffer, so that a slow one loses what is its own and holds nobody up.
//! Whoever dies without saying so is told nothing after its time; the first to notice that nobody is left turns the
//! telling off.

use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_prandom_u32, bpf_ktime_get_ns,
};
use aya_ebpf::programs::SockAddrContext;
use penstock_ebpf_common::{
    ANYBODY, Address, OBSERVERS_MAX, Observer, Point, Reason, TOLD_EARLY, TOLD_ERROR, TOLD_FIRST, Told,
    Verdict,
};
use penstock_ebpf_packet::{Kind, hash};

use crate::decide::Side;
use crate::maps::{LOST, OBSERVERS, RINGS};
use crate::socket;
use crate::work;

/// In the place of a reason: another program is to have the packet.
const EARLY: u32 = 0x100;

/// Whether anybody observes.
#[inline(always)]
fn is_observed() -> bool {
    // SAFETY: an entry of an array, valid while the program runs; user space changes it meanwhile, hence volatile.
    OBSERVERS.get_ptr(ANYBODY).is_some_and(|all| unsafe { (&raw const (*all).until_ns).read_volatile() } != 0)
}

/// Tells of the packet in work. `reason` is why it was dropped, if it was.
#[inline(always)]
pub fn packet(side: Side, verdict: Verdict, reason: u32) {
    if is_observed() {
        penstock_tell(side as u32, verdict as u32, reason);
    }
}

/// Tells of the first packet of a flow that another program is to have.
#[inline(always)]
pub fn early(side: Side, verdict: Verdict) {
    if is_observed() {
        penstock_tell(side as u32, verdict as u32, EARLY);
    }
}

/// Verified once for all that call it, for which it must be a function that others could call: without references, and
/// with a name of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tell(side: u32, verdict: u32, reason: u32) -> u32 {
    let flags = if reason == EARLY { TOLD_EARLY } else { 0 };
    let reason = reason & 0xff;
    let Some(work) = work::get() else {
        return 0;
    };
    // What is passed on belongs to no flow of ours; a connection that opens is news all the same.
    let first = work.first || (verdict == Verdict::Passed as u32 && work.packet.opens());
    let first = if first { TOLD_FIRST } else { 0 };
    let flags = flags | first | if work.packet.kind == Kind::Error { TOLD_ERROR } else { 0 };
    // SAFETY: all zeros are one; the kernel's zeroes of a former packet's are overwritten.
    unsafe { work::clear(&mut work.told) };
    let (told, key, to) = (&mut work.told, &work.packet.key, &work.to);
    work::copy(&mut told.source, &key.source);
    work::copy(&mut told.destination, &key.destination);
    (told.source_port, told.destination_port) = (key.source_port, key.destination_port);
    if is_decided(verdict, reason) {
        work::copy(&mut told.new_source, &to.source);
        work::copy(&mut told.new_destination, &to.destination);
        (told.new_source_port, told.new_destination_port) = (to.source_port, to.destination_port);
    }
    told.ifindex = work.ifindex;
    told.service = work.service;
    told.flags = flags;
    told.length = work.packet.length;
    told.protocol = key.protocol;
    told.verdict = verdict as u8;
    told.point = if side == Side::Uplink as u32 {
        Point::Uplink
    } else if side == Side::Pod as u32 {
        Point::Pod
    } else if side == Side::Leaving as u32 {
        Point::Leaving
    } else {
        Point::Entering
    } as u8;
    told.reason = reason as u8;
    send(&mut work.told);
    0
}

/// Whether `work.to` says what the packet became, or would have become.
#[inline(always)]
fn is_decided(verdict: u32, reason: u32) -> bool {
    if verdict == Verdict::Dropped as u32 {
        return is_dropped_decided(reason);
    }
    verdict != Verdict::Refused as u32 && verdict != Verdict::Passed as u32
}

/// The same of a packet that was dropped for a reason.
#[inline(always)]
pub fn is_dropped_decided(reason: u32) -> bool {
    matches!(
        Reason::from_number(reason),
        Reason::NoRoute
            | Reason::HopsExceeded
            | Reason::TooBig
            | Reason::NoSourcePort
            | Reason::FlowNotRecorded
    )
}

/// Tells of a socket call about an address.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn call(
    ctx: &SockAddrContext,
    point: Point,
    verdict: Verdict,
    flags: u32,
    service: u32,
    address: &Address,
    port: u16,
    to: Option<(&Address, u16)>,
) {
    if !is_observed() {
        return;
    }
    let mut told = Told {
        netns: socket::netns_cookie(ctx),
        destination: *address,
        destination_port: port,
        service,
        flags,
        protocol: socket::protocol(ctx),
        verdict: verdict as u8,
        point: point as u8,
        ..Told::default()
    };
    if let Some((address, port)) = to {
        told.new_destination = *address;
        told.new_destination_port = port;
    }
    // SAFETY: the first helper takes nothing; the second writes as many bytes as it is told.
    unsafe {
        told.pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        bpf_get_current_comm((&raw mut told.process).cast(), size_of_val(&told.process) as u32);
    }
    send(&mut told);
}

/// Gives it to every observer that wants it.
#[inline(never)]
fn send(told: &mut Told) {
    // SAFETY: the helper takes nothing and cannot fail.
    told.time_ns = unsafe { bpf_ktime_get_ns() };
    let mut anybody = false;
    let mut number = 1;
    while number <= OBSERVERS_MAX {
        if let Some(observer) = OBSERVERS.get_ptr(number) {
            // SAFETY: as in `is_observed`.
            let observer = unsafe { observer.read_volatile() };
            if observer.until_ns > told.time_ns {
                anybody = true;
                if wants(&observer, told) {
                    give(number, told);
                }
            }
        }
        number += 1;
    }
    if !anybody && let Some(all) = OBSERVERS.get_ptr_mut(ANYBODY) {
        // Who begins to observe at this very moment says so again within a second.
        // SAFETY: as in `is_observed`.
        unsafe { (&raw mut (*all).until_ns).write_volatile(0) };
    }
}

#[inline(always)]
fn wants(observer: &Observer, told: &Told) -> bool {
    if told.flags & TOLD_EARLY != 0 && observer.sample == 1 {
        return false;
    }
    if observer.verdicts & (1 << (told.verdict as u32 & 31)) == 0 {
        return false;
    }
    let is_news = told.flags & TOLD_FIRST != 0
        || told.verdict == Verdict::Dropped as u8
        || told.verdict == Verdict::Refused as u8;
    // SAFETY: the helper takes nothing and cannot fail.
    is_news
        || observer.sample == 1
        || (observer.sample != 0 && hash::reduce(unsafe { bpf_get_prandom_u32() }, observer.sample) == 0)
}

#[inline(always)]
fn give(number: u32, told: &Told) {
    let given = RINGS.get(number).is_some_and(|ring| ring.output(told, 0).is_ok());
    if !given && let Some(lost) = LOST.get_ptr_mut(number) {
        // SAFETY: this CPU's entry of an array. A socket call that is interrupted here by a packet may lose one count.
        unsafe { *lost += 1 };
    }
}
