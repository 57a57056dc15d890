//! Packets of flows that are settled: which service they are for was found out for an earlier packet, and no service's
//! address changed since.
//!
//! User space counts its changes of addresses and of who may use them ([`crate::maps::CHANGES`]); a flow is marked with the
//! count of the moment before its packet's address was looked up. A mark that is the present count says what another look
//! would say. It holds for a second at most, after which every flow takes the long way once.

use core::mem::offset_of;

use penstock_ebpf_common::{FlowKey, HALF_FORWARD, HALF_REPLY};
use penstock_ebpf_packet::Kind;

use crate::clock::SECOND_NS;
use crate::decide::{self, Decision, Side};
use crate::flows;
use crate::maps::{CHANGES, CONFIG};
use crate::work::Work;

/// What a flow is marked with whose packet arrives now; zero for nothing.
#[inline(always)]
pub fn mark(side: Side) -> u16 {
    if side != Side::Uplink {
        return 0;
    }
    // SAFETY: an entry of an array, valid while the program runs; user space changes it meanwhile, hence volatile.
    CHANGES.get_ptr(0).map_or(0, |changes| unsafe { changes.read_volatile() }) as u16
}

/// What becomes of a packet of a settled flow to one of the node's own addresses, where it is known before any look
/// which half of a flow it can be. `work.to` is what it becomes.
#[inline(always)]
pub fn find(work: &mut Work) -> Option<Decision> {
    let packet = &mut work.packet;
    if packet.kind != Kind::Whole || !packet.whole || packet.opens() || packet.closes() {
        return None;
    }
    let config = CONFIG.get(0)?;
    if !decide::is_own(config, &packet.key.destination) {
        return None;
    }
    let port = u16::from_be(packet.key.destination_port);
    let half =
        if port >= config.snat_port_min && port <= config.snat_port_max { HALF_REPLY } else { HALF_FORWARD };
    set_half(&mut packet.key, half);
    flows::read(&packet.key, work.hash, &mut work.to)?;
    if work.to.settled != work.moment.mark
        || work.moment.mark == 0
        || work.moment.now_ns.saturating_sub(work.to.seen_ns) > SECOND_NS
    {
        return None;
    }
    work.service = work.to.service;
    Some(if work.packet.key.half == HALF_REPLY {
        Decision::Send
    } else {
        decide::asked(&work.packet.key, &work.to)
    })
}

/// Sets the half, and writes the small fields anew as the words that the map's hash reads: a read of what was just
/// written in parts waits for the parts.
#[inline(always)]
fn set_half(key: &mut FlowKey, half: u8) {
    key.half = half;
    let ports = u32::from(key.source_port) | u32::from(key.destination_port) << 16;
    let rest = u32::from(key.protocol) | u32::from(half) << 8;
    let tail = (&raw mut key.source_port).cast::<u32>();
    const { assert!(offset_of!(FlowKey, protocol) == offset_of!(FlowKey, source_port) + size_of::<u32>()) };
    // SAFETY: both ports are an aligned word of the key, and protocol, half and two zeros the next, in the order of the
    // machines these programs are built for.
    unsafe {
        tail.write_volatile(ports);
        tail.add(1).write_volatile(rest);
    }
}
