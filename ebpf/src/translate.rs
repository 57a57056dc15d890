//! One packet's way through the data plane, the same at the uplink and at a pod's link.
//!
//! Where the kernel can route the translated packet it does. Where the new source is one of the node's own addresses
//! it would call the packet a martian, so it is sent on from here.

use aya_ebpf::bindings::{self, bpf_fib_lookup as FibLookup};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh};
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{
    Address, Event, FlowValue, HALF_FORWARD, HALF_REPLY, Reason, VIP_HOST_ONLY, VIP_NODE_PORT, VipValue,
};

use crate::count;
use crate::flow::{self, NotMade};
use crate::hash;
use crate::maps::CONFIG;
use crate::packet::{self, Packet};
use crate::rewrite;
use crate::service::{self, Choice};
use crate::source_ranges;

/// Leaves the packet to the next program, and then to the kernel.
pub const NEXT: i32 = -1;
const DROP: i32 = bindings::TC_ACT_SHOT as i32;

const AF_INET: u8 = 2;

/// From where a packet comes, which decides what it may reach and how it is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From outside the node.
    Uplink,
    /// From a pod of this node.
    Pod,
}

/// Translates a packet that arrives, or leaves it alone.
#[inline(always)]
pub fn arriving(ctx: &TcContext, side: Side) -> i32 {
    let Some(packet) = packet::parse(ctx) else {
        return NEXT;
    };
    let vip = service::find(Address::from_v4(packet.destination), packet.destination_port, packet.protocol);
    let Some(vip) = vip else {
        return replying(ctx, &packet, side);
    };
    let set = match side {
        Side::Uplink => vip.outside,
        Side::Pod => vip.inside,
    };
    if set == 0 || vip.flags & VIP_HOST_ONLY != 0 {
        return NEXT;
    }
    match asking(ctx, &packet, side, &vip, set) {
        Ok(verdict) => verdict,
        Err(reason) => {
            count::dropped(ctx, &packet, reason, vip.service);
            DROP
        }
    }
}

/// A client's packet to a service.
#[inline(always)]
fn asking(ctx: &TcContext, packet: &Packet, side: Side, vip: &VipValue, set: u32) -> Result<i32, Reason> {
    if !packet.whole {
        return Err(Reason::Malformed);
    }
    if packet.first_fragment {
        return Err(Reason::Fragment);
    }
    if !source_ranges::allow(vip, Address::from_v4(packet.source)) {
        return Err(Reason::SourceNotAllowed);
    }
    let config = CONFIG.get(0).ok_or(Reason::NoSet)?;
    let to = match flow::find(packet, &packet.key(HALF_FORWARD)) {
        Some(to) => to,
        None => {
            let client = || Address::from_v4(packet.source);
            let backend = match service::choose(set, hash::flow(packet), client) {
                Choice::Backend(backend) => backend,
                // The node's own stack refuses what has no listener, by RST or port unreachable, as it should be.
                Choice::Nobody if vip.flags & VIP_NODE_PORT != 0 => {
                    count::event(Event::UplinkRefused);
                    count::service_count(vip.service, |count| count.refused += 1);
                    return Ok(NEXT);
                }
                Choice::Nobody => return Err(Reason::NoBackend),
                Choice::NobodyHere => return Err(Reason::NoLocalBackend),
                Choice::NoSet => return Err(Reason::NoSet),
            };
            // A remote backend would answer the client directly, from an address the client never asked; a pod that
            // reaches itself would answer itself. Both answer the node instead.
            let by_node =
                (side == Side::Uplink && backend.local == 0) || backend.address.v4() == packet.source;
            let mut to = FlowValue {
                source: if by_node { config.node_address } else { Address::from_v4(packet.source) },
                destination: backend.address,
                source_port: packet.source_port,
                destination_port: backend.port,
                client_ifindex: ingress_ifindex(ctx),
                service: vip.service,
                flags: 0,
                seen_ns: 0,
            };
            let ports = (config.snat_port_min, config.snat_port_max);
            flow::make(packet, &mut to, !by_node, ports).map_err(|not| match not {
                NotMade::NoSourcePort => Reason::NoSourcePort,
                NotMade::NotRecorded => Reason::FlowNotRecorded,
            })?;
            to
        }
    };
    rewrite::apply(ctx, packet, &to).map_err(|_| Reason::NotRewritten)?;
    count::service_count(vip.service, |count| count.packets += 1);
    if to.source.v4() == packet.source {
        count::event(if side == Side::Uplink { Event::UplinkToLocal } else { Event::PodToBackend });
        return Ok(NEXT);
    }
    count::event(if side == Side::Uplink { Event::UplinkToRemote } else { Event::PodToBackend });
    let ifindex = route(ctx, to.source.v4(), to.destination.v4()).ok_or(Reason::NoRoute)?;
    Ok(send(ifindex))
}

