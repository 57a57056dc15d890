//! Flows: found, kept alive, mended, made.
//!
//! The way back is claimed first, with an insert that fails when another flow holds it: that is how a source port is
//! chosen without two flows ever sharing one.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use penstock_ebpf_common::{
    Event, FLOW_CLOSING, FLOW_MASQUERADE, FlowKey, FlowValue, HALF_FORWARD, PROTOCOL_SCTP, PROTOCOL_TCP,
    Reason,
};
use penstock_ebpf_packet::{Packet, hash};

use crate::clock::{Moment, SECOND_NS};
use crate::count;
use crate::decide::Hook;
use crate::kept::FLOWS;
use crate::maps::CONFIG;
use crate::ports;
use crate::work::{self, Work};

/// How long a silent flow of datagrams may be continued; Linux' own tracking keeps streams as long.
const DATAGRAM_IDLE_NS: u64 = 120 * SECOND_NS;
/// How long a connection attempt sticks to the backend it was sent to first.
const OPENING_NS: u64 = 3 * SECOND_NS;
/// How long a source port of a closed connection rests before another takes it.
const CLOSED_REST_NS: u64 = 10 * SECOND_NS;
/// How long a source port of a silent connection rests; RFC 5382 wants at least two hours and four minutes.
const CONNECTION_IDLE_NS: u64 = 7_440 * SECOND_NS;
/// How many source ports are tried before a flow is given up. With nine of ten ports towards a backend taken, one
/// flow in a thousand is.
const TRIES_MAX: u32 = 64;

/// Whether a protocol opens and closes.
#[inline(always)]
pub const fn connects(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_TCP | PROTOCOL_SCTP)
}

/// Finds the flow this packet continues and copies it. Refreshes it at most once a second, and its other half with it.
/// Called when what the packet is for was looked up: the flow is settled then.
#[inline(always)]
pub fn find(packet: &Packet, key: &FlowKey, to: &mut FlowValue, moment: &mut Moment) -> bool {
    moment.leaves_over = false;
    let Some(found) = FLOWS.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: valid while the program runs. Should the entry be evicted and reused under us, a torn value sends one
    // packet astray, which its checksum or its receiver catches.
    let stored = unsafe { &mut *found };
    work::copy(to, stored);
    let now = moment.now_ns;
    let idle = now.saturating_sub(to.seen_ns);
    if key.half == HALF_FORWARD && is_over(packet, key, to, idle) {
        moment.leaves_over = true;
        return false;
    }
    if packet.closes() && to.flags & FLOW_CLOSING == 0 {
        to.flags |= FLOW_CLOSING;
        to.seen_ns = now;
        stored.flags = to.flags;
        stored.seen_ns = now;
        mend(key, to);
    } else if idle > SECOND_NS {
        to.seen_ns = now;
        stored.seen_ns = now;
        // Of datagrams to a backend that left only the way back is kept, marked so: the way there must not come again.
        if connects(key.protocol) || to.flags & FLOW_CLOSING == 0 {
            mend(key, to);
        }
    }
    if moment.mark != 0 && to.settled != moment.mark && to.flags & FLOW_MASQUERADE == 0 {
        stored.settled = moment.mark;
    }
    true
}

/// Finds a flow without a sign of life in it: for packets that anybody may send, such as errors.
#[inline(always)]
pub fn peek(key: &FlowKey, to: &mut FlowValue) -> bool {
    // SAFETY: copied at once.
    match unsafe { FLOWS.get(key) } {
        Some(found) => {
            work::copy(to, found);
            true
        }
        None => false,
    }
}

/// Whether a client's packet begins something new although a flow of its addresses is there.
#[inline(always)]
fn is_over(packet: &Packet, key: &FlowKey, value: &FlowValue, idle: u64) -> bool {
    if connects(key.protocol) {
        packet.opens() && (value.flags & FLOW_CLOSING != 0 || idle > OPENING_NS)
    } else {
        idle > DATAGRAM_IDLE_NS
    }
}

/// Puts the other half back if the map evicted it, and marks it as used, and as closing if this one is. Changed in its
/// place: an entry that another takes the place of is free at once for any other flow, while the other processor may
/// still be reading it. What is another flow's by now is left alone.
#[inline(always)]
fn mend(key: &FlowKey, value: &FlowValue) {
    let other = key.other_key(value);
    match FLOWS.get_ptr_mut(other) {
        // SAFETY: as in `find`.
        Some(there) => {
            let there = unsafe { &mut *there };
            if leads_back(there, key) {
                there.seen_ns = value.seen_ns;
                there.flags |= value.flags & FLOW_CLOSING;
            }
        }
        None => {
            if FLOWS.insert(other, key.other_value(value), BPF_NOEXIST as u64).is_ok() {
                count::event(Event::FlowMended);
            }
        }
    }
}

