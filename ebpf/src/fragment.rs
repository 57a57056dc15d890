//! Packets that come in fragments: only the first has ports, so what it tells is kept for the others.
//!
//! Kept only of packets that belong to a flow. A later fragment that comes before the first one cannot be known: where
//! its address leads nowhere but to services it is dropped by name, elsewhere it may be the node's own.

use aya_ebpf::bindings::BPF_ANY;
use penstock_ebpf_common::{Event, FragmentValue};
use penstock_ebpf_packet::{Kind, hash};

use crate::clock::{self, SECOND_NS};
use crate::count;
use crate::maps::FRAGMENTS;
use crate::work::Work;

/// As long as a receiver waits for the rest (RFC 8200, 4.5); the identification may name another packet then.
const REST_NS: u64 = 60 * SECOND_NS;

/// Keeps what the first fragment tells.
#[inline(always)]
pub fn remember(work: &mut Work) {
    if work.packet.kind != Kind::FirstFragment {
        return;
    }
    work.fragment = work.packet.fragment_key();
    let key = &work.packet.key;
    work.ports = FragmentValue {
        seen_ns: clock::now_ns(),
        source_port: key.source_port,
        destination_port: key.destination_port,
        protocol: u32::from(key.protocol),
    };
    // Full, the map forgets somebody else's: one packet is lost, which its sender repeats.
    let _ = FRAGMENTS.insert(&work.fragment, &work.ports, BPF_ANY as u64);
}

/// Gives a later fragment the ports of the first; false when that has not come.
#[inline(always)]
pub fn follow(work: &mut Work) -> bool {
    work.fragment = work.packet.fragment_key();
    // SAFETY: copied at once.
    let Some(first) = unsafe { FRAGMENTS.get(&work.fragment) }.copied() else {
        return false;
    };
    if clock::now_ns().saturating_sub(first.seen_ns) > REST_NS {
        return false;
    }
    let key = &mut work.packet.key;
    key.source_port = first.source_port;
    key.destination_port = first.destination_port;
    key.protocol = first.protocol as u8;
    work.hash = hash::flow_wide(&work.packet.key);
    count::event(Event::FragmentFollowed);
    true
}