/// A packet to no service: perhaps a backend's answer.
#[inline(always)]
fn replying(ctx: &TcContext, packet: &Packet, side: Side) -> i32 {
    let Some(to) = flow::find(packet, &packet.key(HALF_REPLY)) else {
        return NEXT;
    };
    if !packet.whole {
        count::dropped(ctx, packet, Reason::Malformed, to.service);
        return DROP;
    }
    if rewrite::apply(ctx, packet, &to).is_err() {
        count::dropped(ctx, packet, Reason::NotRewritten, to.service);
        return DROP;
    }
    count::event(if side == Side::Uplink { Event::UplinkReplied } else { Event::PodReplied });
    count::service_count(to.service, |count| count.replies += 1);
    send(to.client_ifindex)
}

/// An answer of a backend on the node itself, about to leave by the uplink.
#[inline(always)]
pub fn leaving(ctx: &TcContext) -> i32 {
    let Some(packet) = packet::parse(ctx) else {
        return NEXT;
    };
    // Nothing else that leaves can be the answer of such a backend.
    if CONFIG.get(0).is_none_or(|config| config.node_address.v4() != packet.source) {
        return NEXT;
    }
    let Some(to) = flow::find(&packet, &packet.key(HALF_REPLY)) else {
        return NEXT;
    };
    if !packet.whole || rewrite::apply(ctx, &packet, &to).is_err() {
        count::dropped(ctx, &packet, Reason::NotRewritten, to.service);
        return DROP;
    }
    count::event(Event::UplinkReplied);
    count::service_count(to.service, |count| count.replies += 1);
    NEXT
}

/// The interface by which a packet of these addresses leaves.
#[inline(always)]
fn route(ctx: &TcContext, source: u32, destination: u32) -> Option<u32> {
    // SAFETY: the kernel's structure is plain integers, for which zero is a value; unions are written before the call.
    let mut lookup: FibLookup = unsafe { core::mem::zeroed() };
    lookup.family = AF_INET;
    lookup.ifindex = ingress_ifindex(ctx);
    lookup.__bindgen_anon_3.ipv4_src = source;
    lookup.__bindgen_anon_4.ipv4_dst = destination;
    // SAFETY: the context is of this program type and the structure lives through the call.
    let answer = unsafe {
        bpf_fib_lookup(
            ctx.skb.skb.cast(),
            &mut lookup,
            size_of::<FibLookup>() as i32,
            bindings::BPF_FIB_LOOKUP_SKIP_NEIGH,
        )
    };
    (answer == bindings::BPF_FIB_LKUP_RET_SUCCESS as i64).then_some(lookup.ifindex)
}

/// Sends the packet out by an interface; the kernel finds the neighbour.
#[inline(always)]
fn send(ifindex: u32) -> i32 {
    // SAFETY: without parameters the helper takes numbers only.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

#[inline(always)]
fn ingress_ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid; one load of one field.
    unsafe { (&raw const (*ctx.skb.skb).ifindex).read_volatile() }
}
