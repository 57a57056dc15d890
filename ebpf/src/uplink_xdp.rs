//! The interface to the outside, before the kernel makes a socket buffer of a packet: what goes on to a backend of another
//! node, and what comes back from there, is sent on from here.
//!
//! Everything else is passed on as it came: what is for this node, fragments, options, errors, what needs another
//! interface or a neighbour whose link address is not known. [`crate::uplink`] decides it again, and comes to the same.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use penstock_ebpf_common::{Event, Reason};
use penstock_ebpf_packet::parse;

use crate::count;
use crate::decide::{self, Decision, Side};
use crate::direct;
use crate::route;
use crate::work::{self, Work};
use crate::xdp::Xdp;

/// The interface's link address in the first six bytes, put in when the programs are loaded. An interface that listens to everything sees
/// frames for others, which are not to be sent on.
#[unsafe(no_mangle)]
static PENSTOCK_UPLINK_MAC: u64 = 0;

#[xdp]
pub fn uplink_xdp(ctx: XdpContext) -> u32 {
    let frame = Xdp(&ctx);
    let Some(work) = work::get() else {
        return XDP_PASS;
    };
    if !is_for_us(&frame) || !parse(&frame, &mut work.packet) {
        return XDP_PASS;
    }
    work.ifindex = frame.ifindex();
    let done = match decide::arriving(&frame, Side::Uplink, work) {
        Ok(decision @ (Decision::AskOnward | Decision::Send)) => send(&ctx, decision, work),
        Ok(decision) => pass(decision, work),
        Err(reason) => Err(reason),
    };
    match done {
        Ok(verdict) => verdict,
        Err(reason) => {
            count::dropped(Side::Uplink, work.service, reason);
            XDP_DROP
        }
    }
}

#[inline(always)]
fn is_for_us(frame: &Xdp<'_>) -> bool {
    // SAFETY: a constant of this program; the loader has written it, which the compiler must not foresee.
    let own = unsafe { (&raw const PENSTOCK_UPLINK_MAC).read_volatile() };
    frame.receiver() == Some(own)
}

/// Leaves a packet to the program at tc, which finds the flow there already: that it is new is told here.
#[inline(always)]
fn pass(decision: Decision, work: &Work) -> Result<u32, Reason> {
    if work.first {
        decide::tell_early(Side::Uplink, decision);
    }
    Ok(XDP_PASS)
}

/// Sends a packet back out of the interface it came by; passes it on if its way is another.
#[inline(always)]
fn send(ctx: &XdpContext, decision: Decision, work: &mut Work) -> Result<u32, Reason> {
    let frame = Xdp(ctx);
    // What a packet is to tell is put in at tc.
    if frame.is_unfinished(work) || (decision == Decision::AskOnward && direct::tells(work)) {
        return pass(decision, work);
    }
    if work.packet.hops <= 1 {
        return Err(Reason::HopsExceeded);
    }
    work.wire_length = work.packet.length;
    // Whatever is wrong with the way, the program at tc finds the same, and has more means.
    if route::find(ctx.as_ptr(), work, 0).is_err() || work.fib.ifindex != work.ifindex {
        return pass(decision, work);
    }
    frame.rewrite(work).ok_or(Reason::NotRewritten)?;
    decide::count_done(Side::Uplink, decision, work.service);
    count::event(Event::XdpSent);
    Ok(XDP_TX)
}
