//! Flows: found, kept alive, mended, made.
//!
//! The way back is claimed first, with an insert that fails when another flow holds it: that is how a source port is
//! chosen without two flows ever sharing one.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use penstock_ebpf_common::{Event, FLOW_CLOSING, FlowKey, FlowValue, HALF_FORWARD, PROTOCOL_UDP};

use crate::clock::{self, SECOND_NS};
use crate::count;
use crate::hash;
use crate::maps::FLOWS;
use crate::packet::Packet;

/// How long a silent UDP flow may be continued; Linux' own tracking keeps streams as long.
const UDP_IDLE_NS: u64 = 120 * SECOND_NS;
/// How long a connection attempt sticks to the backend it was sent to first.
const OPENING_NS: u64 = 3 * SECOND_NS;
/// How long a source port of a closed connection rests before another takes it.
const CLOSED_REST_NS: u64 = 10 * SECOND_NS;
/// How long a source port of a silent connection rests; RFC 5382 wants at least two hours and four minutes.
const TCP_IDLE_NS: u64 = 7_440 * SECOND_NS;
/// How many source ports are tried before a flow is given up.
const TRIES_MAX: u32 = 16;

/// Finds the flow this packet continues. Refreshes it at most once a second, and its other half with it.
#[inline(always)]
pub fn find(packet: &Packet, key: &FlowKey) -> Option<FlowValue> {
    let found = FLOWS.get_ptr_mut(key)?;
    // SAFETY: valid while the program runs. Should the entry be evicted and reused under us, a torn value sends one
    // packet astray, which its checksum or its receiver catches.
    let stored = unsafe { &mut *found };
    let value = *stored;
    let now = clock::now_ns();
    let idle = now.saturating_sub(value.seen_ns);
    if key.half == HALF_FORWARD && is_over(packet, &value, idle) {
        return None;
    }
    if packet.closes() && value.flags & FLOW_CLOSING == 0 {
        stored.flags |= FLOW_CLOSING;
        stored.seen_ns = now;
        let closing = FlowValue { flags: value.flags | FLOW_CLOSING, seen_ns: now, ..value };
        let _ = FLOWS.insert(&key.other_key(&value), &key.other_value(&closing), BPF_ANY as u64);
    } else if idle > SECOND_NS {
        stored.seen_ns = now;
        let seen = FlowValue { seen_ns: now, ..value };
        mend(key, &seen);
    }
    Some(value)
}

/// Whether a client's packet begins something new although a flow of its addresses is there.
#[inline(always)]
fn is_over(packet: &Packet, value: &FlowValue, idle: u64) -> bool {
    if packet.protocol == PROTOCOL_UDP {
        return idle > UDP_IDLE_NS;
    }
    packet.opens() && (value.flags & FLOW_CLOSING != 0 || idle > OPENING_NS)
}

/// Puts the other half back if the map evicted it, and marks it as used.
#[inline(always)]
fn mend(key: &FlowKey, value: &FlowValue) {
    let other = key.other_key(value);
    match FLOWS.get_ptr_mut(&other) {
        // SAFETY: as in `find`.
        Some(there) => unsafe { (*there).seen_ns = value.seen_ns },
        None => {
            if FLOWS.insert(&other, &key.other_value(value), BPF_NOEXIST as u64).is_ok() {
                count::event(Event::FlowMended);
            }
        }
    }
}

/// Why no flow could be made.
pub enum NotMade {
    /// Every source port tried is taken.
    NoSourcePort,
    /// The map would not take it.
    NotRecorded,
}

/// Records a new flow for a client's packet. `to` is what the packet becomes; its source port is given here: the
/// client's own if `keep_port` and nobody else has it towards this backend, else one of `ports` (host order).
#[inline(always)]
pub fn make(packet: &Packet, to: &mut FlowValue, keep_port: bool, ports: (u16, u16)) -> Result<(), NotMade> {
    let key = packet.key(HALF_FORWARD);
    let now = clock::now_ns();
    to.seen_ns = now;
    // What an earlier connection of the same addresses left behind.
    // SAFETY: copied at once.
    if let Some(old) = unsafe { FLOWS.get(&key) }.copied() {
        let _ = FLOWS.remove(&key.other_key(&old));
    }
    let span = ports.1.saturating_sub(ports.0) as u32 + 1;
    let start = hash::flow(packet).rotate_left(16);
    let mut attempt = 0;
    while attempt < TRIES_MAX {
        to.source_port = if keep_port && attempt == 0 {
            packet.source_port
        } else {
            let step = hash::reduce(hash::mix(start as u64 + attempt as u64) as u32, span);
            (ports.0.wrapping_add(step as u16)).to_be()
        };
        attempt += 1;
        let other = key.other_key(to);
        let back = key.other_value(to);
        if FLOWS.insert(&other, &back, BPF_NOEXIST as u64).is_err() && !take_over(&other, &back, now) {
            continue;
        }
        if FLOWS.insert(&key, &*to, BPF_ANY as u64).is_err() {
            let _ = FLOWS.remove(&other);
            return Err(NotMade::NotRecorded);
        }
        count::event(Event::FlowCreated);
        return Ok(());
    }
    Err(NotMade::NoSourcePort)
}

/// Takes the way back from a flow that is over, or that was this one.
#[inline(always)]
fn take_over(other: &FlowKey, back: &FlowValue, now: u64) -> bool {
    let Some(held) = FLOWS.get_ptr_mut(other) else {
        return false;
    };
    // SAFETY: as in `find`.
    let held = unsafe { &mut *held };
    let own = held.destination == back.destination
        && held.destination_port == back.destination_port
        && held.source == back.source
        && held.source_port == back.source_port;
    let rest = if other.protocol == PROTOCOL_UDP {
        UDP_IDLE_NS
    } else if held.flags & FLOW_CLOSING != 0 {
        CLOSED_REST_NS
    } else {
        TCP_IDLE_NS
    };
    if !own && now.saturating_sub(held.seen_ns) < rest {
        return false;
    }
    *held = *back;
    true
}
