//! Direct server return: a backend of another node answers the client itself, from the address that the client asked.
//!
//! The entry node gives a client's packet its backend for a destination and leaves its source alone. Where the
//! backend's node cannot know yet what was asked, the packet tells it ([`penstock_ebpf_packet::direct`]): one that opens
//! a connection, the first of a flow, and every datagram. That node takes it out again, and records the flow as if it had
//! been the entry itself: the answers find it by the way that every pod's answers take.
//!
//! Only where the way to the backend leaves by the interface that the client's packet came by, or by the overlay, where the other
//! node looks for it ([`crate::uplink::tunnel_ingress`]). What cannot be told is answered by way of the entry node, as
//! everything else.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET, BPF_F_RECOMPUTE_CSUM,
};
use aya_ebpf::helpers::generated::bpf_skb_adjust_room;
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{
    Event, FLOW_DIRECT, FLOW_TELLS, FlowValue, HALF_FORWARD, INSIDE_NEIGHBOURS, INSIDE_NODES, Reason,
    VIP_DIRECT, VIP_NODE_PORT, VipValue,
};
use penstock_ebpf_packet::direct::{self, Asked};
use penstock_ebpf_packet::header::{Frame, IP_OFFSET, IPV4_LENGTH, IPV6_LENGTH};
use penstock_ebpf_packet::{Kind, Packet, hash};

use crate::count;
use crate::decide::{self, Decision, Hook};
use crate::flow;
use crate::flows;
use crate::maps::CONFIG;
use crate::masquerade;
use crate::route;
use crate::service;
use crate::tc::Tc;
use crate::work::{self, Work};

/// Room between the fixed IP header and what follows.
const BEHIND_IP: u32 = 0;
const ROOM: u64 = (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET) as u64;
const RECOMPUTE: u64 = BPF_F_RECOMPUTE_CSUM as u64;

// === The entry node ===

/// Whether the backend of a new flow may answer the client itself. `work.to` is what the packet is to become.
#[inline(always)]
pub fn can(ctx: *mut c_void, work: &mut Work) -> bool {
    if !work.may_direct || direct::may_tell(&work.packet) {
        return false;
    }
    work.wire_length = work.packet.length + length(work);
    route::find(ctx, work, route::WITHOUT_NEIGHBOUR).is_ok()
        && (work.fib.ifindex == work.ifindex || is_tunnel(work.fib.ifindex))
}

#[inline(always)]
fn is_tunnel(ifindex: u32) -> bool {
    CONFIG.get(0).is_some_and(|config| config.tunnel != 0 && config.tunnel == ifindex)
}

/// Whether a client's packet is to tell the backend's node what was asked.
#[inline(always)]
pub fn tells(work: &Work) -> bool {
    let packet = &work.packet;
    work.to.flags & FLOW_DIRECT != 0
        && matches!(packet.kind, Kind::Whole | Kind::FirstFragment)
        && (work.to.flags & FLOW_TELLS != 0 || packet.opens() || !flow::connects(packet.key.protocol))
}

/// How much longer the packet becomes by that.
#[inline(always)]
pub fn length(work: &Work) -> u32 {
    direct::length(work.packet.key.source.is_v4())
}