/// Records a new flow for a client's packet. `work.to` is what the packet becomes; its source port is given here: the
/// one that is there if `work.keep_port` and nobody else has it towards this backend, else one of the node's range for it
/// unless `work.only_port`.
#[inline(always)]
pub fn make(hook: &impl Hook, work: &mut Work) -> Result<(), Reason> {
    let config = CONFIG.get(0).ok_or(Reason::NoSet)?;
    let (first, last) = (config.snat_port_min, config.snat_port_max);
    work.to.seen_ns = work.moment.now_ns;
    // Its service was just looked up; of what leaves a pod there is no mark. The way back is settled by its first packet.
    work.to.settled = work.moment.mark;
    work.packet.key.half = HALF_FORWARD;
    // What an earlier connection of the same addresses left behind.
    // SAFETY: copied at once.
    if work.moment.leaves_over
        && let Some(old) = unsafe { FLOWS.get(&work.packet.key) }
    {
        work::copy(&mut work.back, old);
        work.other = work.packet.key.other_key(&work.back);
        // Its source port may have been given to another flow since, whose answers come by it now.
        // SAFETY: read at once.
        if unsafe { FLOWS.get(&work.other) }.is_some_and(|held| leads_back(held, &work.packet.key)) {
            let _ = FLOWS.remove(&work.other);
        }
    }
    work.other = work.packet.key.other_key(&work.to);
    work.back = work.packet.key.other_value(&work.to);
    let span = last.saturating_sub(first) as u32 + 1;
    let start = hash::flow(&work.packet.key).rotate_left(16);
    let wanted = work.to.source_port;
    let tries = if work.only_port { 1 } else { TRIES_MAX };
    let mut attempt = 0;
    while attempt < tries {
        let port = if work.keep_port && attempt == 0 {
            wanted
        } else {
            let step = hash::reduce(hash::mix(start as u64 + attempt as u64) as u32, span);
            first.wrapping_add(step as u16).to_be()
        };
        attempt += 1;
        work.other.destination_port = port;
        if !hook.claim() {
            continue;
        }
        work.to.source_port = port;
        if FLOWS.insert(&work.packet.key, &work.to, BPF_ANY as u64).is_err() {
            let _ = FLOWS.remove(&work.other);
            return Err(Reason::FlowNotRecorded);
        }
        count::event(Event::FlowCreated);
        work.first = true;
        return Ok(());
    }
    Err(Reason::NoSourcePort)
}

/// Claims the way back of a flow: `work.other` and `work.back`. False when another has it.
#[inline(always)]
pub fn claim(ctx: *mut c_void, work: &Work) -> bool {
    // Who keeps the client's address cannot clash with this node's sockets.
    if !work.keep_port && ports::is_taken(ctx, &work.other) {
        return false;
    }
    FLOWS.insert(&work.other, &work.back, BPF_NOEXIST as u64).is_ok()
        || take_over(&work.packet.key, &work.other, &work.back, work.to.seen_ns)
}

/// Whether a half of a flow is the other half of the one with this key.
#[inline(always)]
fn leads_back(held: &FlowValue, key: &FlowKey) -> bool {
    held.destination == key.source
        && held.destination_port == key.source_port
        && held.source == key.destination
        && held.source_port == key.destination_port
}

/// Whether two values make the same of a packet.
#[inline(always)]
pub fn leads_alike(one: &FlowValue, other: &FlowValue) -> bool {
    one.source == other.source
        && one.destination == other.destination
        && one.source_port == other.source_port
        && one.destination_port == other.destination_port
}

/// Takes the way back from a flow that is over, or that was this one.
#[inline(always)]
fn take_over(key: &FlowKey, other: &FlowKey, back: &FlowValue, now: u64) -> bool {
    let Some(held) = FLOWS.get_ptr_mut(other) else {
        return false;
    };
    // SAFETY: as in `find`.
    let held = unsafe { &mut *held };
    let own = leads_back(held, key);
    let rest = if !connects(other.protocol) {
        DATAGRAM_IDLE_NS
    } else if held.flags & FLOW_CLOSING != 0 {
        CLOSED_REST_NS
    } else {
        CONNECTION_IDLE_NS
    };
    if !own && now.saturating_sub(held.seen_ns) < rest {
        return false;
    }
    work::copy(held, back);
    true
}
