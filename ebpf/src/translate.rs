//! One packet's way through a program at tc, the same at the uplink and at a pod's link: read, decided, changed, sent.
//!
//! Where the kernel can route the translated packet it does. Where the new source is one of the node's own addresses
//! it would call the packet a martian, so it is sent on from here.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings;
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::Reason;
use penstock_ebpf_packet::Kind;
use penstock_ebpf_packet::header::IP_OFFSET;

use crate::announce;
use crate::count;
use crate::decide::{self, Decision, Side};
use crate::route;
use crate::tc::Tc;
use crate::work::{self, Work};

/// Leaves the packet to the next program, and then to the kernel.
pub const NEXT: i32 = -1;
/// Drops the packet.
pub const DROP: i32 = bindings::TC_ACT_SHOT as i32;

/// Translates a packet, or leaves it alone.
#[inline(always)]
pub fn packet(ctx: &TcContext, side: Side) -> i32 {
    let frame = Tc(ctx);
    let Some(work) = work::get() else {
        return NEXT;
    };
    // Every node serves a load balancer's address, but only the one it is sent to: else one packet would become several.
    if side == Side::Uplink && frame.is_for_another() {
        return NEXT;
    }
    if !frame.parse() {
        return if side == Side::Uplink { announce::answer(ctx) } else { NEXT };
    }
    work.ifindex = frame.ifindex();
    let decided = if side == Side::Leaving {
        decide::leaving(&frame, work)
    } else {
        decide::arriving(&frame, side, work)
    };
    let done = match decided {
        Ok(decision) => carry_out(ctx, side, decision, work),
        Err(reason) => Err(reason),
    };
    match done {
        // Of echoes only those that belong to no flow, and so to nobody behind this node.
        Ok(NEXT) if side == Side::Uplink && work.packet.kind == Kind::Echo => announce::echo(ctx),
        Ok(verdict) => verdict,
        Err(reason) => {
            count::dropped(work.service, reason);
            DROP
        }
    }
}

#[inline(always)]
fn carry_out(ctx: &TcContext, side: Side, decision: Decision, work: &mut Work) -> Result<i32, Reason> {
    let frame = Tc(ctx);
    let mut verdict = NEXT;
    // What leaves is on its way already: the kernel has routed it and taken the hop off.
    let onward = side != Side::Leaving
        && matches!(decision, Decision::AskOnward | Decision::Send | Decision::ErrorOnward);
    match decision {
        Decision::Leave => return Ok(NEXT),
        Decision::Refuse => {}
        _ if onward => {
            if work.packet.hops <= 1 {
                return Err(Reason::HopsExceeded);
            }
            let ifindex = if decision == Decision::Send { work.to.client_ifindex } else { way(ctx, work)? };
            frame.rewrite(decision, true)?;
            verdict = route::send(ifindex);
        }
        _ => frame.rewrite(decision, false)?,
    }
    decide::count_done(side, decision, work.service);
    Ok(verdict)
}

/// The interface by which the translated packet leaves.
#[inline(always)]
fn way(ctx: &TcContext, work: &mut Work) -> Result<u32, Reason> {
    let segment = Tc(ctx).segment_size();
    work.wire_length = match segment {
        0 => work.packet.length,
        segment => work.packet.transport - IP_OFFSET + work.packet.transport_length + segment,
    };
    let (source, destination) = (work.to.source, work.to.destination);
    route::find(ctx.as_ptr(), work, &source, &destination, route::WITHOUT_NEIGHBOUR)?;
    Ok(work.fib.ifindex)
}
