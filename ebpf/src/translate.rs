//! One packet's way through a program at tc, the same at the uplink and at a pod's link: read, decided, changed, sent.
//!
//! A packet to a pod of this node goes straight to it, and one from a pod to a pod of another node straight out. Where the
//! kernel can route another translated packet it does. Where the new source is one of the node's own addresses it would call
//! the packet a martian, so it is sent on from here.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings;
use aya_ebpf::programs::TcContext;
use penstock_ebpf_common::{Address, Event, INSIDE_PODS, Reason};
use penstock_ebpf_packet::Kind;
use penstock_ebpf_packet::header::IP_OFFSET;

use crate::announce;
use crate::count;
use crate::decide::{self, Decision, Side};
use crate::direct;
use crate::masquerade;
use crate::pods;
use crate::policy;
use crate::route;
use crate::sent;
use crate::tc::Tc;
use crate::too_big;
use crate::uplink;
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
    if side != Side::Leaving {
        sent::forget(ctx);
    }
    if !frame.parse() {
        return match side {
            Side::Uplink => announce::answer(ctx),
            Side::Pod => policy::unread(ctx, side),
            _ => NEXT,
        };
    }
    work.ifindex = frame.ifindex();
    let direct = side == Side::Uplink && penstock_ebpf_packet::direct::may_tell(&work.packet);
    let decided = match direct.then(|| direct::receive(ctx)).flatten() {
        Some(decided) => decided,
        None if side == Side::Leaving => decide::leaving(&frame, work),
        None => decide::arriving(&frame, side, work),
    };
    let done = match decided {
        Ok(decision) => match policy::leave(side, decision, work) {
            Ok(()) => carry_out(ctx, side, decision, work),
            Err(reason) => Err(reason),
        },
        Err(reason) => Err(reason),
    };
    match done {
        // Of echoes only those that belong to no flow, and so to nobody behind this node.
        Ok(NEXT) if side == Side::Uplink && work.packet.kind == Kind::Echo => announce::echo(ctx),
        Ok(verdict) => verdict,
        Err(reason) => {
            count::dropped(side, work.service, reason);
            DROP
        }
    }
}

/// A packet that came through the overlay. What its client asked may be told in it; all else is the kernel's to route.
#[inline(always)]
pub fn told(ctx: &TcContext) -> i32 {
    let frame = Tc(ctx);
    let Some(work) = work::get() else {
        return NEXT;
    };
    if frame.is_for_another() || !frame.parse() || !penstock_ebpf_packet::direct::may_tell(&work.packet) {
        return NEXT;
    }
    // Answers leave by the uplink, past the node that was asked.
    work.ifindex = uplink::number();
    let done = match direct::receive(ctx) {
        None => return NEXT,
        Some(Ok(decision)) => carry_out(ctx, Side::Uplink, decision, work),
        Some(Err(reason)) => Err(reason),
    };
    match done {
        Ok(verdict) => verdict,
        Err(reason) => {
            count::dropped(Side::Uplink, work.service, reason);
            DROP
        }
    }
}

