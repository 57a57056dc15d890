//! What pods send out of the cluster leaves with the node's address, for nobody outside knows a way to theirs.

use aya_ebpf::btf_maps::lpm_trie::Key;
use penstock_ebpf_common::{
    Address, CONFIG_MASQUERADE, Config, FLOW_MASQUERADE, FlowValue, HALF_FORWARD, HALF_REPLY, INSIDE_PODS,
    PROTOCOL_UDP, Reason,
};
use penstock_ebpf_packet::{Kind, hash};

use crate::decide::{self, Decision, Hook};
use crate::flow;
use crate::flows;
use crate::fragment;
use crate::maps::{CONFIG, INSIDE};
use crate::work::{self, Work};

/// Which of the cluster's ranges an address is in, `INSIDE_*`.
#[inline(always)]
pub fn range(address: &Address) -> Option<u32> {
    INSIDE.get(&Key::new(128, *address)).copied()
}

/// Takes note of who outside sends a datagram to a pod itself, so that the pod's answers keep the pod's address. Of a connection
/// that is told from its packets.
#[inline(always)]
pub fn note_asker(work: &mut Work) {
    let packet = &work.packet;
    let key = &packet.key;
    if key.protocol != PROTOCOL_UDP
        || !packet.whole
        || !matches!(packet.kind, Kind::Whole | Kind::FirstFragment)
        || CONFIG.get(0).is_none_or(|config| config.flags & CONFIG_MASQUERADE == 0)
        || range(&key.destination) != Some(INSIDE_PODS)
        || range(&key.source).is_some()
    {
        return;
    }
    work.to = FlowValue {
        source: key.source,
        destination: key.destination,
        source_port: key.source_port,
        destination_port: key.destination_port,
        client_ifindex: 0,
        service: 0,
        flags: FLOW_MASQUERADE,
        settled: 0,
        seen_ns: work.moment.now_ns,
    };
    work.other = key.other_key(&work.to);
    work.back = key.other_value(&work.to);
    // The way there first: without the other half a packet is as one that nobody noted.
    if flows::insert_new(&work.other, &work.back) {
        flows::set(&work.packet.key, &work.to);
    }
}

/// Whether the flow that was found only notes that its packets are to keep their addresses.
#[inline(always)]
pub fn is_asker(work: &Work) -> bool {
    work.to.flags & FLOW_MASQUERADE != 0
        && work.to.source == work.packet.key.source
        && work.to.destination == work.packet.key.destination
}

/// A packet that leaves by the uplink, from an address that is not the node's. `followed` is false for a later fragment
/// whose first was not seen.
#[inline(always)]
pub fn leaving(
    hook: &impl Hook,
    work: &mut Work,
    config: &Config,
    followed: bool,
) -> Result<Decision, Reason> {
    if config.flags & CONFIG_MASQUERADE == 0 || range(&work.packet.key.destination).is_some() {
        return Ok(Decision::Leave);
    }
    work.packet.key.half = HALF_FORWARD;
    if !flow::find(&work.packet, &work.packet.key, work.hash, &mut work.to, &mut work.moment) {
        if range(&work.packet.key.source) != Some(INSIDE_PODS) {
            return Ok(Decision::Leave);
        }
        // An answer to who came to the pod itself: it is to see the address it asked.
        if flow::connects(work.packet.key.protocol) && followed && !work.packet.opens() {
            return Ok(Decision::Leave);
        }
        if !work.packet.whole {
            return Err(Reason::Malformed);
        }
        if work.packet.kind == Kind::LaterFragment || !followed {
            return Err(Reason::Fragment);
        }
        let source = decide::node_address(config, &work.packet.key.source).ok_or(Reason::NoNodeAddress)?;
        work.to = FlowValue {
            source,
            destination: work.packet.key.destination,
            source_port: 0,
            destination_port: work.packet.key.destination_port,
            client_ifindex: 0,
            service: 0,
            flags: FLOW_MASQUERADE,
            settled: 0,
            seen_ns: 0,
        };
        work.keep_port = false;
        flow::record(hook, work)?;
    } else if !work.packet.whole {
        return Err(Reason::Malformed);
    }
    fragment::remember(work);
    Ok(if is_asker(work) { Decision::Leave } else { Decision::Masquerade })
}

/// An answer to such a packet: `work.to` is the flow found. The pod may have asked a service whose backend is outside;
/// then the answer is to come from the service.
#[inline(always)]
pub fn replying(work: &mut Work) -> Decision {
    work::copy(&mut work.other, &work.packet.key);
    work.other.destination = work.to.destination;
    work.other.destination_port = work.to.destination_port;
    work.other.half = HALF_REPLY;
    // Nobody looked up whether a service has its addresses, so that it is not settled.
    work.moment.mark = 0;
    if flow::find(&work.packet, &work.other, hash::flow_wide(&work.other), &mut work.back, &mut work.moment)
        && work.back.flags & FLOW_MASQUERADE == 0
    {
        work::copy(&mut work.to, &work.back);
        work.service = work.to.service;
        return Decision::Send;
    }
    Decision::Deliver
}