/// Puts it into a packet that is translated already.
#[inline(always)]
pub fn tell(ctx: &TcContext) -> Result<(), Reason> {
    if penstock_tc_direct_tell(ctx.skb.skb) != 0 {
        return Err(Reason::NotRewritten);
    }
    count::event(Event::DirectTold);
    Ok(())
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tc_direct_tell(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    work::get().is_none_or(|work| put_in(&ctx, work).is_none()) as u32
}

#[inline(always)]
fn put_in(ctx: &TcContext, work: &Work) -> Option<()> {
    let key = &work.packet.key;
    let asked =
        Asked { service: key.destination, service_port: key.destination_port, client_port: key.source_port };
    if key.source.is_v4() {
        let (ip, said) = direct::told_v4(&Tc(ctx).load(IP_OFFSET)?, &asked)?;
        make_room(ctx, direct::V4_LENGTH as i32)?;
        ctx.store(IP_OFFSET as usize, &ip, RECOMPUTE).ok()?;
        ctx.store((IP_OFFSET + IPV4_LENGTH) as usize, &said, RECOMPUTE).ok()?;
    } else {
        let (ip, said) = direct::told_v6(&Tc(ctx).load(IP_OFFSET)?, &asked)?;
        make_room(ctx, direct::V6_LENGTH as i32)?;
        ctx.store(IP_OFFSET as usize, &ip, RECOMPUTE).ok()?;
        ctx.store((IP_OFFSET + IPV6_LENGTH) as usize, &said, RECOMPUTE).ok()?;
    }
    if work.to.flags & FLOW_TELLS != 0
        && let Some(told) = flows::get(key)
    {
        // SAFETY: valid while the program runs; a field of a flow that others may write as well, with nothing to lose.
        unsafe { (*told.value).flags &= !FLOW_TELLS };
    }
    Some(())
}

/// Makes room behind the fixed IP header, or takes some away.
#[inline(always)]
fn make_room(ctx: &TcContext, bytes: i32) -> Option<()> {
    // SAFETY: the context is valid; the rest are numbers.
    (unsafe { bpf_skb_adjust_room(ctx.skb.skb, bytes, BEHIND_IP, ROOM) } == 0).then_some(())
}

// === The backend's node ===

/// What becomes of a packet that tells what its client asked: translated already, and its flow recorded. None when it
/// tells nothing that is known here.
#[inline(always)]
pub fn receive(ctx: &TcContext) -> Option<Result<Decision, Reason>> {
    // Each from here, for each call of a call has less of the stack.
    let taken = match penstock_tc_direct_receive(ctx.skb.skb) {
        TELLS_NOTHING => return None,
        answer => decide::outcome(answer),
    };
    let known = taken.and_then(|()| match penstock_tc_direct_known() {
        IS_NEW => Tc(ctx).make(),
        answer => decide::outcome(answer),
    });
    Some(known.map(|()| Decision::Direct))
}

const TELLS_NOTHING: u32 = u32::MAX;
const IS_NEW: u32 = u32::MAX - 1;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tc_direct_receive(skb: *mut __sk_buff) -> u32 {
    let ctx = TcContext::new(skb);
    let Some(work) = work::get() else { return TELLS_NOTHING };
    take_out(&ctx, work).map_or(TELLS_NOTHING, decide::answer)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn penstock_tc_direct_known() -> u32 {
    match work::get().ok_or(Reason::NoSet).and_then(is_new) {
        Ok(true) => IS_NEW,
        other => decide::answer(other.map(drop)),
    }
}

/// Takes it out of the packet, and says in the work what was asked.
#[inline(always)]
fn take_out(ctx: &TcContext, work: &mut Work) -> Option<Result<(), Reason>> {
    let v4 = work.packet.key.source.is_v4();
    let asked = direct::read(&Tc(ctx), v4)?;
    let vip = served(&asked, &work.packet)?;
    work.service = vip.service;
    if !work.packet.whole {
        return Some(Err(Reason::Malformed));
    }
    if shorten(ctx, v4).is_none() {
        return Some(Err(Reason::NotRewritten));
    }
    let packet = &mut work.packet;
    packet.transport -= direct::length(v4);
    packet.length -= direct::length(v4);
    work.to = FlowValue {
        source: packet.key.source,
        destination: packet.key.destination,
        source_port: packet.key.source_port,
        destination_port: packet.key.destination_port,
        client_ifindex: work.ifindex,
        service: vip.service,
        flags: 0,
        settled: 0,
        seen_ns: 0,
    };
    packet.key.destination = asked.service;
    packet.key.destination_port = asked.service_port;
    packet.key.source_port = asked.client_port;
    packet.key.half = HALF_FORWARD;
    Some(Ok(()))
}

#[inline(always)]
fn shorten(ctx: &TcContext, v4: bool) -> Option<()> {
    if v4 {
        let said = Tc(ctx).load(IP_OFFSET + IPV4_LENGTH)?;
        let ip = direct::untold_v4(&Tc(ctx).load(IP_OFFSET)?, &said);
        make_room(ctx, -(direct::V4_LENGTH as i32))?;
        ctx.store(IP_OFFSET as usize, &ip, RECOMPUTE).ok()
    } else {
        let said = Tc(ctx).load(IP_OFFSET + IPV6_LENGTH)?;
        let ip = direct::untold_v6(&Tc(ctx).load(IP_OFFSET)?, &said);
        make_room(ctx, -(direct::V6_LENGTH as i32))?;
        ctx.store(IP_OFFSET as usize, &ip, RECOMPUTE).ok()
    }
}

/// The service that was asked, if its backends may answer themselves: else anybody could have pods of this node speak
/// for any address. A NodePort of another node's address is one of this node's, too.
#[inline(always)]
fn served(asked: &Asked, packet: &Packet) -> Option<VipValue> {
    let Asked { service, service_port, .. } = *asked;
    let found = match service::find(service, service_port, packet.key.protocol) {
        Some(vip) => vip,
        None if matches!(masquerade::range(&service), Some(INSIDE_NODES | INSIDE_NEIGHBOURS)) => {
            let own = decide::node_address(CONFIG.get(0)?, &service)?;
            let vip = service::find(own, service_port, packet.key.protocol)?;
            (vip.flags & VIP_NODE_PORT != 0).then_some(vip)?
        }
        None => return None,
    };
    (found.flags & VIP_DIRECT != 0).then_some(found)
}

/// Whether the packet's flow is to be recorded, as if it had come here from its client and had been translated here.
#[inline(always)]
fn is_new(work: &mut Work) -> Result<bool, Reason> {
    let config = CONFIG.get(0).ok_or(Reason::NoSet)?;
    if decide::is_martian(config, &work.to.source) {
        return Err(Reason::MartianSource);
    }
    work.first = false;
    work.hash = hash::flow_wide(&work.packet.key);
    work.moment.begin(0);
    let goes_on = flow::find(&work.packet, &work.packet.key, work.hash, &mut work.back, &mut work.moment);
    if goes_on && flow::leads_alike(&work.back, &work.to) {
        return Ok(false);
    }
    work.moment.leaves_over |= goes_on;
    flow::clear(work);
    // The entry node has chosen the port.
    work.keep_port = true;
    work.only_port = true;
    Ok(true)
}