#[inline(always)]
fn carry_out(ctx: &TcContext, side: Side, decision: Decision, work: &mut Work) -> Result<i32, Reason> {
    let frame = Tc(ctx);
    let mut verdict = NEXT;
    // What leaves is on its way already: the kernel has routed it and taken the hop off.
    let arrives = side != Side::Leaving;
    let onward = arrives && matches!(decision, Decision::AskOnward | Decision::Send | Decision::ErrorOnward);
    match decision {
        Decision::Leave if arrives => {
            let packet = &work.packet;
            let is_error = packet.kind == Kind::Error;
            let to = if is_error { packet.error_destination } else { packet.key.destination };
            verdict = straight_in(&frame, side, decision, work, to)?;
            if verdict == NEXT && side == Side::Pod && !is_error {
                verdict = straight_out(ctx, work)?;
            }
        }
        Decision::Direct => verdict = straight_in(&frame, side, decision, work, work.to.destination)?,
        Decision::Leave | Decision::Refuse => {}
        _ if onward && work.packet.hops <= 1 => return Err(Reason::HopsExceeded),
        // Who asked from outside is no pod of this node.
        _ if arrives
            && work.packet.hops > 1
            && !(decision == Decision::Send && uplink::is_uplink(work.to.client_ifindex))
            && let Some(pod) = pods::find(&work.to.destination) =>
        {
            policy::enter(side, decision, work, pod.ifindex)?;
            frame.rewrite(decision, true)?;
            verdict = pods::reach(ctx, &pod);
        }
        _ if onward => {
            let tells = decision == Decision::AskOnward && direct::tells(work);
            work.told_length = if tells { direct::length(work) } else { 0 };
            let ifindex = match decision {
                Decision::Send => work.to.client_ifindex,
                _ => match way(ctx, work) {
                    Err(Reason::TooBig) if decision == Decision::AskOnward => return too_big::tell(ctx),
                    found => found?,
                },
            };
            policy::enter(side, decision, work, ifindex)?;
            frame.rewrite(decision, true)?;
            if tells {
                direct::tell(ctx)?;
            }
            verdict = route::send(ctx, ifindex);
        }
        Decision::Ask
            if side == Side::Pod
                && let Some(ifindex) = way_to_pod(ctx, work) =>
        {
            policy::enter(side, decision, work, ifindex)?;
            frame.rewrite(decision, true)?;
            count::event(Event::PodSentOn);
            verdict = route::send(ctx, ifindex);
        }
        _ => frame.rewrite(decision, false)?,
    }
    decide::count_done(side, decision, work.service);
    Ok(verdict)
}

/// A packet that is not to be translated here goes straight to its pod, if that is of this node.
#[inline(always)]
fn straight_in(
    frame: &Tc<'_>,
    side: Side,
    decision: Decision,
    work: &mut Work,
    destination: Address,
) -> Result<i32, Reason> {
    if work.packet.hops <= 1 || !work.packet.whole {
        return Ok(NEXT);
    }
    let Some(pod) = pods::find(&destination) else {
        return Ok(NEXT);
    };
    policy::enter(side, decision, work, pod.ifindex)?;
    Ok(if frame.take_hop(work).is_ok() { pods::reach(frame.0, &pod) } else { NEXT })
}

/// A pod's packet that is not to be translated goes straight out to its pod, if that is of another node.
#[inline(always)]
fn straight_out(ctx: &TcContext, work: &mut Work) -> Result<i32, Reason> {
    work::copy(&mut work.to.source, &work.packet.key.source);
    work::copy(&mut work.to.destination, &work.packet.key.destination);
    let Some(ifindex) = way_to_pod(ctx, work) else {
        return Ok(NEXT);
    };
    // It may be of this node after all: one whose link has a queue.
    policy::enter(Side::Pod, Decision::Leave, work, ifindex)?;
    if Tc(ctx).take_hop(work).is_err() {
        return Ok(NEXT);
    }
    count::event(Event::PodSentOn);
    Ok(route::send(ctx, ifindex))
}

/// The interface by which a pod's packet leaves to a pod of another node, past this node's routing. None where the kernel has
/// something to say, or to do: to a packet that is too big, or from an address that is not the pod's.
#[inline(always)]
fn way_to_pod(ctx: &TcContext, work: &mut Work) -> Option<u32> {
    let goes = work.packet.hops > 1
        && work.packet.whole
        && pods::find(&work.to.source).is_some_and(|pod| pod.ifindex == work.ifindex)
        && masquerade::range(&work.to.destination) == Some(INSIDE_PODS);
    work.told_length = 0;
    if goes { way(ctx, work).ok() } else { None }
}

/// The interface by which the translated packet leaves.
#[inline(always)]
fn way(ctx: &TcContext, work: &mut Work) -> Result<u32, Reason> {
    let segment = Tc(ctx).segment_size();
    work.wire_length = match segment {
        0 => work.packet.length,
        segment => work.packet.transport - IP_OFFSET + work.packet.transport_length + segment,
    } + work.told_length;
    route::find(ctx.as_ptr(), work, route::WITHOUT_NEIGHBOUR)?;
    Ok(work.fib.ifindex)
}
