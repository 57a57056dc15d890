//! Flows: found, kept alive, mended, made.
//!
//! The way back is claimed first, with an insert that fails when another flow holds it: that is how a source port is
//! chosen without two flows ever sharing one.

use core::ffi::c_void;

use penstock_ebpf_common::{
    Event, FLOW_CLOSING, FLOW_MASQUERADE, FlowKey, FlowValue, HALF_FORWARD, PROTOCOL_SCTP, PROTOCOL_TCP,
    Reason,
};
use penstock_ebpf_packet::{Packet, hash};

use crate::clock::{Moment, SECOND_NS};
use crate::count;
use crate::decide::Hook;
use crate::flows::{self, Claim};
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

/// How often the only port that will do is tried: another processor may have been about to take a place, and two that meet
/// give way to each other.
const ONLY_PORT_TRIES: u32 = 4;

/// Whether a protocol opens and closes.
#[inline(always)]
pub const fn connects(protocol: u8) -> bool {
    matches!(protocol, PROTOCOL_TCP | PROTOCOL_SCTP)
}

/// Finds the flow this packet continues and copies it. Refreshes it at most once a second, and its other half with it.
/// Called when what the packet is for was looked up: the flow is settled then.
#[inline(always)]
pub fn find(packet: &Packet, key: &FlowKey, hash: u64, to: &mut FlowValue, moment: &mut Moment) -> bool {
    moment.leaves_over = false;
    let Some(found) = flows::read(key, hash, to) else {
        return false;
    };
    // SAFETY: valid while the program runs. Should the place become another flow's from here on, that one is refreshed.
    let stored = unsafe { &mut *found.value };
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
        found.mark(now, true);
        penstock_flow_mend(key, to);
    } else if idle > SECOND_NS {
        to.seen_ns = now;
        stored.seen_ns = now;
        found.mark(now, false);
        // Of datagrams to a backend that left only the way back is kept, marked so: the way there must not come again.
        if connects(key.protocol) || to.flags & FLOW_CLOSING == 0 {
            penstock_flow_mend(key, to);
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
    flows::read(key, hash::flow_wide(key), to).is_some()
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
fn mend(key: &FlowKey, value: &FlowValue) -> Option<()> {
    let work = work::get()?;
    let other = &mut work.mended;
    other.key = key.other_key(value);
    match flows::get(&other.key) {
        // SAFETY: as in `find`.
        Some(found) => {
            let there = unsafe { &mut *found.value };
            if leads_back(there, key) {
                there.seen_ns = value.seen_ns;
                there.flags |= value.flags & FLOW_CLOSING;
                found.mark(value.seen_ns, value.flags & FLOW_CLOSING != 0);
            }
        }
        None => {
            other.value = key.other_value(value);
            if flows::insert_new(&other.key, &other.value) {
                count::event(Event::FlowMended);
            }
        }
    }
    Some(())
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
    work.other = work.packet.key.other_key(&work.to);
    work.back = work.packet.key.other_value(&work.to);
    let span = last.saturating_sub(first) as u32 + 1;
    let start = (work.hash as u32).rotate_left(16);
    let wanted = work.to.source_port;
    let tries = if work.only_port { ONLY_PORT_TRIES } else { TRIES_MAX };
    let mut attempt = 0;
    while attempt < tries {
        let port = if work.only_port || (work.keep_port && attempt == 0) {
            wanted
        } else {
            let step = hash::reduce(hash::mix(start as u64 + attempt as u64) as u32, span);
            first.wrapping_add(step as u16).to_be()
        };
        attempt += 1;
        work.other.destination_port = port;
        work.other_hash = hash::flow_wide(&work.other);
        // Who keeps the client's address cannot clash with this node's sockets.
        if !work.keep_port && hook.is_taken() {
            continue;
        }
        let Some(back) = flows::reserve(&work.other, work.other_hash, work.to.service, work.moment.now_s)
        else {
            continue;
        };
        if back.exists && !may_take_over(&back, &work.packet.key, &work.other, work.to.seen_ns) {
            continue;
        }
        work.to.source_port = port;
        // Both places are claimed before either is filled: claiming waits for all that was written before.
        let Some(there) = flows::reserve(&work.packet.key, work.hash, work.to.service, work.moment.now_s)
        else {
            flows::give_up(&back);
            continue;
        };
        if !flows::put(&back, &work.other, &work.back) {
            flows::give_up(&there);
            continue;
        }
        if !flows::put(&there, &work.packet.key, &work.to) {
            flows::remove(&work.other);
            return Err(Reason::FlowNotRecorded);
        }
        count::event(Event::FlowCreated);
        work.first = true;
        return Ok(());
    }
    Err(Reason::NoSourcePort)
}

/// Records a new flow by [`make`], in the place of what an earlier connection of the same addresses left behind.
#[inline(always)]
pub fn record(hook: &impl Hook, work: &mut Work) -> Result<(), Reason> {
    clear(work);
    hook.make()
}

/// Forgets what an earlier connection of the addresses of the packet in work left behind. Before a flow is made and not by
/// [`make`], for each call of a call has less of the stack.
#[inline(always)]
pub fn clear(work: &mut Work) {
    work.packet.key.half = HALF_FORWARD;
    if work.moment.leaves_over {
        penstock_flow_clear();
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_flow_clear() -> u32 {
    let Some(work) = work::get() else {
        return 0;
    };
    let key = &work.packet.key;
    if flows::read(key, work.hash, &mut work.back).is_some() {
        work.other = key.other_key(&work.back);
        // Its source port may have been given to another flow since, whose answers come by it now.
        // SAFETY: read at once.
        if flows::get(&work.other).is_some_and(|held| leads_back(unsafe { &*held.value }, key)) {
            flows::remove(&work.other);
        }
    }
    0
}

/// Whether answers to a flow would belong to somebody else of this node: `work.other`.
#[inline(always)]
pub fn is_taken(ctx: *mut c_void, work: &Work) -> bool {
    ports::is_taken(ctx, &work.other)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_flow_mend(key: *const FlowKey, value: *const FlowValue) -> u32 {
    if key.is_null() || value.is_null() {
        return 1;
    }
    // SAFETY: not null, and of the types.
    mend(unsafe { &*key }, unsafe { &*value });
    0
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

/// Whether a way back may be taken from the flow that has it: one that is over, or that was this one.
#[inline(always)]
fn may_take_over(held: &Claim, key: &FlowKey, other: &FlowKey, now: u64) -> bool {
    let Some(held) = flows::at(held) else {
        return false;
    };
    // SAFETY: valid while the program runs.
    let held = unsafe { &*held };
    let rest = if !connects(other.protocol) {
        DATAGRAM_IDLE_NS
    } else if held.flags & FLOW_CLOSING != 0 {
        CLOSED_REST_NS
    } else {
        CONNECTION_IDLE_NS
    };
    leads_back(held, key) || now.saturating_sub(held.seen_ns) >= rest
}
